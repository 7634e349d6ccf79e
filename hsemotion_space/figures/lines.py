"""Lines over time: where they break, and which of their points are drawn."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hsemotion_space.types import FloatArray

MAX_POINTS: Final = 600
Times = npt.NDArray[np.float64]


def gaps(times_s: Times, values: FloatArray) -> list[tuple[float, float]]:
    """Return start and end in seconds of each stretch without a value, from the last frame to the next one.

    Args:
        times_s: (F,) of all frames.
        values: (F, K), NaN where there is none.
    """
    seen = np.concatenate([[True], np.isfinite(values).any(axis=1), [True]])
    edges = np.flatnonzero(np.diff(seen)).reshape(-1, 2)
    return [
        (float(times_s[max(start - 1, 0)]), float(times_s[min(stop, len(times_s) - 1)]))
        for start, stop in edges
    ]


def thin(times_s: Times, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a line (F,) as float32 with at most about 600 points: bucket extremes, one NaN per gap."""
    if len(values) > MAX_POINTS:
        keep: list[npt.NDArray[np.int64]] = []
        for run in np.split(np.arange(len(values)), np.flatnonzero(np.diff(np.isfinite(values))) + 1):
            if not np.isfinite(values[run[0]]):
                keep.append(run[:1])
                continue
            keep.append(run[[0, -1]])
            for part in np.array_split(run, max(1, len(run) * MAX_POINTS // (2 * len(values)))):
                keep.append(part[[values[part].argmin(), values[part].argmax()]])  # noqa: PERF401
        chosen = np.unique(np.concatenate(keep))
        times_s, values = times_s[chosen], values[chosen]
    return times_s.astype(np.float32), values.astype(np.float32)
