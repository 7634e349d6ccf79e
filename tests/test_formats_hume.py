from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.hume import list_clips, read_clip_labels, write_clip_labels
from hsemotion_space.training.formats.listing import FaceFile
from hsemotion_space.training.series import Series

NAN = float("nan")
HEADER = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"


def table(folder: Path, text: str) -> Path:
    file = folder / "train_split.csv"
    file.write_bytes(text.encode())
    return file


def test_read_clip_labels_keeps_zeros_of_ids(tmp_path: Path) -> None:
    clips = list(read_clip_labels(table(tmp_path, f"\ufeff{HEADER}\r\n00000,0,0.333,0,0,1,0.5\r\n0017.mp4,0,0,0,0,0,0\r\n\r\n")))
    assert [(clip.video, clip.frames.tolist()) for clip in clips] == [("00000", [0]), ("0017", [0])]
    np.testing.assert_allclose(clips[0].values, [[0, 0.333, 0, 0, 1, 0.5]])
    assert clips[0].values.dtype == np.float32


def test_read_clip_labels_finds_columns_by_name(tmp_path: Path) -> None:
    text = '"Joy",note,"Empathic_Pain",EXCITEMENT,determination,amusement,Admiration,filename\n0.6,"a, b",0.4,0.5,0.3,0.2,0.1,1\n'
    (clip,) = read_clip_labels(table(tmp_path, text))
    assert clip.video == "1"
    np.testing.assert_allclose(clip.values, [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])


def test_read_clip_labels_of_empty_values(tmp_path: Path) -> None:
    clips = list(read_clip_labels(table(tmp_path, f"{HEADER}\n1,,,,,,\n2,0,0,,0,0,0\n")))
    assert all(np.isnan(clip.values).all() for clip in clips)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("2,0,0,0,0,0,1.1", "6 numbers from 0 to 1 (or nothing if not annotated)"),
        ("2,0,0,0,0,0,nan", "6 numbers from 0 to 1"),
        ("2,0,0,0,0,0", "7 columns as in the header"),
        (",0,0,0,0,0,0", "the id of a clip"),
        ("1,0,0,0,0,0,0", "every clip once, got '1'"),
        ("1.mp4,0,0,0,0,0,0", "every clip once"),
    ],
)
def test_read_clip_labels_names_a_wrong_row(tmp_path: Path, row: str, expected: str) -> None:
    file = table(tmp_path, f"{HEADER}\n1,0,0,0,0,0,0\n{row}\n3,0,0,0,0,0,0\n")
    reader = read_clip_labels(file)
    assert next(reader).video == "1"
    with pytest.raises(DataError, match=re.escape(f"{file}, line 3: expected {expected}")):
        next(reader)


@pytest.mark.parametrize(
    "header", ["", *(HEADER.replace(old, new) for old, new in (("Joy", "Fun"), ("Joy", "Admiration"), ("Filename", "Id")))]
)
def test_read_clip_labels_needs_every_column_once(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=f"line 1: expected a header with {HEADER}, each once"):
        list(read_clip_labels(table(tmp_path, header + "\n")))


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6) | st.none(), max_size=8))
def test_write_clip_labels_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float] | None]) -> None:
    file = tmp_path_factory.mktemp("clips") / "x.csv"
    clips = [Series(f"{number:05d}", np.zeros(1, np.int64), np.array([row or [NAN] * 6], np.float32)) for number, row in enumerate(rows)]
    assert write_clip_labels(file, iter(clips)) == len(clips)
    for before, after in zip(clips, read_clip_labels(file), strict=True):
        assert before.video == after.video
        np.testing.assert_array_equal(before.values, after.values)
    with pytest.raises(DataError, match="labels of 7 cannot be written: expected 6 numbers from 0 to 1"):
        write_clip_labels(file, [Series("7", np.zeros(1, np.int64), np.full((1, 6), 1.5, np.float32))])


def test_list_clips_numbers_faces_in_natural_order(tmp_path: Path) -> None:
    first, second = tmp_path / "face_images", tmp_path / "more"
    for file in (
        first / "00001/face_10.jpg", first / "00001/face_9.jpg", first / "00001/.DS_Store", first / "00001/notes.txt",
        second / "00001/face_9.jpg", second / "00001/face_9_b.png", second / "00000/x.JPG",
    ):  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert list(list_clips([first, second])) == [
        FaceFile("00000", 1, second / "00000/x.JPG"),
        FaceFile("00001", 1, first / "00001/face_9.jpg"),
        FaceFile("00001", 2, second / "00001/face_9_b.png"),
        FaceFile("00001", 3, first / "00001/face_10.jpg"),
    ]
