from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import confusion_matrix, f1_score
from torchmetrics.classification import BinaryCalibrationError
from torchmetrics.functional.regression import concordance_corrcoef

from hsemotion_space.metrics import (
    CalibrationBins,
    bootstrap_additive,
    calibration_bins,
    concordance,
    concordance_of_sums,
    confusion,
    expected_calibration_error,
    f1_binary_per_unit,
    f1_of_counts,
    f1_per_class,
    macro_f1,
    moment_sums,
    pearson_of_sums,
    pearson_per_column,
    recall_per_class,
    unit_counts,
)

SERIES = st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        ([0, 1], [0, 1], 1.0),
        ([1, 0], [0, 1], -1.0),
        ([0, 1, 2], [1, 2, 3], 4 / 7),  # variances 2/3 each, covariance 2/3, means 1 apart
        ([0, 2], [0, 1], 2 / 3),  # variances 1 and 1/4, covariance 1/2, means 1/2 apart
        ([0.5, 0.5], [0, 1], 0.0),
        ([0.3, 0.3], [0.7, 0.7], 0.0),
        ([0.3, 0.3], [0.3, 0.3], 1.0),
    ],
)
def test_concordance_by_hand(predicted: list[float], target: list[float], expected: float) -> None:
    assert concordance(predicted, target) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(SERIES)
def test_concordance_against_correlation(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs, np.float64).T
    if x.std() < 1e-3 or y.std() < 1e-3:
        return
    expected = (
        2 * np.corrcoef(x, y)[0, 1] * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    )
    assert concordance(x, y) == pytest.approx(expected, abs=1e-9)
    assert concordance(x, y) == concordance(y, x)


def test_concordance_refuses_what_it_cannot_compare() -> None:
    for pair in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="one length"):
            concordance(*pair)


