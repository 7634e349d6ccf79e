from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from challenge_makers import CLIP_HEADER
from challenge_makers import HEADERS as LABEL_HEADERS
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    CHALLENGE,
    COMPOUND_EXPRESSION,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import SubmissionReport, read_submission, write_submission
from hsemotion_space.training.formats.tables import read_list
from hsemotion_space.training.series import Series

NAN = float("nan")
HEADERS = {task: f"image_location,{header}" for task, header in LABEL_HEADERS.items()}
HEADERS[MIMICRY_INTENSITY] = CLIP_HEADER
each_task = pytest.mark.parametrize("task", CHALLENGE, ids=lambda task: task.name)


def series(video: str, frames: list[int], values: list[list[float]]) -> Series:
    return Series(video, np.array(frames, np.int64), np.array(values, np.float32))


def frame_list(folder: Path, *rows: str) -> Path:
    file = folder / "list.txt"
    file.write_bytes("\n".join(rows).encode())
    return file


def one_hot(task: Task, index: int, strength: float = 1.0) -> list[float]:
    return [strength if place == index else 0.0 for place in range(len(task.labels))]


# lists


@pytest.mark.parametrize(
    "header", [[], ["image_location"], ["\ufeffImage,valence,arousal "], ["image_location,Neutral,Anger"]]
)
def test_read_list_with_and_without_header(tmp_path: Path, header: list[str]) -> None:
    file = frame_list(tmp_path, *header, "02/00001.jpg", "02/00003.jpg,0,0", "01/100000.png ", "02/2.jpg", "")
    assert [(row.video, row.frame) for row in read_list(file, clips=False)] == [
        ("02", 1),
        ("02", 3),
        ("01", 100000),
        ("02", 2),
    ]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("00001.jpg", "location"),
        ("v/x.jpg", "location"),
        ("cropped/v/00002.jpg", "location"),
        ("v/-2.jpg", "location"),
        ("v/1.jpg", "twice"),
    ],
)
def test_read_list_names_a_wrong_row(tmp_path: Path, row: str, code: str) -> None:
    file = frame_list(tmp_path, "image_location", "v/00001.jpg", "w/00001.jpg", row)
    reader = read_list(file, clips=False)
    assert next(reader).video == "v"
    with raises_code(DataError, code, place=f"{file}, line 4"):
        list(reader)


# writing


def test_write_submission_interpolates_affect(tmp_path: Path) -> None:
    rows = [f"v/{frame:05d}.jpg" for frame in (1, 2, 3, 4, 6, 9)]
    values = [[-0.5, 1], [NAN, NAN], [0.5, -2]]
    report = write_submission(
        tmp_path / "va.txt",
        VALENCE_AROUSAL,
        [series("v", [2, 3, 6], values)],
        frame_list(tmp_path, "image_location", *rows),
    )
    assert report == SubmissionReport(6, 4, ())
    numbers = ["-0.500000,1.000000"] * 2 + ["-0.250000,0.500000", "0.000000,0.000000"]
    numbers += ["0.500000,-1.000000"] * 2
    lines = [f"{row},{number}\n" for row, number in zip(rows, numbers, strict=True)]
    assert (tmp_path / "va.txt").read_bytes().decode() == f"{HEADERS[VALENCE_AROUSAL]}\n{''.join(lines)}"


def test_write_submission_decides_classes_after_interpolation(tmp_path: Path) -> None:
    task = COMPOUND_EXPRESSION
    known = [one_hot(task, 6, 0.6), one_hot(task, 1, 0.4)]
    listed = frame_list(tmp_path, *(f"01/{frame:05d}.jpg" for frame in (1, 2, 3, 4)))
    assert (
        write_submission(tmp_path / "ce.txt", task, [series("01", [1, 4], known)], listed).interpolated == 2
    )
    lines = (tmp_path / "ce.txt").read_text().splitlines()
    assert lines == [HEADERS[task], "01/00001.jpg,6", "01/00002.jpg,6", "01/00003.jpg,1", "01/00004.jpg,1"]


