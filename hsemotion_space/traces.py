"""Continuous ratings over a clip: checks, resampling, correction of the reaction lag, and agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hsemotion_space.metrics import Doubles, concordance, kendall_tau, pearson_per_column
from hsemotion_space.types import check_shape

RATE_HZ: Final = 10
"""Samples per second of presentation time."""
LATEST_START_S: Final = 5.0
LONGEST_GAP_S: Final = 20.0
"""A trace that begins later or has a longer gap is redone, as for ANNEMO (Ringeval et al., 2013)."""
LEAST_COVERED: Final = 0.5
"""Share of the face's time that a trace must cover; the two limits above mean little in a short clip."""
HOLD_S: Final = 0.5
"""Between two samples that are further apart nothing was rated."""
LAGS_S: Final = np.arange(-40, 41) / RATE_HZ
LEAST_SHARED_S: Final = 2.0
WINDOW_S: Final = 1.0
APART: Final = 0.3
"""Of the range -1 to 1: from here on two ratings of a moment differ."""
Problem = Literal["", "late", "gap", "sparse"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Ratings of one dimension by one person.

    Attributes:
        times_s: (N,) strictly rising presentation times of the frames that were on screen; N is at least 2.
        values: (N,) finite; -1 to 1, or on an unbounded scale whose unit is the person's own.
        bounded: which of the two.
    """

    times_s: Doubles
    values: Doubles
    bounded: bool = True

    def __post_init__(self) -> None:
        check_shape("Trace", "times_s", self.times_s, (None,))
        check_shape("Trace", "values", self.values, self.times_s.shape)
        finite = np.isfinite(self.times_s).all() and np.isfinite(self.values).all()
        if len(self.times_s) < 2 or not finite or not (np.diff(self.times_s) > 0).all():
            raise ValueError("A trace needs at least two finite samples in the order of time.")
        if self.bounded and np.abs(self.values).max() > 1:
            raise ValueError("The values of a bounded trace must be from -1 to 1.")


def resample(trace: Trace, times_s: npt.ArrayLike) -> Doubles:
    """Return the ratings at some times (M,), linear between samples; NaN where nothing was rated."""
    times, own = np.asarray(times_s, np.float64), trace.times_s
    before, after = np.searchsorted(own, times, "right") - 1, np.searchsorted(own, times, "left")
    outside = (before < 0) | (after == len(own))
    gap = own[np.minimum(after, len(own) - 1)] - own[np.maximum(before, 0)] > HOLD_S
    return np.where(outside | gap, np.nan, np.interp(times, own, trace.values))


def without_lag(trace: Trace, lag_s: float) -> Trace:
    """Return a copy whose ratings stand at the moments that they react to, ``lag_s`` earlier."""
    return Trace(trace.times_s - lag_s, trace.values, trace.bounded)


def on_scale(trace: Trace) -> Trace:
    """Return a trace on the scale -1 to 1: an unbounded one from its own minimum to its maximum."""
    if trace.bounded:
        return trace
    low, high = trace.values.min(), trace.values.max()
    if low == high:
        return Trace(trace.times_s, np.zeros_like(trace.values))
    return Trace(trace.times_s, np.clip((trace.values - low) / (high - low) * 2 - 1, -1, 1))


def problem_of(trace: Trace, start_s: float, end_s: float) -> Problem:
    """Return why the face, visible from ``start_s`` to ``end_s``, must be traced again; empty if not."""
    if trace.times_s[0] - start_s > LATEST_START_S:
        return "late"
    if np.diff(trace.times_s, append=max(end_s, trace.times_s[-1])).max() > LONGEST_GAP_S:
        return "gap"
    times = _grid(start_s, end_s)
    # the last sample stands for what follows it until the next one would
    covered = np.isfinite(resample(trace, times)) | (np.abs(times - trace.times_s[-1]) <= 1 / RATE_HZ)
    return "sparse" if covered.mean() < LEAST_COVERED else ""


def _grid(start_s: float, end_s: float) -> Doubles:
    """Return the multiples of the sampling interval from a start to an end, at least one time."""
    first = np.ceil(start_s * RATE_HZ - 1e-6)
    return np.arange(first, max(np.floor(end_s * RATE_HZ + 1e-6), first) + 1) / RATE_HZ


@dataclass(frozen=True, slots=True)
class TraceAgreement:
    """How far two traces agree on what both rated.

    Attributes:
        concordance: correlation coefficient of Lin, -1..1; None if a scale is unbounded.
        ordinal: Kendall's tau-b of the means of whole seconds, -1..1: whether the same seconds count as
            higher, whatever the scale.
        lag_s: by how much the second follows the first, where they correlate most; at most 4 s.
        shared_s: seconds that both rated.
    """

    concordance: float | None
    ordinal: float
    lag_s: float
    shared_s: float


def agreement(first: Trace, second: Trace) -> TraceAgreement | None:
    """Return how far two traces of one face and dimension agree; None if they share less than 2 s."""
    times, x, y = _shared(first, second)
    if len(times) < LEAST_SHARED_S * RATE_HZ:
        return None
    seconds, window = np.unique(np.floor(times / WINDOW_S + 1e-6), return_inverse=True)
    count = np.bincount(window, minlength=len(seconds))
    ordinal = kendall_tau(np.bincount(window, x) / count, np.bincount(window, y) / count)
    agreed = concordance(x, y) if first.bounded and second.bounded else None
    return TraceAgreement(agreed, ordinal, lag_between(first, second), len(times) / RATE_HZ)


def _shared(first: Trace, second: Trace) -> tuple[Doubles, Doubles, Doubles]:
    """Return the times that both rated, and both ratings."""
    start = max(first.times_s[0], second.times_s[0])
    times = _grid(start, max(min(first.times_s[-1], second.times_s[-1]), start))
    x, y = resample(first, times), resample(second, times)
    both = np.isfinite(x) & np.isfinite(y)
    return times[both], x[both], y[both]


def lag_between(first: Trace, second: Trace) -> float:
    """Return by how many seconds, of ``LAGS_S``, the second trace follows the first; 0 if nothing tells."""
    best, found = 0.0, 0.0
    for lag_s in sorted(LAGS_S, key=abs):
        times, x, y = _shared(first, without_lag(second, lag_s))
        if len(times) >= LEAST_SHARED_S * RATE_HZ:
            correlation = float(pearson_per_column(x[:, None], y[:, None])[0])
            if correlation > best + 1e-9:
                best, found = correlation, float(lag_s)
    return found


def differences(first: Trace, second: Trace) -> list[tuple[float, float]]:
    """Return starts and ends of where two traces differ by ``APART`` or more for at least a second."""
    times, x, y = _shared(on_scale(first), on_scale(second))
    apart = np.concatenate([[False], np.abs(x - y) >= APART, [False]])
    edges = np.flatnonzero(np.diff(apart))
    runs = [(float(times[start]), float(times[end - 1])) for start, end in edges.reshape(-1, 2)]
    return [(start, end) for start, end in runs if end - start >= WINDOW_S - 1e-6]
