from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from error_codes import raises_code
from training_makers import RECIPE, encoded, pictures

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import TEST, TRAINING, TUNING, FaceImages, _targets, fold_of, open_images
from hsemotion_space.training.files import DataError
from hsemotion_space.training.pictures import blacked_out, cut_face, open_picture
from hsemotion_space.training.recipe import Source
from hsemotion_space.training.sources import VoteRegression, fit_votes, load_sources


def votes(**counts: float) -> dict[str, object]:
    names = dict.fromkeys((f"votes_{name.lower()}" for name in EXPRESSION.label_names), 0)
    return names | {f"votes_{name}": count for name, count in counts.items()}


@pytest.mark.parametrize(
    ("row", "shares", "sure"),
    [
        (votes(fear=6, surprise=4), {"Fear": 0.6, "Surprise": 0.4}, True),
        (votes(fear=5, surprise=4), {"Fear": 5 / 9, "Surprise": 4 / 9}, False),
        (votes(fear=6, surprise=6), {"Fear": 0.5, "Surprise": 0.5}, False),
        (votes(fear=4, unknown=4), {}, None),
        (votes(fear=4, nf=5), {}, None),
        (votes(), {}, None),
        ({"expression": "contempt"}, {"Contempt": 1}, True),
        ({"category": "Happy"}, {"Happiness": 1}, True),
        ({"category": "Sadly fearful"}, {"Fear": 0.5, "Sadness": 0.5}, False),
        ({"category": "bored"}, {}, None),
        ({"category": "Happily bored"}, {}, None),
    ],
)
def test_targets_of_votes_and_names(
    row: dict[str, object], shares: dict[str, float], sure: bool | None
) -> None:
    target, found = _targets(row) or (np.zeros(8), None)
    expected = [shares.get(name, 0) for name in EXPRESSION.label_names]
    assert (target.tolist(), found) == (pytest.approx(expected), sure)


def test_blacked_out_finds_the_background_and_nothing_else() -> None:
    ys, xs = np.mgrid[:80, :80]
    oval = ((xs - 40) / 30) ** 2 + ((ys - 40) / 36) ** 2 < 1
    pixels = np.where(oval[:, :, None], 150, 3).astype(np.uint8)
    pixels[30:40, 30:36] = 0  # a pupil
    mask = blacked_out(pixels)
    assert mask[~oval].all()
    assert not mask[30:40, 30:36].any()
    assert mask[oval].mean() < 0.15  # the seam
    dark_corner = np.full((80, 80, 3), 150, np.uint8)
    dark_corner[:15, :15] = 0
    assert not blacked_out(dark_corner).any()
    assert not blacked_out(np.full((80, 80, 3), 11, np.uint8)).any()


def test_load_sources_of_names_and_votes(sources: list[FaceImages]) -> None:
    named, voted = sources
    assert (named.images.shape, named.images.dtype, len(named)) == ((80, 36, 36, 4), np.uint8, 80)
    assert named.expression.argmax(1).tolist() == [number % 8 for number in range(80)]
    assert np.isnan(named.valence_arousal).all()
    assert named.counted.all()
    np.testing.assert_allclose(voted.expression.sum(1), 1, rtol=1e-5)
    assert not voted.counted.all()
    truth = np.linspace(-0.8, 0.8, 8)
    affect = np.stack([voted.expression @ truth, voted.expression @ truth[::-1]], 1)
    np.testing.assert_allclose(voted.valence_arousal, affect, atol=1e-4)


def test_open_images_splits_by_content(data: Path, sources: list[FaceImages], tmp_path: Path) -> None:
    assert fold_of(b"face") == 0x0282D9B79F42C74C / 2**64
    assert 0.02 < np.mean([fold_of(str(number).encode()) < 0.1 for number in range(1000)]) < 0.18
    table = pq.read_table(data / "a.parquet")
    folds = np.array([fold_of(image["bytes"]) for image in table["image"].to_pylist()])
    split = sources[0].split
    assert (split == np.where(folds < 0.1, TEST, np.where(folds < 0.1 + 0.2, TUNING, TRAINING))).all()
    assert [len(sources[0].rows(side)) for side in (TRAINING, TUNING, TEST)] == np.bincount(split).tolist()
    pq.write_table(table.take(list(range(79, -1, -1))), tmp_path / "reversed.parquet")
    again = open_images("r", [tmp_path / "reversed.parquet"], 16, tuning=0.2)
    assert again.split.tolist() == split.tolist()[::-1]
    subjects = table.append_column("subject", pa.array([f"s{number // 8}" for number in range(80)]))
    pq.write_table(subjects, tmp_path / "subjects.parquet")
    split = open_images("s", [tmp_path / "subjects.parquet"], 16, tuning=0.4).split.reshape(10, 8)
    assert (split == split[:, :1]).all()
    assert set(split[:, 0]) >= {TRAINING, TUNING}