def test_write_submission_of_units_at_their_threshold(tmp_path: Path) -> None:
    limits = [0.8, 0.8, 0.7, 0.5, 0.5, 0.5, 0.6, 0.8, 0.8, 0.8, 0.3, 0.7]
    values = [limits, [limit - 0.01 for limit in limits]]
    listed, file = frame_list(tmp_path, "v/00001.jpg", "v/00002.jpg"), tmp_path / "au.txt"
    write_submission(file, ACTION_UNITS, [series("v", [1, 2], values)], listed, limits)
    assert file.read_text().splitlines()[1:] == ["v/00001.jpg" + ",1" * 12, "v/00002.jpg" + ",0" * 12]
    write_submission(file, ACTION_UNITS, [series("v", [1, 2], values)], listed)
    assert file.read_text().splitlines()[1] == "v/00001.jpg,1,1,1,1,1,1,1,1,1,1,0,1"


def test_write_submission_of_clips(tmp_path: Path) -> None:
    listed = frame_list(tmp_path, "Filename", "00012", "00003.mp4,0.5", "00001")
    known = [series("00003", [0], [[0, 0.25, 0.5, 0.75, 1, 0.1]]), series("00012", [0], [[NAN] * 6])]
    report = write_submission(tmp_path / "emi.csv", MIMICRY_INTENSITY, known, listed)
    assert report == SubmissionReport(3, 0, ("00012", "00001"))
    zeros = ",0.000000" * 6
    assert (tmp_path / "emi.csv").read_text().splitlines() == [
        HEADERS[MIMICRY_INTENSITY],
        "00012" + zeros,
        "00003,0.000000,0.250000,0.500000,0.750000,1.000000,0.100000",
        "00001" + zeros,
    ]


@each_task
def test_write_submission_of_a_missing_video_is_neutral(tmp_path: Path, task: Task) -> None:
    rows = ["b", "a"] if task.scope == "clip" else ["b/00001.jpg", "a/00001.jpg", "b/00002.jpg"]
    empty = series("a", [0 if task.scope == "clip" else 1], [[NAN] * len(task.labels)])
    report = write_submission(tmp_path / "x.txt", task, [empty], frame_list(tmp_path, *rows))
    assert report == SubmissionReport(len(rows), 0, ("b", "a"))
    lines = (tmp_path / "x.txt").read_text().splitlines()
    number, count = "0.000000", len(task.labels)
    neutral = {ACTION_UNITS: "0,0,0,0,0,0,0,0,0,0,0,0"}.get(task, ",".join([number] * count))
    neutral = "0" if task.kind == "one_of" else neutral
    assert lines == [HEADERS[task], *(f"{row},{neutral}" for row in rows)]
    three = AFF_WILD2_EXPRESSION.subset(["Anger", "Fear", "Neutral"])
    write_submission(tmp_path / "three.txt", three, [], frame_list(tmp_path, "v/00001.jpg"))
    assert (tmp_path / "three.txt").read_text().splitlines()[1] == "v/00001.jpg,2", "found by its name"


def test_write_submission_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file, known = tmp_path / "x.txt", [series("v", [1], [[0, 0]])]
    file.write_text("old")
    with raises_code(DataError, "twice", place=f"{tmp_path / 'list.txt'}, line 2"):
        write_submission(file, VALENCE_AROUSAL, known, frame_list(tmp_path, "v/1.jpg", "v/00001.jpg"))
    with raises_code(DataError, "empty_list"):
        write_submission(file, VALENCE_AROUSAL, known, frame_list(tmp_path, "image_location"))
    with raises_code(DataError, "twice"):
        write_submission(file, VALENCE_AROUSAL, known * 2, frame_list(tmp_path, "v/1.jpg"))
    with raises_code(DataError, "columns"):
        write_submission(file, AFF_WILD2_EXPRESSION, known, frame_list(tmp_path, "v/1.jpg"))
    assert file.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "x.txt"]


@pytest.mark.parametrize(
    "task",
    [VALENCE_AROUSAL, AFF_WILD2_EXPRESSION, MIMICRY_INTENSITY, ACTION_UNITS],
    ids=lambda task: task.name,
)
def test_write_submission_refuses_wrong_thresholds(tmp_path: Path, task: Task) -> None:
    thresholds = [0.5] * (len(task.labels) - (task is ACTION_UNITS))
    with raises_code(DataError, "thresholds"):
        write_submission(tmp_path / "x.txt", task, [], frame_list(tmp_path, "v/1.jpg"), thresholds)


# reading


