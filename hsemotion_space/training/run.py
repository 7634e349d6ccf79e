"""Run a recipe from the command line, and turn a finished run into a checkpoint folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import save
from tqdm import tqdm

from hsemotion_space.hub.card import model_card
from hsemotion_space.hub.manifest import MANIFEST, read_manifest
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.attach import drop_heads
from hsemotion_space.training.data import TEST, TRAINING, TUNING, FaceImages
from hsemotion_space.training.evaluate import EVALUATION_BATCH, evaluate_expression
from hsemotion_space.training.files import DataError
from hsemotion_space.training.recipe import Recipe, read_recipe
from hsemotion_space.training.soft_labels import SoftLabelFile, read_soft_labels
from hsemotion_space.training.sources import VoteRegression, load_sources
from hsemotion_space.training.train import STATE, Trainer, read_log

WEIGHTS, RECORD = "model.safetensors", "training.json"
# behind masked faces, to see what the mask itself gives away
BACKGROUNDS = {"black": 0.0, "gray": 0.5, "white": 1.0}


def train(recipe_file: Path, data: Path, run: Path, minutes: float | None) -> bool:
    """Train, or go on training, with a progress bar; return whether the run is complete."""
    recipe = read_recipe(recipe_file)
    sources, votes = load_sources(recipe, data)
    for source in sources:
        counts = [len(source.rows(split)) for split in (TRAINING, TUNING, TEST)]
        print(
            f"{source.source}: {counts[0]} pictures for training, {counts[1]} for tuning, {counts[2]} for the"
            " test"
        )
    if votes is not None:
        valence, arousal = votes.ccc_out_of_sample
        print(
            f"Valence and arousal are estimated from votes: out-of-sample CCC {valence:.3f} and {arousal:.3f}"
        )
    trainer = Trainer(
        recipe, sources, run, data / recipe.init if recipe.init else None, _soft_labels(recipe, data, sources)
    )
    if recipe.teaching is not None:
        print(f"Soft labels: {recipe.teaching.file}")
    if trainer.start is not None:
        print(
            f"Start: {trainer.start.loaded} tensors of {trainer.start.file}; random:"
            f" {', '.join(trainer.start.fresh) or 'none'}"
        )
    with tqdm(total=recipe.steps, initial=trainer.step, unit="step", dynamic_ncols=True) as bar:

        def report(step: int, losses: Mapping[str, float], images_per_s: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(
                {**{key: f"{value:.3f}" for key, value in losses.items()}, "img/s": round(images_per_s)}
            )

        return trainer.fit(math.inf if minutes is None else minutes, report)


def export_run(recipe_file: Path, data: Path, run: Path, folder: Path) -> None:
    """Write float16 ``model.safetensors``, ``training.json`` and the card; rounded weights are evaluated.

    Heads in the folder stay if the weights are the same; else they were trained on other ones and are taken
    out of the manifest.
    """
    if not (run / STATE).exists():
        raise DataError(
            "{run} has no training run; run `hsemotion-space learn backbone` first.", code="no_run", run=run
        )
    recipe = read_recipe(recipe_file)
    _check_target(recipe, folder)
    sources, votes = load_sources(recipe, data)
    trainer = Trainer(recipe, sources, run, soft=_soft_labels(recipe, data, sources))
    model = trainer.averaged().half().float()
    state = {
        key: value.half() if value.is_floating_point() else value for key, value in trainer.weights().items()
    }
    state = {key: value.cpu().contiguous() for key, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    content = save(state, {"format": "pt"})
    evaluation = {}
    for source in (source for source in sources if len(source.rows(TEST, counted=True))):
        for name, level in BACKGROUNDS.items() if _is_masked(source) else [("", 0.0)]:
            result = evaluate_expression(model, source, recipe, background=level)
            key = f"{source.source}, {name} background" if name else source.source
            evaluation[key] = {**result.as_dict(), "confusion": result.confusion}
    report = {
        "command": f"hsemotion-space learn backbone {recipe_file.as_posix()} --data DATA --run RUN",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "minutes": round(trainer.elapsed_s / 60, 1),
        "steps": trainer.step,
        **trainer.describe(),
        "proxy": _proxy(votes),
        "evaluation": evaluation,
        "epochs": read_log(run, trainer.step),
    }
    (folder / WEIGHTS).write_bytes(content)
    (folder / RECORD).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"Wrote {len(content) / 1e6:.2f} MB of weights with SHA-256 {report['weights_sha256']}")
    _follow_up(folder, str(report["weights_sha256"]))


def _soft_labels(recipe: Recipe, data: Path, sources: list[FaceImages]) -> SoftLabelFile | None:
    return None if recipe.teaching is None else read_soft_labels(data / recipe.teaching.file, sources)


def _check_target(recipe: Recipe, folder: Path) -> None:
    """Refuse to write into the folder of another network."""
    if not (folder / MANIFEST).exists():
        return
    checkpoint = read_manifest(folder)
    network = (recipe.arch, dict(recipe.args), recipe.size)
    if (checkpoint.arch, dict(checkpoint.arch_args), checkpoint.input.size) != network:
        template = (
            "{folder} belongs to {arch} at {size} px, the recipe to {recipe_arch} at {recipe_size} px; use"
            " another folder."
        )
        values = {
            "arch": checkpoint.arch,
            "size": checkpoint.input.size,
            "recipe_arch": recipe.arch,
            "recipe_size": recipe.size,
        }
        raise DataError(template, code="other_network", folder=folder, **values)


def _is_masked(source: FaceImages) -> bool:
    """Return whether most pictures of the test have a blacked-out background."""
    rows = source.rows(TEST, counted=True)
    batches = [
        source.images[rows[start : start + EVALUATION_BATCH]]
        for start in range(0, len(rows), EVALUATION_BATCH)
    ]
    return bool(np.mean(np.concatenate([batch[..., 3].min(axis=(1, 2)) == 0 for batch in batches])) > 0.5)


def _follow_up(folder: Path, sha256: str) -> None:
    """Put the new digest into the manifest, if there is one, and write the card from it."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        print(f"Write {manifest} next; CONTRIBUTING.md describes how.")
        return
    dropped = drop_heads(folder, sha256)
    if dropped:
        print(
            f"Removed heads of other weights: {', '.join(dropped)}. Run `hsemotion-space learn finish` next."
        )
    record = json.loads((folder / RECORD).read_text("utf-8"))
    (folder / "README.md").write_text(model_card(read_manifest(folder), record), "utf-8")


def _proxy(votes: VoteRegression | None) -> dict[str, object]:
    if votes is None:
        return {}
    rows = {
        name: [round(float(value), 4) for value in row]
        for name, row in zip(EXPRESSION.label_names, votes.coefficients, strict=True)
    }
    return {
        "coefficients_valence_arousal": rows,
        "ccc_out_of_sample": [round(value, 4) for value in votes.ccc_out_of_sample],
    }
