"""A head as files, its training rows, and its predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save_file

from hsemotion_space.hub.manifest import HeadKind, Reads
from hsemotion_space.hub.weights import Layers
from hsemotion_space.inference.heads import activate, clip_statistics, run_layers
from hsemotion_space.tasks import CHALLENGE, Task
from hsemotion_space.training.feature_table import FeatureTable
from hsemotion_space.training.files import DataError, reading
from hsemotion_space.training.series import Series, recording_of
from hsemotion_space.types import FloatArray, IntArray

WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"
SIDES = ("_left", "_right")


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """Layers for one task and what is needed to use them.

    Attributes:
        task: one of :data:`~hsemotion_space.tasks.CHALLENGE`.
        reads: what of the features it reads.
        layers: see :data:`~hsemotion_space.hub.weights.Layers`.
        temperature: divides the raw outputs.
        checkpoint, sha256: the weights that its features came from; empty for features from elsewhere.
        record: how it was trained and the figures it reached.
    """

    task: Task
    reads: Reads
    layers: Layers
    temperature: float
    checkpoint: str
    sha256: str
    record: dict[str, object]

    @property
    def kind(self) -> HeadKind:
        """What a manifest calls it."""
        if self.task.scope == "clip":
            return "clip_statistics"
        return "linear" if len(self.layers) == 1 else "mlp"

    def raw(self, inputs: npt.NDArray[np.floating]) -> FloatArray:
        """Return raw outputs (N, K) for inputs (N, D), before the temperature."""
        return run_layers(self.layers, inputs.astype(np.float32))

    def values(self, inputs: npt.NDArray[np.floating]) -> FloatArray:
        """Return values (N, K) of the task for inputs (N, D)."""
        raw = self.raw(inputs)
        return activate(self.task, np.tanh(raw) if self.task.kind == "continuous" else raw, self.temperature)


def challenge_task(name: str) -> Task:
    """Return a task of the challenge with the labels of its files."""
    tasks = {task.name: task for task in CHALLENGE}
    if name not in tasks:
        raise DataError(
            "The task {name!r} is unknown; use one of {names}.",
            code="task",
            name=name,
            names=", ".join(tasks),
        )
    return tasks[name]


def save_head(head: TrainedHead, folder: Path) -> None:
    """Write ``head.safetensors`` and ``head.json`` into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{k}.{part}": array
        for k, layer in enumerate(head.layers)
        for part, array in zip(("weight", "bias"), layer, strict=True)
    }
    save_file(
        {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}, folder / WEIGHTS
    )
    description = {
        "task": head.task.name, "labels": list(head.task.label_names), "reads": head.reads,
        "temperature": head.temperature,
        "checkpoint": head.checkpoint, "sha256": head.sha256, "record": head.record,
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
    }  # fmt: skip
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", "utf-8")


def load_head(folder: Path) -> TrainedHead:
    """Read what :func:`save_head` wrote."""
    with reading(folder, "trained head"):
        description = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        content = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != description["weights_sha256"]:
            template = (
                "{folder}: {weights} and {description} belong to different heads; train the head again."
            )
            raise DataError(template, code="digest", folder=folder, weights=WEIGHTS, description=DESCRIPTION)
        tensors, task = load(content), challenge_task(description["task"])
        if list(task.label_names) != description["labels"]:
            names = {"labels": ", ".join(description["labels"]), "expected": ", ".join(task.label_names)}
            raise DataError(
                "{folder} has the labels {labels}; expected {expected}.",
                code="labels",
                folder=folder,
                **names,
            )
        layers = tuple((tensors[f"{k}.weight"], tensors[f"{k}.bias"]) for k in range(len(tensors) // 2))
        values = (description[name] for name in ("checkpoint", "sha256", "record"))
        return TrainedHead(task, description["reads"], layers, float(description["temperature"]), *values)


def read_inputs(table: FeatureTable, reads: Reads, rows: slice | IntArray) -> npt.NDArray[np.floating]:
    """Return what a head reads from some rows of the features: (R, D)."""
    if reads == "scores":
        return table.scores[rows]
    if reads == "embeddings":
        return table.embeddings[rows]
    return np.concatenate([table.embeddings[rows].astype(np.float32), table.scores[rows]], axis=1)


def video_rows(table: FeatureTable, video: str) -> slice | None:
    """Return the rows of a video; external (audio) features serve both people of a ``_left`` pair."""
    rows = table.rows(video)
    return rows if rows is not None or table.sha256 else table.rows(recording_of(video))


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Inputs (N, D), targets (N,) or (N, K), and the number of annotated rows without features."""

    inputs: npt.NDArray[np.floating]
    targets: IntArray | FloatArray
    without_features: int


def join_labels(task: Task, reads: Reads, table: FeatureTable, labels: Iterable[Series]) -> TrainingRows:
    """Join features and labels: a row per annotated frame with a face, or per annotated clip."""
    inputs: list[npt.NDArray[np.floating]] = []
    targets: list[FloatArray] = []
    missing = 0
    for series in labels:
        rows, known = video_rows(table, series.video), series.known
        if rows is None or not len(known):
            missing += len(known)
        elif task.scope == "clip":
            inputs.append(clip_statistics(read_inputs(table, reads, rows).astype(np.float32)))
            targets.append(series.values[known])
        else:
            _, here, there = np.intersect1d(
                table.frames[rows], series.frames[known], assume_unique=True, return_indices=True
            )
            missing += len(known) - len(here)
            inputs.append(read_inputs(table, reads, rows.start + here))
            targets.append(series.values[known][there])
    if reads == "scores" and not table.scores.shape[1]:
        raise DataError("These features have no scores; train with --reads embeddings.", code="no_scores")
    if not any(map(len, inputs)):
        template = (
            "No annotated frame of {task} has features; check whether labels and features name the same"
            " videos."
        )
        raise DataError(template, code="no_common_frame", task=task.name)
    values = np.concatenate(targets)
    return TrainingRows(
        np.concatenate(inputs), values[:, 0].astype(np.int64) if task.kind == "one_of" else values, missing
    )


def predict(head: TrainedHead, table: FeatureTable, videos: Iterable[str] | None = None) -> Iterator[Series]:
    """Yield raw predictions per video: of every frame with a face, or one row per clip; unsmoothed.

    Videos without features are left out. By default all are predicted; with features of another source, which
    may be of sound, every video is repeated as ``_left`` and ``_right``.
    """
    if head.sha256 != table.sha256:
        names = {"own": head.checkpoint or "another source", "other": table.checkpoint or "another source"}
        raise DataError(
            "The head needs features of {own}; these belong to {other}.", code="other_weights", **names
        )
    if videos is None:
        sides = ("",) if table.sha256 else ("", *SIDES)
        videos = dict.fromkeys(f"{video}{side}" for video in table.videos for side in sides)
    for video in videos:
        rows = video_rows(table, video)
        if rows is None:
            continue
        inputs = read_inputs(table, head.reads, rows)
        clip = head.task.scope == "clip"
        if clip:
            inputs = clip_statistics(inputs.astype(np.float32))
        if inputs.shape[1] != head.layers[0][0].shape[1]:
            widths = {"expected": head.layers[0][0].shape[1], "width": inputs.shape[1]}
            raise DataError(
                "The head reads {expected} numbers, the features have {width}.", code="width", **widths
            )
        yield Series(video, np.zeros(1, np.int64) if clip else table.frames[rows], head.values(inputs))
