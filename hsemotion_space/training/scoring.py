"""Score predictions of one task against annotations by the official measure of the challenge, with an interval over videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from hsemotion_space.inference.temporal import interpolate
from hsemotion_space.metrics import (
    CalibrationBins,
    Doubles,
    bootstrap_additive,
    calibration_bins,
    concordance,
    concordance_of_sums,
    confusion,
    f1_binary_per_unit,
    f1_of_counts,
    f1_per_class,
    moment_sums,
    pearson_of_sums,
    pearson_per_column,
    unit_counts,
)
from hsemotion_space.tasks import Task
from hsemotion_space.training.data import DataError
from hsemotion_space.training.series import Series, check_thresholds, neutral_values
from hsemotion_space.types import FloatArray, IntArray

Measure = Literal["P_VA", "macro F1", "mean F1", "mean Pearson r"]
SUM_TOLERANCE = 0.02  # of the probabilities of a frame; half precision of eight classes stays well inside


class LabelScore(NamedTuple):
    """Measure of one label; ``support``: frames of the class, frames with the unit, else all annotated frames (clips)."""

    name: str
    value: float
    support: int


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How well predictions fit the annotations of one task.

    Attributes:
        task: what was scored.
        measure: the official one, see :func:`score`.
        value: the measure over all annotated frames.
        interval: its bootstrap interval (95 %) over videos; NaN for a single video.
        per_label: in the order of the task; CCC, F1 or Pearson r.
        frames_labeled: annotated frames (clips); the sum of the next three.
        frames_predicted: those with a prediction of their own.
        frames_filled: those without one in a video that has some, interpolated.
        frames_missing_video: those of videos without any prediction, scored with the neutral values.
        videos: with at least one annotated frame.
        accuracy: share of right classes; NaN unless the task is ``one_of``.
        ece: expected calibration error of the top class, or of the units' probabilities; NaN for the other tasks.
        confusion: (K, K) counts, rows are targets; (0, 0) unless the task is ``one_of``.
        calibration: bins behind ``ece``; without bins for the other tasks.
    """

    task: Task
    measure: Measure
    value: float
    interval: tuple[float, float]
    per_label: tuple[LabelScore, ...]
    frames_labeled: int
    frames_predicted: int
    frames_filled: int
    frames_missing_video: int
    videos: int
    accuracy: float
    ece: float
    confusion: IntArray
    calibration: CalibrationBins


@dataclass(frozen=True, slots=True)
class _Rows:
    """Annotated rows of all videos: ``values`` (N, K) filled, ``targets`` (N, K or 1), ``bounds`` (G + 1,) of the videos' rows."""

    values: FloatArray
    targets: FloatArray
    bounds: IntArray
    predicted: int
    missing: int


