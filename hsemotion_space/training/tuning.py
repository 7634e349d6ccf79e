"""Choices on tuning videos, a part of the training set: smoothing, blend of two systems, and thresholds of units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from hsemotion_space.tasks import Task
from hsemotion_space.training.data import fold_of
from hsemotion_space.training.files import DataError
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
from hsemotion_space.training.series import DEFAULT_THRESHOLD, Series
from hsemotion_space.types import BoolArray, FloatArray

GRID = tuple(step / 10 for step in range(1, 10))
PAPER_WINDOWS = (0, 3, 5, 7, 10, 15, 20, 25, 50, 100, 200)  # half widths in frames that the paper's notebooks tried

T = TypeVar("T")


def recording_of(video: str) -> str:
    """Return the stem of the video file behind a label file: ``x_left`` and ``x_right`` are two people in the video ``x``."""
    return video.removesuffix("_left") if video.endswith("_left") else video.removesuffix("_right")


def tuning_videos(videos: Iterable[str], share: float) -> set[str]:
    """Return the videos of a training set that choices are made on; they depend on the set and the share alone.

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


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What :func:`tune` tries; ``rates`` apply to widths in seconds."""

    smoothings: tuple[Smoothing, ...]
    weights: tuple[float, ...] = (0.0, *GRID, 1.0)
    rates: FrameRates = field(default_factory=dict)


def tune(task: Task, systems: Sequence[Sequence[Series]], labels: Sequence[Series], space: SearchSpace) -> PostSettings:
    """Choose the blend of two systems and the smoothing with the best official measure, then the thresholds.

    ``systems`` are one or two, each with raw predictions; ``labels`` are those of the tuning videos. Of equals the first
    counts, and a clip-level task is never smoothed.
    """
    if not labels:
        template = "{task} has no tuning video; give a larger --tuning-share, or labels of two recordings or more."
        raise DataError(template, code="no_tuning_video", task=task.name)
    if not 1 <= len(systems) <= 2:
        raise DataError("Give the predictions of one system, or of two to blend; found {count}.", code="systems", count=len(systems))
    frames = {series.video: series.frames for series in labels}
    completed = [complete_all(system, frames) for system in systems]
    if not all(completed):
        raise DataError("The tuning labels and the predictions of {task} have no video in common.", code="no_video", task=task.name)
    tried: list[tuple[PostSettings, float]] = []
    for smoothing in space.smoothings if task.scope == "frame" else [Smoothing()]:
        first, *others = (smooth_all(system, smoothing, space.rates) for system in completed)
        weights = tune_blend(task, (first, others[0]), labels, space.weights) if others else ()
        mixed = blend_all(first, others[0], weights) if weights else first
        tried.append((PostSettings(task, smoothing, (), weights), measure(task, labels, mixed)))
    best = _best(tried, lambda _: 0)
    if task.kind == "independent" and task.scope == "frame":
        thresholds = tune_thresholds(task, post_process(best, completed, frames, space.rates), labels)
        best = PostSettings(task, best.smoothing, thresholds, best.weights)
    return best


def tune_blend(
    task: Task, systems: tuple[Sequence[Series], Sequence[Series]], labels: Sequence[Series], grid: Sequence[float]
) -> tuple[float, ...]:
    """Return the weights (K,) of the first of two systems with the best official measure, of equals the nearest to 0.5.

    For a clip-level task, whose measure is a mean over labels, each label's weight is then chosen with the others held. Box
    and Gaussian smoothing are linear, so on completed tracks it is the same to blend before or after it.
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


def tune_thresholds(task: Task, predictions: Sequence[Series], labels: Sequence[Series], grid: Sequence[float] = GRID) -> tuple[float, ...]:
    """Return for each label the threshold with the largest F1 on a tuning split, of equals the one nearest to 0.5.

    A label is present where its prediction reaches the threshold. Annotated frames without a prediction are completed as in
    :func:`~hsemotion_space.training.postprocess.complete`; in a video without any, every label is absent. A label that is
    never present in the annotations keeps 0.5.
    """
    found: Mapping[str, Series] = {series.video: series for series in predictions}
    none = Series("", np.zeros(0, np.int64), np.zeros((0, len(task.labels)), np.float32))
    if not any(len(series.known) for series in labels):
        raise DataError("No frame of the tuning split is annotated for {task}.", code="no_label", task=task.title)
    truth = np.concatenate([series.values[series.known] for series in labels])
    values = np.concatenate([complete(found.get(series.video, none), series.frames[series.known]).values for series in labels])
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
    """Return the candidate with the largest value, of equals the one with the least cost; undefined values do not count."""
    defined = [(value, -cost(item), -place) for place, (item, value) in enumerate(tried) if not math.isnan(value)]
    if not defined:
        raise DataError("The measure has no value for any candidate; check whether a tuning frame is annotated.", code="no_value")
    return tried[-max(defined)[2]][0]
