"""Run a recipe from the command line, and turn a finished run into a checkpoint folder."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import torch
from safetensors.torch import save
from tqdm import tqdm

from hsemotion_space.hub.card import model_card
from hsemotion_space.hub.manifest import MANIFEST, read_manifest
from hsemotion_space.learn.data import DataError, VoteRegression
from hsemotion_space.learn.evaluate import evaluate_expression
from hsemotion_space.learn.train import Progress, Trainer, load_sources, read_recipe
from hsemotion_space.tasks import EXPRESSION

WEIGHTS, TRAINING = "model.safetensors", "training.json"
BACKGROUNDS = {"black": 0.0, "gray": 0.5, "white": 1.0}  # behind masked faces, to see what the mask itself gives away


def train(recipe_file: Path, data: Path, run: Path, minutes: float | None) -> bool:
    """Train, or go on training, with a progress bar; return whether the run is complete.

    Raises:
        DataError: if the recipe or the data cannot be used.
    """
    recipe = read_recipe(recipe_file)
    sources, votes = load_sources(recipe, data)
    for source in sources:
        print(f"{source.source}: {int((~source.validation).sum())} for training, {int(source.validation.sum())} held out")  # noqa: T201
    if votes is not None:
        valence, arousal = votes.ccc_out_of_sample
        print(f"proxy valence and arousal from votes: out-of-sample CCC {valence:.3f} and {arousal:.3f}")  # noqa: T201
    trainer = Trainer(recipe, sources, run)
    with tqdm(total=recipe.steps, initial=trainer.step, unit="step", dynamic_ncols=True) as bar:

        def report(progress: Progress) -> None:
            bar.update(progress.step - bar.n)
            bar.set_postfix({**{key: f"{value:.3f}" for key, value in progress.losses.items()}, "img/s": round(progress.images_per_s)})

        return trainer.fit(math.inf if minutes is None else minutes, report)


def export_run(recipe_file: Path, data: Path, run: Path, folder: Path) -> None:
    """Write ``model.safetensors`` (float16), ``training.json`` and the card of a run; the evaluation uses the rounded weights.

    Raises:
        DataError: if there is no run, or the recipe or the data cannot be used.
    """
    if not (run / "state.pt").exists():
        raise DataError(f"There is no training run in {run}; run `hsemotion-space learn backbone` first.")
    recipe = read_recipe(recipe_file)
    sources, votes = load_sources(recipe, data)
    trainer = Trainer(recipe, sources, run)
    model = trainer.averaged().half().float()
    state = {key: value.half() if value.is_floating_point() else value for key, value in trainer.average.items()}
    content = save({key: value.cpu().contiguous() for key, value in state.items()}, {"format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    evaluation = {}
    with torch.inference_mode():
        for source in sources:
            masked = (source.images[..., 3].min(axis=(1, 2)) == 0).mean() > 0.5
            for name, level in BACKGROUNDS.items() if masked else [("", 0.0)]:
                result = evaluate_expression(model, source, recipe, level)
                key = f"{source.source}, {name} background" if name else source.source
                evaluation[key] = {**result.as_dict(), "confusion": result.confusion}
    report = {
        "command": f"hsemotion-space learn backbone {folder.name}/recipe.toml --data DATA --run RUN",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "minutes": round(trainer.elapsed_s / 60, 1),
        "steps": trainer.step,
        **trainer.describe(),
        "proxy": _proxy(votes),
        "evaluation": evaluation,
        "epochs": [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()],
    }
    (folder / TRAINING).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"Wrote {len(content) / 1e6:.2f} MB of weights with SHA-256 {report['weights_sha256']}")  # noqa: T201
    _follow_up(folder, str(report["weights_sha256"]))


def _follow_up(folder: Path, sha256: str) -> None:
    """Put the new digest into the manifest, if there is one, and write the card from it."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        print(f"Write {manifest} next; CONTRIBUTING.md tells how.")  # noqa: T201
        return
    manifest.write_text(re.sub(r'^sha256 = "[0-9a-f]*"', f'sha256 = "{sha256}"', manifest.read_text("utf-8"), flags=re.MULTILINE), "utf-8")
    record = json.loads((folder / TRAINING).read_text("utf-8"))
    (folder / "README.md").write_text(model_card(read_manifest(folder), record), "utf-8")


def _proxy(votes: VoteRegression | None) -> dict[str, object]:
    if votes is None:
        return {}
    rows = {name: [round(float(value), 4) for value in row] for name, row in zip(EXPRESSION.label_names, votes.coefficients, strict=True)}
    return {"coefficients_valence_arousal": rows, "ccc_out_of_sample": [round(value, 4) for value in votes.ccc_out_of_sample]}
