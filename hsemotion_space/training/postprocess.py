"""Predictions after the heads: gaps, blending, smoothing and thresholds, and the choice of their settings on a tuning split.

The order is that of the paper: predictions (never features) are completed over frames without a face, blended, smoothed over the
whole track, and only then compared with thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from hsemotion_space.inference.temporal import box_smooth, gaussian_smooth, interpolate
from hsemotion_space.tasks import Task
from hsemotion_space.training.data import DataError
from hsemotion_space.training.series import DEFAULT_THRESHOLD, Series
from hsemotion_space.types import BoolArray, FloatArray, IntArray

FRAME_RATE = 30.0  # frames per second of a video whose rate is not given
GRID = tuple(step / 10 for step in range(1, 10))

T = TypeVar("T")
Thresholds = tuple[float, ...]
Measure = Callable[[Task, Sequence[Series], Sequence[Series], Thresholds | None], float]
"""(task, labels, predictions, thresholds) -> a figure, larger is better."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How predictions are smoothed along a track.

    Attributes:
        kind: ``box`` is the mean over a window, ``gaussian`` weighs near frames more, ``none`` leaves the values.
        width: half width of the box, or standard deviation of the Gaussian (``sqrt(s / 2)`` for upstream's ``exp(-d^2 / s)``).
        unit: of the width. In ``frames`` the same window lasts longer in a slow video, as in the paper.
    """

    kind: Literal["none", "box", "gaussian"] = "none"
    width: float = 0.0
    unit: Literal["frames", "seconds"] = "frames"

    def __post_init__(self) -> None:
        if not 0 <= self.width < math.inf:
            raise ValueError(f"The width of the smoothing must be 0 or more, got {self.width}.")

    @property
    def frames(self) -> float:
        """Width in frames at the usual frame rate; 0 without smoothing."""
        if self.kind == "none":
            return 0.0
        return self.width * (FRAME_RATE if self.unit == "seconds" else 1.0)


def complete(series: Series, frames_wanted: IntArray) -> Series:
    """Return predictions at all wanted frames: linear between the frames that have one, the first and the last one held beyond.

    Args:
        series: predictions; rows with NaN do not count.
        frames_wanted: (F,) rising frame numbers.

    Returns:
        (F, K); NaN in every row if the series has no prediction at all.
    """
    known = series.known
    if not len(known):
        return Series(series.video, frames_wanted, np.full((len(frames_wanted), series.values.shape[1]), np.nan, np.float32))
    return Series(series.video, frames_wanted, interpolate(series.frames[known], series.values[known], frames_wanted))


def smooth_series(series: Series, smoothing: Smoothing, fps: float = FRAME_RATE) -> Series:
    """Return smoothed predictions of one video; the window is cut at its ends. Meant for a completed track.

    Rows with NaN do not count and stay as they are.

    Args:
        series: predictions.
        smoothing: kind and width.
        fps: frames per second, used for widths in seconds.

    Raises:
        ValueError: if the frame rate is not positive.
    """
    if not fps > 0:
        raise ValueError(f"The frame rate of {series.video} must be positive, got {fps}.")
    if smoothing.kind == "none" or smoothing.width == 0:
        return series
    filtered = box_smooth if smoothing.kind == "box" else gaussian_smooth
    known, values = series.known, series.values.copy()
    if len(known):
        width = smoothing.width * (fps if smoothing.unit == "seconds" else 1.0)
        values[known] = filtered(series.frames[known], series.values[known], width)
    return replace(series, values=values)


def smooth_all(predictions: Iterable[Series], smoothing: Smoothing, frame_rates: Mapping[str, float] | None = None) -> list[Series]:
    """Smooth each video; ``frame_rates`` gives frames per second by video, 30 is taken for those that are not in it."""
    rates = frame_rates or {}
    return [smooth_series(series, smoothing, rates.get(series.video, FRAME_RATE)) for series in predictions]


def blend(a: Series, b: Series, weight: float | Sequence[float]) -> Series:
    """Return ``weight * a + (1 - weight) * b`` of two systems on all frames that either has.

    Where one system has no prediction the other counts alone. The paper blends probabilities before they are smoothed.

    Args:
        a: predictions of one task for one video.
        b: predictions of the other system for it.
        weight: of ``a`` in 0..1, one for all labels or one for each.

    Raises:
        ValueError: if the videos, the numbers of labels or the weights do not fit.
    """
    labels = a.values.shape[1]
    weights = np.broadcast_to(np.asarray(weight, np.float64), (labels,)) if np.size(weight) in (1, labels) else np.empty(0)
    if a.video != b.video or b.values.shape[1] != labels:
        raise ValueError(f"{a.video} with {labels} labels and {b.video} with {b.values.shape[1]} labels cannot be blended.")
    if len(weights) != labels or not np.all((weights >= 0) & (weights <= 1)):
        raise ValueError(f"Weights must be from 0 to 1, one or {labels} of them, got {weight}.")
    frames = np.union1d(a.frames, b.frames)
    first, second = _on(a, frames), _on(b, frames)
    mixed = weights * first + (1 - weights) * second
    values = np.where(np.isnan(first), second, np.where(np.isnan(second), first, mixed))
    return Series(a.video, frames, values.astype(np.float32))


def blend_all(a: Iterable[Series], b: Iterable[Series], weight: float | Sequence[float]) -> list[Series]:
    """Blend video by video, in the order of ``a``; a video that only one system has follows from it alone."""
    others = {series.video: series for series in b}
    mixed = [blend(series, others.pop(series.video), weight) if series.video in others else series for series in a]
    return [*mixed, *others.values()]


def _on(series: Series, frames: IntArray) -> FloatArray:
    """Return the rows at ``frames``, which include those of the series; NaN where a row is missing or not whole."""
    values = np.full((len(frames), series.values.shape[1]), np.nan, np.float32)
    values[np.searchsorted(frames, series.frames[series.known])] = series.values[series.known]
    return values


def tune_smoothing(
    task: Task,
    predictions: Sequence[Series],
    labels: Sequence[Series],
    candidates: Sequence[Smoothing],
    measure: Measure,
    *,
    frame_rates: Mapping[str, float] | None = None,
) -> tuple[Smoothing, list[tuple[Smoothing, float]]]:
    """Return the smoothing with the largest measure on a tuning split, of equals the narrowest, and the value of every candidate.

    Args:
        task: of the predictions.
        predictions: completed tracks, not smoothed.
        labels: of the tuning split.
        candidates: at least one.
        measure: called without thresholds.
        frame_rates: as in :func:`smooth_all`.

    Raises:
        DataError: if no candidate has a value.
    """
    values = [(item, measure(task, labels, smooth_all(predictions, item, frame_rates), None)) for item in candidates]
    return _best(values, lambda item: item.frames), values


def tune_thresholds(task: Task, predictions: Sequence[Series], labels: Sequence[Series], grid: Sequence[float] = GRID) -> tuple[float, ...]:
    """Return for each label the threshold with the largest F1 on a tuning split, of equals the one nearest to 0.5.

    A label is present where its prediction reaches the threshold. Annotated frames without a prediction are completed as in
    :func:`complete`; in a video without any, every label is absent. A label that is never present in the annotations keeps 0.5.

    Args:
        task: an ``independent`` one.
        predictions: as they will be used, so after smoothing.
        labels: 0 or 1 for each label; rows with NaN do not count.
        grid: thresholds to try.

    Raises:
        DataError: if no frame is annotated.
    """
    truth, values = _paired(task, predictions, labels)
    return tuple(_threshold(truth[:, k] > 0.5, values[:, k], grid) for k in range(len(task.labels)))


def _threshold(truth: BoolArray, values: FloatArray, grid: Sequence[float]) -> float:
    positives = int(truth.sum())
    if not positives:
        return DEFAULT_THRESHOLD
    scored = []
    for threshold in grid:
        present = values >= np.float32(threshold)
        hits = int((present & truth).sum())
        scored.append((threshold, 2 * hits / (positives + int(present.sum()))))
    return _best(scored, lambda threshold: abs(threshold - DEFAULT_THRESHOLD))


def _paired(task: Task, predictions: Sequence[Series], labels: Sequence[Series]) -> tuple[FloatArray, FloatArray]:
    """Return labels and completed predictions (N, K) of all annotated frames; NaN in videos without any prediction."""
    found = {series.video: series for series in predictions}
    none = Series("", np.zeros(0, np.int64), np.zeros((0, len(task.labels)), np.float32))
    truth = [series.values[series.known] for series in labels]
    values = [complete(found.get(series.video, none), series.frames[series.known]).values for series in labels]
    if not sum(map(len, truth)):
        raise DataError(f"No frame of the tuning split is annotated for {task.title}.")
    return np.concatenate(truth), np.concatenate(values)


def tune_blend(
    task: Task,
    systems: tuple[Sequence[Series], Sequence[Series]],
    labels: Sequence[Series],
    measure: Measure,
    grid: Sequence[float] = (0.0, *GRID, 1.0),
    *,
    per_label: bool = False,
) -> tuple[tuple[float, ...], list[tuple[float, float]]]:
    """Return the weights of the first of two systems with the largest measure on a tuning split.

    Box and Gaussian smoothing are linear, so on completed tracks it is the same to blend before or after it: give tracks that are
    already smoothed to tune for the smoothed blend.

    Args:
        task: of the predictions.
        systems: predictions ``a`` and ``b`` of :func:`blend`.
        labels: of the tuning split.
        measure: called without thresholds.
        grid: weights to try.
        per_label: start from the best common weight, then choose the weight of one label after the other with the rest held; this
            is the optimum of a measure that is a mean over labels.

    Returns:
        One weight per label (of equals the one nearest to 0.5, per label the one nearest to the common weight), and the value of
        every common weight.

    Raises:
        DataError: if no weight has a value.
    """

    def value(weights: Sequence[float]) -> float:
        return measure(task, labels, blend_all(*systems, weights), None)

    count = len(task.labels)
    table = [(weight, value([weight] * count)) for weight in grid]
    common = _best(table, lambda weight: abs(weight - 0.5))
    weights = [common] * count
    for k in range(count) if per_label else ():
        tried = [(weight, value([*weights[:k], weight, *weights[k + 1 :]])) for weight in grid]
        weights[k] = _best(tried, lambda weight: abs(weight - common))
    return tuple(weights), table


def _best(values: Sequence[tuple[T, float]], cost: Callable[[T], float]) -> T:
    """Return the candidate with the largest value, of equals the one with the least cost; undefined values do not count."""
    defined = [(value, -cost(item), -place) for place, (item, value) in enumerate(values) if not math.isnan(value)]
    if not defined:
        raise DataError("The measure has no value for any candidate; the tuning split may have no annotated frame.")
    return values[-max(defined)[2]][0]
