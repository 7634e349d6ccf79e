"""From an exported starter to a complete one: temperature, heads for action units and compound expressions, card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from hsemotion_space.hub.card import Json, model_card
from hsemotion_space.hub.manifest import Checkpoint, read_manifest
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.attach import attach_heads, set_least_length, set_measured
from hsemotion_space.training.data import DataError
from hsemotion_space.training.faces import doubted, least_length
from hsemotion_space.training.recipe import read_recipe
from hsemotion_space.training.run import RECORD
from hsemotion_space.training.scoring import TaskScore
from hsemotion_space.training.sources import load_sources
from hsemotion_space.training.stills import (
    Embedder,
    HeadResult,
    calibrate_expression,
    load_posed,
    see_faces,
    train_posed_heads,
)
from hsemotion_space.training.support import choose_support, compound_support, outcomes
from hsemotion_space.vision.backbones import load_backbone


def finish(recipe_file: Path, data: Path, folder: Path, posed: str) -> None:
    """Calibrate the expression scores, train the heads on posed pictures, and write what they reached into record, manifest and card.

    Args:
        recipe_file: of the backbone; names the sources for the calibration.
        data: folder with the sources.
        folder: of the exported checkpoint.
        posed: pattern of Parquet files with posed pictures, below ``data``.

    Raises:
        DataError: if the data or the record cannot be used.
        CheckpointError: if the checkpoint cannot be used.
    """
    recipe, checkpoint = read_recipe(recipe_file), read_manifest(folder)
    record = _record(folder, checkpoint)
    state = load_file(folder / checkpoint.source.bundled)
    backbone = load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state)
    sources, _ = load_sources(recipe, data)
    seen = see_faces(sources, Embedder(checkpoint, backbone))
    calibration = calibrate_expression(seen)
    least = least_length(seen)
    set_least_length(folder, least)
    set_measured(folder, EXPRESSION.name, calibration.temperature, calibration.reliability)
    print(f"Expression: temperature {calibration.temperature:g}; calibration errors {calibration.ece}")  # noqa: T201
    checkpoint = read_manifest(folder)
    faces = load_posed(sorted(data.glob(posed)), checkpoint.input.size * 9 // 8)
    results = train_posed_heads(faces, Embedder(checkpoint, backbone))
    for result in results:
        print(f"{result.score.task.title}: {_words(result.score)}")  # noqa: T201
    shown = compound_support(results, faces, seen, Embedder(checkpoint, backbone))
    bounds = {name: choose_support(kinds) for name, kinds in shown.items()}
    checkpoint = attach_heads(
        [replace(result.attachment, note=_note(result), least_support=bounds.get(result.score.task.name, 0.0)) for result in results],
        folder,
    )
    record["expression_calibration"] = {
        "temperature": calibration.temperature,
        "ece": {name: {"before": round(before, 4), "after": round(after, 4)} for name, (before, after) in calibration.ece.items()},
        "tuning_confusion": calibration.confusion.tolist(),
    }
    record["heads"] = {result.score.task.name: _figures(result) for result in results}
    record["faces"] = {"least_length": least, "test": doubted(seen, least)}
    record["support"] = {name: {"least": least, "stands_out": outcomes(shown[name], least)} for name, least in bounds.items()}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(checkpoint, record), "utf-8")


def _record(folder: Path, checkpoint: Checkpoint) -> dict[str, Json]:
    try:
        record: dict[str, Json] = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / RECORD} cannot be read ({error}); run `hsemotion-space learn export` first.") from error
    if record.get("weights_sha256") != checkpoint.sha256:
        raise DataError(f"{folder / RECORD} is about other weights than the manifest; run `hsemotion-space learn export` first.")
    return record


def _words(score: TaskScore) -> str:
    low, high = score.interval
    return f"{score.measure} {score.value:.3f} ({low:.3f} to {high:.3f}) on {score.frames_labeled} pictures of {score.videos} people"


def _note(result: HeadResult) -> str:
    score = result.score
    rule = f"; the untrained rule reaches {result.rule.value:.2f}; presumes that the face shows one of the compounds" if result.rule else ""
    return (
        f"{score.measure[0].upper()}{score.measure[1:]} {score.value:.2f} on {score.frames_labeled} held-out posed pictures of "
        f"{score.videos} people{rule}; not tested on spontaneous faces"
    )


def _figures(result: HeadResult) -> dict[str, Json]:
    """Return what ``training.json`` records about a head."""
    figures: dict[str, Json] = {
        "temperature": result.attachment.head.temperature,
        "thresholds": list(result.attachment.thresholds),
        "ece": {"before": round(result.ece_before, 4), "after": round(result.score.ece, 4)},
        "trained": _scored(result.score),
    }
    return figures | ({"rule": _scored(result.rule)} if result.rule else {})


def _scored(score: TaskScore) -> dict[str, Json]:
    return {
        "measure": score.measure, "value": round(score.value, 4), "interval": [round(bound, 4) for bound in score.interval],
        "pictures": score.frames_labeled, "people": score.videos,
        "accuracy": None if np.isnan(score.accuracy) else round(score.accuracy, 4),
        "per_label": {row.name: {"value": round(row.value, 4), "support": row.support} for row in score.per_label},
    }  # fmt: skip
