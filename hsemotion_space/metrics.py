"""Official measures of the ABAW challenge, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hsemotion_space.types import IntArray, check_shape

Doubles = npt.NDArray[np.float64]
CONSTANT = 1e-12  # a variance from sums that is smaller, as a share of the mean square, is rounding


def concordance(predicted: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Concordance correlation coefficient of two series of one length (Lin, 1989), population moments.

    ``2 cov(x, y) / (var x + var y + (mean x - mean y)^2)``; 0 when both are constant and different, 1 when
    equal.

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


def kendall_tau(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Kendall's tau-b of two series of one length (Kendall, 1945), which counts ties; 0 if one is constant.

    All pairs are compared at once, which needs the square of the length in memory.

    Raises:
        ValueError: if the lengths differ.
    """
    x, y = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    if x.shape != y.shape:
        raise ValueError(f"Kendall's tau needs two series of one length, got {x.size} and {y.size} values.")
    above_x, above_y = (np.sign(values[:, None] - values).astype(np.int8) for values in (x, y))
    pairs = np.sqrt(np.count_nonzero(above_x)) * np.sqrt(np.count_nonzero(above_y))
    return float((above_x * above_y).sum(dtype=np.int64) / pairs) if pairs else 0.0


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


def f1_per_class(counts: npt.NDArray[np.int64] | Doubles) -> npt.NDArray[np.float64]:
    """Return (classes,) F1 of a confusion matrix; 0 for an absent, unpredicted class (as scikit-learn)."""
    hits = np.diag(counts).astype(np.float64)
    return np.asarray(2 * hits / np.maximum(counts.sum(0) + counts.sum(1), 1))


def macro_f1(predicted: npt.ArrayLike, target: npt.ArrayLike, classes: int) -> float:
    """Return the unweighted mean F1 of all ``classes``; absent, unpredicted ones count 0 (scikit-learn).

    Raises:
        ValueError: if a class is not from 0 to ``classes - 1``.
    """
    return float(f1_per_class(confusion(predicted, target, classes)).mean())


def unit_counts(predicted: npt.ArrayLike, target: npt.ArrayLike) -> Doubles:
    """Return (K, 2) counts for predictions and targets (N, K) in 0/1: both present, and the sum of either.

    Raises:
        ValueError: if the shapes differ.
    """
    positive, true = np.asarray(predicted, np.bool_), np.asarray(target, np.bool_)
    _check_pair(positive, true)
    return np.stack([(positive & true).sum(0), positive.sum(0) + true.sum(0)], 1).astype(np.float64)


def f1_of_counts(counts: Doubles) -> Doubles:
    """Return (K,) F1 of the positive class from summed (K, 2) :func:`unit_counts`; 0 without any."""
    return np.asarray(2 * counts[:, 0] / np.maximum(counts[:, 1], 1))


def f1_binary_per_unit(predicted: npt.ArrayLike, target: npt.ArrayLike) -> Doubles:
    """Return (K,) F1 of the positive class of 0/1 predictions (N, K) against targets (N, K).

    A unit that is neither a target nor predicted gets 0, as in scikit-learn with ``zero_division=0``.

    Raises:
        ValueError: if the shapes differ.
    """
    return f1_of_counts(unit_counts(predicted, target))


def pearson_per_column(predicted: npt.ArrayLike, target: npt.ArrayLike) -> Doubles:
    """Return (K,) correlation coefficients of the columns of two (N, K) arrays; 0 for a constant column.

    Raises:
        ValueError: if the shapes differ or there is no row.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    _check_pair(x, y)
    if not len(x):
        raise ValueError("A correlation needs at least one row.")
    x, y = x - x[0], y - y[0]  # exact zeros where a column is constant
    x, y = x - x.mean(0), y - y.mean(0)
    scale = np.sqrt((x * x).sum(0)) * np.sqrt((y * y).sum(0))
    return np.asarray(np.clip((x * y).sum(0) / np.where(scale > 0, scale, np.inf), -1, 1))


def moment_sums(predicted: npt.ArrayLike, target: npt.ArrayLike) -> Doubles:
    """Return (K, 6) sums over the rows of x (N, K) and y (N, K): 1, x, y, x^2, y^2, x y.

    Raises:
        ValueError: if the shapes differ.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    _check_pair(x, y)
    return np.stack(
        [np.ones_like(x).sum(0), x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)], 1
    )


def concordance_of_sums(sums: Doubles) -> Doubles:
    """Return (K,) concordance coefficients from summed (K, 6) moments; see :func:`concordance`."""
    mean_x, mean_y, var_x, var_y, covariance = _moments(sums)
    spread = var_x + var_y + (mean_x - mean_y) ** 2
    apart = spread > CONSTANT * (sums[:, 3] + sums[:, 4]) / sums[:, 0]
    return np.where(apart, 2 * covariance / np.where(apart, spread, 1), 1.0)


