from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space.metrics import concordance, confusion, f1_per_class, recall_per_class

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
    expected = 2 * np.corrcoef(x, y)[0, 1] * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert concordance(x, y) == pytest.approx(expected, abs=1e-9)
    assert concordance(x, y) == concordance(y, x)


def test_concordance_refuses_what_it_cannot_compare() -> None:
    for pair in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="one length"):
            concordance(*pair)


def test_confusion_has_targets_in_rows() -> None:
    assert confusion([1, 1, 2], [0, 1, 2], 4).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("predicted", "target"), [([2], [0]), ([0], [2]), ([-1], [1]), ([1], [-1])])
def test_confusion_refuses_unknown_classes(predicted: list[int], target: list[int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        confusion(predicted, target, 2)


def test_recall_and_f1_with_absent_classes() -> None:
    counts = confusion([0, 1, 1, 1, 3], [0, 0, 1, 1, 1], 5)  # class 3 only predicted, 2 and 4 absent
    np.testing.assert_allclose(recall_per_class(counts), [0.5, 2 / 3, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(f1_per_class(counts), [2 / 3, 2 / 3, 0, 0, 0])
