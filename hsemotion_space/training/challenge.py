"""The steps of the challenge as functions: read labels, train a head, predict with the heads of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.weights import Layers, load_heads
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.tasks import Task
from hsemotion_space.training.calibration import calibration_of, fit_temperature
from hsemotion_space.training.feature_table import FeatureTable
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import read_clip_labels, read_labels, read_submission
from hsemotion_space.training.formats.tables import read_list
from hsemotion_space.training.heads import HeadOptions, fit_head, fit_scale
from hsemotion_space.training.series import Series
from hsemotion_space.training.trained_head import TrainedHead, join_labels, predict
from hsemotion_space.training.tuning import measure, tuning_videos
from hsemotion_space.types import IntArray


def labels_of(path: Path, task: Task) -> Iterator[Series]:
    """Read labels: a folder of Aff-Wild2 files, the csv of a clip-level task, or a file in the form of a submission."""
    if path.is_dir():
        return read_labels(path, task)
    return read_clip_labels(path, task) if task.scope == "clip" and path.suffix == ".csv" else read_submission(path, task)


def submission_as_predictions(path: Path, task: Task) -> Iterator[Series]:
    """Read a submission as predictions: the class of a row has all of the probability."""
    one_hot = np.eye(len(task.labels), dtype=np.float32)
    for series in read_submission(path, task):
        yield replace(series, values=one_hot[series.values[:, 0].astype(int)]) if task.kind == "one_of" else series


def frames_of(path: Path, task: Task) -> dict[str, IntArray]:
    """Return the frames of each video to predict: those of a folder of labels, or of an official list."""
    if path.is_dir():
        return {series.video: series.frames for series in labels_of(path, task)}
    frames: dict[str, list[int]] = {}
    for row in read_list(path, task.scope == "clip"):
        frames.setdefault(row.video, []).append(row.frame)
    return {video: np.array(sorted(numbers), np.int64) for video, numbers in frames.items()}


def train_head(task: Task, table: FeatureTable, labels: Iterable[Series], options: HeadOptions, share: float) -> TrainedHead:
    """Train on the labels of all but the tuning videos; choose the epoch and the temperature on those.

    A ``share`` of the videos are tuning videos; 0 trains on everything and chooses nothing.
    """
    series = list(labels)
    chosen = tuning_videos([item.video for item in series], share)
    tuning, training = ([item for item in series if (item.video in chosen) == side] for side in (True, False))
    rows = join_labels(task, options.reads, table, training)

    def head(layers: Layers, temperature: float = 1.0, record: dict[str, object] | None = None) -> TrainedHead:
        return TrainedHead(task, options.reads, layers, temperature, table.checkpoint, table.sha256, record or {})

    def value(layers: Layers) -> float:
        return measure(task, tuning, list(predict(head(layers), table, [item.video for item in tuning])))

    fitted = fit_head(task, rows.inputs, rows.targets, options, value if tuning else None)
    layers = fitted.layers
    if task.scope == "clip":
        layers = fit_scale(layers, rows.inputs.astype(np.float32), rows.targets.astype(np.float32))
    record: dict[str, object] = {
        "options": asdict(options), "rows": len(rows.inputs), "annotated_without_features": rows.without_features,
        "videos": len(training), "tuning_videos": len(tuning), "tuning_share": share, "epoch": fitted.epoch,
        "losses": [round(loss, 5) for loss in fitted.losses], "tuning_measures": [round(number, 5) for number in fitted.measures],
    }  # fmt: skip
    temperature = 1.0
    if tuning and task.kind != "continuous" and task.scope == "frame":
        held_out = join_labels(task, options.reads, table, tuning)
        raw = head(layers).raw(held_out.inputs)
        temperature = fit_temperature(task, raw, held_out.targets)
        errors = [round(calibration_of(task, raw, held_out.targets, number).error, 4) for number in (1.0, temperature)]
        record["tuning_ece"] = {"before": errors[0], "after": errors[1]}
    return head(layers, temperature, record)


def checkpoint_thresholds(checkpoint: Checkpoint, task: Task) -> tuple[float, ...]:
    """Return the thresholds of a checkpoint's head in the order of the labels of ``task``, () if it has none."""
    spec = checkpoint.head(task.name)
    if spec is None or not spec.thresholds:
        return ()
    return tuple(spec.thresholds[spec.task.index(name)] for name in task.label_names)


def checkpoint_predictions(checkpoint: Checkpoint, table: FeatureTable, task: Task) -> Iterator[Series]:
    """Yield the predictions of a checkpoint's own head, video by video, unsmoothed, with the labels of the challenge.

    As in the paper, the class Other gets the probability of Contempt, which the files do not have.
    """
    spec = checkpoint.head(task.name)
    if spec is None:
        raise DataError("{checkpoint} has no head for {task}.", code="no_head", checkpoint=checkpoint.title, task=task.title)
    if table.sha256 != checkpoint.sha256:
        template = "The features belong to {other}, not to the weights of {checkpoint}; extract them again."
        raise DataError(template, code="other_weights", other=table.checkpoint or "another network", checkpoint=checkpoint.title)
    sources = ["Contempt" if name == "Other" and name not in spec.task.label_names else name for name in task.label_names]
    if missing := [name for name in sources if name not in spec.task.label_names]:
        template = "{checkpoint} does not predict {names} of {task}."
        raise DataError(template, code="no_label", checkpoint=checkpoint.title, names=", ".join(missing), task=task.title)
    columns, weights = [spec.task.index(name) for name in sources], load_heads(checkpoint)
    for video in table.videos:
        rows = table.rows(video)
        values = {head.task.name: array for head, array in apply_heads(checkpoint, weights, table.outputs(rows))}.get(task.name)
        if values is not None:
            yield Series(video, np.zeros(1, np.int64) if task.scope == "clip" else table.frames[rows], values[:, columns])
