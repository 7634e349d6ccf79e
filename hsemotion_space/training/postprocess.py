"""Predictions after the heads: gaps, blending and smoothing, and their settings as a file.

The order is that of the paper: predictions (never features) are completed over frames without a face,
blended, smoothed over the whole track, and only then compared with thresholds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hsemotion_space.inference.temporal import box_smooth, gaussian_smooth, interpolate
from hsemotion_space.tasks import Task
from hsemotion_space.training.files import DataError, located, reading
from hsemotion_space.training.series import Series
from hsemotion_space.types import FloatArray, IntArray

FRAME_RATE = 30.0  # frames per second of a video without a known rate

FrameRates = Mapping[str, float]
"""Frames per second by video."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How predictions are smoothed along a track.

    Attributes:
        kind: ``box`` is the mean over a window, ``gaussian`` weighs near frames more, ``none`` leaves the
            values.
        width: half width of the box, or standard deviation of the Gaussian (``sqrt(s / 2)`` for upstream's
            ``exp(-d^2 / s)``).
        unit: of the width. In ``frames`` the same window lasts longer in a slow video, as in the paper.
    """

    kind: Literal["none", "box", "gaussian"] = "none"
    width: float = 0.0
    unit: Literal["frames", "seconds"] = "frames"

    def __post_init__(self) -> None:
        if not 0 <= self.width < math.inf:
            raise DataError(
                "The width of the smoothing must be 0 or more, found {width}.", code="width", width=self.width
            )


@dataclass(frozen=True, slots=True)
class PostSettings:
    """Settings of everything after the heads.

    Attributes:
        task: of the predictions.
        smoothing: of every video.
        thresholds: (K,) of units; empty without.
        weights: (K,) of the first of two systems; empty for one system.
    """

    task: Task
    smoothing: Smoothing
    thresholds: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()


def save_settings(settings: PostSettings, file: Path) -> None:
    """Write the settings as JSON."""
    file.write_text(json.dumps(asdict(settings) | {"task": settings.task.name}, indent=1) + "\n", "utf-8")


def load_settings(file: Path, task: Task) -> PostSettings:
    """Read what :func:`save_settings` wrote."""
    with reading(file, "file of settings from `learn tune`"):
        table = json.loads(file.read_text("utf-8"))
        if (name := table["task"]) != task.name:
            raise DataError(
                "{file} belongs to {name}, not to {task}.",
                code="other_task",
                file=file,
                name=name,
                task=task.name,
            )
        settings = PostSettings(
            task, Smoothing(**table["smoothing"]), tuple(table["thresholds"]), tuple(table["weights"])
        )
        if any(
            len(numbers) not in (0, len(task.labels)) for numbers in (settings.thresholds, settings.weights)
        ):
            template = "{file} must have no thresholds and weights, or {count} of each."
            raise DataError(template, code="label_count", file=file, count=len(task.labels))
    return settings


def load_frame_rates(file: Path | None) -> FrameRates:
    """Read frames per second by video from a JSON object; an empty table without a file."""
    if file is None:
        return {}
    with reading(file, "JSON object of frames per second by video"):
        rates = {str(video): float(rate) for video, rate in json.loads(file.read_text("utf-8")).items()}
        if invalid := [video for video, rate in rates.items() if not rate > 0]:
            raise DataError(
                "{file}: the frame rate of {video} must be positive.",
                code="frame_rate",
                file=file,
                video=invalid[0],
            )
    return rates


def complete(series: Series, frames: IntArray) -> Series:
    """Return predictions (F, K) at ``frames`` (F,): linear between known ones, constant beyond.

    Rows with NaN do not count; without any other row, all are NaN.
    """
    known = series.known
    if not len(known):
        return Series(
            series.video, frames, np.full((len(frames), series.values.shape[1]), np.nan, np.float32)
        )
    return Series(series.video, frames, interpolate(series.frames[known], series.values[known], frames))


def complete_all(predictions: Iterable[Series], frames: Mapping[str, IntArray]) -> list[Series]:
    """Complete each video at its ``frames``; a video without any is left out."""
    return [complete(series, frames[series.video]) for series in predictions if series.video in frames]


def smooth_series(series: Series, smoothing: Smoothing, fps: float = FRAME_RATE) -> Series:
    """Return smoothed predictions of one video; the window is cut at its ends. Meant for a completed track.

    Rows with NaN do not count and stay as they are.
    """
    if smoothing.kind == "none" or smoothing.width == 0:
        return series
    smooth = box_smooth if smoothing.kind == "box" else gaussian_smooth
    known, values = series.known, series.values.copy()
    if len(known):
        width = smoothing.width * (fps if smoothing.unit == "seconds" else 1.0)
        values[known] = smooth(series.frames[known], series.values[known], width)
    return replace(series, values=values)


def smooth_all(
    predictions: Iterable[Series], smoothing: Smoothing, rates: FrameRates | None = None
) -> list[Series]:
    """Smooth each video; those without a frame rate have 30 frames per second."""
    return [
        smooth_series(series, smoothing, (rates or {}).get(series.video, FRAME_RATE))
        for series in predictions
    ]


def blend(a: Series, b: Series, weight: float | Sequence[float]) -> Series:
    """Return ``weight * a + (1 - weight) * b`` of two systems on all frames of one video that either has.

    The weight is in 0..1, one for all labels or one for each. Where one system has no prediction the other
    counts alone. The paper blends probabilities before they are smoothed.
    """
    labels = a.values.shape[1]
    if a.video != b.video or b.values.shape[1] != labels:
        with located(f"{a.video} and {b.video}"):
            raise DataError("predictions of other videos or labels cannot be blended.", code="other_labels")
    weights = np.asarray(weight, np.float64)
    if weights.size not in (1, labels) or not np.all((weights >= 0) & (weights <= 1)):
        template = "Weights must be from 0 to 1, one or {labels} of them, found {weights}."
        raise DataError(template, code="weights", labels=labels, weights=weight)
    frames = np.union1d(a.frames, b.frames)
    first, second = _at(a, frames), _at(b, frames)
    mixed = weights * first + (1 - weights) * second
    values = np.where(np.isnan(first), second, np.where(np.isnan(second), first, mixed))
    return Series(a.video, frames, values.astype(np.float32))


def blend_all(a: Iterable[Series], b: Iterable[Series], weight: float | Sequence[float]) -> list[Series]:
    """Blend video by video, in the order of ``a``; a video that only one system has follows from it alone."""
    others = {series.video: series for series in b}
    mixed = [
        blend(series, others.pop(series.video), weight) if series.video in others else series for series in a
    ]
    return [*mixed, *others.values()]


def _at(series: Series, frames: IntArray) -> FloatArray:
    """Return the rows at ``frames``, which include those of the series; NaN where missing or incomplete."""
    values = np.full((len(frames), series.values.shape[1]), np.nan, np.float32)
    values[np.searchsorted(frames, series.frames[series.known])] = series.values[series.known]
    return values


def post_process(
    settings: PostSettings,
    systems: Sequence[Iterable[Series]],
    frames: Mapping[str, IntArray],
    rates: FrameRates | None = None,
) -> list[Series]:
    """Complete the predictions over all frames of each video, blend two systems, then smooth."""
    expected = 2 if settings.weights else 1
    if len(systems) != expected:
        template = "The settings are for {expected} systems of predictions, found {count}."
        raise DataError(template, code="systems", expected=expected, count=len(systems))
    first, *others = (complete_all(system, frames) for system in systems)
    mixed = blend_all(first, others[0], settings.weights) if settings.weights else first
    return smooth_all(mixed, settings.smoothing, rates)
