"""Values in time: interpolation over gaps, smoothing, summary; for plain arrays and for timelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hsemotion_space.types import FloatArray, Prediction, Timeline, check_shape

Times = npt.NDArray[np.float64] | npt.NDArray[np.int64]
GAUSSIAN_REACH = 4.0  # standard deviations; weights beyond are below 0.0004 of the largest
_BLOCK = 256  # rows smoothed at once


def interpolate(frames: Times, values: FloatArray, wanted: Times) -> FloatArray:
    """Return the values (F, K) at all ``wanted`` times: linear in between, constant beyond the ends.

    Between neighbors p and n of time t the weight of the earlier one is ``1 - (t - p) / (n - p)``: the nearer
    one counts more.

    Args:
        frames: (T,) rising times or frame numbers, at least one.
        values: (T, K).
        wanted: (F,) in the same unit, in any order.

    Raises:
        ValueError: if there is no value or the lengths differ.
    """
    check_shape("interpolate", "values", values, (len(frames), None))
    if not len(frames):
        raise ValueError("Nothing can be interpolated from no values.")
    columns = [np.interp(wanted, frames, column) for column in values.T]
    return np.stack(columns, 1).astype(np.float32) if columns else np.zeros((len(wanted), 0), np.float32)


def box_smooth(times: Times, values: FloatArray, half_width: float) -> FloatArray:
    """Return the mean (T, K) over the values within ``half_width`` of each time; windows are cut at the ends.

    Both ends belong to the window. In frame numbers without gaps, ``half_width`` 50 is the window of 101
    frames of the paper.

    Args:
        times: (T,) rising times or frame numbers; gaps are allowed and do not count.
        values: (T, K) without NaN.
        half_width: in the unit of ``times``; 0 leaves the values as they are.

    Raises:
        ValueError: if the width is negative or the lengths differ.
    """
    _check_window(times, values, half_width)
    if half_width == 0 or len(times) < 2:
        return values
    first, last = _windows(times, half_width + 1e-9)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    return _within((sums[last] - sums[first]) / (last - first)[:, None], values)


def gaussian_smooth(times: Times, values: FloatArray, sigma: float) -> FloatArray:
    """Return the mean (T, K) with weights ``exp(-d^2 / (2 sigma^2))`` of the time distance d.

    The window ends at four standard deviations, and at the ends of the track. HSEmotion's later systems write
    the weights as ``exp(-d^2 / s)`` with d in frame numbers: the same curve with ``sigma = sqrt(s / 2)``
    frames, their 1e5 is 224 frames.

    Args:
        times: (T,) rising times or frame numbers; gaps are allowed and do not count.
        values: (T, K) without NaN.
        sigma: standard deviation in the unit of ``times``; 0 leaves the values as they are.

    Raises:
        ValueError: if sigma is negative or the lengths differ.
    """
    _check_window(times, values, sigma)
    if sigma == 0 or len(times) < 2:
        return values
    reach = GAUSSIAN_REACH * sigma
    first, last = _windows(times, reach)
    result = np.empty(values.shape, np.float64)
    for start in range(0, len(times), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(times)))
        near = slice(first[rows.start], last[rows.stop - 1])
        distances = np.abs(times[rows, None] - times[None, near])
        weights = np.where(distances <= reach, np.exp(-0.5 * (np.minimum(distances, reach) / sigma) ** 2), 0)
        result[rows] = weights @ values[near] / weights.sum(axis=1, keepdims=True)
    return _within(result, values)


def _check_window(times: Times, values: FloatArray, width: float) -> None:
    check_shape("smoothing", "values", values, (len(times), None))
    if width < 0:
        raise ValueError(f"The smoothing window must not be negative, got {width}.")


def _windows(times: Times, reach: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the first row and the row after the last one within ``reach`` of each time."""
    return np.searchsorted(times, times - reach), np.searchsorted(times, times + reach, side="right")


def _within(means: npt.NDArray[np.float64], values: FloatArray) -> FloatArray:
    """Undo what rounding put outside of the range of the values: a constant stays exactly what it was."""
    return np.clip(means, values.min(axis=0), values.max(axis=0)).astype(np.float32)


def fill_gaps(timeline: Timeline, times_s: npt.NDArray[np.float64]) -> Timeline:
    """Return the timeline at all ``times_s`` (F,): linear in between, constant beyond the ends."""
    known = timeline.times_s
    support = interpolate(known, timeline.support, times_s) if len(timeline.support) else timeline.support
    return replace(
        timeline, times_s=times_s, values=interpolate(known, timeline.values, times_s), support=support
    )


def smooth(timeline: Timeline, half_width_s: float) -> Timeline:
    """Return the mean over the values within ``half_width_s`` of each time; the window is cut at the ends.

    This is the box filter of the paper with its width in seconds, so it does not depend on the frame rate;
    frames without the face do not count. 0 leaves the values as they are.

    Raises:
        ValueError: if the width is negative.
    """
    if half_width_s < 0:
        raise ValueError(f"The smoothing window must not be negative, got {half_width_s} s.")
    if half_width_s == 0 or len(timeline.times_s) < 2:
        return timeline
    means = box_smooth(timeline.times_s, timeline.values, half_width_s)
    return replace(
        timeline, values=np.clip(means, timeline.task.low, timeline.task.high), half_width_s=half_width_s
    )


def summarize(timeline: Timeline) -> Prediction:
    """Return mean and standard deviation over the frames of a timeline."""
    count = len(timeline.times_s)
    spread = (
        timeline.values.std(axis=0) if count > 1 else np.full(timeline.values.shape[1], np.nan, np.float32)
    )
    return Prediction(
        timeline.task,
        timeline.provenance,
        timeline.values.mean(axis=0),
        spread.astype(np.float32),
        count,
        timeline.thresholds,
        timeline.reliability,
        timeline.support.mean(axis=0) if len(timeline.support) else np.zeros(0, np.float32),
        timeline.least_support,
    )
