"""Downloads under faults: the right bytes or an error with a code, never wrong bytes."""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from error_codes import raises_code
from fake_hub import FakeHub, Fault, use
from huggingface_hub import constants, get_session
from huggingface_hub.utils import validate_repo_id

from hsemotion_space.hub import client, download
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, UpstreamSource

CONTENT = random.Random(0).randbytes(4000)
NAME = "model.safetensors"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "checkpoints.md"


@dataclass
class Place:
    """One file at one place, and how to fetch it."""

    hub: FakeHub
    get: Callable[..., bytes]
    kept: Callable[[], Path | None]
    waits_s: list[float]
    reported: list[tuple[int, int]] = field(default_factory=list)

    def fetch(self) -> bytes:
        self.hub.requests.clear()
        return self.get(report=lambda done, total: self.reported.append((done, total)))

    def refused(self, *codes: str) -> CheckpointError:
        with raises_code(CheckpointError, *codes, title="Small") as caught:
            self.fetch()
        return caught.value


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as fake, use(fake, monkeypatch, tmp_path / "hf", timeout_s=1):
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
        monkeypatch.setattr(download, "CHUNK", 500)
        monkeypatch.setattr(client, "TIMEOUT_S", 0.5)
        yield fake


def place_at(
    kind: str, hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT
) -> Place:
    waits: list[float] = []
    monkeypatch.setattr(client, "sleep", waits.append)
    digest = Digest.of(content)
    if kind == "hub":
        source = HubSource("faces/small", hub.add_repo("faces/small", {NAME: content}), NAME)
        hub.commit("faces/small", {NAME: b"a moved branch"})
        return Place(
            hub,
            lambda **options: download.from_hub("Small", source, NAME, digest, **options),
            lambda: download.cached_on_hub(source, NAME),
            waits,
        )
    upstream = UpstreamSource(
        "small.pt", hub.add_raw("0123/small.pt", content), "https://example.org", digest
    )
    file = download.upstream_file(upstream, folder / "upstream")
    return Place(
        hub, lambda **options: download.from_upstream("Small", upstream, folder / "upstream", **options),
        lambda: file if file.is_file() else None, waits,
    )  # fmt: skip