def score(
    task: Task,
    labels: Iterable[Series],
    predictions: Iterable[Series],
    thresholds: Sequence[float] | None = None,
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> TaskScore:
    """Score predictions by the official measure over the annotated frames of all videos put together, not per video.

    ``P_VA``: mean of the concordance coefficients ``2 cov / (var x + var y + (mean x - mean y)^2)``, population moments. ``macro F1``
    (one of several classes): arg-max, unweighted mean of the F1 of all classes of the task, 0 for a class that is absent. ``mean F1``
    (units): mean F1 of the positive class. ``mean Pearson r`` (clips): mean of the labels' correlations, 0 where one side is constant.
    Definitions: 6th ABAW competition (Kollias et al., 2024, arXiv 2402.19344).

    Every annotated frame counts. One without a prediction is interpolated by frame number between its neighbors, the first and the
    last value held beyond the ends; a video without any gets neutral values: zeros, or equal probabilities with the class Neutral
    chosen (the first where there is none). Values are bounded to the range of the task, as in a submission.

    Args:
        task: with the labels that the columns have.
        labels: one series per video; rows with NaN do not count.
        predictions: one series per video; rows with NaN are no predictions, videos without labels are ignored.
        thresholds: (K,) for units, one is present at or above its own; 0.5 if None.
        rounds: of the bootstrap over videos (clips for a clip-level task), 0 for no interval.
        seed: of the bootstrap.

    Raises:
        DataError: if nothing is annotated, a video is given twice, or columns or values are not of the task.
        ValueError: if thresholds do not fit the task.
    """
    limits = check_thresholds(task, thresholds)
    rows = _align(task, labels, predictions)
    per_label = _per_label(task, rows.values, rows.targets, limits)
    sums = np.stack(
        [_sums(task, rows.values[start:stop], rows.targets[start:stop], limits).ravel() for start, stop in pairwise(rows.bounds.tolist())]
    )
    counts, calibration = _confusion(task, rows), _calibration(task, rows)
    total = len(rows.targets)
    return TaskScore(
        task=task,
        measure=_measure(task),
        value=float(per_label.mean()),
        interval=bootstrap_additive(sums, lambda drawn: float(_of_sums(task, drawn).mean()), rounds, seed),
        per_label=tuple(map(LabelScore, task.label_names, per_label.tolist(), _support(task, rows.targets))),
        frames_labeled=total,
        frames_predicted=rows.predicted,
        frames_filled=total - rows.predicted - rows.missing,
        frames_missing_video=rows.missing,
        videos=len(rows.bounds) - 1,
        accuracy=float(np.trace(counts) / total) if counts.size else float("nan"),
        ece=calibration.error,
        confusion=counts,
        calibration=calibration,
    )


def _measure(task: Task) -> Measure:
    if task.kind == "continuous":
        return "P_VA"
    if task.kind == "one_of":
        return "macro F1"
    return "mean F1" if task.scope == "frame" else "mean Pearson r"


def _by_video(task: Task, given: Iterable[Series], columns: int, what: str) -> dict[str, Series]:
    """Return the rows without NaN of each video that has any."""
    known: dict[str, Series] = {}
    seen: set[str] = set()
    for series in given:
        if series.video in seen:
            raise DataError(f"The {what} have {series.video} twice; expected one series per video.")
        if series.values.shape[1] != columns:
            raise DataError(f"The {what} of {series.video} have {series.values.shape[1]} columns; {task.title} needs {columns}.")
        if task.scope == "clip" and series.frames.tolist() != [0]:
            raise DataError(f"The {what} of {series.video} have {len(series.frames)} rows; {task.title} needs one per clip, with frame 0.")
        seen.add(series.video)
        if len(series.known):
            known[series.video] = Series(series.video, series.frames[series.known], series.values[series.known])
    return known


def _check_labels(task: Task, series: Series) -> None:
    values = series.values
    if task.kind == "one_of":
        fits, wanted = np.isin(values, np.arange(len(task.labels))), f"a class from 0 to {len(task.labels) - 1}"
    elif task.kind == "independent" and task.scope == "frame":
        fits, wanted = np.isin(values, (0, 1)), "0 or 1"
    else:
        fits, wanted = (values >= task.low) & (values <= task.high), f"{task.low:g} to {task.high:g}"
    if not fits.all():
        row = int(np.flatnonzero(~fits.all(axis=1))[0])
        found = values[row][~fits[row]][0]
        raise DataError(
            f"A label of {series.video}, frame {series.frames[row]}, is {found:g}; expected {wanted}, or NaN where there is none."
        )


def _align(task: Task, labels: Iterable[Series], predictions: Iterable[Series]) -> _Rows:
    targets = _by_video(task, labels, 1 if task.kind == "one_of" else len(task.labels), "labels")
    if not targets:
        raise DataError(f"There is no annotated {task.scope} to score {task.title} on.")
    known = _by_video(task, (series for series in predictions if series.video in targets), len(task.labels), "predictions")
    values: list[FloatArray] = []
    predicted, missing = 0, 0
    for video, target in targets.items():
        _check_labels(task, target)
        own = known.get(video)
        if own is None:
            values.append(np.tile(neutral_values(task), (len(target.frames), 1)))
            missing += len(target.frames)
        else:
            values.append(_fill(task, own, target.frames))
            predicted += int(np.isin(target.frames, own.frames).sum())
    bounds = np.cumsum([0, *(len(target.frames) for target in targets.values())])
    return _Rows(np.concatenate(values), np.concatenate([target.values for target in targets.values()]), bounds, predicted, missing)


def _fill(task: Task, own: Series, frames: IntArray) -> FloatArray:
    """Return (F, K) predictions of one video at all ``frames``."""
    if task.kind == "one_of" and np.any(np.abs(own.values.sum(axis=1) - 1) > SUM_TOLERANCE):
        raise DataError(f"The predictions of {own.video} are no probabilities: those of {task.title} must sum to 1 in each frame.")
    return interpolate(own.frames, np.clip(own.values, task.low, task.high), frames)


def _per_label(task: Task, values: FloatArray, targets: FloatArray, limits: FloatArray) -> Doubles:
    """Return (K,) measures of the labels over all rows."""
    if task.kind == "one_of":
        return f1_per_class(confusion(values.argmax(1), targets[:, 0], len(task.labels)))
    if task.kind == "continuous":
        return np.array([concordance(x, y) for x, y in zip(values.T, targets.T, strict=True)])
    if task.scope == "clip":
        return pearson_per_column(values, targets)
    return f1_binary_per_unit(values >= limits, targets)


def _sums(task: Task, values: FloatArray, targets: FloatArray, limits: FloatArray) -> Doubles:
    """Return (K, .) additive statistics of one video, from which :func:`_of_sums` gets the measures."""
    if task.kind == "one_of":
        return confusion(values.argmax(1), targets[:, 0], len(task.labels)).astype(np.float64)
    if task.kind == "independent" and task.scope == "frame":
        return unit_counts(values >= limits, targets)
    return moment_sums(values, targets)


def _of_sums(task: Task, sums: Doubles) -> Doubles:
    """Return (K,) measures of the labels from the summed and flattened statistics of videos."""
    table = sums.reshape(len(task.labels), -1)
    if task.kind == "one_of":
        return f1_per_class(table)
    if task.kind == "continuous":
        return concordance_of_sums(table)
    return pearson_of_sums(table) if task.scope == "clip" else f1_of_counts(table)


def _support(task: Task, targets: FloatArray) -> list[int]:
    if task.kind == "one_of":
        return [int((targets == column).sum()) for column in range(len(task.labels))]
    if task.kind == "independent" and task.scope == "frame":
        return [int(count) for count in targets.sum(axis=0, dtype=np.float64)]
    return [len(targets)] * len(task.labels)


def _confusion(task: Task, rows: _Rows) -> IntArray:
    if task.kind != "one_of":
        return np.zeros((0, 0), np.int64)
    return confusion(rows.values.argmax(1), rows.targets[:, 0], len(task.labels))


def _calibration(task: Task, rows: _Rows) -> CalibrationBins:
    """Return bins of the top class's probability, or of all units' probabilities against their presence."""
    if task.kind == "one_of":
        return calibration_bins(rows.values.max(1), rows.values.argmax(1) == rows.targets[:, 0])
    if task.kind == "independent" and task.scope == "frame":
        return calibration_bins(rows.values, rows.targets)
    return CalibrationBins(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
