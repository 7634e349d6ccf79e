"""From what a request names to a file that was uploaded: nothing else is ever opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from hsemotion_space.jobs import JobError
from hsemotion_space.jobs.files import MEDIA, JobFiles
from hsemotion_space.ui.uploads import NamedFile, UploadError, Uploads

CANARY = b"canary"


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "canary").write_bytes(CANARY)
    return Uploads(tmp_path / "server" / "uploads", tmp_path / "server" / "claims")


def add(uploads: Uploads, name: str, content: bytes = b"picture") -> Path:
    path = uploads.folder / "ab12" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_claim_returns_the_content_under_a_private_name(uploads: Uploads) -> None:
    path = add(uploads, "face.PNG")
    claim = uploads.claim(NamedFile(str(path)))
    assert claim.read_bytes() == b"picture" and claim.parent == uploads.claims and claim.suffix == ".png"
    assert claim.stat().st_ino == path.stat().st_ino, "a link costs no room"
    assert uploads.claim(NamedFile(str(path))) == claim, (
        "the same file is the same claim, however often it is named"
    )
    assert uploads.claims.stat().st_mode & 0o077 == 0
    path.unlink()
    add(uploads, "face.PNG", b"another")
    assert claim.read_bytes() == b"picture", "what is put in its place later is another file"


@pytest.mark.parametrize("name", ["", "x", "x.", "x.toolongsuffix", "x.p*g", "x.php\n", "x.\uff50ng"])
def test_claim_keeps_only_usual_endings(uploads: Uploads, name: str) -> None:
    path = add(uploads, name or "y")
    assert uploads.claim(NamedFile(str(path))).suffix == ""


def test_claim_copies_where_links_are_impossible(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    path = add(uploads, "face.png")
    claim = uploads.claim(NamedFile(str(path)))
    assert claim.read_bytes() == b"picture" and claim.stat().st_ino != path.stat().st_ino


def named(uploads: Uploads) -> list[object]:
    """Return names of every kind that lead to something else than an upload."""
    folder, outside = uploads.folder, uploads.folder.parent.parent / "canary"
    (folder / "ab12").mkdir(exist_ok=True)
    (folder / "link").symlink_to(outside)
    (folder / "ab12" / "link").symlink_to(outside)
    (folder / "tree").symlink_to(outside.parent)
    (folder / MEDIA.name / "job").mkdir(parents=True)
    (folder / MEDIA.name / "job" / "media.png").write_bytes(CANARY)
    os.mkfifo(folder / "ab12" / "fifo")
    os.mknod(folder / "ab12" / "socket", stat.S_IFSOCK | 0o600)
    return [
        str(outside), f"{folder}/../../canary", f"{folder}/ab12/../../../canary", f"{folder}/link", f"{folder}/ab12/link",
        f"{folder}/tree/canary", f"{folder}/ab12/fifo", f"{folder}/ab12/socket", f"{folder}/{MEDIA.name}/job/media.png", f"{folder}/ab12",
        str(folder), f"{folder}/ab12/none.png", "/proc/self/environ", "/proc/self/fd/0", "/dev/stdin", "/dev/zero", "/etc/passwd",
        os.path.relpath(outside), f"file://{outside}", f"{folder}x/canary", f"//{outside}", f"{outside}\0.png", "\0", "", " ", "\ud800",
        None, 0, True, 1.5, b"/etc/passwd", [str(outside)], {"path": str(outside)}, outside, "a" * 10_000, f"{folder}/" + "a/" * 5_000,
    ]  # fmt: skip


def test_claim_refuses_whatever_is_no_upload(uploads: Uploads) -> None:
    for name in named(uploads):
        with raises_code(UploadError, "not_uploaded"):
            uploads.claim(NamedFile(name))
    assert not list(uploads.claims.iterdir())


@given(
    st.lists(
        st.sampled_from(
            [
                "..",
                ".",
                "",
                "ab12",
                "canary",
                "tree",
                "link",
                "server",
                "uploads",
                "claims",
                "\0",
                "%2e%2e",
                "~",
            ]
        ),
        max_size=8,
    )
)
def test_claim_never_gives_the_canary(parts: list[str]) -> None:
    uploads = GENERATED
    for start in (f"{uploads.folder}/", "", "/", f"{uploads.folder.parent}/"):
        try:
            claim = uploads.claim(NamedFile(start + "/".join(parts)))
        except UploadError:
            continue
        assert claim.read_bytes() != CANARY


@pytest.fixture(scope="module", autouse=True)
def generated(tmp_path_factory: pytest.TempPathFactory) -> None:
    global GENERATED  # noqa: PLW0603  Hypothesis gives no fixtures to each of its examples
    folder = tmp_path_factory.mktemp("generated")
    (folder / "canary").write_bytes(CANARY)
    GENERATED = Uploads(folder / "server" / "uploads", folder / "server" / "claims")
    named(GENERATED)


GENERATED: Uploads


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_descriptors_do_not_leak(uploads: Uploads) -> None:
    before = open_files()
    path = add(uploads, "face.png")
    for name in [*named(uploads), str(path)] * 3:
        try:
            uploads.claim(NamedFile(name))
        except UploadError:
            continue
    assert open_files() == before


def test_jobs_take_only_files_of_their_server(uploads: Uploads, tmp_path: Path) -> None:
    files = JobFiles(tmp_path / "server")
    claim = uploads.claim(NamedFile(str(add(uploads, "face.png"))))
    assert files.add(claim, "0" * 32).read_bytes() == b"picture"
    (tmp_path / "server" / "link").symlink_to(tmp_path / "canary")
    for outside in (
        tmp_path / "canary",
        Path("/proc/self/environ"),
        tmp_path / "server" / "link",
        tmp_path / "server" / ".." / "canary",
    ):
        with raises_code(JobError, "file_gone"):
            files.add(outside, "1" * 32)
