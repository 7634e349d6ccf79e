from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from challenge_makers import CLIP_HEADER as HEADER
from error_codes import raises_code

from hsemotion_space.tasks import MIMICRY_INTENSITY
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import read_clip_labels
from hsemotion_space.training.formats.crops import FaceFile, list_clips


def table(folder: Path, text: str) -> Path:
    file = folder / "train_split.csv"
    file.write_bytes(text.encode())
    return file


def test_read_clip_labels_keeps_zeros_of_ids(tmp_path: Path) -> None:
    clips = list(
        read_clip_labels(
            table(tmp_path, f"\ufeff{HEADER}\r\n00000,0,0.333,0,0,1,0.5\r\n0017.mp4,0,0,0,0,0,0\r\n\r\n"),
            MIMICRY_INTENSITY,
        )
    )
    assert [(clip.video, clip.frames.tolist()) for clip in clips] == [("00000", [0]), ("0017", [0])]
    np.testing.assert_allclose(clips[0].values, [[0, 0.333, 0, 0, 1, 0.5]])
    assert clips[0].values.dtype == np.float32


def test_read_clip_labels_finds_columns_by_name(tmp_path: Path) -> None:
    text = (
        '"Joy",note,"Empathic_Pain",EXCITEMENT,determination,amusement,Admiration,filename\n0.6,"a,'
        ' b",0.4,0.5,0.3,0.2,0.1,1\n'
    )
    (clip,) = read_clip_labels(table(tmp_path, text), MIMICRY_INTENSITY)
    assert clip.video == "1"
    np.testing.assert_allclose(clip.values, [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])


def test_read_clip_labels_of_empty_values(tmp_path: Path) -> None:
    clips = list(read_clip_labels(table(tmp_path, f"{HEADER}\n1,,,,,,\n2,0,0,,0,0,0\n"), MIMICRY_INTENSITY))
    assert all(np.isnan(clip.values).all() for clip in clips)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("2,0,0,0,0,0,1.1", "values"),
        ("2,0,0,0,0,0,nan", "values"),
        ("2,0,0,0,0,0", "columns"),
        (",0,0,0,0,0,0", "location"),
        ("1,0,0,0,0,0,0", "twice"),
        ("1.mp4,0,0,0,0,0,0", "twice"),
    ],
)
def test_read_clip_labels_names_a_wrong_row(tmp_path: Path, row: str, code: str) -> None:
    file = table(tmp_path, f"{HEADER}\n1,0,0,0,0,0,0\n{row}\n3,0,0,0,0,0,0\n")
    reader = read_clip_labels(file, MIMICRY_INTENSITY)
    assert next(reader).video == "1"
    with raises_code(DataError, code, place=f"{file}, line 3"):
        next(reader)


@pytest.mark.parametrize(
    "header",
    [
        "",
        *(
            HEADER.replace(old, new)
            for old, new in (("Joy", "Fun"), ("Joy", "Admiration"), ("Filename", "Id"))
        ),
    ],
)
def test_read_clip_labels_needs_every_column_once(tmp_path: Path, header: str) -> None:
    with raises_code(DataError, "header"):
        list(read_clip_labels(table(tmp_path, header + "\n"), MIMICRY_INTENSITY))


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
