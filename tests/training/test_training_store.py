from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from training_makers import RECIPE, encoded, pictures

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.batches import BatchMaker
from hsemotion_space.training.data import TEST, TRAINING, TUNING, faces_from_samples, fold_of
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.samples import FaceSample
from hsemotion_space.training.pictures import LazyPictures, Picture
from hsemotion_space.training.recipe import Source
from hsemotion_space.training.sources import load_sources


def sample(image: Path | bytes, number: int, **changes: object) -> FaceSample:
    split = "validation" if number % 4 == 0 else "train"
    plain = FaceSample(image, None, number % 8, (number % 5 / 5, -0.25), split, f"s{number // 2}")
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def samples(tmp_path: Path) -> list[FaceSample]:
    files = [tmp_path / f"{number}.png" for number in range(40)]
    for file, content in zip(files, pictures(40, 5), strict=True):
        file.write_bytes(content)
    return [sample(file, number) for number, file in enumerate(files)]


def test_faces_from_samples_with_labels_and_splits(samples: list[FaceSample]) -> None:
    samples[3] = replace(samples[3], expression=None)
    samples[5] = replace(samples[5], valence_arousal=None)
    samples[6] = replace(samples[6], expression=None, valence_arousal=None)
    faces = faces_from_samples("x", iter(samples), 20, 0.3)
    kept = [*range(6), *range(7, 40)]
    assert (len(faces), len(faces.images)) == (39, 39)
    # a row of NaN, then the rest
    assert faces.expression.argmax(1)[3:].tolist() == [0, *[number % 8 for number in kept[4:]]]
    assert np.isnan(faces.expression[3]).all()
    assert faces.counted.tolist() == [number != 3 for number in kept]
    assert np.isnan(faces.valence_arousal).any(1).tolist() == [number == 5 for number in kept]
    assert faces.valence_arousal[1].tolist() == pytest.approx([0.2, -0.25])
    folds = [fold_of(f"s{number // 2}".encode()) for number in kept]
    expected = [
        TEST if number % 4 == 0 else TUNING if fold < 0.3 else TRAINING
        for number, fold in zip(kept, folds, strict=True)
    ]
    assert faces.split.tolist() == expected
    assert {TRAINING, TUNING, TEST} == set(expected)


def test_faces_from_samples_without_a_validation_part(samples: list[FaceSample]) -> None:
    unsplit = [replace(item, split="train", group=str(number)) for number, item in enumerate(samples)]
    folds = np.array([fold_of(item.group.encode()) for item in unsplit])
    split = faces_from_samples("x", unsplit, 20, 0.2).split
    assert (split == np.where(folds < 0.1, TEST, np.where(folds < 0.1 + 0.2, TUNING, TRAINING))).all()
    assert (split == TEST).any()


def test_faces_from_samples_digest(samples: list[FaceSample]) -> None:
    first = faces_from_samples("x", samples, 20, 0.2).sha256
    assert faces_from_samples("x", samples, 24, 0.4).sha256 == first
    affect, box = {"valence_arousal": (0.0, 0.5)}, {"face_box_xyxy": (0.0, 0.0, 9.0, 9.0)}
    for change in ({"expression": 7}, affect, box, {"image": b"x"}):
        assert faces_from_samples("x", [replace(samples[0], **change), *samples[1:]], 20, 0.2).sha256 != first


def test_lazy_pictures_decode_when_indexed(tmp_path: Path) -> None:
    file, pixels = tmp_path / "a.png", np.zeros((40, 80, 3), np.uint8)
    pixels[10:30, 20:40] = (0, 0, 255)
    boxes = (file, (20.0, 10.0, 40.0, 30.0)), (encoded(pixels), None), (file, (20.0, 10.0, 80.0, 30.0))
    store = LazyPictures([Picture(content, box, "x") for content, box in boxes], 20, "box")
    file.write_bytes(encoded(pixels))  # after the store was made
    images = store[np.array([2, 0, 0, 1])]
    assert (images.shape, images.dtype, len(store)) == ((4, 20, 20, 4), np.uint8, 3)
    assert (images[1] == (0, 0, 255, 255)).all()
    assert (images[1] == images[2]).all()
    assert (images[0][:, :6] == (0, 0, 255, 255)).all()  # a third of a wide box that was squashed
    assert (images[0][:, 8:, 2] == 0).all()
    assert (images[..., 3] == 255).all()  # black is not taken for a cut-out background
    assert store[np.zeros(0, np.int64)].shape == (0, 20, 20, 4)


