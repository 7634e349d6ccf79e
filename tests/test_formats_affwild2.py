from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from challenge_makers import HEADERS
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    CHALLENGE,
    COMPOUND_EXPRESSION,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import read_labels, write_labels
from hsemotion_space.training.formats.crops import FaceFile, list_faces
from hsemotion_space.training.series import Series

NAN = float("nan")
EXPR, UNITS, COMPOUND = (HEADERS[task] for task in (AFF_WILD2_EXPRESSION, ACTION_UNITS, COMPOUND_EXPRESSION))
FRAME_TASKS = [task for task in CHALLENGE if task.scope == "frame"]


def put(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return file


def labels_of(folder: Path, text: str, task: Task) -> np.ndarray:
    put(folder / "v.txt", text)
    (series,) = read_labels(folder, task)
    assert series.frames.tolist() == list(range(1, len(series.values) + 1))
    assert (series.video, series.values.dtype, series.frames.dtype) == ("v", np.float32, np.int64)
    return series.values


def test_read_labels_of_affect_needs_both_values(tmp_path: Path) -> None:
    text = "valence,arousal\n0.5,-0.25\n-5,-5\n-5,0.5\n0.5,-5.0\n-1,1\n"
    np.testing.assert_array_equal(
        labels_of(tmp_path, text, VALENCE_AROUSAL),
        [[0.5, -0.25], [NAN, NAN], [NAN, NAN], [NAN, NAN], [-1, 1]],
    )


def test_read_labels_of_classes(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        labels_of(tmp_path, EXPR + "\n0\n7\n-1\n3\n", AFF_WILD2_EXPRESSION), [[0], [7], [NAN], [3]]
    )


def test_read_labels_of_units_needs_every_unit(tmp_path: Path) -> None:
    rows = [",".join(["0", "1"] * 6), ",".join(["1"] * 11 + ["-1"]), ",".join(["-1"] * 12)]
    values = labels_of(tmp_path, "\n".join([UNITS, *rows]), ACTION_UNITS)
    np.testing.assert_array_equal(values, [[0, 1] * 6, [NAN] * 12, [NAN] * 12])


@pytest.mark.parametrize(
    "header",
    [COMPOUND, COMPOUND.replace("_", " "), COMPOUND.upper(), ",".join(COMPOUND_EXPRESSION.label_names)],
)
def test_read_labels_of_compounds_in_any_spelling(tmp_path: Path, header: str) -> None:
    np.testing.assert_array_equal(
        labels_of(tmp_path, header + "\n6\n-1\n", COMPOUND_EXPRESSION), [[6], [NAN]]
    )


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffvalence,arousal\n0,1\n",
        "valence,arousal  \r\n0,1\r\n",
        "Valence, Arousal,\n 0 , 1 \n",
        "valence,arousal , ,\n0,1\n\n  \n\n",
        "valence,arousal\n0,1",
    ],
)
def test_read_labels_of_untidy_files(tmp_path: Path, text: str) -> None:
    assert labels_of(tmp_path, text, VALENCE_AROUSAL).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("task", "header", "row", "code"),
    [
        (VALENCE_AROUSAL, "valence,arousal", "0.5", "values"),
        (VALENCE_AROUSAL, "valence,arousal", "1.01,0", "values"),
        (VALENCE_AROUSAL, "valence,arousal", "nan,0", "values"),
        (VALENCE_AROUSAL, "valence,arousal", '"0,1', "quotes"),
        (VALENCE_AROUSAL, "valence,arousal", "", "blank_line"),
        (AFF_WILD2_EXPRESSION, EXPR, "8", "values"),
        (AFF_WILD2_EXPRESSION, EXPR, "1.5", "values"),
        (COMPOUND_EXPRESSION, COMPOUND, "7", "values"),
        (ACTION_UNITS, UNITS, ",".join(["2"] * 12), "values"),
        (ACTION_UNITS, UNITS, ",".join(["-1"] * 11 + ["5"]), "values"),
    ],
)
def test_read_labels_names_a_wrong_line(tmp_path: Path, task: Task, header: str, row: str, code: str) -> None:
    good = {2: "0,0", 8: "0", 7: "0", 12: ",".join("0" * 12)}[len(task.labels)]
    file = put(tmp_path / "v.txt", "\n".join([header, good, row, good]))
    with raises_code(DataError, code, place=f"{file}, line 3"):
        list(read_labels(tmp_path, task))


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (VALENCE_AROUSAL, "arousal,valence\n0,0\n"),
        (VALENCE_AROUSAL, ""),
        (AFF_WILD2_EXPRESSION, EXPR.replace(",Other", "") + "\n0\n"),
        (COMPOUND_EXPRESSION, EXPR + "\n0\n"),
    ],
)
def test_read_labels_names_the_right_header(tmp_path: Path, task: Task, text: str) -> None:
    file = put(tmp_path / "v.txt", text)
    with raises_code(DataError, "header", place=f"{file}, line 1"):
        list(read_labels(tmp_path, task))


def test_read_labels_names_bytes_and_endless_lines(tmp_path: Path) -> None:
    file = tmp_path / "v.txt"
    file.write_bytes(b"valence,arousal\n0,0\n0,\xff\n")
    with raises_code(DataError, "encoding", place=f"{file}, line 3"):
        list(read_labels(tmp_path, VALENCE_AROUSAL))
    file.write_bytes(b"valence,arousal\n" + b"0" * 100_000)
    with raises_code(DataError, "long_line", place=f"{file}, line 2"):
        list(read_labels(tmp_path, VALENCE_AROUSAL))


