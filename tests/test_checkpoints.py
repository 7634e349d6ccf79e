"""Every checkpoint of the project against its own manifest, card and training record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load

from hsemotion_space.hub.compare import comparison
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.registry import list_checkpoints, read_registry
from hsemotion_space.hub.weights import load_heads, resolve
from hsemotion_space.inference.network import load_network
from hsemotion_space.vision.backbones import load_backbone
from hsemotion_space.vision.engine import EngineOptions, normalize

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
CHECKPOINTS = list_checkpoints([ROOT])
BUNDLED = [checkpoint for checkpoint in CHECKPOINTS if checkpoint.source.bundled]


def test_no_manifest_is_wrong() -> None:
    assert not read_registry([ROOT]).faults


def test_something_is_bundled() -> None:
    assert BUNDLED
    assert len({checkpoint.sha256 for checkpoint in BUNDLED}) == len(BUNDLED)


@pytest.mark.parametrize("checkpoint", BUNDLED, ids=lambda checkpoint: checkpoint.id)
def test_weights_fit_the_manifest(checkpoint: Checkpoint) -> None:
    state = load(resolve(checkpoint, ROOT))
    assert checkpoint.weights_bytes < 10_000_000
    backbone = load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == checkpoint.parameters


@pytest.mark.parametrize("checkpoint", BUNDLED, ids=lambda checkpoint: checkpoint.id)
def test_engines_agree_on_real_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, checkpoint.input.size, checkpoint.input.size, 3), dtype=np.uint8)
    batch = normalize(faces, checkpoint.input.mean, checkpoint.input.std)
    outputs = [
        load_network(checkpoint, EngineOptions(name, tmp_path)).run(batch) for name in ("torch", "openvino")
    ]
    for torch_values, openvino_values in zip(*outputs, strict=True):
        np.testing.assert_allclose(openvino_values, torch_values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpoint", BUNDLED, ids=lambda checkpoint: checkpoint.id)
def test_training_record_belongs_to_the_weights(checkpoint: Checkpoint) -> None:
    record = json.loads((checkpoint.folder / "training.json").read_text("utf-8"))
    assert record["weights_sha256"] == checkpoint.sha256
    assert record["parameters"] == checkpoint.parameters
    assert record["recipe"]["size"] == checkpoint.input.size
    assert record["recipe"]["arch"] == checkpoint.arch
    assert record["epochs"][-1]["step"] == record["steps"]


@pytest.mark.parametrize("checkpoint", BUNDLED, ids=lambda checkpoint: checkpoint.id)
def test_card_quotes_the_record(checkpoint: Checkpoint) -> None:
    card = (checkpoint.folder / "README.md").read_text("utf-8")
    record = json.loads((checkpoint.folder / "training.json").read_text("utf-8"))
    assert card.startswith("---\n")
    assert "proxy" in card
    assert "research" in card.lower()
    for name, result in record["evaluation"].items():
        assert f"{result['accuracy']:.1%}" in card, name
        for label, recall in result["recall"].items():
            assert f"{recall:.0%}" in card, (name, label)


@pytest.mark.parametrize("checkpoint", BUNDLED, ids=lambda checkpoint: checkpoint.id)
def test_notes_and_card_hold_the_figures_of_the_record(checkpoint: Checkpoint) -> None:
    record = json.loads((checkpoint.folder / "training.json").read_text("utf-8"))
    card = (checkpoint.folder / "README.md").read_text("utf-8")
    notes = {head.task.name: head.note for head in checkpoint.heads}
    for source in ("ferplus", "web_faces, black background"):
        assert f"{record['evaluation'][source]['accuracy']:.0%}".replace("%", " %") in notes["expression"]
    for task, figures in record["heads"].items():
        assert f"{figures['trained']['value']:.2f}" in notes[task]
        head = checkpoint.head(task)
        assert head is not None
        assert (list(head.thresholds), head.temperature) == (figures["thresholds"], figures["temperature"])
        for name, row in figures["trained"]["per_label"].items():
            assert f"F1 of {name} ({row['support']} pictures) | {row['value']:.2f}" in card
    assert load_heads(checkpoint).keys() == record["heads"].keys()
    assert checkpoint.head("mimicry_intensity").provenance == "prior"
    total = checkpoint.weights_bytes + (checkpoint.folder / "heads.safetensors").stat().st_size
    assert total < 10_000_000


def test_the_comparison_in_the_docs_is_that_of_the_records() -> None:
    records = [(item, json.loads((item.folder / "training.json").read_text("utf-8"))) for item in BUNDLED]
    assert comparison(records) in (ROOT.parent / "docs" / "starters.md").read_text("utf-8")
    assert BUNDLED[0].recommended
    best = max(records, key=lambda pair: pair[1]["evaluation"]["ferplus"]["accuracy"])
    assert best[0] is BUNDLED[0]


def test_the_starter_beats_the_floor_it_was_trained_for() -> None:
    """The floor is what the free mini_XCEPTION reaches (FER+ 75 %, web faces 44.5 %) with a clear margin."""
    record = json.loads((ROOT / "mobilefacenet-starter" / "training.json").read_text("utf-8"))["evaluation"]
    assert record["ferplus"]["accuracy"] >= 0.80
    assert record["web_faces, black background"]["accuracy"] >= 0.52
    for label, recall in record["web_faces, gray background"]["recall"].items():
        assert recall > 0.25, label
