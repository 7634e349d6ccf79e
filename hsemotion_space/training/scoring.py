"""Score predictions of one task by the official measure of the challenge, with an interval over videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hsemotion_space.metrics import (
    CalibrationBins,
    Doubles,
    bootstrap_additive,
    concordance_of_sums,
    confusion,
    f1_of_counts,
    f1_per_class,
    moment_sums,
    pearson_of_sums,
    unit_counts,
)
from hsemotion_space.tasks import Task
from hsemotion_space.training.calibration import bins_of_values
from hsemotion_space.training.files import DataError
from hsemotion_space.training.series import Series, by_video, check_thresholds, filled
from hsemotion_space.types import FloatArray, IntArray

Measure = Literal["P_VA", "macro F1", "mean F1", "mean Pearson r"]
SUM_TOLERANCE = 0.02  # of the probabilities of a frame; half precision of eight classes stays well inside


class LabelScore(NamedTuple):
    """Measure of one label; ``support`` counts frames of the class or with the unit, else all frames."""

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
        ece: expected calibration error of the top class, or of the units' probabilities; NaN for the other
            tasks.
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


class _Statistics(NamedTuple):
    """A measure as a function of additive statistics, (K, .) of any values (N, K) and targets (N, K or 1)."""

    measure: Measure
    sums: Callable[[FloatArray, FloatArray], Doubles]
    of_sums: Callable[[Doubles], Doubles]


def score(
    task: Task, labels: Iterable[Series], predictions: Iterable[Series],
    thresholds: Sequence[float] | None = None, *, rounds: int = 1000, seed: int = 0,
) -> TaskScore:  # fmt: skip
    """Score predictions by the official measure over all annotated frames together, not per video.

    ``P_VA``: mean of the concordance coefficients ``2 cov / (var x + var y + (mean x - mean y)^2)``,
    population moments. ``macro F1`` (one of several classes): arg-max, unweighted mean of the F1 of all
    classes of the task, 0 for a class that is absent. ``mean F1`` (units): mean F1 of the positive class.
    ``mean Pearson r`` (clips): mean of the labels' correlations, 0 where one side is constant. Definitions:
    6th ABAW competition (Kollias et al., 2024, arXiv 2402.19344).

    Every annotated frame counts; those without a prediction are :func:`filled` as in a submission.

    Args:
        task: with the labels that the columns have.
        labels: one series per video; rows with NaN do not count.
        predictions: one series per video; rows with NaN are no predictions, videos without labels are
            ignored.
        thresholds: (K,) for units, one is present at or above its own; 0.5 if None.
        rounds: of the bootstrap over videos (clips for a clip-level task), 0 for no interval.
        seed: of the rounds.
    """
    statistics = _statistics(task, check_thresholds(task, thresholds))
    targets = by_video(task, labels, 1 if task.kind == "one_of" else len(task.labels), "labels")
    relevant = (series for series in predictions if series.video in targets)
    known = by_video(task, relevant, len(task.labels), "predictions")
    _check_labels(task, targets)
    _check_probabilities(task, known)
    values = np.concatenate([filled(task, known.get(name), one.frames) for name, one in targets.items()])
    truth = np.concatenate([series.values for series in targets.values()])
    bounds = np.cumsum([0, *(len(series.frames) for series in targets.values())]).tolist()
    sums = np.stack([statistics.sums(values[a:b], truth[a:b]) for a, b in pairwise(bounds)])
    per_label = statistics.of_sums(sums.sum(0))
    predicted = sum(int(np.isin(targets[name].frames, one.frames).sum()) for name, one in known.items())
    missing = sum(len(series.frames) for video, series in targets.items() if video not in known)
    counts = sums.sum(0).astype(np.int64) if task.kind == "one_of" else np.zeros((0, 0), np.int64)
    calibration = bins_of_values(task, values, truth)
    mean_of = lambda drawn: float(statistics.of_sums(drawn.reshape(per_label.size, -1)).mean())  # noqa: E731
    return TaskScore(
        task=task,
        measure=statistics.measure,
        value=float(per_label.mean()),
        interval=bootstrap_additive(sums.reshape(len(sums), -1), mean_of, rounds, seed),
        per_label=tuple(map(LabelScore, task.label_names, per_label.tolist(), _support(task, truth))),
        frames_labeled=len(truth),
        frames_predicted=predicted,
        frames_filled=len(truth) - predicted - missing,
        frames_missing_video=missing,
        videos=len(targets),
        accuracy=float(np.trace(counts) / len(truth)) if counts.size else float("nan"),
        ece=calibration.error,
        confusion=counts,
        calibration=calibration,
    )


def _statistics(task: Task, limits: FloatArray) -> _Statistics:
    classes = len(task.labels)
    if task.kind == "one_of":

        def counts(values: FloatArray, targets: FloatArray) -> npt.NDArray[np.float64]:
            return confusion(values.argmax(1), targets[:, 0], classes).astype(np.float64)

        return _Statistics("macro F1", counts, f1_per_class)
    if task.kind == "continuous":
        return _Statistics("P_VA", moment_sums, concordance_of_sums)
    if task.scope == "clip":
        return _Statistics("mean Pearson r", moment_sums, pearson_of_sums)
    return _Statistics(
        "mean F1", lambda values, targets: unit_counts(values >= limits, targets), f1_of_counts
    )


def _check_labels(task: Task, labels: Mapping[str, Series]) -> None:
    if not labels:
        raise DataError(
            "No {scope} is annotated for {task}.", code="no_label", scope=task.scope, task=task.title
        )
    values = np.concatenate([series.values for series in labels.values()])
    if task.kind == "one_of":
        fits, expected = (
            np.isin(values, np.arange(len(task.labels))),
            f"a class from 0 to {len(task.labels) - 1}",
        )
    elif task.kind == "independent" and task.scope == "frame":
        fits, expected = np.isin(values, (0, 1)), "0 or 1"
    else:
        fits, expected = (values >= task.low) & (values <= task.high), f"{task.low:g} to {task.high:g}"
    if not fits.all():
        row, column = np.argwhere(~fits)[0]
        video, frame = [(series.video, frame) for series in labels.values() for frame in series.frames][row]
        found = {"video": video, "frame": frame, "value": values[row, column]}
        template = (
            "The label of {video}, frame {frame}, is {value:g}; expected {expected}, or NaN where there is"
            " none."
        )
        raise DataError(template, code="label", expected=expected, **found)


def _check_probabilities(task: Task, predictions: Mapping[str, Series]) -> None:
    for video, series in predictions.items():
        if task.kind == "one_of" and np.any(np.abs(series.values.sum(axis=1) - 1) > SUM_TOLERANCE):
            template = (
                "The predictions of {video} are no probabilities; those of {task} must sum to 1 in each"
                " frame."
            )
            raise DataError(template, code="probabilities", video=video, task=task.title)


def _support(task: Task, targets: FloatArray) -> list[int]:
    if task.kind == "one_of":
        return [int((targets == column).sum()) for column in range(len(task.labels))]
    if task.kind == "independent" and task.scope == "frame":
        return [int(count) for count in targets.sum(axis=0, dtype=np.float64)]
    return [len(targets)] * len(task.labels)