def pearson_of_sums(sums: Doubles) -> Doubles:
    """Return (K,) correlations from summed (K, 6) moments; see :func:`pearson_per_column`."""
    _, _, var_x, var_y, covariance = _moments(sums)
    scale = np.sqrt(var_x * var_y)
    return np.clip(covariance / np.where(scale > 0, scale, np.inf), -1, 1)


def _moments(sums: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles, Doubles]:
    """Return means, population variances and covariance, each (K,); exactly 0 for a constant series."""
    mean_x, mean_y, square_x, square_y, product = sums[:, 1:].T / sums[:, 0]
    var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
    var_x, var_y = (
        np.where(var_x > CONSTANT * square_x, var_x, 0),
        np.where(var_y > CONSTANT * square_y, var_y, 0),
    )
    return mean_x, mean_y, var_x, var_y, np.where((var_x > 0) & (var_y > 0), product - mean_x * mean_y, 0)


def _check_pair(predicted: npt.NDArray[np.generic], target: npt.NDArray[np.generic]) -> None:
    if predicted.ndim != 2 or predicted.shape != target.shape:
        raise ValueError(
            f"Expected predictions and targets of one shape (N, K), got {predicted.shape} and {target.shape}."
        )


@dataclass(frozen=True, slots=True)
class CalibrationBins:
    """Equal-width confidence bins, (B,) each; bin b holds ``b / B < confidence <= (b + 1) / B``.

    The first bin also holds 0.

    ``confidence`` and ``accuracy`` are means, NaN in an empty bin; ``count`` is how many predictions fell
    into the bin.
    """

    confidence: Doubles
    accuracy: Doubles
    count: IntArray

    def __post_init__(self) -> None:
        check_shape("CalibrationBins", "confidence", self.confidence, (None,))
        for name, array in (("accuracy", self.accuracy), ("count", self.count)):
            check_shape("CalibrationBins", name, array, self.confidence.shape)

    @property
    def error(self) -> float:
        """Expected calibration error: mean of abs(accuracy - confidence) weighted by counts; NaN if empty."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((gaps * self.count[filled]).sum() / self.count.sum()) if filled.any() else float("nan")


def calibration_bins(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> CalibrationBins:
    """Sort predictions into confidence bins for the error and the reliability diagram (Guo et al., 2017).

    Args:
        confidence: (N,) in 0..1, the probability given to what was predicted.
        correct: (N,) 0 or 1, whether it was right.
        bins: how many of equal width.

    Raises:
        ValueError: if the lengths differ, there are no bins, or a confidence is outside 0..1.
    """
    sure, right = np.asarray(confidence, np.float64).ravel(), np.asarray(correct, np.float64).ravel()
    if sure.shape != right.shape or bins < 1:
        raise ValueError(
            f"Calibration needs bins and as many outcomes as confidences, got {bins}, {right.size} and"
            f" {sure.size}."
        )
    if not np.all((sure >= 0) & (sure <= 1)):
        raise ValueError(f"Confidences must be from 0 to 1, got {sure.min()} to {sure.max()}.")
    place = np.maximum(np.searchsorted(np.linspace(0, 1, bins + 1), sure) - 1, 0)
    count = np.bincount(place, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    return CalibrationBins(
        np.bincount(place, sure, bins) / divisor, np.bincount(place, right, bins) / divisor, count
    )


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Return the expected calibration error of (N,) confidences and 0/1 outcomes (Guo, 2017); NaN if N = 0.

    Raises:
        ValueError: as :func:`calibration_bins`.
    """
    return calibration_bins(confidence, correct, bins).error


def bootstrap_additive(
    statistics: Doubles,
    measure: Callable[[Doubles], float],
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of a measure under resampling of whole groups (Efron, 1979).

    Frames of one video are alike, so frames must not be drawn one by one. Nothing of a group is needed but
    additive statistics (counts, sums of squares), so a round costs one product of G numbers with them,
    however many rows there are.

    Args:
        statistics: (G, S) additive statistics of the groups.
        measure: of the sum (S,) over the drawn groups.
        rounds: how often G groups are drawn.
        seed: of the draws; round by round ``multinomial(G, 1 / G)`` of NumPy's default generator.
        level: share of the rounds inside the interval.

    Returns:
        low and high; NaN for fewer than two groups, whose spread is unknown, and for no rounds.

    Raises:
        ValueError: if ``statistics`` is not two-dimensional.
    """
    check_shape("bootstrap_additive", "statistics", statistics, (None, None))
    groups = len(statistics)
    if groups < 2 or not rounds:
        return float("nan"), float("nan")
    rng, share = np.random.default_rng(seed), np.full(groups, 1 / groups)
    values = [measure(rng.multinomial(groups, share) @ statistics) for _ in range(rounds)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
