"""Buckets and network shares, where no SQLite file may lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from error_codes import raises_code

from hsemotion_space.feedback import mounts
from hsemotion_space.feedback.mounts import network_type
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.service import open_feedback
from hsemotion_space.settings import Settings

TABLE = """22 1 0:20 / / rw,relatime - fuse.fuse-overlayfs overlay rw
30 22 0:30 / /bucket rw,relatime shared:1 - fuse hf-mount rw,user_id=0
31 30 8:1 / /bucket/local rw - ext4 /dev/sda1 rw
32 22 0:31 / /share rw - nfs4 127.0.0.1:/ rw
33 22 0:32 / /two\\040words rw - fuse.s3fs s3fs rw
34 22 0:33 / /covered rw - nfs 127.0.0.1:/ rw
35 22 8:2 / /covered rw - ext4 /dev/sdb1 rw
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mountinfo").write_text(TABLE, "utf-8")
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", ""), ("/srv/x", ""), ("/bucket", "fuse"), ("/bucket/feedback/new", "fuse"), ("/buckets", ""),
        ("/bucket/local/x", ""), ("/share/x", "nfs4"), ("/two words/x", "fuse.s3fs"), ("/covered/x", ""),
    ],
)  # fmt: skip
def test_network_type(table: Path, folder: str, kind: str) -> None:
    assert network_type(Path(folder)) == kind


def test_without_a_table_nothing_is_a_network_mount(table: Path, tmp_path: Path) -> None:
    table.unlink()
    assert network_type(tmp_path) == ""


def test_no_database_is_opened_on_a_bucket(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bucket"
    with table.open("a", encoding="utf-8") as file:
        file.write(f"40 22 0:40 / {folder} rw - fuse hf-mount rw\n")
    with raises_code(FeedbackError, "database_on_network"):
        open_feedback(Settings(feedback_data=folder / "feedback"))
    assert not list(folder.rglob("*.sqlite*")), "nothing is left there"
