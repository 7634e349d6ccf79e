"""Train a backbone with the multi-task objective: seeded, resumable, within a time budget."""

from __future__ import annotations

import json
import math
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hsemotion_space.backbones import create_model
from hsemotion_space.learn.augment import Augmentation, augment
from hsemotion_space.learn.data import DataError, FaceImages, VoteRegression, fit_votes, load_images
from hsemotion_space.learn.evaluate import evaluate_expression
from hsemotion_space.learn.losses import class_weights, multitask_loss
from hsemotion_space.types import IntArray

OUTPUTS = 10  # eight expression logits, valence, arousal
LOG_EVERY = 50  # steps between progress calls


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of the mix: ``files`` are globs below the data folder, ``share`` its part of every batch."""

    name: str
    files: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run besides the data; read from ``recipe.toml``."""

    arch: str
    size: int
    sources: tuple[Source, ...]
    votes: str = ""  # csv that maps expression votes to valence and arousal, below the data folder
    mean: float = 0.5
    std: float = 0.5
    steps: int = 10_000
    steps_per_epoch: int = 500
    batch: int = 64
    peak_lr: float = 2e-3
    warmup: float = 0.03  # share of the steps
    decay: float = 0.4  # share of the steps at the end, linear to zero
    weight_decay: float = 0.05
    class_weight_power: float = 0.5
    label_smoothing: float = 0.1
    ema: float = 0.998
    seed: int = 0
    compile: bool = True
    bfloat16: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)

    def lr(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, plateau, linear decay."""
        rise, fall = max(1, round(self.warmup * self.steps)), max(1, round(self.decay * self.steps))
        return self.peak_lr * min(1.0, (step + 1) / rise, max(0, self.steps - step) / fall)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is: after ``step`` of ``steps``, loss terms averaged since the last report, images per second."""

    step: int
    steps: int
    losses: dict[str, float]
    images_per_s: float


def read_recipe(file: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        DataError: with the file and the key that is wrong.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        sources = tuple(Source(row["name"], tuple(row["files"]), float(row["share"])) for row in table.pop("sources"))
        augmentation = Augmentation(**table.pop("augmentation", {}))
        return Recipe(sources=sources, augmentation=augmentation, **table)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not a usable recipe: {error}") from error


def load_sources(recipe: Recipe, data: Path) -> tuple[list[FaceImages], VoteRegression | None]:
    """Load every source at 9/8 of the input size, so that small zooms and shifts keep detail.

    Raises:
        DataError: if a source cannot be used for training and for validation.
    """
    votes = fit_votes(data / recipe.votes) if recipe.votes else None
    size = recipe.size * 9 // 8
    sources = []
    for source in recipe.sources:
        files = sorted(file for pattern in source.files for file in data.glob(pattern))
        images = load_images(source.name, files, size, votes)
        if images.validation.all() or not (images.validation & images.counted).any():
            raise DataError(f"{source.name} needs at least one row for training and one with a sure label for validation.")
        sources.append(images)
    return sources, votes


class BatchMaker:
    """Batches that depend on (seed, step) alone, so that a resumed run sees what an unbroken one would."""

    def __init__(self, recipe: Recipe, sources: list[FaceImages]) -> None:
        self.recipe = recipe
        self.sources = sources
        self.training = [np.flatnonzero(~source.validation) for source in sources]
        self._orders: dict[int, tuple[int, IntArray]] = {}  # per source: number of the pass, its permutation of the rows
        shares = np.array([source.share for source in recipe.sources])
        self.counts = np.diff(np.round(np.concatenate([[0], np.cumsum(shares / shares.sum())]) * recipe.batch)).astype(int)
        mixed = [
            torch.from_numpy(source.expression[rows]) * (count / len(rows))
            for source, rows, count in zip(sources, self.training, self.counts, strict=True)
        ]
        self.class_weights = class_weights(torch.cat(mixed) * 1000, recipe.class_weight_power)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return images (B, 3, S, S) normalized, expression (B, 8), valence and arousal (B, 2)."""
        images, expression, affect = [], [], []
        for number, (source, count) in enumerate(zip(self.sources, self.counts.tolist(), strict=True)):
            picks = [self._pick(number, position) for position in range(step * count, (step + 1) * count)]
            images.append(source.images[picks])
            expression.append(source.expression[picks])
            affect.append(source.valence_arousal[picks])
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        x = augment(torch.from_numpy(np.concatenate(images)), self.recipe.size, self.recipe.augmentation, generator)
        x = (x - self.recipe.mean) / self.recipe.std
        x = x.contiguous(memory_format=torch.channels_last)
        return x, torch.from_numpy(np.concatenate(expression)), torch.from_numpy(np.concatenate(affect))

    def _pick(self, number: int, position: int) -> int:
        """Return a row of a source; its passes, each a fresh permutation of the training rows, form one endless series."""
        rows = self.training[number]
        turn, place = divmod(position, len(rows))
        if number not in self._orders or self._orders[number][0] != turn:
            self._orders[number] = turn, np.random.default_rng([self.recipe.seed, number, turn]).permutation(rows)
        return int(self._orders[number][1][place])


def _build(recipe: Recipe) -> nn.Module:
    """Return a network with random weights; only the architectures of this package are built for one input size."""
    args = {"img_size": recipe.size} if recipe.arch.startswith(("mobilefacenet", "ddamfn")) else {}
    return create_model(recipe.arch, OUTPUTS, **args)


class Trainer:
    """One training run in a folder: ``state.pt`` (resumable), ``log.jsonl`` (one line per epoch)."""

    def __init__(self, recipe: Recipe, sources: list[FaceImages], run: Path) -> None:
        self.recipe, self.sources, self.run = recipe, sources, run
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: nn.Module = _build(recipe).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.peak_lr, fused=True)
        self.batches = BatchMaker(recipe, sources)
        self.class_weights = self.batches.class_weights.to(self.device)
        self.step, self.elapsed_s = 0, 0.0
        self._resume()
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.model) if recipe.compile else self.model

    def _resume(self) -> None:
        file = self.run / "state.pt"
        if not file.exists():
            return
        state = torch.load(file, weights_only=True, map_location=self.device)
        if state["arch"] != self.recipe.arch or state["size"] != self.recipe.size:
            raise DataError(f"{file} belongs to {state['arch']} at {state['size']} px; use another run folder.")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.elapsed_s = state["average"], state["step"], state["elapsed_s"]

    def _save(self) -> None:
        state = {
            "arch": self.recipe.arch, "size": self.recipe.size, "model": self.model.state_dict(), "average": self.average,
            "optimizer": self.optimizer.state_dict(), "step": self.step, "elapsed_s": self.elapsed_s,
        }  # fmt: skip
        partial = self.run / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.run / "state.pt")

    def _train_step(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr(self.step)
        images, expression, affect = (tensor.to(self.device) for tensor in self.batches(self.step))
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            scores = self.forward(images)
        terms = multitask_loss(scores.float(), expression, affect, self.class_weights, self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            state = self.model.state_dict()
            moving = [key for key, value in state.items() if value.is_floating_point()]
            torch._foreach_lerp_([self.average[key] for key in moving], [state[key] for key in moving], 1 - decay)
            for key in state.keys() - set(moving):
                self.average[key].copy_(state[key])
        return {key: float(value.detach()) for key, value in terms.items()}

    def averaged(self) -> nn.Module:
        """Return a fresh model with the exponential average of the weights, in evaluation mode, on the device of the training."""
        model = _build(self.recipe).to(self.device)
        model.load_state_dict(self.average)
        return model.eval()

    def fit(self, minutes: float = math.inf, report: Callable[[Progress], None] | None = None) -> bool:
        """Train to the last step or until the time is up; return whether the run is complete.

        The state is saved after every epoch and at the end of the budget, so a killed run loses at most one epoch.
        """
        deadline, reported_s = time.monotonic() + minutes * 60, self.elapsed_s
        recent: list[dict[str, float]] = []
        while self.step < self.recipe.steps and time.monotonic() < deadline:
            started = time.monotonic()
            recent.append(self._train_step())
            self.elapsed_s += time.monotonic() - started
            if self.step % LOG_EVERY == 0 and report is not None:
                losses = {key: float(np.mean([row[key] for row in recent[-LOG_EVERY:] if key in row])) for key in recent[-1]}
                report(Progress(self.step, self.recipe.steps, losses, LOG_EVERY * self.recipe.batch / (self.elapsed_s - reported_s)))
                reported_s = self.elapsed_s
            if self.step % self.recipe.steps_per_epoch == 0 or self.step == self.recipe.steps:
                self._finish_epoch(recent)
                recent = []
        self._save()
        return self.step >= self.recipe.steps

    def _finish_epoch(self, recent: list[dict[str, float]]) -> None:
        model = self.averaged()
        row = {
            "step": self.step,
            "minutes": round(self.elapsed_s / 60, 2),
            "lr": self.recipe.lr(self.step),
            "loss": {key: round(float(np.mean([item[key] for item in recent if key in item])), 4) for key in recent[-1]},
            "validation": {source.source: evaluate_expression(model, source, self.recipe).as_dict() for source in self.sources},
        }
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        self._save()

    def describe(self) -> dict[str, object]:
        """Return what ``training.json`` records: recipe, data digests, sizes."""
        return {
            "recipe": asdict(self.recipe),
            "data": [
                {"source": s.source, "sha256": s.sha256, "training": int((~s.validation).sum()), "validation": int(s.validation.sum())}
                for s in self.sources
            ],
        }
