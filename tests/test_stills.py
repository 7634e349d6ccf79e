"""Heads from posed pictures, and a starter made from the first step to the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoint_makers import make_checkpoint, manifest_text
from error_codes import raises_code
from safetensors.torch import load_file
from training_makers import encoded, write_data

from hsemotion_space.cli import main
from hsemotion_space.hub.manifest import read_manifest
from hsemotion_space.hub.weights import load_heads
from hsemotion_space.tasks import ACTION_UNITS, COMPOUND_EXPRESSION
from hsemotion_space.training import confidence
from hsemotion_space.training.data import TEST, TRAINING, TUNING
from hsemotion_space.training.files import DataError
from hsemotion_space.training.posed import Embedder, load_posed, series_of, train_posed_heads
from hsemotion_space.vision.backbones import Backbone, create_model, load_backbone

CATEGORIES = ["Neutral", "Happy", *COMPOUND_EXPRESSION.label_names]
RECIPE = """
arch = "test_byobnet"
size = 32
votes = "votes.csv"
steps = 4
steps_per_epoch = 2
batch = 8
compile = false
bfloat16 = false
[[sources]]
name = "a"
files = ["a.parquet"]
share = 0.7
tuning = 0.2
[[sources]]
name = "b"
files = ["b.parquet"]
share = 0.3
tuning = 0.2
"""


def write_posed(file: Path, subjects: int = 80) -> None:
    """Write pictures whose 4 x 3 cells are bright where a unit is present; every category has its own units,
    as in FACS."""
    rng = np.random.default_rng(0)
    patterns = {name: rng.permutation(12) < 4 for name in CATEGORIES}
    rows = []
    for subject in range(subjects):
        for name in rng.choice(CATEGORIES, 6, replace=False):
            units = patterns[name] ^ (rng.random(12) < 0.05)
            cells = np.kron(units.reshape(4, 3), np.ones((9, 12))) * 120 + 60 + rng.normal(0, 8, (36, 36))
            picture = np.full((72, 72, 3), 40, np.uint8)
            picture[18:54, 18:54] = cells[..., None].clip(0, 255)
            rows.append({
                "image": {"bytes": encoded(picture)}, "subject": subject, "category": name, "face_box": [0.25, 0.25, 0.75, 0.75],
                **{unit: int(present) for unit, present in zip(ACTION_UNITS.label_names, units, strict=True)},
            })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("posed") / "posed.parquet"
    write_posed(file)
    return file


def test_posed_pictures_are_cut_to_the_face_and_split_by_person(posed: Path) -> None:
    faces = load_posed([posed], 36)
    assert faces.images.shape == (480, 36, 36, 4)
    assert faces.images[..., :3].min() >= 20  # nothing black from outside the picture
    assert abs(float(faces.images[..., :3].mean()) - 100) < 15  # the cells, not the plain border of 40
    for subject in set(faces.subjects):
        assert (
            len(
                {
                    int(split)
                    for name, split in zip(faces.subjects, faces.split, strict=True)
                    if name == subject
                }
            )
            == 1
        )
    counts = [int((faces.split == split).sum()) for split in (TRAINING, TUNING, TEST)]
    assert counts[0] > 4 * max(counts[1:])
    assert min(counts[1:]) > 0
    labeled = faces.rows(COMPOUND_EXPRESSION, TRAINING)
    assert 0 < len(labeled) < counts[0]
    assert faces.compound[labeled].min() == 0
    assert set(np.unique(faces.units)) == {0, 1}


def test_a_file_without_units_is_told_by_its_row(tmp_path: Path) -> None:
    row = {
        "image": {"bytes": encoded(np.zeros((8, 8, 3), np.uint8))},
        "subject": 1,
        "category": "Happy",
        "face_box": [0.0, 0.0, 1.0, 1.0],
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    with raises_code(DataError, "posed", file=f"{tmp_path / 'p.parquet'}, row 1"):
        load_posed([tmp_path / "p.parquet"], 16)
    with raises_code(DataError, "no_posed"):
        load_posed([], 16)


def test_series_are_by_person_and_keep_rows_and_values_together(posed: Path) -> None:
    faces = load_posed([posed], 8)
    rows = faces.rows(ACTION_UNITS, TEST)
    made = series_of(faces, rows, faces.units)
    assert {series.video for series in made} == {faces.subjects[row] for row in rows}
    for series in made:
        assert np.array_equal(series.values, faces.units[series.frames - 1])
        assert {faces.subjects[row - 1] for row in series.frames} == {series.video}


def test_heads_learn_units_and_compounds_that_are_visible(posed: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "small", size=32, settled=True)
    state = load_file(checkpoint.folder / "model.safetensors")
    embed = Embedder(
        checkpoint,
        load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state),
    )
    units, compound = train_posed_heads(load_posed([posed], 36), embed)
    assert units.score.value > 0.8
    assert compound.score.value > 0.8
    assert compound.rule is not None
    assert compound.rule.value < 0.4, "random scores know nothing"
    assert units.rule is None
    assert len(units.attachment.thresholds) == 12
    assert compound.attachment.thresholds == ()
    assert units.score.ece < 0.1
    assert compound.score.frames_labeled == compound.rule.frames_labeled


def posed_tuning(posed: Path) -> list[int]:
    return load_posed([posed], 8).rows(COMPOUND_EXPRESSION, TUNING).tolist()


def test_a_starter_from_the_recipe_to_the_card(
    posed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confidence, "MIN_FACES", 1)
    data, folder = tmp_path / "data", tmp_path / "tiny"
    data.mkdir()
    folder.mkdir()
    write_data(data)
    (data / "posed.parquet").write_bytes(posed.read_bytes())
    (folder / "recipe.toml").write_text(RECIPE, "utf-8")
    dim = Backbone(create_model("test_byobnet", 10)).dim
    (folder / "manifest.toml").write_text(manifest_text("tiny", "0" * 64, "test_byobnet", 32, dim), "utf-8")
    common = [str(folder / "recipe.toml"), "--data", str(data)]
    run, checkpoint = ["--run", str(tmp_path / "run")], ["--checkpoint", str(folder)]
    assert main(["learn", "finish", *common, *checkpoint, "--posed", "posed.parquet"]) == 2
    assert "run `hsemotion-space learn export` first" in capsys.readouterr().err
    assert main(["learn", "backbone", *common, *run]) == 0
    assert main(["learn", "export", *common, *run, *checkpoint]) == 0
    assert main(["learn", "finish", *common, *checkpoint, "--posed", "posed.parquet"]) == 0
    made = read_manifest(folder)
    record = json.loads((folder / "training.json").read_text("utf-8"))
    assert [(head.task.name, head.kind, head.provenance) for head in made.heads] == [
        ("expression", "scores", "trained"), ("valence_arousal", "scores", "trained"), ("action_units", "mlp", "trained"),
        ("compound_expression", "mlp", "trained"),
    ]  # fmt: skip
    assert made.heads[0].temperature == record["expression_calibration"]["temperature"] != 1.0
    assert load_heads(made).keys() == {"compound_expression", "action_units"}
    units = record["heads"]["action_units"]
    assert tuple(units["thresholds"]) == made.heads[2].thresholds
    assert f"Mean F1 {units['trained']['value']:.2f}" in made.heads[2].note
    counts = np.array(record["expression_calibration"]["tuning_confusion"])
    assert made.heads[0].reliability.answers == tuple(counts.sum(0)) and made.heads[
        0
    ].reliability.right == tuple(np.diag(counts))
    assert (
        made.heads[3].least_support
        == record["support"]["compound_expression"]["least"]
        > 0
        == made.heads[2].least_support
    )
    assert made.least_length == record["faces"]["least_length"] > 0 and set(record["faces"]["test"]) == {
        "a",
        "b",
    }
    kinds = record["support"]["compound_expression"]["stands_out"]
    assert (
        kinds["tuning"]["posed, one of the labels"]["pictures"] == len(posed_tuning(posed))
        and "a, Anger" in kinds["test"]
    )
    assert made.heads[0].reliability.pictures == "tuning pictures of a, b"
    assert len(made.heads[2].reliability.answers) == 12 and sum(made.heads[3].reliability.answers) == len(
        posed_tuning(posed)
    )
    card = (folder / "README.md").read_text("utf-8")
    low, high = units["trained"]["interval"]
    assert f"{units['trained']['value']:.3f} ({low:.3f} to {high:.3f})" in card
    assert "random weights" in card
    assert "Contempt is almost absent" not in card, "that is about other data"
    assert f"| F1 of AU23 ({units['trained']['per_label']['AU23']['support']} pictures)" in card
    assert main(["learn", "export", *common, *run, *checkpoint]) == 0  # the same weights: the heads stay
    assert load_heads(read_manifest(folder)).keys() == {"compound_expression", "action_units"}
    capsys.readouterr()
    (folder / "recipe.toml").write_text("seed = 1\n" + RECIPE, "utf-8")
    assert main(["learn", "backbone", *common, "--run", str(tmp_path / "other")]) == 0
    assert main(["learn", "export", *common, "--run", str(tmp_path / "other"), *checkpoint]) == 0
    assert "Removed heads of other weights: action_units, compound_expression" in capsys.readouterr().out
    changed = read_manifest(folder)
    assert [(head.task.name, head.temperature) for head in changed.heads] == [
        ("expression", 1.0),
        ("valence_arousal", 1.0),
    ]
    assert changed.heads_sha256 == ""
    assert not (folder / "heads.safetensors").exists()
    (folder / "recipe.toml").write_text(RECIPE.replace("size = 32", "size = 64"), "utf-8")
    before = (folder / "model.safetensors").read_bytes()
    assert main(["learn", "export", *common, "--run", str(tmp_path / "other"), *checkpoint]) == 2
    assert "belongs to test_byobnet at 32 px, the recipe to test_byobnet at 64 px" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before
