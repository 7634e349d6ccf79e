"""The steps of the challenge: read labels, train a head, predict with a checkpoint, tune on videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.weights import Layers, load_heads
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.tasks import Task
from hsemotion_space.training.calibration import calibration_of, fit_temperature
from hsemotion_space.training.data import fold_of
from hsemotion_space.training.feature_table import FeatureTable
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import read_clip_labels, read_labels, read_submission
from hsemotion_space.training.formats.tables import read_list
from hsemotion_space.training.heads import HeadOptions, fit_head, fit_scale
from hsemotion_space.training.postprocess import (
    FrameRates,
    PostSettings,
    Smoothing,
    blend_all,
    complete,
    complete_all,
    post_process,
    smooth_all,
)
from hsemotion_space.training.scoring import score
from hsemotion_space.training.series import DEFAULT_THRESHOLD, Series, recording_of
from hsemotion_space.training.trained_head import TrainedHead, join_labels, predict
from hsemotion_space.types import BoolArray, FloatArray, IntArray

GRID = tuple(step / 10 for step in range(1, 10))
BLEND_WEIGHTS = (0.0, *GRID, 1.0)
# half widths in frames that the paper's notebooks tried
PAPER_WINDOWS = (0, 3, 5, 7, 10, 15, 20, 25, 50, 100, 200)

T = TypeVar("T")


def labels_of(path: Path, task: Task) -> Iterator[Series]:
    """Read labels: a folder of Aff-Wild2 files, the csv of a clip-level task, or a submission file."""
    if path.is_dir():
        return read_labels(path, task)
    return (
        read_clip_labels(path, task)
        if task.scope == "clip" and path.suffix == ".csv"
        else read_submission(path, task)
    )


def submission_as_predictions(path: Path, task: Task) -> Iterator[Series]:
    """Read a submission as predictions: the class of a row has all of the probability."""
    one_hot = np.eye(len(task.labels), dtype=np.float32)
    for series in read_submission(path, task):
        yield (
            replace(series, values=one_hot[series.values[:, 0].astype(int)])
            if task.kind == "one_of"
            else series
        )


def frames_of(path: Path, task: Task) -> dict[str, IntArray]:
    """Return the frames of each video to predict: those of a folder of labels, or of an official list."""
    if path.is_dir():
        return {series.video: series.frames for series in labels_of(path, task)}
    frames: dict[str, list[int]] = {}
    for row in read_list(path, task.scope == "clip"):
        frames.setdefault(row.video, []).append(row.frame)
    return {video: np.array(sorted(numbers), np.int64) for video, numbers in frames.items()}


def tuning_videos(videos: Iterable[str], share: float) -> set[str]:
    """Return the tuning videos of a training set; they depend on the set and the share alone.

    Both people of a recording are on one side; a share above 0 gives at least one recording of two or more.
    """
    names = list(videos)
    recordings = sorted({recording_of(video) for video in names}, key=lambda name: fold_of(name.encode()))
    count = min(max(round(share * len(recordings)), 1), len(recordings) - 1) if share > 0 else 0
    chosen = set(recordings[:count])
    return {video for video in names if recording_of(video) in chosen}


def measure(task: Task, labels: Sequence[Series], predictions: Sequence[Series]) -> float:
    """Return the official measure, without an interval."""
    return score(task, labels, predictions, rounds=0).value


def train_head(
    task: Task, table: FeatureTable, labels: Iterable[Series], options: HeadOptions, share: float
) -> TrainedHead:
    """Train on the labels of all but the tuning videos; choose the epoch and the temperature on those.

    A ``share`` of the videos are tuning videos; 0 trains on everything and chooses nothing.
    """
    series = list(labels)
    chosen = tuning_videos([item.video for item in series], share)
    tuning, training = ([item for item in series if (item.video in chosen) == side] for side in (True, False))
    rows = join_labels(task, options.reads, table, training)

    untrained = TrainedHead(task, options.reads, (), 1.0, table.checkpoint, table.sha256, {})

    def value(layers: Layers) -> float:
        head = replace(untrained, layers=layers)
        return measure(task, tuning, list(predict(head, table, [item.video for item in tuning])))

    fitted = fit_head(task, rows.inputs, rows.targets, options, value if tuning else None)
    layers = fitted.layers
    if task.scope == "clip":
        layers = fit_scale(layers, rows.inputs.astype(np.float32), rows.targets.astype(np.float32))
    record: dict[str, object] = {
        "options": asdict(options), "rows": len(rows.inputs),
        "annotated_without_features": rows.without_features,
        "videos": len(training), "tuning_videos": len(tuning), "tuning_share": share, "epoch": fitted.epoch,
        "losses": [round(loss, 5) for loss in fitted.losses],
        "tuning_measures": [round(number, 5) for number in fitted.measures],
    }  # fmt: skip
    head = replace(untrained, layers=layers, record=record)
    if tuning and task.kind != "continuous" and task.scope == "frame":
        held_out = join_labels(task, options.reads, table, tuning)
        raw = head.raw(held_out.inputs)
        head = replace(head, temperature=fit_temperature(task, raw, held_out.targets))
        before, after = (
            round(calibration_of(task, raw, held_out.targets, temperature).error, 4)
            for temperature in (1.0, head.temperature)
        )
        record["tuning_ece"] = {"before": before, "after": after}
    return head


def checkpoint_thresholds(checkpoint: Checkpoint, task: Task) -> tuple[float, ...]:
    """Return the thresholds of a checkpoint's head in the order of ``task``'s labels, () without any."""
    spec = checkpoint.head(task.name)
    if spec is None or not spec.thresholds:
        return ()
    return tuple(spec.thresholds[spec.task.index(name)] for name in task.label_names)


def checkpoint_predictions(checkpoint: Checkpoint, table: FeatureTable, task: Task) -> Iterator[Series]:
    """Yield the predictions of a checkpoint's own head by video, unsmoothed, with the challenge's labels.

    As in the paper, the class Other gets the probability of Contempt, which the files do not have.
    """
    spec = checkpoint.head(task.name)
    if spec is None:
        raise DataError(
            "{checkpoint} has no head for {task}.",
            code="no_head",
            checkpoint=checkpoint.title,
            task=task.title,
        )
    if table.sha256 != checkpoint.sha256:
        template = "The features belong to {other}, not to the weights of {checkpoint}; extract them again."
        raise DataError(
            template,
            code="other_weights",
            other=table.checkpoint or "another network",
            checkpoint=checkpoint.title,
        )
    sources = [
        "Contempt" if name == "Other" and name not in spec.task.label_names else name
        for name in task.label_names
    ]
    if missing := [name for name in sources if name not in spec.task.label_names]:
        template = "{checkpoint} does not predict {names} of {task}."
        raise DataError(
            template, code="no_label", checkpoint=checkpoint.title, names=", ".join(missing), task=task.title
        )
    columns, weights = [spec.task.index(name) for name in sources], load_heads(checkpoint)
    for video in table.videos:
        rows = table.rows(video)
        values = {
            head.task.name: array for head, array in apply_heads(checkpoint, weights, table.outputs(rows))
        }.get(task.name)
        if values is not None:
            yield Series(
                video,
                np.zeros(1, np.int64) if task.scope == "clip" else table.frames[rows],
                values[:, columns],
            )


def tune(
    task: Task,
    systems: Sequence[Sequence[Series]],
    labels: Sequence[Series],
    smoothings: Sequence[Smoothing],
    *,
    weights: Sequence[float] = BLEND_WEIGHTS,
    rates: FrameRates | None = None,
) -> PostSettings:
    """Choose the blend of two systems and the smoothing with the best official measure, then the thresholds.

    ``systems`` are one or two, each with raw predictions; ``labels`` are those of the tuning videos. Of
    equals the first counts, and a clip-level task is never smoothed. ``weights`` are those of the first of
    two systems; ``rates`` apply to widths in seconds.
    """
    if not labels:
        template = (
            "{task} has no tuning video; give a larger --tuning-share, or labels of two recordings or more."
        )
        raise DataError(template, code="no_tuning_video", task=task.name)
    if not 1 <= len(systems) <= 2:
        raise DataError(
            "Give the predictions of one system, or of two to blend; found {count}.",
            code="systems",
            count=len(systems),
        )
    frames = {series.video: series.frames for series in labels}
    completed = [complete_all(system, frames) for system in systems]
    if not all(completed):
        raise DataError(
            "The tuning labels and the predictions of {task} have no video in common.",
            code="no_video",
            task=task.name,
        )
    tried: list[tuple[PostSettings, float]] = []
    for smoothing in smoothings if task.scope == "frame" else [Smoothing()]:
        first, *others = (smooth_all(system, smoothing, rates) for system in completed)
        shares = tune_blend(task, (first, others[0]), labels, weights) if others else ()
        mixed = blend_all(first, others[0], shares) if shares else first
        tried.append((PostSettings(task, smoothing, (), shares), measure(task, labels, mixed)))
    best = _best(tried, lambda _: 0)
    if task.kind == "independent" and task.scope == "frame":
        thresholds = tune_thresholds(task, post_process(best, completed, frames, rates), labels)
        best = PostSettings(task, best.smoothing, thresholds, best.weights)
    return best


def tune_blend(
    task: Task,
    systems: tuple[Sequence[Series], Sequence[Series]],
    labels: Sequence[Series],
    grid: Sequence[float],
) -> tuple[float, ...]:
    """Return the weights (K,) of the first of two systems with the best measure, ties nearest to 0.5.

    For a clip-level task, whose measure is a mean over labels, each label's weight is then chosen with the
    others held. Box and Gaussian smoothing are linear, so on completed tracks it is the same to blend before
    or after it.
    """

    def value(weights: Sequence[float]) -> float:
        return measure(task, labels, blend_all(*systems, weights))

    count = len(task.labels)
    common = _best([(weight, value([weight] * count)) for weight in grid], lambda weight: abs(weight - 0.5))
    weights = [common] * count
    for k in range(count) if task.scope == "clip" else ():
        tried = [(weight, value([*weights[:k], weight, *weights[k + 1 :]])) for weight in grid]
        weights[k] = _best(tried, lambda weight: abs(weight - common))
    return tuple(weights)


def tune_thresholds(
    task: Task, predictions: Sequence[Series], labels: Sequence[Series], grid: Sequence[float] = GRID
) -> tuple[float, ...]:
    """Return for each label the threshold with the largest F1 on a tuning split, ties nearest to 0.5.

    A label is present where its prediction reaches the threshold. Annotated frames without a prediction are
    completed as in :func:`~hsemotion_space.training.postprocess.complete`; in a video without any, every
    label is absent. A label that is never present in the annotations keeps 0.5.
    """
    found: Mapping[str, Series] = {series.video: series for series in predictions}
    none = Series("", np.zeros(0, np.int64), np.zeros((0, len(task.labels)), np.float32))
    if not any(len(series.known) for series in labels):
        raise DataError(
            "No frame of the tuning split is annotated for {task}.", code="no_label", task=task.title
        )
    truth = np.concatenate([series.values[series.known] for series in labels])
    values = np.concatenate(
        [complete(found.get(series.video, none), series.frames[series.known]).values for series in labels]
    )
    return tuple(_threshold(truth[:, k] > 0.5, values[:, k], grid) for k in range(len(task.labels)))


def _threshold(truth: BoolArray, values: FloatArray, grid: Sequence[float]) -> float:
    positives = int(truth.sum())
    if not positives:
        return DEFAULT_THRESHOLD
    tried = []
    for threshold in grid:
        present = values >= np.float32(threshold)
        tried.append((threshold, 2 * int((present & truth).sum()) / (positives + int(present.sum()))))
    return _best(tried, lambda threshold: abs(threshold - DEFAULT_THRESHOLD))


def _best(tried: Sequence[tuple[T, float]], cost: Callable[[T], float]) -> T:
    """Return the candidate with the largest value, ties by least cost; undefined values do not count."""
    defined = [
        (value, -cost(item), -place) for place, (item, value) in enumerate(tried) if not math.isnan(value)
    ]
    if not defined:
        raise DataError(
            "The measure has no value for any candidate; check whether a tuning frame is annotated.",
            code="no_value",
        )
    return tried[-max(defined)[2]][0]