def test_read_labels_is_sorted_and_lazy(tmp_path: Path) -> None:
    for name in ("1-30-x.txt", "1-30.txt", "1-30_left.txt", "._1.txt", "notes.md", ".DS_Store"):
        put(tmp_path / name, "valence,arousal\n0,0\n")
    put(tmp_path / "2.txt", "nonsense\n")
    reader = read_labels(tmp_path, VALENCE_AROUSAL)
    assert [next(reader).video for _ in range(3)] == ["1-30", "1-30-x", "1-30_left"]
    with raises_code(DataError, "header"):
        next(reader)
    (tmp_path / "empty").mkdir()
    with raises_code(DataError, "no_labels"):
        list(read_labels(tmp_path / "empty", VALENCE_AROUSAL))
    with raises_code(DataError, "no_labels"):
        list(read_labels(tmp_path / "none", VALENCE_AROUSAL))


def sample_values(task: Task, rng: np.random.Generator, count: int) -> np.ndarray:
    if task.kind == "continuous":
        values = rng.uniform(-1, 1, (count, 2))
    else:
        columns = 1 if task.kind == "one_of" else len(task.labels)
        values = rng.integers(0, len(task.labels) if task.kind == "one_of" else 2, (count, columns)).astype(
            float
        )
    values[rng.random(count) < 0.3] = NAN
    return values.astype(np.float32)


@given(st.sampled_from(FRAME_TASKS), st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_write_labels_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, task: Task, seed: int, count: int
) -> None:
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(seed)
    given_labels = [
        Series(name, np.arange(1, count + 1), sample_values(task, rng, count)) for name in ("a", "b_left")
    ]
    write_labels(folder, task, iter(given_labels))
    for before, after in zip(given_labels, read_labels(folder, task), strict=True):
        assert after.video == before.video
        np.testing.assert_array_equal(after.values, before.values)


def test_write_labels_marks_missing_frames(tmp_path: Path) -> None:
    write_labels(
        tmp_path,
        VALENCE_AROUSAL,
        [Series("v", np.array([2, 4]), np.array([[0.1, 0], [1e-7, -1]], np.float32))],
    )
    assert (tmp_path / "v.txt").read_text() == "valence,arousal\n-5,-5\n0.1,0.0\n-5,-5\n0.0000001,-1.0\n"
    write_labels(tmp_path, COMPOUND_EXPRESSION, [Series("v", np.array([2]), np.array([[6]], np.float32))])
    assert (tmp_path / "v.txt").read_text() == COMPOUND + "\n-1\n6\n"


def test_write_labels_refuses_values_out_of_range(tmp_path: Path) -> None:
    for task, value in (
        (VALENCE_AROUSAL, [[2, 0]]),
        (AFF_WILD2_EXPRESSION, [[0.5]]),
        (AFF_WILD2_EXPRESSION, [[8]]),
    ):
        with raises_code(DataError, "values"):
            write_labels(tmp_path, task, [Series("v", np.array([1]), np.array(value, np.float32))])
    with raises_code(DataError, "frame_number"):
        write_labels(tmp_path, VALENCE_AROUSAL, [Series("v", np.array([0]), np.zeros((1, 2), np.float32))])
    assert not list(tmp_path.iterdir())


# crops


def test_list_faces_of_two_roots(tmp_path: Path) -> None:
    first, second = tmp_path / "cropped", tmp_path / "cropped2"
    for file in (
        first / "b/00002.jpg",
        first / "b/100000.jpg",
        first / "b/00010.PNG",
        second / "b/00002.jpg",
        second / "b/00003.webp",
    ):
        put(file, "")
    put(second / "a_left/00001.jpeg", "")
    assert list(list_faces([first, second])) == [
        FaceFile("a_left", 1, second / "a_left/00001.jpeg"),
        FaceFile("b", 2, first / "b/00002.jpg"),
        FaceFile("b", 3, second / "b/00003.webp"),
        FaceFile("b", 10, first / "b/00010.PNG"),
        FaceFile("b", 100000, first / "b/100000.jpg"),
    ]
    assert [face.image.parent.parent for face in list_faces([second, first]) if face.frame == 2] == [second]
    put(second / "b/3.png", "")
    put(second / "c/wrong.jpg", "")
    reader = list_faces([first, second])
    assert next(reader).video == "a_left"
    with raises_code(DataError, "frame_twice", frame=3):
        next(reader)
    with raises_code(DataError, "unreadable"):
        next(list_faces([tmp_path / "none"]))


def test_list_faces_skips_other_files(tmp_path: Path) -> None:
    for name in (
        "v/.DS_Store",
        "v/._00001.jpg",
        "v/notes.txt",
        "v/Thumbs.db",
        ".hidden/x.jpg",
        "loose.jpg",
        "v/00005.jpg/inner.txt",
    ):
        put(tmp_path / name, "")
    put(tmp_path / "v/00001.jpg", "")
    assert list(list_faces([tmp_path])) == [FaceFile("v", 1, tmp_path / "v/00001.jpg")]


@pytest.mark.parametrize("name", ["frame1.jpg", "00000.jpg", "1_0.jpg", "\u0661.jpg"])
def test_list_faces_refuses_names_that_are_no_frame(tmp_path: Path, name: str) -> None:
    file = put(tmp_path / "v" / name, "")
    with raises_code(DataError, "frame_name", file=file):
        list(list_faces([tmp_path]))
