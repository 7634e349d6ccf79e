from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.folders import read_image_folder, read_parquet
from hsemotion_space.training.formats.samples import FaceSample, expression_index


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def write(file: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def images(*contents: bytes | None) -> list[object]:
    return [{"bytes": content, "path": f"faces/{number}.jpg"} for number, content in enumerate(contents)]


def test_expression_index_of_words() -> None:
    words = ["ANGRY", "contempt", "disgusted", "Fearful", "happy", "neutral", "Sad", "surprised"]
    assert [expression_index(word) for word in words] == list(range(8))
    assert [expression_index(name) for name in EXPRESSION.label_names] == list(range(8))
    with pytest.raises(ValueError, match=r"Anger, Contempt, .*Surprise.* not 'bored'"):
        expression_index("bored")


def test_face_sample_refuses_labels_out_of_range(tmp_path: Path) -> None:
    assert FaceSample(b"x", None, 7, (1, -1), (0, 1) * 6, "train", "g").action_units == (0, 1) * 6
    for labels in ((8, None, None), (-1, None, None), (None, (1.1, 0), None), (None, None, (0, 1)), (None, None, (2,) * 12)):
        with pytest.raises(ValueError, match="not "):
            FaceSample(tmp_path, None, *labels, "train", "g")


# folders


def test_read_image_folder_of_classes(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("happy/10.jpg", "happy/9.PNG", "Anger/x.jpeg", "Anger/notes.txt", ".cache/y.jpg", "z.jpg")))
    assert list(read_image_folder(tmp_path)) == [
        FaceSample(tmp_path / "Anger/x.jpeg", None, 0, None, None, "train", "Anger/x.jpeg"),
        FaceSample(tmp_path / "happy/9.PNG", None, 4, None, None, "train", "happy/9.PNG"),
        FaceSample(tmp_path / "happy/10.jpg", None, 4, None, None, "train", "happy/10.jpg"),
    ]


@pytest.mark.parametrize("held_out", ["validation", "Val"])
def test_read_image_folder_of_splits(tmp_path: Path, held_out: str) -> None:
    touch(tmp_path / "train/sad/1.jpg", tmp_path / held_out / "sad/1.jpg", tmp_path / "readme/notes.txt")
    found = {(sample.split, sample.group) for sample in read_image_folder(tmp_path)}
    assert found == {("train", "train/sad/1.jpg"), ("validation", f"{held_out}/sad/1.jpg")}


def test_read_image_folder_refuses_an_unknown_class(tmp_path: Path) -> None:
    touch(tmp_path / "anger/1.jpg", tmp_path / "sleepy/1.jpg")
    with pytest.raises(DataError, match=r"named by classes: expected one of .*Anger, Contempt.* not 'sleepy'\.$"):
        next(read_image_folder(tmp_path))


def test_read_image_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "anger").mkdir()
    with pytest.raises(DataError, match="has no pictures; expected <expression>/<any name>"):
        list(read_image_folder(tmp_path))
    with pytest.raises(DataError, match="cannot be listed"):
        list(read_image_folder(tmp_path / "none"))


# Parquet


def test_read_parquet_of_names(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", image=images(b"one", None, b"three"), expression=["Happy", "anger", None], other=[1, 2, 3])
    assert list(read_parquet(file, "train")) == [
        FaceSample(b"one", None, 4, None, None, "train", "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"),
        FaceSample(tmp_path / "faces/1.jpg", None, 0, None, None, "train", (tmp_path / "faces/1.jpg").as_posix()),
    ]


def test_read_parquet_of_indices_needs_names(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", image=images(b"a", b"b"), expression=[1, 0])
    assert [sample.expression for sample in read_parquet(file, "train", ["neutral", "sad"])] == [6, 5]
    with pytest.raises(DataError, match=r"x\.parquet, row 1: expected an expression by name or the names of the classes to be given"):
        list(read_parquet(file, "train"))
    with pytest.raises(DataError, match="row 1: expected an expression by name or an index below 1, not 1"):
        list(read_parquet(file, "train", ["neutral"]))
    with pytest.raises(DataError, match=r"labels given for .* must be classes: .* not 'bored'"):
        list(read_parquet(file, "train", ["neutral", "bored"]))


def test_read_parquet_of_affect(tmp_path: Path) -> None:
    columns = {"valence": [0.5, None, float("nan"), -1], "arousal": [0.25, 0.5, 0.5, 1]}
    file = write(tmp_path / "x.parquet", image=images(*[b"a"] * 4), **columns)
    assert [sample.valence_arousal for sample in read_parquet(file, "validation")] == [(0.5, 0.25), (-1, 1)]
    file = write(tmp_path / "y.parquet", image=images(*[b"a"] * 4), expression=["Fear"] * 4, subject=[7, 7, None, "8"][:2] * 2, **columns)
    samples = list(read_parquet(file, "validation"))
    assert [sample.valence_arousal for sample in samples] == [(0.5, 0.25), None, None, (-1, 1)]
    assert {(sample.expression, sample.group, sample.split) for sample in samples} == {(3, "7", "validation")}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("expression", ["sad"] * 2 + ["bored"], "one of the expressions Anger"),
        ("valence", [0.0, 0.0, 1.5], "valence and arousal from -1 to 1, not 1.5 and 0.0"),
        ("valence", ["0"] * 3, "numbers for valence and arousal, not '0' and 0.0"),
        ("image", [{"bytes": b"a", "path": None}] * 2 + [{"bytes": None, "path": None}], "an image with bytes or a path"),
        ("image", [{"bytes": b"a", "path": None}] * 2 + [{"bytes": None, "path": "../x.jpg"}], "the path of a picture inside"),
    ],
)
def test_read_parquet_names_a_wrong_row(tmp_path: Path, column: str, value: list[object], expected: str) -> None:
    columns = {"image": images(b"a", b"b", b"c"), "expression": ["sad"] * 3, "valence": [0.0] * 3, "arousal": [0.0] * 3}
    file = write(tmp_path / "x.parquet", **(columns | {column: value}))
    number = 1 if column == "valence" and value[0] == "0" else 3
    with pytest.raises(DataError, match=re.escape(f"{file}, row {number}: expected {expected}")):
        list(read_parquet(file, "train"))


def test_read_parquet_refuses_other_tables(tmp_path: Path) -> None:
    for columns in ({"image": images(b"a")}, {"expression": ["sad"]}, {"image": images(b"a"), "valence": [0.0]}):
        with pytest.raises(DataError, match=r"has the columns .*; expected image, and expression or valence and arousal"):
            list(read_parquet(write(tmp_path / "x.parquet", **columns), "train"))
    (tmp_path / "y.parquet").write_bytes(b"nothing")
    for name in ("y.parquet", "z.parquet"):
        with pytest.raises(DataError, match=rf"{name} is not a usable Parquet file"):
            list(read_parquet(tmp_path / name, "train"))
