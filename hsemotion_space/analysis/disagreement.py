"""Where checkpoints disagree about the same faces, and how uncertain each is; to choose what to inspect.

All measures are computed from the timelines as they are, smoothed or not. They are properties of the outputs:
checkpoints can agree and all be wrong, and none of these numbers is the probability of an error. Within a
kind of task scores can be compared; between kinds they have the same ends, 0 and 1, but not the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from hsemotion_space.tasks import Label, Task
from hsemotion_space.types import (
    Analysis,
    CheckpointRef,
    Disagreement,
    FaceResult,
    FloatArray,
    Prediction,
    Provenance,
    Timeline,
)

APART_S: Final = 1.0
_ROUNDING: Final = 1e-9  # a divergence below it is rounding of float64
_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment at which checkpoints disagree about a face.

    Attributes:
        track_id: of the face.
        task: with the labels that were compared.
        time_s: presentation time; for a clip-level task the first one of the face, and the values are those
            of the whole clip.
        score: of the disagreement, above 0, at most 1.
        decisions: in 0..1, as in :class:`Disagreement`; NaN for a task without decisions.
        mixed: whether numbers of different provenance were compared.
        checkpoints, predictions: of each; the values are of that frame, so their spread is NaN.
    """

    track_id: int
    task: Task
    time_s: float
    score: float
    decisions: float
    mixed: bool
    checkpoints: tuple[CheckpointRef, ...]
    predictions: tuple[Prediction, ...]

    @property
    def provenances(self) -> tuple[Provenance, ...]:
        """Where the numbers of each checkpoint come from."""
        return tuple(prediction.provenance for prediction in self.predictions)


def disagreements(analyses: Sequence[Analysis]) -> tuple[Disagreement, ...]:
    """Return how far checkpoints are apart, for every face and every task that two or more of them have.

    One-of tasks are compared over all labels that any of them has (a label that one lacks has probability 0
    in it, as its distribution says), others over the labels that all of them have. Numbers of different
    provenance are compared too; the result says so in ``mixed``, as it does in ``partial`` about labels that
    some lack.

    - one of: :func:`jensen_shannon`; the decision is the most probable label.
    - continuous: the mean over labels and pairs of checkpoints of ``|a - b| / (high - low)``; there is no
      decision.
    - independent: the mean over labels and pairs of checkpoints of ``|a - b|``; a decision per label is
      whether its value reaches the threshold of the checkpoint, where all of them have thresholds.

    Args:
        analyses: two or more of one media file with the same tracks, as :meth:`Pipeline.analyze_all` gives
            them.

    Returns:
        By face, then in the order in which tasks appear.

    Raises:
        ValueError: if there are fewer than two, or they are not of the same media and the same tracks.
    """
    _check_same(analyses)
    found = []
    for faces in zip(*(analysis.faces for analysis in analyses), strict=True):
        for name in dict.fromkeys(line.task.name for face in faces for line in face.timelines):
            pairs = [
                (analysis.checkpoint, line)
                for analysis, face in zip(analyses, faces, strict=True)
                if (line := _line(face, name))
            ]
            if len(pairs) > 1 and _labels(lines := tuple(line for _, line in pairs)):
                found.append(_compare(faces[0].track.track_id, tuple(ref for ref, _ in pairs), lines))
    return tuple(found)


def most_disagreed(found: Sequence[Disagreement], count: int, apart_s: float = APART_S) -> tuple[Moment, ...]:
    """Return the moments with the highest scores, the highest first and the earlier one of equals.

    Args:
        found: any selection of :func:`disagreements`, such as those of one task, or those that are not
            ``mixed``.
        count: how many at most; moments at which all say the same are none.
        apart_s: moments of one face and task lie at least so far from each other.

    Raises:
        ValueError: if the count or the distance is negative.
    """
    if count < 0 or apart_s < 0:
        raise ValueError(f"Expected a count and a distance of at least 0, got {count} and {apart_s}.")
    candidates = [
        (-float(score), float(time_s), item.track_id, place, row)
        for place, item in enumerate(found)
        for row, (score, time_s) in enumerate(zip(item.score, item.times_s, strict=True))
        if score > 0
    ]
    chosen: list[Moment] = []
    taken: dict[tuple[int, str], list[float]] = {}
    for _, time_s, track_id, place, row in sorted(candidates):
        if len(chosen) == count:
            break
        times = taken.setdefault((track_id, found[place].task.name), [])
        if all(abs(time_s - other) >= apart_s - 1e-9 for other in times):
            times.append(time_s)
            chosen.append(_moment(found[place], row))
    return tuple(chosen)


def jensen_shannon(distributions: npt.NDArray[np.floating]) -> _Values:
    """Return the Jensen-Shannon divergence (T,) of N distributions with equal weights, in 0..1.

    ``(H(mean of the p_n) - mean of the H(p_n)) / log2 N`` with Shannon's entropy H in bits (Lin, 1991,
    Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37(1)). Without
    the divisor it is at most log2 N, which is 1 for two; with it, it is 1 where no two of the N share a
    label.

    Args:
        distributions: (N, T, K), N at least 2, not negative, K adds up to one.
    """
    values = np.asarray(distributions, np.float64)
    divergence = (_entropy(values.mean(axis=0)) - _entropy(values).mean(axis=0)) / np.log2(len(values))
    return np.where(divergence < _ROUNDING, 0, np.minimum(divergence, 1))