def test_confusion_has_targets_in_rows() -> None:
    assert confusion([1, 1, 2], [0, 1, 2], 4).tolist() == [
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    assert confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("predicted", "target"), [([2], [0]), ([0], [2]), ([-1], [1]), ([1], [-1])])
def test_confusion_refuses_unknown_classes(predicted: list[int], target: list[int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        confusion(predicted, target, 2)


def test_recall_and_f1_with_absent_classes() -> None:
    counts = confusion([0, 1, 1, 1, 3], [0, 0, 1, 1, 1], 5)  # class 3 only predicted, 2 and 4 absent
    np.testing.assert_allclose(recall_per_class(counts), [0.5, 2 / 3, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(f1_per_class(counts), [2 / 3, 2 / 3, 0, 0, 0])


# Against other implementations


def test_concordance_is_that_of_torchmetrics_with_population_moments() -> None:
    rng = np.random.default_rng(1)
    for count in (3, 10, 500):
        x, y = rng.normal(0.3, 0.4, count), rng.normal(0, 0.5, count)
        x += 0.5 * y
        # torchmetrics divides variances and covariance by N - 1, but not the squared distance of the means:
        # stretch that as much
        stretched = x + (np.sqrt(count / (count - 1)) - 1) * (x.mean() - y.mean())
        theirs = float(concordance_corrcoef(torch.from_numpy(stretched), torch.from_numpy(y)))
        assert concordance(x, y) == pytest.approx(theirs, abs=1e-9)
        assert concordance(x, y) != pytest.approx(
            float(concordance_corrcoef(torch.from_numpy(x), torch.from_numpy(y))), abs=1e-7
        )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_confusion_and_macro_f1_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, target = np.array(pairs).T
    np.testing.assert_array_equal(
        confusion(predicted, target, 7), confusion_matrix(target, predicted, labels=range(7))
    )
    expected = f1_score(target, predicted, labels=range(7), average="macro", zero_division=0)
    assert macro_f1(predicted, target, 7) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=20))
def test_f1_of_units_is_that_of_scikit_learn(rows: list[list[bool]]) -> None:
    predicted, target = np.split(np.array(rows), 2, axis=1)
    expected = [f1_score(target[:, k], predicted[:, k], zero_division=0) for k in range(3)]
    np.testing.assert_allclose(f1_binary_per_unit(predicted, target), expected, atol=1e-12)
    np.testing.assert_allclose(
        f1_binary_per_unit(predicted.astype(np.float32), target.astype(np.float32)), expected, atol=1e-12
    )


@settings(deadline=None)
@given(SERIES)
def test_correlation_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    table = np.array(pairs, np.float64)
    if table.std(0).min() < 1e-3:
        return
    result = pearson_per_column(table, table[:, ::-1])
    expected = pearsonr(*table.T).statistic
    np.testing.assert_allclose(result, [expected, expected], atol=1e-9)
    assert np.all(np.abs(result) <= 1)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_that_of_torchmetrics(bins: int) -> None:
    rng = np.random.default_rng(bins)
    sure = rng.beta(2, 1, 4000)
    right = rng.random(4000) < sure**2
    theirs = BinaryCalibrationError(n_bins=bins, norm="l1")(
        torch.from_numpy(sure), torch.from_numpy(right).long()
    )
    assert expected_calibration_error(sure, right, bins) == pytest.approx(float(theirs), abs=1e-6)


# By hand


def test_macro_f1_counts_absent_classes_as_zero() -> None:
    assert macro_f1([0, 0, 1], [0, 1, 1], 2) == pytest.approx(2 / 3)
    assert macro_f1([0, 0, 1], [0, 1, 1], 8) == pytest.approx(2 / 3 * 2 / 8)


def test_f1_of_units_by_hand() -> None:
    predicted = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
    target = np.array([[1, 0, 0, 1], [0, 1, 0, 0]])
    np.testing.assert_allclose(f1_binary_per_unit(predicted, target), [2 / 3, 0, 0, 0])
    assert unit_counts(predicted, target).tolist() == [[1, 3], [0, 2], [0, 0], [0, 2]]


def test_a_constant_column_has_no_correlation() -> None:
    x = np.array([[0.1, 1, 2, 0], [0.1, 2, 1, 0], [0.1, 3, 0, 1e-200]])
    y = np.array([[1, 0.7, 1, 1], [2, 0.7, 2, 2], [3, 0.7, 3, 3]])
    np.testing.assert_allclose(pearson_per_column(x, y), [0, 0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(pearson_of_sums(moment_sums(x, y)), [0, 0, -1, 0], atol=1e-12)
    assert pearson_per_column([[3.0]], [[4.0]]).tolist() == [0.0]


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    for measure in (f1_binary_per_unit, pearson_per_column, moment_sums):
        with pytest.raises(ValueError, match=r"one shape \(N, K\), got \(2, 1\) and \(2, 2\)"):
            measure([[1], [0]], [[1, 0], [0, 1]])
        with pytest.raises(ValueError, match="one shape"):
            measure([1, 0], [1, 0])
    with pytest.raises(ValueError, match="at least one row"):
        pearson_per_column(np.zeros((0, 2)), np.zeros((0, 2)))


def test_calibration_by_hand() -> None:
    # edges belong to the bin below, 0 to the first
    bins = calibration_bins([0, 0.25, 0.5, 0.6, 0.75, 1], [0, 1, 1, 0, 1, 1], 4)
    assert bins.count.tolist() == [2, 1, 2, 1]
    np.testing.assert_allclose(bins.confidence, [0.125, 0.5, 0.675, 1])
    np.testing.assert_allclose(bins.accuracy, [0.5, 1, 0.5, 1])
    assert bins.error == pytest.approx((2 * 0.375 + 0.5 + 2 * 0.175 + 0) / 6)
    assert bins.error == expected_calibration_error([0, 0.25, 0.5, 0.6, 0.75, 1], [0, 1, 1, 0, 1, 1], 4)


def test_empty_bins_count_nothing() -> None:
    bins = calibration_bins([0.9, 0.9], [1, 0], 5)
    assert np.isnan(bins.accuracy).tolist() == [True] * 4 + [False] and bins.error == pytest.approx(0.4)
    assert (
        np.isnan(calibration_bins([], [], 5).error) and calibration_bins([], [], 5).count.tolist() == [0] * 5
    )
    assert calibration_bins(np.eye(2), np.ones((2, 2)), 2).count.tolist() == [2, 2], "shape does not matter"


@pytest.mark.parametrize(
    ("sure", "right", "bins"),
    [([1.1], [1], 3), ([-0.1], [1], 3), ([float("nan")], [1], 3), ([0.5], [1, 0], 3), ([0.5], [1], 0)],
)
def test_calibration_refuses_what_it_cannot_sort(sure: list[float], right: list[int], bins: int) -> None:
    with pytest.raises(ValueError, match=r"Confidences must be|Calibration needs"):
        calibration_bins(sure, right, bins)
    with pytest.raises(ValueError, match="accuracy"):
        CalibrationBins(np.zeros(2), np.zeros(3), np.zeros(2, np.int64))


# Sums over groups


@settings(deadline=None)
@given(SERIES, st.integers(1, 29))
def test_measures_of_summed_moments_are_those_of_the_rows(pairs: list[tuple[float, float]], cut: int) -> None:
    table = np.array(pairs, np.float64)
    if table.std(0).min() < 1e-3:
        return
    x, y = table, table[:, ::-1]
    sums = moment_sums(x[:cut], y[:cut]) + moment_sums(x[cut:], y[cut:])
    np.testing.assert_allclose(concordance_of_sums(sums), [concordance(*table.T)] * 2, atol=1e-6)
    np.testing.assert_allclose(pearson_of_sums(sums), pearson_per_column(x, y), atol=1e-6)


@pytest.mark.parametrize(("predicted", "target"), [(0.1, 0.1), (0.3, 0.7), (0.0, 0.0), (0.1, 0.0)])
def test_summed_moments_of_constant_series(predicted: float, target: float) -> None:
    x, y = np.full((1001, 1), predicted), np.full((1001, 1), target)
    result = concordance_of_sums(3 * moment_sums(x, y))
    assert result == pytest.approx([concordance(x, y)], abs=1e-9)
    assert pearson_of_sums(moment_sums(x, y)).tolist() == [0]


def grouped(seed: int, groups: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return prediction and target (rows, 2) of groups that differ in level, as videos do."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(groups):
        target = rng.normal(0, 0.3, 2) + rng.normal(0, 0.2, (rng.integers(3, 30), 2))
        result.append((0.7 * target + rng.normal(0, 0.2, 2) + rng.normal(0, 0.2, target.shape), target))
    return result


def test_bootstrap_of_sums_is_that_of_resampled_rows() -> None:
    videos = grouped(3, 12)
    statistics = np.stack([moment_sums(x, y).ravel() for x, y in videos])
    fast = bootstrap_additive(
        statistics, lambda sums: float(concordance_of_sums(sums.reshape(2, 6)).mean()), rounds=60, seed=5
    )
    rng, slow = np.random.default_rng(5), []
    for _ in range(60):
        drawn = np.repeat(np.arange(12), rng.multinomial(12, np.full(12, 1 / 12)))
        x, y = (np.concatenate([videos[video][part] for video in drawn]) for part in (0, 1))
        slow.append(np.mean([concordance(x[:, k], y[:, k]) for k in (0, 1)]))
    assert fast == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=1e-9)
    assert fast[0] < np.mean(slow) < fast[1]


def test_bootstrap_of_f1_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(2)
    videos = [(rng.random((rows, 3)) < 0.4, rng.random((rows, 3)) < 0.3) for rows in rng.integers(1, 20, 9)]
    statistics = np.stack([unit_counts(*video).ravel() for video in videos])
    fast = bootstrap_additive(
        statistics, lambda sums: float(f1_of_counts(sums.reshape(3, 2)).mean()), rounds=40, seed=8, level=0.8
    )
    draws, slow = np.random.default_rng(8), []
    for _ in range(40):
        drawn = np.repeat(np.arange(9), draws.multinomial(9, np.full(9, 1 / 9)))
        slow.append(
            f1_binary_per_unit(
                *(np.concatenate([videos[video][part] for video in drawn]) for part in (0, 1))
            ).mean()
        )
    assert fast == pytest.approx(tuple(np.quantile(slow, [0.1, 0.9])), abs=1e-12)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    def mean(sums: np.ndarray) -> float:
        return float(sums[0] / sums[1])

    rng, hits = np.random.default_rng(0), 0
    for trial in range(300):
        rows = rng.integers(5, 50, 60)
        levels = rng.normal(0.2, 1, 60)  # of whole videos: rows alone would promise far too much
        totals = rows * levels + rng.normal(0, 1, 60) * np.sqrt(rows)
        low, high = bootstrap_additive(np.stack([totals, rows], 1), mean, rounds=200, seed=trial)
        hits += low <= 0.2 <= high
    assert 0.88 <= hits / 300 <= 0.985


def test_bootstrap_is_repeatable_and_needs_two_groups() -> None:
    statistics = np.stack([moment_sums(x, y)[0] for x, y in grouped(1, 8)])

    def interval(rows: np.ndarray, seed: int) -> tuple[float, float]:
        return bootstrap_additive(rows, lambda sums: float(concordance_of_sums(sums[None])[0]), 50, seed)

    assert interval(statistics, 1) == interval(statistics, 1) != interval(statistics, 2)
    assert np.isnan(interval(statistics[:1], 1)).all()
    same = interval(np.repeat(statistics[:1], 4, 0), 1)
    assert same == pytest.approx([concordance_of_sums(statistics[:1])[0]] * 2)
    with pytest.raises(ValueError, match="bootstrap_additive"):
        interval(statistics[0], 1)
