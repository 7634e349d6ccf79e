"""Held-out figures, and the checkpoint folder that a run is written into."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from error_codes import raises_code
from safetensors.torch import load_file
from torch import Tensor, nn
from training_makers import RECIPE, same

from hsemotion_space.training import run as runs
from hsemotion_space.training.data import TEST, TUNING, FaceImages
from hsemotion_space.training.evaluate import evaluate_expression, predict_scores, score_expression
from hsemotion_space.training.files import DataError
from hsemotion_space.training.pictures import LazyPictures, Picture
from hsemotion_space.training.run import export_run, train
from hsemotion_space.training.sources import load_sources
from hsemotion_space.training.train import Trainer

TOML = """arch = "test_byobnet"
size = 32
votes = "votes.csv"
steps = 4
steps_per_epoch = 2
batch = 8
choose = "best"
ema = 0
compile = false
bfloat16 = false
init = "start.pt"
[[sources]]
name = "a"
files = ["a.parquet"]
share = 0.75
tuning = 0.2
[[sources]]
name = "b"
files = ["b.parquet"]
share = 0.25
tuning = 0.2
"""


class Brightness(nn.Module):
    """The brightness of each channel, as scores of three classes."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), torch.zeros(len(x), 7)], 1)


def test_scores_are_compared_over_the_classes_that_are_there() -> None:
    targets = np.eye(8, dtype=np.float32)[[0, 0, 2, 2]]
    scores = np.zeros((4, 10), np.float32)
    scores[:, 1] = 9  # Contempt, which no target has
    scores[[0, 2, 3], [0, 2, 0]] = 5
    scores[1, 2] = 5
    result = score_expression(scores, targets)
    assert (result.count, result.accuracy, result.macro_f1) == (4, 0.5, 0.5)
    assert result.recall == {"Anger": 0.5, "Disgust": 0.5}
    assert result.confusion[0][:3] == [1, 0, 1]


@pytest.mark.parametrize("split", [TUNING, TEST])
def test_evaluation_takes_the_counted_rows_of_a_split(sources: list[FaceImages], split: int) -> None:
    voted = sources[1]
    rows = [row for row in range(len(voted)) if voted.split[row] == split and voted.counted[row]]
    result = evaluate_expression(Brightness(), voted, RECIPE, split)
    assert result.count == len(rows)
    counts = np.bincount(voted.expression[rows].argmax(1), minlength=8)
    assert np.sum(result.confusion, 1).tolist() == counts.tolist()


def test_networks_are_fed_alike_from_memory_and_from_files(sources: list[FaceImages], data: Path) -> None:
    images = pq.read_table(data / "a.parquet")["image"].to_pylist()
    content = [Picture(image["bytes"], None, "x") for image in images]
    stored = replace(sources[0], images=LazyPictures(content, 36, "box"))
    opaque = np.flatnonzero((sources[0].images[np.arange(80)][..., 3] == 255).all((1, 2)))
    assert len(opaque) > 40
    options = replace(RECIPE, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    first, second = (predict_scores(Brightness(), faces, opaque, options) for faces in (sources[0], stored))
    assert (first == second).all()
    plain = predict_scores(Brightness(), sources[0], opaque, replace(RECIPE, mean=0.0, std=1.0))
    np.testing.assert_allclose(first[:, :3], (plain[:, :3] - (0.1, 0.2, 0.3)) / (0.5, 0.25, 1.0), atol=1e-5)


def test_a_recipe_is_trained_and_written_out(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = tmp_path / "starter", tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.toml").write_text(TOML)
    with raises_code(DataError, "no_run"):
        export_run(folder / "recipe.toml", data, run, folder)
    sources = load_sources(RECIPE, data)[0]
    start = Trainer(replace(RECIPE, seed=9), sources, tmp_path / "other").model.state_dict()
    torch.save(start, data / "start.pt")
    assert train(folder / "recipe.toml", data, run, None) is True
    assert f"Start: {len(start)} tensors of start.pt; random: none" in capsys.readouterr().out
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 6}\n')  # of a process that was killed before it saved
    export_run(folder / "recipe.toml", data, run, folder)
    said = capsys.readouterr().out

    record = json.loads((folder / "training.json").read_text())
    content = (folder / "model.safetensors").read_bytes()
    assert record["weights_sha256"] == hashlib.sha256(content).hexdigest() in said
    assert record["start"]["sha256"] == hashlib.sha256((data / "start.pt").read_bytes()).hexdigest()
    assert [epoch["step"] for epoch in record["epochs"]] == [2, 4]
    assert record["chosen"]["step"] in (2, 4)
    counts = [[len(source.rows(split)) for split in (0, 1, 2)] for source in sources]
    assert [[row["training"], row["tuning"], row["test"]] for row in record["data"]] == counts
    best = torch.load(run / "best.pt", weights_only=True)["average"]
    weights = load_file(folder / "model.safetensors")
    halves = {key: value.half() if value.is_floating_point() else value for key, value in best.items()}
    assert same(weights, halves)
    for name, source in zip("ab", sources, strict=True):
        assert record["evaluation"][name]["count"] == len(source.rows(TEST, counted=True))


def test_masked_faces_are_scored_before_three_backgrounds(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "starter"
    folder.mkdir()
    (folder / "recipe.toml").write_text(TOML.replace('init = "start.pt"\n', ""))
    first, second = load_sources(RECIPE, data)[0]
    masked = np.array(first.images)
    masked[:, :10, :, 3] = 0
    sources = [replace(first, images=masked), second]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "load_sources", lambda *_: (sources, None))
        train(folder / "recipe.toml", data, tmp_path / "run", None)
        export_run(folder / "recipe.toml", data, tmp_path / "run", folder)
    evaluation = json.loads((folder / "training.json").read_text())["evaluation"]
    assert list(evaluation) == ["a, black background", "a, gray background", "a, white background", "b"]
