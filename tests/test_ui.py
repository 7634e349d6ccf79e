from __future__ import annotations

import fcntl
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from analysis_makers import make_analysis
from manifest_makers import make_manifest

from hsemotion_space.edits import Edits
from hsemotion_space.hub.weights import Availability, locate
from hsemotion_space.jobs import JobStatus
from hsemotion_space.jobs.files import MEDIA
from hsemotion_space.ui import temporary
from hsemotion_space.ui.picker import checkpoint_card
from hsemotion_space.ui.status import job_progress, notice_list, progress_bar
from hsemotion_space.ui.tables import face_table, prediction_text
from hsemotion_space.ui.temporary import LOCK, PREFIX, remove_left_overs, sweep


def test_face_table_names_faces_tasks_and_provenance() -> None:
    analysis = make_analysis(faces=3, kind="clip")
    html = face_table(replace(analysis, edits=Edits({2: "<b>Anna"})))
    assert "Face 2 (&lt;b&gt;Anna)" in html and "Shares of time and means" in html
    assert [f"Face {number}" in html for number in (1, 2, 3, 4)] == [True, True, True, False]
    for prediction in analysis.faces[0].predictions:
        assert prediction.task.title in html
    assert "rule, not trained" in html
    picture = face_table(make_analysis(kind="image"))
    assert picture.count("<small>correct in 6 of 10 such answers (100 held-out pictures)</small>") > 0
    assert "prior, unvalidated" in html
    assert face_table(replace(analysis, faces=())) == ""


def test_in_words_follows_the_kind_of_task() -> None:
    words = {
        made.task.kind: prediction_text(made)
        for made in make_analysis().faces[0].predictions
        if not made.task.none
    }
    units = next(
        prediction
        for prediction in make_analysis().faces[0].predictions
        if prediction.task.name == "action_units"
    )
    present = replace(units, thresholds=(0.0, 1.1, 0.0, *[1.1] * 9))
    assert (prediction_text(present), prediction_text(replace(units, thresholds=(1.1,) * 12))) == (
        "AU1, AU4",
        "none",
    )
    assert "\u00a0%" in words["one_of"]
    assert words["continuous"].startswith("Valence ")
    assert words["independent"].count(",") == 3


def test_strings_of_users_and_manifests_are_escaped(tmp_path: Path) -> None:
    assert "<script>" not in notice_list(["<script>alert(1)</script>"])
    checkpoint = replace(make_manifest(tmp_path / "x"), summary="<img src=x onerror=1>", license="<b>")
    assert "<img" not in checkpoint_card(checkpoint, Availability("here"))
    assert "<b>" not in checkpoint_card(checkpoint, Availability("here"))


def test_checkpoint_card_says_what_is_missing(tmp_path: Path) -> None:
    checkpoint = make_manifest(tmp_path / "x")
    whole = checkpoint_card(checkpoint, locate(checkpoint, tmp_path))
    assert "Action Units" in whole.title() and whole.count("not predicted by this checkpoint") == 2
    assert "role='status'" not in whole
    (checkpoint.folder / checkpoint.source.bundled).unlink()
    assert "is missing; restore it" in checkpoint_card(checkpoint, locate(checkpoint, tmp_path))
    told = checkpoint_card(checkpoint, locate(checkpoint, tmp_path), "The server answers <503>.")
    assert "The server answers &lt;503&gt;." in told


@pytest.mark.parametrize(
    ("ahead", "wait_s", "words"),
    [
        (0, None, "Starting…"),
        (1, None, "Waiting for 1 earlier analysis…"),
        (3, 150, "Waiting for 3 earlier analyses, about 150 s…"),
    ],
)
def test_progress_says_how_many_wait_and_how_long(ahead: int, wait_s: int | None, words: str) -> None:
    assert job_progress(JobStatus("0" * 32, "queued", ahead=ahead, wait_s=wait_s)) == progress_bar(
        0, 0, words
    )
    assert "aria-valuenow" not in progress_bar(0, 0, words)
    assert "aria-valuenow='3'" in progress_bar(3, 12, words) and "width:25%" in progress_bar(3, 12, words)
    assert "width:100%" in progress_bar(15, 12, words)


def test_sweep_passes_over_folders_that_disappear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b/old.png", "c/old.png", "z/old.png"):
        file = tmp_path / "uploads" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        os.utime(file, (0, 0))
    scandir = os.scandir

    def scan(path: object = ".") -> object:
        if Path(str(path)).name == "c":  # another thread was faster
            shutil.rmtree(str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scan)
    assert sweep(tmp_path, age_s=900, now_s=5000) == 2
    assert not any((tmp_path / "uploads").iterdir())


def test_an_error_does_not_end_the_sweeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rounds = tmp_path / "served", []
    folder.mkdir()

    def failing(*_: object) -> int:
        rounds.append(len(rounds))
        if len(rounds) == 3:
            folder.rmdir()
        raise RuntimeError

    monkeypatch.setattr(temporary, "sweep", failing)
    monkeypatch.setattr(temporary, "SWEEP_EVERY_S", 0.0)
    temporary.sweep_for_ever(folder, 900)
    assert len(rounds) == 3


def test_sweep_deletes_old_files_and_empty_folders_only(tmp_path: Path) -> None:
    ages = {
        "uploads/a/old.png": 1000,
        "claims/new.png": 10,
        "claims/old.png": 1000,
        MEDIA / "job/old.png": 1000,
        "lock": 1000,
    }
    for name, age in ages.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(b"x")
        os.utime(file, (5000 - age, 5000 - age))
    assert sweep(tmp_path, age_s=900, now_s=5000) == 2
    assert sweep(tmp_path, age_s=900, now_s=5000) == 0
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == ["claims/new.png", "lock", str(MEDIA / "job/old.png")], (
        "files of jobs go with their jobs"
    )
    assert not (tmp_path / "uploads" / "a").exists()


def test_remove_left_overs_takes_folders_of_killed_servers_only(tmp_path: Path) -> None:
    killed, running, starting, other = (
        tmp_path / name for name in (f"{PREFIX}a", f"{PREFIX}b", f"{PREFIX}c", "elsewhere")
    )
    for folder in (killed, running, starting, other):
        (folder / "uploads").mkdir(parents=True)
        (folder / "uploads" / "face.png").write_bytes(b"x")
    for folder in (killed, running):
        (folder / LOCK).touch()
    with (running / LOCK).open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_left_overs(tmp_path, time.time()) == 1
        assert remove_left_overs(tmp_path, time.time() + 3600) == 1  # nobody starts for so long
    assert [folder.exists() for folder in (killed, running, starting, other)] == [False, True, False, True]
