"""When each label holds in a clip: events, and shares of the time that a face is visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hsemotion_space.types import BoolArray, FloatArray, Timeline

SHORTEST_S: Final = 0.3
"""Shortest event listed.

A choice: microexpressions apart, facial expressions last half a second or longer (Ekman, 2003).
"""
# typical steps between frames; a longer one is a gap in which the face is not visible
_LONGEST_STEP: Final = 2.5


@dataclass(frozen=True, slots=True)
class Event:
    """A stretch of time in which a label holds without interruption.

    Attributes:
        column: of the label in its task.
        start_s, end_s: presentation times; half a step before the first and after the last frame of the
            stretch.
        peak: largest value of the label in it.
        peak_s: presentation time of the peak.
    """

    column: int
    start_s: float
    end_s: float
    peak: float
    peak_s: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def active(timeline: Timeline) -> BoolArray:
    """Return where each label holds, (T, K): it is most probable and stands out, or it reaches its threshold.

    All False for a continuous task, and for independent labels without thresholds.
    """
    values, task = timeline.values, timeline.task
    found = np.zeros(values.shape, np.bool_)
    if task.kind == "one_of" and len(values):
        found[np.arange(len(values)), values.argmax(axis=1)] = timeline.stands_out
    elif task.kind == "independent" and timeline.thresholds:
        found = values >= np.asarray(timeline.thresholds, np.float32)
    return found


def events(timeline: Timeline, shortest_s: float = SHORTEST_S) -> tuple[Event, ...]:
    """Return the events of a frame-level timeline by start; none for a single frame or a clip-level task.

    Args:
        timeline: smoothed as it is shown.
        shortest_s: shorter events are left out.
    """
    if timeline.task.scope != "frame" or len(timeline.times_s) < 2:
        return ()
    starts, ends, visible_before = _extents(timeline.times_s)
    found: list[Event] = []
    for column, holds in enumerate(active(timeline).T):
        for first, last in _runs(holds, visible_before):
            rows = slice(first, last + 1)
            at = first + int(timeline.values[rows, column].argmax())
            event = Event(
                column,
                float(starts[first]),
                float(ends[last]),
                float(timeline.values[at, column]),
                float(timeline.times_s[at]),
            )
            if event.duration_s >= shortest_s - 1e-9:
                found.append(event)
    return tuple(sorted(found, key=lambda event: (event.start_s, event.column)))


def shares(timeline: Timeline) -> FloatArray:
    """Return the share (K,) of the time that the face is visible in which each label holds, 0 to 1.

    NaN for a single frame, a clip-level task, and a task whose labels never hold by :func:`active`.
    """
    task = timeline.task
    if (
        task.scope != "frame"
        or len(timeline.times_s) < 2
        or (task.kind != "one_of" and not timeline.thresholds)
    ):
        return np.full(len(task.labels), np.nan, np.float32)
    starts, ends, _ = _extents(timeline.times_s)
    lengths = ends - starts
    return np.asarray(active(timeline).T @ lengths / lengths.sum(), np.float32)


def _extents(
    times_s: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], BoolArray]:
    """Return start and end (T,) of each frame's time, and whether the face was visible just before."""
    steps = np.diff(times_s)
    typical = float(np.median(steps))
    whole = steps <= _LONGEST_STEP * typical
    halves = np.where(whole, steps, typical) / 2
    starts = times_s - np.concatenate([[typical / 2], halves])
    ends = times_s + np.concatenate([halves, [typical / 2]])
    return np.maximum(starts, times_s[0]), np.minimum(ends, times_s[-1]), np.concatenate([[False], whole])


def _runs(holds: BoolArray, visible_before: BoolArray) -> list[tuple[int, int]]:
    """Return first and last row of each stretch of True rows without a gap in it."""
    begins = holds & ~(visible_before & np.concatenate([[False], holds[:-1]]))
    following = np.concatenate([begins[1:] | ~holds[1:], [True]])
    return list(zip(np.flatnonzero(begins).tolist(), np.flatnonzero(holds & following).tolist(), strict=True))
