"""What the feedback writes is for the user of the server alone, whatever the umask, and what an older version
wrote becomes so."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from feedback_makers import NOW_S, make_crop, make_record
from store_makers import add_a_column, encode

from hsemotion_space.feedback import migrations
from hsemotion_space.feedback.export import ExportOptions, export, export_own
from hsemotion_space.feedback.service import open_feedback
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.settings import Settings


@pytest.fixture(autouse=True, params=[0o022, 0o000], ids=oct)
def loose_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Return what other users may do anything with, the folder included."""
    return [
        str(path.relative_to(folder.parent))
        for path in [folder, *folder.rglob("*")]
        if path.lstat().st_mode & 0o077
    ]


def test_nothing_of_a_busy_store_is_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen, done = tmp_path / "share" / "data", set[str](), threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            try:
                seen.update(open_to_others(folder))
            except OSError:  # deleted while it was looked at
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        settings = Settings(feedback_data=folder)
        feedback = open_feedback(settings)
        for number in range(30):
            feedback.store.add(replace(make_record(number), crop=make_crop(number)))
        feedback.store.create_batch(10, encode)
        seen.update(open_to_others(folder))
        names = {"secret", "feedback.sqlite", "feedback.sqlite-wal", "feedback.sqlite-shm"}
        assert {file.name for file in folder.iterdir()} >= names
        feedback.erase(feedback.keys.code("nobody"))
        feedback.close()
        monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_a_column))
        open_feedback(settings).close()
        (folder / "feedback.sqlite").write_bytes(b"damaged" * 1000)
        feedback = open_feedback(settings)
        assert feedback.store.notices
        feedback.store.add(make_record(1))
        feedback.close()
    finally:
        done.set()
        watcher.join()
    names = {file.name.split("-")[0] for file in folder.iterdir()}
    assert {"feedback.sqlite.backup", "feedback.sqlite.corrupt", "feedback.sqlite.lock"} <= names
    assert not seen | set(open_to_others(folder))


def test_exports_are_closed_to_others(tmp_path: Path) -> None:
    with FeedbackStore(f"sqlite:///{tmp_path / 'data' / 'feedback.sqlite'}", lambda: NOW_S) as store:
        store.add(replace(make_record(1), crop=make_crop(1)))
        export(store.records(), tmp_path / "out", {}, ExportOptions("raw", include_private=True))
        export_own(store.records(), tmp_path / "own.json")
    assert len(list((tmp_path / "out").rglob("*.*"))) == 2
    assert not open_to_others(tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "own.json").stat().st_mode) == 0o600


def make_loose(folder: Path) -> None:
    """Give a store the modes that earlier versions left."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def test_what_an_older_version_left_is_closed_when_it_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    settings = Settings(feedback_data=folder)
    open_feedback(settings).close()
    for name in ("feedback.sqlite.backup-v1-20250615T150640Z", "feedback.sqlite.corrupt-20250615T150640Z"):
        (folder / name).write_bytes(b"old")
    make_loose(folder)
    assert open_to_others(folder)
    open_feedback(settings).close()
    assert not open_to_others(folder)


def test_a_folder_that_has_other_things_stays_as_it_is_and_so_do_they(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    settings = Settings(feedback_data=folder)
    open_feedback(settings).close()
    (folder / "secrets of others").write_text("")
    (folder / "link").symlink_to(tmp_path / "nowhere")
    make_loose_names = ["secret", "feedback.sqlite"]
    folder.chmod(0o755)
    for name in (*make_loose_names, "secrets of others"):
        (folder / name).chmod(0o644)
    open_feedback(settings).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "secrets of others").stat().st_mode) == 0o644
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in make_loose_names] == [0o600, 0o600]


def test_a_reader_changes_no_modes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'feedback.sqlite'}"
    FeedbackStore(url).close()
    make_loose(tmp_path / "data")
    FeedbackStore(url, read_only=True).close()
    assert stat.S_IMODE((tmp_path / "data" / "feedback.sqlite").stat().st_mode) == 0o644