@pytest.fixture(params=["hub", "upstream"])
def place(
    request: pytest.FixtureRequest, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    return place_at(request.param, hub, tmp_path, monkeypatch)


def fault(kind: str, count: int | None = 1, **options: object) -> Fault:
    return Fault(kind, path="resolve|raw", method="GET", count=count, **options)  # type: ignore[arg-type]


NOWHERE = Fault(
    "status", path="resolve|raw", count=None, status=404, headers={"X-Error-Code": "EntryNotFound"}
)
CASES: dict[str, tuple[list[Fault], str]] = {
    "nothing wrong": ([], ""),
    "cut twice": ([fault("cut"), fault("cut", at=1200)], ""),
    "one byte wrong, once": ([fault("flip")], ""),
    "one byte wrong, always": ([fault("flip", None)], "wrong_bytes"),
    "shortened, once": ([fault("truncate")], ""),
    "shortened, always": ([fault("truncate", None)], "wrong_bytes incomplete"),
    "busy (429, with Retry-After)": ([fault("status", status=429, headers={"Retry-After": "1"})], ""),
    "failing (503) twice": ([fault("status", 2)], ""),
    "failing (503) for ever": ([fault("status", None)], "status"),
    "hanging once": ([fault("hang", wait_s=1.0)], ""),
    "connection closed once": ([fault("reset")], ""),
    "a web page in place of the file, always": ([fault("garbage", None)], "wrong_bytes incomplete"),
    "no such file (404)": ([replace(NOWHERE)], "not_found"),
    "not allowed (403)": ([Fault("status", path="resolve|raw", count=None, status=403)], "refused"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_download_gives_the_right_bytes_or_a_code(place: Place, case: str) -> None:
    faults, codes = CASES[case]
    for item in faults:
        place.hub.fail(replace(item, hits=0))
    if codes:
        documented = ".*".join(map(re.escape, table()[case][0].split("…")))
        assert re.search(documented, str(place.refused(*codes.split())))
        kept = place.kept()
        assert kept is None or kept.read_bytes() != CONTENT
    else:
        assert place.fetch() == CONTENT
        assert place.kept().read_bytes() == CONTENT
        assert place.reported[0] == (0, len(CONTENT))
        assert place.reported[-1] == (len(CONTENT), len(CONTENT))
    gets = [request for request in place.hub.requests if request.method == "GET"]
    assert len(gets) <= 6 if "always" not in case else 3 <= len(gets) <= 20
    assert len(place.waits_s) <= client.TRIES - 1
    assert max(place.hub.waits_s, default=0) <= 1, (
        "the library itself would wait for as long as it is told to"
    )


def table() -> dict[str, tuple[str, str]]:
    """Return what the docs say for each fault: the words that a user reads, and the bytes that are loaded."""
    section = DOCS.read_text("utf-8").partition("## When something goes wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", section, re.MULTILINE)
    return {what: (words, loaded) for what, words, loaded in rows[1:]}


ELSEWHERE = {
    "the Hub fails before it sends the file": "test_a_hub_that_fails_when_asked_ends_the_download_soon",
    "busy (429), come back in an hour": "test_no_server_makes_anyone_wait_for_hours",
    "cached copy damaged": "test_a_damaged_copy_is_replaced_or_refused",
    "cached copy damaged, offline": "test_a_damaged_copy_is_replaced_or_refused",
    "cached copy cannot be read": "test_a_copy_that_cannot_be_read_counts_as_damaged",
    "not here, offline": "test_offline_without_a_copy_nobody_is_asked",
    "disk full": "test_a_full_or_locked_disk_is_an_error",
    "disk read-only": "test_a_full_or_locked_disk_is_an_error",
    "killed in the middle": "test_a_process_that_dies_halfway_leaves_nothing_in_place_of_the_file",
    "two at once": "test_two_processes_that_start_together_both_get_the_right_bytes",
}


def test_the_table_of_the_docs_is_what_is_tested() -> None:
    assert table().keys() == CASES.keys() | ELSEWHERE.keys()
    for case, (_, codes) in CASES.items():
        assert table()[case][1] == ("none" if codes else "the right ones"), case
    tests = "".join(
        file.read_text("utf-8")
        for file in (Path(__file__), Path(__file__).parent / "faults" / "test_download_faults.py")
    )
    assert [name for name in ELSEWHERE.values() if f"def {name}(" not in tests] == []


WHEN_ASKED = {
    "failing": (Fault("status", status=503), "status"),
    "closed": (Fault("reset"), "connection"),
    "hanging": (Fault("hang", wait_s=1.0), "no_answer"),
    "a web page": (Fault("garbage"), "not_the_hub"),
    "no revision": (Fault("status", status=404, headers={"X-Error-Code": "RevisionNotFound"}), "not_found"),
    "no repository": (Fault("status", status=401, headers={"X-Error-Code": "RepoNotFound"}), "not_found"),
    "for members only": (Fault("status", status=403, headers={"X-Error-Code": "GatedRepo"}), "not_found"),
    "unknown": (Fault("status", status=401), "refused"),
}


@pytest.mark.parametrize("case", WHEN_ASKED)
def test_a_hub_that_fails_when_asked_ends_the_download_soon(
    case: str, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_at("hub", hub, tmp_path, monkeypatch)
    monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
    fault, code = WHEN_ASKED[case]
    for damaged in (False, True):
        hub.fail(replace(fault, method="HEAD", count=None))
        place.refused(code)
        assert {request.method for request in hub.requests} == {"HEAD"}
        assert len(hub.requests) <= client.TRIES
        hub.clear_faults()
        if not damaged:
            place.fetch()
            place.kept().resolve().write_bytes(b"?")
    assert hub.waits_s == []  # the client itself would wait for minutes


def test_no_server_makes_anyone_wait_for_hours(place: Place) -> None:
    place.hub.fail(Fault("status", count=None, status=429, headers={"Retry-After": "3600"}))
    place.refused("status")
    assert place.waits_s == [client.LONGEST_WAIT_S] * (client.TRIES - 1)
    assert place.hub.waits_s == []


def test_answers_to_other_threads_are_left_as_they_are(hub: FakeHub) -> None:
    def ask() -> int:
        return get_session().get(hub.url).status_code

    hub.fail(Fault("status", status=503, count=None))
    with ThreadPoolExecutor(1) as pool, pytest.raises(client.HubError) as caught, client.session():
        assert pool.submit(ask).result() == 503
        ask()
    assert (caught.value.status, caught.value.transient) == (503, True)
    assert ask() == 503


def test_a_repository_name_that_the_client_refuses_never_gets_to_it() -> None:
    draw, accepted = random.Random(0), 0
    for _ in range(20_000):
        name = "".join(draw.choice("ab1-._/é.git") for _ in range(draw.randrange(1, 9)))
        try:
            HubSource(name, "0" * 40, NAME)
        except CheckpointError:
            continue
        validate_repo_id(name)
        accepted += 1
    assert accepted > 100


def test_a_broken_download_goes_on_where_it_stopped(place: Place) -> None:
    place.hub.fail(fault("cut", at=2600))
    assert place.fetch() == CONTENT
    ranges = [request.headers.get("range", "") for request in place.hub.requests if request.method == "GET"]
    assert re.fullmatch(r"bytes=2\d\d\d-", ranges[-1]), ranges


def test_a_warm_start_asks_nobody(place: Place) -> None:
    assert place.fetch() == CONTENT
    place.hub.fail(Fault("reset", count=None))
    assert place.fetch() == CONTENT
    assert place.hub.requests == []


def test_a_damaged_copy_is_replaced_or_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fetch()
    kept = place.kept()
    for damaged in (CONTENT[:-1] + b"?", CONTENT[:100], b"", CONTENT + b"?"):
        kept.resolve().write_bytes(damaged)
        monkeypatch.setattr(download, "is_offline", lambda: True)
        place.refused("damaged_offline")
        monkeypatch.setattr(download, "is_offline", lambda: False)
        assert place.fetch() == CONTENT
        assert kept.read_bytes() == CONTENT


def test_a_copy_that_cannot_be_read_counts_as_damaged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fetch()
    read, broken = Path.read_bytes, [OSError(errno.EIO, "Input/output error")] * 2

    def read_bytes(path: Path) -> bytes:
        if broken and path.name.endswith((NAME, "small.pt")):
            raise broken.pop()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with monkeypatch.context() as patch:
        patch.setattr(download, "is_offline", lambda: True)
        place.refused("damaged_offline")
    assert place.fetch() == CONTENT
    assert not broken


def test_offline_without_a_copy_nobody_is_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "is_offline", lambda: True)
    place.refused("offline")
    assert place.hub.requests == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_locked_disk_is_an_error(
    place: Place, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(download, "_write", refuse)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    reason = "the disk is full" if number == errno.ENOSPC else "Read-only file system"
    assert place.refused("disk").message.values["reason"] == reason


def test_no_token_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    place.fetch()
    assert place.hub.requests
    assert not [request for request in place.hub.requests if "authorization" in request.headers]


def test_what_a_report_raises_stops_the_download(place: Place) -> None:
    class Stop(Exception):
        pass

    def report(done: int, _: int) -> None:
        if done > 1000:
            raise Stop

    with pytest.raises(Stop):
        place.get(report=report)
    assert place.kept() is None
    assert place.fetch() == CONTENT


def test_a_redirect_is_followed(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_at("upstream", hub, tmp_path, monkeypatch)
    moved = hub.add_raw("moved/small.pt", CONTENT)
    hub.fail(Fault("status", path="0123", status=302, headers={"Location": moved}))
    assert place.fetch() == CONTENT


def test_a_partial_file_that_is_too_long_is_dropped(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_at("upstream", hub, tmp_path, monkeypatch)
    place.fetch()
    kept = place.kept()
    kept.rename(f"{kept}.part")
    assert place.fetch() == CONTENT  # complete already
    for stale in (CONTENT + b"more", b"wrong" * 100):
        kept.unlink()
        Path(f"{kept}.part").write_bytes(stale)
        assert place.fetch() == CONTENT


def one_random_run(kind: str, hub: FakeHub, place: Place, draw: random.Random, content: bytes) -> str:
    kept = place.kept()
    if kept is not None:
        state = draw.choice(("gone", "damaged", "shortened", "good"))
        if state == "gone":
            kept.unlink()
        elif state != "good":
            kept.resolve().write_bytes(
                draw.randbytes(len(content))
                if state == "damaged"
                else content[: draw.randrange(len(content))]
            )
    partial = Path(f"{kept}.part")
    if kind == "upstream" and kept is not None and draw.random() < 0.3:
        partial.write_bytes(
            draw.choice((content[: draw.randrange(len(content))], draw.randbytes(draw.randrange(1, 6000))))
        )
    hub.clear_faults()
    for _ in range(draw.randrange(5)):
        name = draw.choice(("status", "cut", "flip", "truncate", "reset", "garbage"))
        status = draw.choice((401, 403, 404, 408, 416, 429, 500, 503, 206))
        hub.fail(
            fault(
                name,
                draw.choice((1, 1, 2, None)),
                status=status,
                at=draw.randrange(len(content)) if name in ("cut", "flip") else None,
            )
        )
    try:
        assert place.fetch() == content
    except CheckpointError:
        return "refused"
    return "right"


@pytest.mark.parametrize("runs", [60, pytest.param(2500, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["hub", "upstream"])
def test_no_wrong_byte_in_random_faults(
    kind: str, runs: int, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_at(kind, hub, tmp_path, monkeypatch)
    place.fetch()
    draw = random.Random(1)
    ends = [one_random_run(kind, hub, place, draw, CONTENT) for _ in range(runs)]
    assert min(ends.count("right"), ends.count("refused")) > runs / 20
