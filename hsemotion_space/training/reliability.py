"""How often the answers of a head are right, counted on tuning pictures; never on those of the test."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hsemotion_space.metrics import confusion
from hsemotion_space.tasks import Task
from hsemotion_space.types import FloatArray, Reliability


def count_confusions(task: Task, values: FloatArray, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (K, K) counts for values (N, K) of a ``one_of`` task and targets (N,); rows are targets."""
    return confusion(values.argmax(1), targets, len(task.labels))


def reliability_of(counts: npt.NDArray[np.int64], pictures: str) -> Reliability:
    """Return how often each answer is right from (K, K) counts, rows are targets."""
    return Reliability(tuple(np.diag(counts).tolist()), tuple(counts.sum(0).tolist()), pictures)


def reliability_of_units(values: FloatArray, present: npt.NDArray[np.generic], thresholds: tuple[float, ...], pictures: str) -> Reliability:
    """Return how often "present" is right for values (N, K) of independent labels, targets (N, K) and thresholds (K,)."""
    said, true = values >= np.array(thresholds, np.float32), np.asarray(present) > 0.5
    return Reliability(tuple((said & true).sum(0).tolist()), tuple(said.sum(0).tolist()), pictures)
