"""From an exported starter to a complete one: temperature, action-unit and compound heads, card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from hsemotion_space.hub.card import model_card
from hsemotion_space.hub.manifest import Checkpoint, read_manifest
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.attach import attach_heads, set_least_length, set_measured
from hsemotion_space.training.calibration import reliability_of
from hsemotion_space.training.confidence import (
    calibrate_expression,
    choose_support,
    compound_support,
    labeled_outputs,
    least_length,
    shorter_shares,
    stand_out_shares,
)
from hsemotion_space.training.files import DataError, reading
from hsemotion_space.training.posed import Embedder, HeadResult, load_posed, train_posed_heads
from hsemotion_space.training.recipe import read_recipe
from hsemotion_space.training.run import RECORD
from hsemotion_space.training.scoring import TaskScore
from hsemotion_space.training.sources import detailed_size, load_sources
from hsemotion_space.vision.backbones import load_backbone


def finish(recipe_file: Path, data: Path, folder: Path, posed: str) -> None:
    """Calibrate expressions, train heads on posed pictures, write the figures into record, manifest, card.

    ``posed`` is a pattern of Parquet files below ``data``.
    """
    recipe, checkpoint = read_recipe(recipe_file), read_manifest(folder)
    record = _record(folder, checkpoint)
    state = load_file(folder / checkpoint.source.bundled)
    backbone = load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state)
    outputs = labeled_outputs(load_sources(recipe, data)[0], Embedder(checkpoint, backbone))
    temperature, errors, counts = calibrate_expression(outputs)
    least = least_length(outputs)
    set_least_length(folder, least)
    names = ", ".join(dict.fromkeys(part.source for part in outputs))
    set_measured(folder, EXPRESSION.name, temperature, reliability_of(counts, f"tuning pictures of {names}"))
    print(f"Expression: temperature {temperature:g}; calibration errors {errors}")  # noqa: T201
    embed = Embedder(read_manifest(folder), backbone)
    faces = load_posed(sorted(data.glob(posed)), detailed_size(checkpoint.input.size))
    results = train_posed_heads(faces, embed)
    for result in results:
        print(f"{result.score.task.title}: {_summary(result.score)}")  # noqa: T201
    kinds = compound_support(results, faces, outputs, embed)
    bounds = {name: choose_support(found) for name, found in kinds.items()}
    attachments = [
        replace(result.attachment, note=_note(result), least_support=bounds.get(result.score.task.name, 0.0))
        for result in results
    ]
    checkpoint = attach_heads(attachments, folder)
    record |= {
        "expression_calibration": {
            "temperature": temperature,
            "ece": {name: _before_after(*pair) for name, pair in errors.items()},
            "tuning_confusion": counts.tolist(),
        },
        "heads": {result.score.task.name: _figures(result) for result in results},
        "faces": {"least_length": least, "test": shorter_shares(outputs, least)},
        "support": {
            name: {"least": bound, "stands_out": stand_out_shares(kinds[name], bound)}
            for name, bound in bounds.items()
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(checkpoint, record), "utf-8")


def _record(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    with reading(folder / RECORD, "training record; run `hsemotion-space learn export` first", "record"):
        record: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
    if record.get("weights_sha256") != checkpoint.sha256:
        template = (
            "{file} belongs to other weights than the manifest; run `hsemotion-space learn export` first."
        )
        raise DataError(template, code="other_weights", file=folder / RECORD)
    return record


def _summary(score: TaskScore) -> str:
    low, high = score.interval
    return (
        f"{score.measure} {score.value:.3f} ({low:.3f} to {high:.3f}) on {score.frames_labeled} pictures of"
        f" {score.videos} people"
    )


def _note(result: HeadResult) -> str:
    score = result.score
    rule = (
        f"; the untrained rule reaches {result.rule.value:.2f}; presumes that the face shows one of the"
        " compounds"
        if result.rule
        else ""
    )
    return (
        f"{score.measure[0].upper()}{score.measure[1:]} {score.value:.2f} on {score.frames_labeled} held-out"
        f" posed pictures of {score.videos} people{rule}; not tested on spontaneous faces"
    )


def _figures(result: HeadResult) -> dict[str, Any]:
    """Return what ``training.json`` records about a head."""
    figures: dict[str, Any] = {
        "temperature": result.attachment.head.temperature,
        "thresholds": list(result.attachment.thresholds),
        "ece": _before_after(result.ece_before, result.score.ece),
        "trained": _scored(result.score),
    }
    return figures | ({"rule": _scored(result.rule)} if result.rule else {})


def _before_after(before: float, after: float) -> dict[str, float]:
    return {"before": round(before, 4), "after": round(after, 4)}


def _scored(score: TaskScore) -> dict[str, Any]:
    return {
        "measure": score.measure, "value": round(score.value, 4),
        "interval": [round(bound, 4) for bound in score.interval],
        "pictures": score.frames_labeled, "people": score.videos,
        "accuracy": None if np.isnan(score.accuracy) else round(score.accuracy, 4),
        "per_label": {
            row.name: {"value": round(row.value, 4), "support": row.support} for row in score.per_label
        },
    }  # fmt: skip