def test_open_images_takes_a_validation_file_as_test(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "a.parquet")
    files = [tmp_path / "a-train.parquet", tmp_path / "a-validation.parquet"]
    pq.write_table(table.slice(0, 60), files[0])
    pq.write_table(table.slice(60, 20), files[1])
    folds = np.array([fold_of(image["bytes"]) for image in table["image"].to_pylist()])
    split = open_images("a", files, 16, tuning=0.3).split
    assert (split[:60] == np.where(folds[:60] < 0.3, TUNING, TRAINING)).all()
    assert (split[60:] == TEST).all()
    assert (split[:60] == TUNING).any()


def test_open_images_cuts_boxes_as_squares_or_squashed(tmp_path: Path) -> None:
    pixels = np.full((60, 60, 3), 200, np.uint8)
    pixels[20:40, 25:35] = (0, 0, 255)
    rows = {
        "image": [{"bytes": encoded(pixels)}],
        "category": ["Neutral"],
        "face_box": [[25 / 60, 20 / 60, 35 / 60, 40 / 60]],
    }
    pq.write_table(pa.table(rows), tmp_path / "boxes.parquet")
    square, box = (
        open_images("boxes", [tmp_path / "boxes.parquet"], 20, crop=crop).images[np.array([0])][0]
        for crop in ("square", "box")
    )
    assert (box == (0, 0, 255, 255)).all()
    assert (square[:, 5:15] == (0, 0, 255, 255)).all()
    assert (square[:, [*range(5), *range(15, 20)]] == (200, 200, 200, 255)).all()
    picture = open_picture(encoded(pixels))
    beyond = cut_face(picture, (-10.0, 20.0, 60.0, 200.0), 60, "box")
    assert (beyond == np.asarray(picture.crop((0, 20, 60, 60)).resize((60, 60), 2).convert("RGBA"))).all()


def test_open_images_names_a_damaged_picture(tmp_path: Path) -> None:
    good = pictures(3, 0)
    file = tmp_path / "faces.parquet"
    for content, code in (
        (good[1][: len(good[1]) // 2], "picture"), (b"no picture", "picture"), (b"", "picture"), (None, "no_picture"),
    ):  # fmt: skip
        images = [{"bytes": data} for data in (good[0], good[1], content, good[2])]
        pq.write_table(pa.table({"image": images, "expression": ["Fear"] * 4}), file)
        with raises_code(DataError, code, place=f"{file}, row 3"):
            faces = open_images("x", [file], 16)
            faces.images[np.arange(len(faces))]
    for box in ([0.5, 0.5, 0.5, 0.5], [0.1, 0.2], [0.1, None, 0.5, 0.5]):
        pq.write_table(
            pa.table({"image": [{"bytes": good[0]}], "expression": ["Fear"], "face_box": [box]}), file
        )
        with raises_code(DataError, "face_box", place=f"{file}, row 1"):
            faces = open_images("x", [file], 16)
            faces.images[np.arange(len(faces))]


def test_open_images_refuses_unusable_data(data: Path, tmp_path: Path) -> None:
    text, unlabeled = tmp_path / "text.parquet", tmp_path / "unlabeled.parquet"
    text.write_text("no")
    pq.write_table(pa.table({"image": [{"bytes": b""}], "expression": ["bored"]}), unlabeled)
    unusable = {"no_label": unlabeled, "unreadable": data / "c.parquet", "unusable": text}
    for code, file in unusable.items():
        with raises_code(DataError, code):
            open_images("x", [file], 16)
    with raises_code(DataError, "no_label"):
        open_images("x", [], 16)


def test_load_sources_needs_rows_of_every_split(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "a.parquet").slice(0, 3)
    pq.write_table(table, tmp_path / "a-validation.parquet")
    with raises_code(DataError, "empty_split"):
        load_sources(replace(RECIPE, sources=(Source("a", ("*.parquet",), 1.0),), votes=""), tmp_path)


def test_fit_votes_out_of_sample(data: Path, tmp_path: Path) -> None:
    result: VoteRegression = fit_votes(data / "votes.csv")
    np.testing.assert_allclose(result.coefficients[:, 0], np.linspace(-0.8, 0.8, 8), atol=1e-5)
    assert result.ccc_out_of_sample == pytest.approx((1, 1))
    (tmp_path / "short.csv").write_text("set,votes_anger\na,1\nb,2\n")
    with raises_code(DataError, "votes"):
        fit_votes(tmp_path / "short.csv")
