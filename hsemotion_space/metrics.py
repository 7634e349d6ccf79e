"""Official measures of the ABAW challenge, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def concordance(predicted: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Concordance correlation coefficient of two series of one length (Lin, 1989), population moments.

    ``2 cov(x, y) / (var x + var y + (mean x - mean y)^2)``; 0 when both are constant and different, 1 when equal.

    Raises:
        ValueError: if the lengths differ or are zero.
    """
    x, y = np.asarray(predicted, np.float64).ravel(), np.asarray(target, np.float64).ravel()
    if x.shape != y.shape or not x.size:
        raise ValueError(f"Concordance needs two series of one length, got {x.size} and {y.size} values.")
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    if spread == 0:
        return 1.0
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread)


def confusion(predicted: npt.ArrayLike, target: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """Return (classes, classes) counts, rows are targets.

    Raises:
        ValueError: if a class is not from 0 to ``classes - 1``.
    """
    rows, columns = np.asarray(target, np.int64), np.asarray(predicted, np.int64)
    given = np.concatenate([rows, columns])
    if given.size and not 0 <= given.min() <= given.max() < classes:
        raise ValueError(f"Classes must be from 0 to {classes - 1}, got {given.min()} to {given.max()}.")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def recall_per_class(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (classes,) recall of a confusion matrix; NaN for a class without targets."""
    support = counts.sum(1)
    return np.where(support > 0, np.diag(counts) / np.maximum(support, 1), np.nan)


def f1_per_class(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (classes,) F1 of a confusion matrix; 0 for a class that is neither a target nor predicted (as scikit-learn)."""
    hits = np.diag(counts).astype(np.float64)
    return np.asarray(2 * hits / np.maximum(counts.sum(0) + counts.sum(1), 1))
