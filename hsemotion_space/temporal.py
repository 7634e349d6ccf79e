"""Timelines in time: interpolation over gaps, smoothing, summary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hsemotion_space.types import Prediction, Timeline


def fill_gaps(timeline: Timeline, times_s: npt.NDArray[np.float64]) -> Timeline:
    """Return the timeline at all ``times_s`` (F,): linear in between, the first and the last value held beyond the ends."""
    columns = [np.interp(times_s, timeline.times_s, column) for column in timeline.values.T]
    return replace(timeline, times_s=times_s, values=np.stack(columns, 1).astype(np.float32))


def smooth(timeline: Timeline, half_width_s: float) -> Timeline:
    """Return the mean over the values within ``half_width_s`` before and after each time; the window is cut at the ends.

    This is the box filter of the paper with its width in seconds, so it does not depend on the frame rate; frames without
    the face do not count. 0 leaves the values as they are.

    Raises:
        ValueError: if the width is negative.
    """
    if half_width_s < 0:
        raise ValueError(f"The smoothing window must not be negative, got {half_width_s} s.")
    if half_width_s == 0 or len(timeline.times_s) < 2:
        return timeline
    reach = half_width_s + 1e-9
    first = np.searchsorted(timeline.times_s, timeline.times_s - reach)
    last = np.searchsorted(timeline.times_s, timeline.times_s + reach, side="right")
    sums = np.concatenate([np.zeros((1, timeline.values.shape[1])), np.cumsum(timeline.values, axis=0, dtype=np.float64)])
    means = (sums[last] - sums[first]) / (last - first)[:, None]
    return replace(timeline, values=np.clip(means, timeline.task.low, timeline.task.high).astype(np.float32))


def summarize(timeline: Timeline) -> Prediction:
    """Return mean and standard deviation over the frames of a timeline."""
    count = len(timeline.times_s)
    spread = timeline.values.std(axis=0) if count > 1 else np.full(timeline.values.shape[1], np.nan, np.float32)
    return Prediction(timeline.task, timeline.provenance, timeline.values.mean(axis=0), spread.astype(np.float32), count)
