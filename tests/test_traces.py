"""Traces: what must be redone, ratings between samples, the reaction lag, and agreement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from hsemotion_space.metrics import Doubles, kendall_tau
from hsemotion_space.traces import (
    HOLD_S,
    LATEST_START_S,
    LONGEST_GAP_S,
    RATE_HZ,
    Trace,
    agreement,
    differences,
    lag_between,
    on_scale,
    problem_of,
    resample,
    without_lag,
)

seeds = st.integers(0, 2**32 - 1)


def smooth(seed: int, seconds: float = 30.0, start_s: float = 0.0) -> Trace:
    """Return a slow random rating with samples as frames of 25 per second give them."""
    random = np.random.default_rng(seed)
    times = np.ceil((start_s + np.arange(int(seconds * RATE_HZ)) / RATE_HZ) * 25) / 25
    phases, speeds = random.uniform(0, 6, (2, 4, 1))
    return Trace(times, (np.sin(times * speeds / 3 + phases).mean(0)))


@given(seeds, st.floats(0, 1))
def test_ratings_between_samples_are_between_them_and_nothing_is_made_up_in_gaps(
    seed: int, drop: float
) -> None:
    whole = smooth(seed)
    kept = np.random.default_rng(seed).random(len(whole.times_s)) >= drop * 0.9
    kept[[0, -1]] = True
    trace = Trace(whole.times_s[kept], whole.values[kept])
    assert np.array_equal(resample(trace, trace.times_s), trace.values)
    times = np.linspace(-1, 31, 641)
    values = resample(trace, times)
    for time, value in zip(times, values, strict=True):
        before, after = trace.times_s[trace.times_s <= time], trace.times_s[trace.times_s >= time]
        if not len(before) or not len(after) or after[0] - before[-1] > HOLD_S:
            assert np.isnan(value)
        else:
            ends = resample(trace, [before[-1], after[0]])
            assert ends.min() - 1e-12 <= value <= ends.max() + 1e-12


@given(seeds, st.integers(-30, 30))
@settings(max_examples=30)
def test_the_lag_between_two_passes_is_found_and_taken_away_again(seed: int, tenths: int) -> None:
    first = smooth(seed)
    second = without_lag(first, -tenths / RATE_HZ)
    lag_s = lag_between(first, second)
    back = without_lag(second, lag_s)
    assert abs(lag_s - tenths / RATE_HZ) <= 0.1 + 1e-9
    found = agreement(first, back)
    assert found is not None and found.concordance > 0.97
    assert np.array_equal(first.values, without_lag(first, 1.5).values), "the raw ratings stay"


@given(seeds, seeds)
@settings(max_examples=30)
def test_agreement_is_symmetric_and_ordinal_agreement_ignores_the_scale(seed: int, other: int) -> None:
    first, second = smooth(seed), smooth(other)
    one, two = agreement(first, second), agreement(second, first)
    assert one.concordance == pytest.approx(two.concordance) and one.ordinal == pytest.approx(two.ordinal)
    free = Trace(second.times_s, 40 * second.values - 300, bounded=False)
    found = agreement(first, free)
    assert found.concordance is None and found.ordinal == pytest.approx(one.ordinal)
    assert np.abs(on_scale(free).values).max() == pytest.approx(1)
    assert agreement(first, first).concordance == pytest.approx(1) == agreement(first, first).ordinal


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=40))
def test_kendall_tau_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, np.float64).T
    expected = kendalltau(x, y).statistic
    assert kendall_tau(x, y) == pytest.approx(0.0 if np.isnan(expected) else expected)


def cut(start_s: float, gap: tuple[float, float], end_s: float) -> Trace:
    times: Doubles = np.arange(0, 600) / RATE_HZ
    times = times[(times >= start_s) & (times <= end_s) & ((times < gap[0]) | (times > gap[1]))]
    return Trace(times, np.zeros(len(times)))


@given(st.floats(0, 12), st.floats(10, 30), st.floats(0, 30), st.floats(45, 60))
def test_a_late_start_and_a_long_gap_are_told_whatever_else(
    start_s: float, gap_s: float, length_s: float, end_s: float
) -> None:
    gap = (gap_s, gap_s + length_s)
    trace = cut(start_s, gap, end_s)
    pauses = np.diff([*trace.times_s, 60.0])
    expected = "late" if trace.times_s[0] > LATEST_START_S else "gap" if pauses.max() > LONGEST_GAP_S else ""
    assert problem_of(trace, 0, 60) in ([expected] if expected else ["", "sparse"])


def test_half_of_a_short_clip_must_be_rated() -> None:
    assert problem_of(cut(0, (99, 99), 2.8), 0, 6) == "sparse"
    assert problem_of(cut(0, (99, 99), 3.2), 0, 6) == ""


def test_the_places_where_two_passes_differ_are_found() -> None:
    first = cut(0, (99, 99), 20)
    values = np.where((first.times_s >= 4) & (first.times_s < 7), 0.5, 0.0)
    values[100] = 1.0
    assert differences(first, Trace(first.times_s, values)) == [(4.0, pytest.approx(6.9))]
    assert differences(first, first) == []


@pytest.mark.parametrize(
    ("times", "values"),
    [([0.0], [0.0]), ([0.0, 0.0], [0, 0]), ([1, 0.5], [0, 0]), ([0, 1], [0, 1.1]), ([0, np.nan], [0, 0]), ([0, 1], [0, np.inf])],
)  # fmt: skip
def test_what_is_no_trace_is_refused(times: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError):
        Trace(np.array(times, np.float64), np.array(values, np.float64))
