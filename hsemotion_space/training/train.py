"""Train a backbone with the multi-task objective: seeded, resumable bit for bit, within a time budget."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hsemotion_space.training.batches import Batch, BatchMaker, prefetched
from hsemotion_space.training.data import TEST, TUNING, FaceImages
from hsemotion_space.training.evaluate import ExpressionResult, evaluate_expression
from hsemotion_space.training.files import DataError, replacing
from hsemotion_space.training.losses import Distilled, embedding_loss, multitask_loss
from hsemotion_space.training.optim import Terms, make_optimizer, plain_step, sharpness_aware_step, train_only
from hsemotion_space.training.recipe import Recipe
from hsemotion_space.training.soft_labels import SoftLabelFile
from hsemotion_space.training.start import StartingWeights, load_start
from hsemotion_space.vision.backbones import create_model

OUTPUTS = 10  # eight expression logits, valence, arousal
LOG_EVERY = 50  # steps between progress calls
STATE, BEST, LOG = "state.pt", "best.pt", "log.jsonl"

Report = Callable[[int, Mapping[str, float], float], None]
"""Gets the step, the loss terms averaged since the last report, and images per second."""


@dataclass(slots=True)
class Losses:
    """Sums and counts of loss terms over some steps."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, terms: Mapping[str, float]) -> None:
        """Add the terms of one step."""
        for key, value in terms.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.counts[key] = self.counts.get(key, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the mean of every term over the steps that had it."""
        return {key: value / self.counts[key] for key, value in self.sums.items()}


def read_log(run: Path, last_step: int) -> list[dict[str, object]]:
    """Return the epochs in a run's log up to a step; an unfinished line of a killed process is ignored."""
    rows = []
    for line in (run / LOG).read_text("utf-8").splitlines() if (run / LOG).exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return [row for row in rows if row["step"] <= last_step]


def _write(file: Path, state: Mapping[str, object]) -> None:
    """Write a state that replaces the old one when it is complete."""
    with replacing(file) as partial:
        torch.save(dict(state), partial)


class Trainer:
    """One training run in a folder: ``state.pt`` (resumable), ``log.jsonl`` (a line per epoch), ``best.pt``.

    A step depends on the state before it, the seed and its number alone, so on a CPU a killed and resumed run
    gives the same bits as an unbroken one. A new run begins with the weights of the file ``start`` if there
    is one; ``soft`` are the labels of the recipe's teachers.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: list[FaceImages],
        run: Path,
        start: Path | None = None,
        soft: SoftLabelFile | None = None,
    ) -> None:
        if recipe.teaching is not None and soft is None:
            raise DataError(
                "The recipe has a table [teaching]; give the soft labels of its teacher.",
                code="no_soft_labels",
            )
        self.recipe, self.sources, self.run = recipe, sources, run
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = self._build()
        self.classifier: nn.Module = self.model.get_classifier()  # type: ignore[operator]
        self.teaching = None if soft is None else soft.describe()
        self.trained = self.model if soft is None else self._distilled(soft)
        self.batches = BatchMaker(recipe, sources, () if soft is None else soft.sources)
        self.class_weights = self.batches.class_weights.to(self.device)
        self.step, self.elapsed_s, self.losses = 0, 0.0, Losses()
        self.start: StartingWeights | None = None
        if start is not None and not (run / STATE).exists():
            self.start = load_start(self.model, self.classifier, start)
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.trained, recipe.peak_lr, recipe.weight_decay)
        self._resume()
        self.forward: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]] = (
            torch.compile(self.trained) if recipe.compile else self.trained
        )

    def _build(self) -> nn.Module:
        """Return a network with random weights on the device of the training."""
        model = create_model(self.recipe.arch, OUTPUTS, **self.recipe.args)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _distilled(self, soft: SoftLabelFile) -> nn.Module:
        """Return the network with a projection of its embedding, if the recipe wants one."""
        if self.recipe.teaching is None or not self.recipe.teaching.embedding_weight:
            return self.model
        if not soft.dim:
            template = "{file} has no embeddings; run `hsemotion-space learn teach` with --embeddings."
            raise DataError(template, code="no_embeddings", file=soft.file)
        return Distilled(self.model, soft.dim).to(self.device)

    def _resume(self) -> None:
        file = self.run / STATE
        if not file.exists():
            return
        state = torch.load(file, weights_only=True, map_location=self.device)
        if state["arch"] != self.recipe.arch or state["size"] != self.recipe.size:
            template = "{file} belongs to {arch} at {size} px; use another run folder."
            raise DataError(template, code="other_network", file=file, arch=state["arch"], size=state["size"])
        if state.get("teaching") != self.teaching or ("projection" in state) != isinstance(
            self.trained, Distilled
        ):
            raise DataError(
                "{file} belongs to another teacher; use another run folder.", code="other_teacher", file=file
            )
        self.model.load_state_dict(state["model"])
        if isinstance(self.trained, Distilled):
            self.trained.projection.load_state_dict(state["projection"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.elapsed_s = state["average"], state["step"], state["elapsed_s"]
        if "losses" in state:  # absent from runs of the first version
            self.losses = Losses(*state["losses"])
            self.start = (
                None
                if state["start"] is None
                else StartingWeights(**{**state["start"], "fresh": tuple(state["start"]["fresh"])})
            )

    def _save(self) -> None:
        _write(self.run / STATE, {
            "arch": self.recipe.arch, "size": self.recipe.size, "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(), "step": self.step, "elapsed_s": self.elapsed_s,
            "losses": (self.losses.sums, self.losses.counts),
            "start": None if self.start is None else asdict(self.start),
            "teaching": self.teaching,
            **(
                {"projection": self.trained.projection.state_dict()}
                if isinstance(self.trained, Distilled)
                else {}
            ),
        })  # fmt: skip

    def _train_step(self, batch: Batch) -> dict[str, float]:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr(self.step)
        heads = [self.classifier, *([self.trained.projection] if isinstance(self.trained, Distilled) else [])]
        train_only(self.trained, *(heads if self.step < recipe.head_steps else ()))
        batch = Batch(*(tensor.to(self.device) for tensor in batch))

        def objective() -> Terms:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bfloat16):
                output = self.forward(batch.images)
            scores, projected = output if isinstance(output, tuple) else (output, None)
            smoothing = recipe.label_smoothing
            terms = multitask_loss(
                scores.float(), batch.expression, batch.valence_arousal, self.class_weights, smoothing
            )
            if projected is not None and recipe.teaching is not None:
                terms["embedding"] = recipe.teaching.embedding_weight * embedding_loss(
                    projected.float(), batch.embedding
                )
            return terms

        seed = int(np.random.SeedSequence([recipe.seed, self.step]).generate_state(1, np.uint64)[0])
        if recipe.optimizer == "sam":
            terms = sharpness_aware_step(self.trained, self.optimizer, objective, seed, recipe.rho)
        else:
            terms = plain_step(self.trained, self.optimizer, objective, seed)
        self.step += 1
        self._move_average(min(recipe.ema, (1 + self.step) / (10 + self.step)))
        return {key: float(value) for key, value in terms.items()}

    @torch.no_grad()
    def _move_average(self, decay: float) -> None:
        state = self.model.state_dict()
        moving = [key for key, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[key] for key in moving], [state[key] for key in moving], 1 - decay)
        for key in state.keys() - set(moving):
            self.average[key].copy_(state[key])

    def _model_with(self, weights: Mapping[str, Tensor]) -> nn.Module:
        model = self._build()
        model.load_state_dict(dict(weights))
        return model.eval()

    def best(self) -> tuple[int, float]:
        """Return step and mean accuracy on the tuning split of ``best.pt``; (0, -1) before there is one."""
        if not (self.run / BEST).exists():
            return 0, -1.0
        state = torch.load(self.run / BEST, weights_only=True, map_location="cpu")
        return state["step"], state["accuracy"]

    def weights(self) -> Mapping[str, Tensor]:
        """Return the result: averaged weights of the last step, or of the epoch that the recipe selects."""
        if self.recipe.choose == "best" and (self.run / BEST).exists():
            return torch.load(self.run / BEST, weights_only=True, map_location=self.device)["average"]  # type: ignore[no-any-return]
        return self.average

    def averaged(self) -> nn.Module:
        """Return a fresh model with :meth:`weights`, in evaluation mode, on the device of the training."""
        return self._model_with(self.weights())

    def fit(self, minutes: float = math.inf, report: Report | None = None) -> bool:
        """Train to the last step or until the time is up; return whether the run is complete.

        The state is saved after every epoch and at the end of the budget, so a killed run loses at most one
        epoch.
        """
        deadline, reported_s, recent = time.monotonic() + minutes * 60, self.elapsed_s, Losses()
        self._trim_log()
        started = time.monotonic()
        for batch in prefetched(self.batches, self.step, self.recipe.steps):
            if time.monotonic() >= deadline:
                break
            terms = self._train_step(batch)
            self.elapsed_s += time.monotonic() - started
            self.losses.add(terms)
            recent.add(terms)
            if self.step % LOG_EVERY == 0 and report is not None:
                report(
                    self.step, recent.means(), LOG_EVERY * self.recipe.batch / (self.elapsed_s - reported_s)
                )
                reported_s, recent = self.elapsed_s, Losses()
            if self.step % self.recipe.steps_per_epoch == 0 or self.step == self.recipe.steps:
                self._finish_epoch()
            started = time.monotonic()
        self._save()
        return self.step >= self.recipe.steps

    def _trim_log(self) -> None:
        """Drop the epochs that a killed process logged but did not save."""
        rows = read_log(self.run, self.step)
        with replacing(self.run / LOG) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def _finish_epoch(self) -> None:
        model = self._model_with(self.average)
        scored = [source for source in self.sources if len(source.rows(TUNING, counted=True))]
        results = {
            source.source: evaluate_expression(model, source, self.recipe, TUNING) for source in scored
        }
        row = {
            "step": self.step,
            "minutes": round(self.elapsed_s / 60, 2),
            "lr": self.recipe.lr(self.step),
            "loss": {key: round(value, 4) for key, value in self.losses.means().items()},
            "tuning": {name: result.as_dict() for name, result in results.items()},
        }
        with (self.run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        self.losses = Losses()
        if self.recipe.choose == "best":
            self._keep_best(list(results.values()))
        self._save()

    def _keep_best(self, results: list[ExpressionResult]) -> None:
        accuracy = float(np.mean([result.accuracy for result in results]))
        if accuracy > self.best()[1]:
            _write(self.run / BEST, {"average": self.average, "step": self.step, "accuracy": accuracy})

    def describe(self) -> dict[str, object]:
        """Return the content of ``training.json``: recipe, start, teachers, chosen epoch, digests, sizes."""
        step, accuracy = self.best()
        return {
            "recipe": asdict(self.recipe),
            "start": None if self.start is None else asdict(self.start),
            "teaching": self.teaching,
            "chosen": (
                {"step": step, "mean_tuning_accuracy": round(accuracy, 4)}
                if self.recipe.choose == "best" and step
                else None
            ),
            "data": [
                {
                    "source": s.source,
                    "sha256": s.sha256,
                    "training": len(rows),
                    "tuning": len(s.rows(TUNING)),
                    "test": len(s.rows(TEST)),
                }
                for s, rows in zip(self.sources, self.batches.training, strict=True)
            ],
        }
