from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.affectnet import NATIVE_ORDER, read_folder_2021, read_manual_csv
from hsemotion_space.training.formats.samples import FaceSample

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)
MARKS = ";".join(["181.64;530.91"] * 68)
TO_OURS = {0: 5, 1: 4, 2: 6, 3: 7, 4: 3, 5: 2, 6: 0, 7: 1}  # reference section 1.2


def row(
    native: int | str = 1, box: str = "10,20,30,40", affect: str = "0.5,-0.25", path: str = "689/a.jpg"
) -> str:
    return f"{path},{box},{MARKS},{native},{affect}"


def table(folder: Path, *rows: str) -> Path:
    file = folder / "validation.csv"
    file.write_bytes("\r\n".join(rows).encode())
    return file


@pytest.mark.parametrize("header", [[], [HEADER], ["\ufeff" + HEADER.upper()]])
def test_read_manual_csv_with_and_without_header(tmp_path: Path, header: list[str]) -> None:
    samples = list(
        read_manual_csv(
            table(tmp_path, *header, row(), row(0, path="1/b.png")), tmp_path / "images", "validation"
        )
    )
    box = (10.0, 20.0, 40.0, 60.0)
    assert samples == [
        FaceSample(tmp_path / "images/689/a.jpg", box, 4, (0.5, -0.25), "validation", "689/a.jpg"),
        FaceSample(tmp_path / "images/1/b.png", box, 5, (0.5, -0.25), "validation", "1/b.png"),
    ]


def test_read_manual_csv_finds_columns_by_name(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        f"arousal,{HEADER.removesuffix(',arousal')},note",
        "-0.25," + row().removesuffix(",-0.25") + ",x",
    )
    (sample,) = read_manual_csv(file, tmp_path, "train")
    assert (sample.expression, sample.valence_arousal, sample.split) == (4, (0.5, -0.25), "train")
    with raises_code(DataError, "header"):
        list(
            read_manual_csv(
                table(tmp_path, HEADER.replace("face_x", "x").replace(",valence", "")), tmp_path, "train"
            )
        )


def test_read_manual_csv_maps_native_classes(tmp_path: Path) -> None:
    samples = list(
        read_manual_csv(table(tmp_path, *(row(native) for native in range(11))), tmp_path, "train")
    )
    assert [sample.expression for sample in samples] == list(TO_OURS.values())
    assert [EXPRESSION.label_names[index] for index in TO_OURS.values()] == list(NATIVE_ORDER)


def test_read_manual_csv_skips_empty_boxes_and_ratings(tmp_path: Path) -> None:
    boxes = ["0,0,0,5", "0,0,5,-1", "0,0,-3,-3", "-2,0,5,5"]
    affects = ["-2,-2", "-2,0.5", "0.5,-2.0"]
    file = table(tmp_path, *(row(box=box) for box in boxes), *(row(affect=affect) for affect in affects))
    samples = list(read_manual_csv(file, tmp_path, "train"))
    assert [sample.valence_arousal for sample in samples] == [(0.5, -0.25), None, None, None]
    assert samples[0].face_box_xyxy == (-2, 0, 3, 5)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (row(-1), "expression"),
        (row("happy"), "number"),
        (row(box="nan,0,5,5"), "face_box"),
        (row(affect="1.5,0"), "affect"),
        (row(path="../a.jpg"), "path"),
        (row(path="/etc/a.jpg"), "path"),
        ("a.jpg,1,2", "columns"),
    ],
)
def test_read_manual_csv_names_a_wrong_row(tmp_path: Path, wrong: str, code: str) -> None:
    file = table(tmp_path, row(), row(9), wrong, row())
    reader = read_manual_csv(file, tmp_path, "train")
    assert next(reader).expression == 4
    with raises_code(DataError, code, place=f"{file}, line 3"):
        next(reader)


def release(folder: Path, **annotations: tuple[object, object, object]) -> Path:
    """Write a release of 2021: ``id=(expression, valence, arousal)``."""
    for name in ("images", "annotations"):
        (folder / "val_set" / name).mkdir(parents=True)
    for stem, values in annotations.items():
        (folder / f"val_set/images/{stem[1:]}.jpg").touch()
        for kind, value in zip(("exp", "val", "aro"), values, strict=True):
            np.save(folder / f"val_set/annotations/{stem[1:]}_{kind}.npy", np.array(value))
    return folder


def test_read_folder_2021_reads_texts_and_numbers(tmp_path: Path) -> None:
    root = release(
        tmp_path,
        _10=("7", "-0.5", "0.25"),
        _9=(1, 0.5, -1.0),
        _11=("8", "-2", "-2"),
        _12=([3.0], ["-2"], [0]),
    )
    (root / "val_set/images/.DS_Store").touch()
    images = root / "val_set/images"
    assert list(read_folder_2021(root, "validation")) == [
        FaceSample(images / "9.jpg", None, 4, (0.5, -1.0), "validation", "9"),
        FaceSample(images / "10.jpg", None, 1, (-0.5, 0.25), "validation", "10"),
        FaceSample(images / "12.jpg", None, 7, None, "validation", "12"),
    ]


def test_read_folder_2021_names_a_missing_annotation(tmp_path: Path) -> None:
    root = release(tmp_path, _1=("1", "0", "0"), _2=("1", "0", "0"))
    (root / "val_set/annotations/2_val.npy").unlink()
    reader = read_folder_2021(root, "validation")
    assert next(reader).group == "1"
    with raises_code(DataError, "unreadable", file=root / "val_set/annotations/2_val.npy"):
        next(reader)


@pytest.mark.parametrize("value", ["pickle", "text", "two", "archive"])
def test_read_folder_2021_names_an_unusable_annotation(tmp_path: Path, value: str) -> None:
    root = release(tmp_path, _1=("1", "0", "0"))
    file = root / "val_set/annotations/1_exp.npy"
    with file.open("wb") as out:
        if value == "pickle":
            np.save(out, np.array({"a": 1}, dtype=object), allow_pickle=True)
        elif value == "archive":
            np.savez(out, np.array(1))
        elif value == "two":
            np.save(out, np.zeros(2))
        elif value == "text":
            out.write(b"7")
    with raises_code(DataError, "annotation", file=root / "val_set/annotations/1_exp.npy"):
        list(read_folder_2021(root, "validation"))


def test_read_folder_2021_names_values_out_of_range(tmp_path: Path) -> None:
    for number, values in enumerate([("1", "3", "0"), ("x", "0", "0"), ("-1", "0", "0")]):
        root = release(tmp_path / str(number), _5=values)
        with raises_code(DataError, "affect", "number", "expression"):
            list(read_folder_2021(root, "validation"))


def test_read_folder_2021_without_pictures(tmp_path: Path) -> None:
    with raises_code(DataError, "empty"):
        list(read_folder_2021(release(tmp_path), "validation"))
    with raises_code(DataError, "unreadable"):
        list(read_folder_2021(tmp_path, "train"))