@st.composite
def problems(draw: st.DrawFn) -> tuple[Task, list[str], list[Series]]:
    """A task, the rows of its list and predictions for some of their frames and for others."""
    task = draw(st.sampled_from(CHALLENGE))
    videos = draw(st.lists(st.sampled_from(["1", "01", "v_left", "7-60-1920x1080"]), min_size=1, unique=True))
    numbers = (
        st.just([0])
        if task.scope == "clip"
        else st.lists(st.integers(1, 200000), min_size=1, max_size=12, unique=True)
    )
    rows, known = [], []
    for video in videos:
        rows += [video if task.scope == "clip" else f"{video}/{frame:05d}.jpg" for frame in draw(numbers)]
        frames = np.array(sorted(draw(numbers)), np.int64)
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        values = rng.uniform(task.low, task.high, (len(frames), len(task.labels))).astype(np.float32)
        values[rng.random(len(frames)) < 0.2, 0] = NAN
        if draw(st.booleans()):
            known.append(Series(video, frames, values))
    return task, rows, known


@given(problems())
def test_write_submission_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, problem: tuple[Task, list[str], list[Series]]
) -> None:
    task, rows, known = problem
    folder = tmp_path_factory.mktemp("submission")
    report = write_submission(folder / "x.txt", task, iter(known), frame_list(folder, *rows))
    lines = (folder / "x.txt").read_text().splitlines()
    assert lines[0] == HEADERS[task]
    assert [line.split(",")[0] for line in lines[1:]] == rows
    found = {series.video: series for series in read_submission(folder / "x.txt", task)}
    listed = {row.split("/")[0] for row in rows}
    known = [series for series in known if len(series.known)]
    assert set(found) == listed
    assert report.frames == sum(len(series.frames) for series in found.values()) == len(rows)
    assert set(report.without_prediction) == listed - {series.video for series in known}
    own = 0
    for series in known:
        both, mine, theirs = np.intersect1d(
            found[series.video].frames, series.frames[series.known], return_indices=True
        )
        own += len(both)
        values = series.values[series.known][theirs]
        if task.kind == "one_of":
            values = values.argmax(1)[:, None]
        elif task is ACTION_UNITS:
            values = values >= 0.5
        np.testing.assert_allclose(found[series.video].values[mine], values, atol=1e-6)
    missing = sum(len(found[video].frames) for video in report.without_prediction)
    assert report.interpolated == report.frames - missing - own


def test_read_submission_sorts_frames(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text(HEADERS[AFF_WILD2_EXPRESSION] + "\nv/00010.jpg,1\nv/00002.jpg,7\nw/00001.jpg,0\n")
    v, w = read_submission(file, AFF_WILD2_EXPRESSION)
    assert (v.video, v.frames.tolist(), v.values.tolist()) == ("v", [2, 10], [[7], [1]])
    assert (w.video, w.frames.tolist(), w.values.tolist()) == ("w", [1], [[0]])


@pytest.mark.parametrize(
    ("task", "row", "code"),
    [
        (VALENCE_AROUSAL, "w/1.jpg,-5,-5", "incomplete"),
        (VALENCE_AROUSAL, "w/1.jpg,2,0", "values"),
        (AFF_WILD2_EXPRESSION, "w/1.jpg,8", "values"),
        (AFF_WILD2_EXPRESSION, "v/1.jpg,0", "twice"),
        (ACTION_UNITS, "w/1.jpg" + ",0.5" * 12, "values"),
        (MIMICRY_INTENSITY, "2,,0,0,0,0,0", "incomplete"),
        (MIMICRY_INTENSITY, "2,0,0,0,0,0,7", "values"),
    ],
)
def test_read_submission_names_a_wrong_row(tmp_path: Path, task: Task, row: str, code: str) -> None:
    count = 1 if task.kind == "one_of" else len(task.labels)
    good = ("1" if task.scope == "clip" else "v/1.jpg") + ",0" * count
    file = tmp_path / "x.txt"
    file.write_text(f"{HEADERS[task]}\n{good}\n{row}\n")
    with raises_code(DataError, code, place=f"{file}, line 3"):
        list(read_submission(file, task))


@each_task
def test_read_submission_refuses_another_task(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "x.txt"
    file.write_text("image_location,valence\nv/1.jpg,0\n")
    with raises_code(DataError, "header", place=f"{file}, line 1"):
        list(read_submission(file, task))


def test_read_submission_is_lazy(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text(f"{HEADERS[VALENCE_AROUSAL]}\nv/1.jpg,0,0\nw/1.jpg,0,0\nw/2.jpg,wrong\n")
    reader = read_submission(file, VALENCE_AROUSAL)
    assert next(reader).video == "v"
    with raises_code(DataError, "columns", "values", place=f"{file}, line 4"):
        next(reader)
