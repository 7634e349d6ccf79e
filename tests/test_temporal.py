from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL
from hsemotion_space.temporal import fill_gaps, smooth, summarize
from hsemotion_space.types import Timeline


def make(times: np.ndarray, seed: int = 0) -> Timeline:
    values = np.random.default_rng(seed).dirichlet(np.ones(8), len(times)).astype(np.float32)
    return Timeline(EXPRESSION, "trained", np.asarray(times, np.float64), values)


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.floats(0.001, 3), st.integers(0, 99))
def test_smoothing_is_the_mean_over_the_window(gaps_ms: list[int], half_width: float, seed: int) -> None:
    timeline = make(np.cumsum(gaps_ms) / 1000, seed)
    expected = [
        timeline.values[np.abs(timeline.times_s - time) <= half_width + 1e-9].astype(np.float64).mean(axis=0) for time in timeline.times_s
    ]
    result = smooth(timeline, half_width)
    np.testing.assert_allclose(result.values, expected, atol=1e-6)
    np.testing.assert_allclose(result.values.sum(1), 1, atol=1e-5)
    assert result.values.dtype == np.float32


def test_the_window_is_in_seconds_and_both_ends_belong_to_it() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 5.0])
    timeline = Timeline(VALENCE_AROUSAL, "trained", times, np.array([[0, 1], [1, 0], [0, 0], [0.5, 0], [-1, -1]], np.float32))
    np.testing.assert_allclose(smooth(timeline, 0.1).values[:, 0], [0.5, 1 / 3, 0.5, 0.25, -1], rtol=1e-6)


def test_the_frame_rate_does_not_matter() -> None:
    middle = []
    for step in (0.01, 0.1):
        times = np.arange(0, 10, step)
        values = np.sin(times)[:, None].repeat(2, 1).astype(np.float32)
        middle.append(smooth(Timeline(VALENCE_AROUSAL, "trained", times, values), 0.5).values[len(times) // 2, 0])
    assert middle[0] == pytest.approx(middle[1], abs=0.02)


def test_a_constant_signal_stays_exactly() -> None:
    values = np.full((500, 2), 0.7, np.float32)
    timeline = Timeline(VALENCE_AROUSAL, "trained", np.arange(500) / 30, values)
    assert np.array_equal(smooth(timeline, 1.67).values, values)


def test_no_window_leaves_the_values() -> None:
    timeline = make(np.arange(5) / 10)
    assert smooth(timeline, 0.0) is timeline
    assert np.array_equal(smooth(make(np.array([3.0])), 1.0).values, make(np.array([3.0])).values)
    with pytest.raises(ValueError, match=r"negative, got -0\.1"):
        smooth(timeline, -0.1)


def test_gaps_are_filled_linearly_and_ends_are_held() -> None:
    timeline = Timeline(VALENCE_AROUSAL, "prior", np.array([1.0, 3.0]), np.array([[0, 1], [1, -1]], np.float32))
    times = np.array([0.0, 1.0, 1.5, 3.0, 9.0])
    filled = fill_gaps(timeline, times)
    np.testing.assert_allclose(filled.values, [[0, 1], [0, 1], [0.25, 0.5], [1, -1], [1, -1]])
    assert np.array_equal(filled.times_s, times)
    assert (filled.provenance, filled.values.dtype) == ("prior", np.float32)


def test_filled_probabilities_still_sum_to_one() -> None:
    filled = fill_gaps(make(np.array([0.0, 0.35, 2.0])), np.linspace(-1, 3, 41))
    np.testing.assert_allclose(filled.values.sum(1), 1, atol=1e-6)


def test_summary() -> None:
    timeline = Timeline(VALENCE_AROUSAL, "rule", np.arange(3.0), np.array([[0, 1], [0.5, 1], [1, 1]], np.float32))
    prediction = summarize(timeline)
    np.testing.assert_allclose(prediction.values, [0.5, 1])
    np.testing.assert_allclose(prediction.spread, [np.sqrt(1 / 6), 0], atol=1e-7)
    assert (prediction.frames, prediction.provenance, prediction.spread.dtype) == (3, "rule", np.float32)
    single = summarize(Timeline(VALENCE_AROUSAL, "rule", np.zeros(1), np.array([[0.25, -1]], np.float32)))
    assert single.values.tolist() == [0.25, -1]
    assert np.isnan(single.spread).all()
