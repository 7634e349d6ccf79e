from __future__ import annotations

from pathlib import Path

import pytest
from error_codes import raises_code

from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.samples import FaceSample, read_image_folder


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


# folders


def test_read_image_folder_of_classes(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in (
                "happy/10.jpg",
                "happy/9.PNG",
                "Anger/x.jpeg",
                "Anger/notes.txt",
                ".cache/y.jpg",
                "z.jpg",
            )
        )
    )
    assert list(read_image_folder(tmp_path)) == [
        FaceSample(tmp_path / "Anger/x.jpeg", None, 0, None, "train", "Anger/x.jpeg"),
        FaceSample(tmp_path / "happy/9.PNG", None, 4, None, "train", "happy/9.PNG"),
        FaceSample(tmp_path / "happy/10.jpg", None, 4, None, "train", "happy/10.jpg"),
    ]


@pytest.mark.parametrize("held_out", ["validation", "Val"])
def test_read_image_folder_of_splits(tmp_path: Path, held_out: str) -> None:
    touch(tmp_path / "train/sad/1.jpg", tmp_path / held_out / "sad/1.jpg", tmp_path / "readme/notes.txt")
    found = {(sample.split, sample.group) for sample in read_image_folder(tmp_path)}
    assert found == {("train", "train/sad/1.jpg"), ("validation", f"{held_out}/sad/1.jpg")}


def test_read_image_folder_refuses_an_unknown_class(tmp_path: Path) -> None:
    touch(tmp_path / "anger/1.jpg", tmp_path / "sleepy/1.jpg")
    with raises_code(DataError, "expression", place=tmp_path):
        next(read_image_folder(tmp_path))


def test_read_image_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "anger").mkdir()
    with raises_code(DataError, "empty"):
        list(read_image_folder(tmp_path))
    with raises_code(DataError, "unreadable"):
        list(read_image_folder(tmp_path / "none"))