def mean_pairwise(values: npt.NDArray[np.floating]) -> _Values:
    """Return the mean absolute difference (T,) of values (N, T, K) over all pairs of the N and all K."""
    given = np.asarray(values, np.float64)
    pairs = [np.abs(given[one] - given[other]) for one, other in combinations(range(len(given)), 2)]
    return np.asarray(np.mean(pairs, axis=(0, 2)))


def uncertainty(line: Timeline) -> FloatArray:
    """Return how unsure the outputs of one checkpoint are, (T,) in 0..1, for choosing what to annotate.

    Uncertainty sampling is described by Settles (2009), Active Learning Literature Survey, University of
    Wisconsin-Madison. This is a property of the outputs, not a probability of error: a checkpoint can be sure
    and wrong, and a temperature changes every value while the decisions stay.

    - one of: entropy divided by log2 K; 0 where one label has everything, 1 where all K are equal.
    - independent: the mean over labels of ``1 - |p - t| / r``, where r is how far p could be from the
      threshold t on its side; 1 where every value is on its threshold, 0 where every value is at an end of
      the range.
    - continuous, or independent without thresholds: NaN; such outputs do not tell how sure they are.

    Args:
        line: of a frame-level or a clip-level task.
    """
    values = line.values.astype(np.float64)
    if line.task.kind == "one_of":
        unsure = _entropy(values) / np.log2(max(values.shape[1], 2))
    elif line.task.kind == "independent" and line.thresholds:
        limits = np.array(line.thresholds)
        room = np.where(values >= limits, line.task.high - limits, limits - line.task.low)
        share = np.divide(np.abs(values - limits), room, out=np.zeros_like(values), where=room > 0)
        unsure = 1 - share.mean(axis=1)
    else:
        unsure = np.full(len(values), np.nan)
    return np.asarray(np.clip(unsure, 0, 1), np.float32)


def _entropy(values: _Values) -> _Values:
    """Return Shannon's entropy in bits over the last axis; 0 log 0 is 0."""
    positive = np.where(values > 0, values, 1)
    return np.asarray(-(positive * np.log2(positive)).sum(axis=-1))


def _check_same(analyses: Sequence[Analysis]) -> None:
    if len(analyses) < 2:
        raise ValueError(f"Expected two or more analyses, got {len(analyses)}.")
    first = analyses[0]
    for other in analyses[1:]:
        if other.media.sha256 != first.media.sha256:
            raise ValueError("Analyses of different media cannot be compared.")
        same = len(other.faces) == len(first.faces) and all(
            np.array_equal(one.track.times_s, two.track.times_s)
            and np.array_equal(one.track.boxes_xyxy, two.track.boxes_xyxy)
            for one, two in zip(first.faces, other.faces, strict=True)
        )
        if not same:
            raise ValueError(
                f"{first.checkpoint.title} and {other.checkpoint.title} did not see the same tracks. Run both"
                " in one pass."
            )


def _line(face: FaceResult, name: str) -> Timeline | None:
    return next((line for line in face.timelines if line.task.name == name), None)


def _compare(
    track_id: int, checkpoints: tuple[CheckpointRef, ...], lines: tuple[Timeline, ...]
) -> Disagreement:
    task = lines[0].task
    labels = _labels(lines)
    values = np.stack([_columns(line, labels) for line in lines])
    decisions = np.full(values.shape[1], np.nan)
    if task.kind == "one_of":
        score = jensen_shannon(values)
        top = values.argmax(axis=2)
        decisions = (top != top[0]).any(axis=0).astype(np.float64)
    else:
        score = mean_pairwise(values) / (task.high - task.low)
        if task.kind == "independent" and all(line.thresholds for line in lines):
            limits = np.stack([_limits(line, labels) for line in lines])
            present = values >= limits[:, None]
            decisions = (present != present[0]).any(axis=0).mean(axis=1)
    return Disagreement(
        track_id,
        replace(task, labels=labels),
        checkpoints,
        lines,
        score.astype(np.float32),
        decisions.astype(np.float32),
    )


def _labels(lines: Sequence[Timeline]) -> tuple[Label, ...]:
    """Return the labels to compare: for one-of tasks all labels of any line, else those that all share."""
    every = {label.name: label for line in reversed(lines) for label in line.task.labels}
    order = dict.fromkeys(name for line in lines for name in line.task.label_names)
    union = lines[0].task.kind == "one_of"
    return tuple(
        every[name] for name in order if union or all(name in line.task.label_names for line in lines)
    )


def _columns(line: Timeline, labels: Sequence[Label]) -> FloatArray:
    """Return the values (T, K) of these labels, 0 for one that the line lacks."""
    names = line.task.label_names
    columns = [
        (
            line.values[:, names.index(label.name)]
            if label.name in names
            else np.zeros(len(line.times_s), np.float32)
        )
        for label in labels
    ]
    return np.stack(columns, axis=1)


def _limits(line: Timeline, labels: Sequence[Label]) -> FloatArray:
    return np.array([line.thresholds[line.task.index(label.name)] for label in labels], np.float32)


def _at(line: Timeline, row: int) -> Prediction:
    """Return what a line says in one frame."""
    values, support = line.values[row], line.support[row] if len(line.support) else np.zeros(0, np.float32)
    return Prediction(
        line.task,
        line.provenance,
        values,
        np.full_like(values, np.nan),
        1,
        line.thresholds,
        support=support,
        least_support=line.least_support,
    )


def _moment(item: Disagreement, row: int) -> Moment:
    return Moment(
        item.track_id,
        item.task,
        float(item.times_s[row]),
        float(item.score[row]),
        float(item.decisions[row]),
        item.mixed,
        item.checkpoints,
        tuple(_at(line, row) for line in item.lines),
    )