def test_lazy_pictures_name_a_damaged_file(samples: list[FaceSample], tmp_path: Path) -> None:
    faces = faces_from_samples("x", samples, 20, 0.2)
    (tmp_path / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with raises_code(DataError, "picture", place=tmp_path / "7.png"):
        faces.images[np.array([3, 7])]
    (tmp_path / "9.png").unlink()
    with raises_code(DataError, "unreadable", place=tmp_path / "9.png"):
        faces.images[np.array([9])]
    with raises_code(DataError, "unreadable", file=tmp_path / "9.png"):
        faces_from_samples("x", samples, 20, 0.2)
    encoded_and_none = encoded(np.zeros((4, 4, 3), np.uint8)), b""
    pair = [replace(samples[0], image=image) for image in encoded_and_none]
    with raises_code(DataError, "picture", place="picture 2"):
        faces_from_samples("x", pair, 8, 0.2).images[np.arange(2)]
    outside = Picture(tmp_path / "1.png", (90.0, 90.0, 99.0, 99.0), "1.png")
    with raises_code(DataError, "face_box", place="1.png"):
        LazyPictures([outside], 8, "box")[np.array([0])]
    with raises_code(DataError, "no_label"):
        faces_from_samples("x", [replace(samples[0], expression=None, valence_arousal=None)], 20, 0.2)


def classes(folder: Path) -> Iterator[tuple[Path, str]]:
    """Write pictures into class folders and yield them."""
    for number, content in enumerate(pictures(48, 3)):
        name = EXPRESSION.label_names[number % 8]
        place = folder / ("val" if number % 3 == 0 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(content)
        yield place / f"{number}.png", name


def test_load_sources_of_a_folder(tmp_path: Path) -> None:
    written = dict(classes(tmp_path / "faces"))
    recipe = replace(RECIPE, sources=(Source("f", ("faces",), 1.0, tuning=0.3, format="folder"),), votes="")
    faces = load_sources(recipe, tmp_path)[0][0]
    assert len(faces) == len(written)
    assert len(faces.rows(TEST)) == 16
    images, expression, affect, _ = BatchMaker(recipe, [faces])(0)
    assert images.shape == (8, 3, 32, 32)
    assert expression.sum(1).tolist() == [1] * 8
    assert affect.isnan().all()


def test_load_sources_of_an_affectnet_table(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 20:60] = (200, 0, 0)
    for number in range(38):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encoded(pixels))
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    rows = [f"{number}.png,20,10,40,20,1;2,{number % 8},0.5,-0.5" for number in range(38)]
    (tmp_path / "training.csv").write_text("\n".join([header, *rows[:30]]))
    (tmp_path / "validation.csv").write_text("\n".join(rows[30:]))
    source = Source(
        "affectnet", ("*.csv",), 1.0, tuning=0.4, format="affectnet-csv", crop="box", images="pictures"
    )
    faces = load_sources(replace(RECIPE, sources=(source,), votes=""), tmp_path)[0][0]
    assert (faces.images[np.array([0, 37])] == (200, 0, 0, 255)).all()
    folds = [fold_of(f"{number}.png".encode()) for number in range(30)]
    assert faces.split.tolist() == [TUNING if fold < 0.4 else TRAINING for fold in folds] + [TEST] * 8
    assert faces.expression.argmax(1)[0] == EXPRESSION.index("Neutral")
    assert (faces.valence_arousal == (0.5, -0.5)).all()
    alone = replace(source, files=("training.csv",), tuning=0.0)
    with raises_code(DataError, "empty_split"):
        load_sources(replace(RECIPE, sources=(alone,), votes=""), tmp_path)


def test_load_sources_of_affectnet_2021(tmp_path: Path) -> None:
    for number, content in enumerate(pictures(24, 9)):
        part = tmp_path / "affectnet" / ("val_set" if number % 3 == 0 else "train_set")
        for folder in ("images", "annotations"):
            (part / folder).mkdir(parents=True, exist_ok=True)
        (part / "images" / f"{number}.png").write_bytes(content)
        for kind, value in (("exp", number % 8), ("val", 0.1), ("aro", -2.0 if number == 1 else 0.2)):
            np.save(part / "annotations" / f"{number}_{kind}.npy", np.array(str(value)))
    source = Source("affectnet", ("affectnet",), 1.0, tuning=0.5, format="affectnet-2021")
    faces = load_sources(replace(RECIPE, sources=(source,), votes=""), tmp_path)[0][0]
    assert (len(faces), len(faces.rows(TEST))) == (24, 8)
    assert np.isnan(faces.valence_arousal).any(1).sum() == 1
    assert np.nanmax(faces.valence_arousal[:, 0]) == pytest.approx(0.1)
    assert faces.images[np.array([0])].shape == (1, 36, 36, 4)
    assert faces.expression.sum(1).tolist() == [1] * 24


def test_load_sources_of_no_files(tmp_path: Path) -> None:
    for pattern, code in (("none-*.parquet", "no_files"), ("/none", "pattern")):
        with raises_code(DataError, code):
            load_sources(replace(RECIPE, sources=(Source("a", (pattern,), 1.0),), votes=""), tmp_path)
