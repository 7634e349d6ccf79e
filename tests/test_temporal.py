from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space.inference.temporal import (
    box_smooth,
    fill_gaps,
    gaussian_smooth,
    interpolate,
    smooth,
    summarize,
)
from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL
from hsemotion_space.types import Timeline

Smoother = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def make(times: np.ndarray, seed: int = 0) -> Timeline:
    values = np.random.default_rng(seed).dirichlet(np.ones(8), len(times)).astype(np.float32)
    return Timeline(EXPRESSION, "trained", np.asarray(times, np.float64), values)


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.floats(0.001, 3), st.integers(0, 99))
def test_smoothing_is_the_mean_over_the_window(gaps_ms: list[int], half_width: float, seed: int) -> None:
    timeline = make(np.cumsum(gaps_ms) / 1000, seed)
    expected = [
        timeline.values[np.abs(timeline.times_s - time) <= half_width + 1e-9].astype(np.float64).mean(axis=0)
        for time in timeline.times_s
    ]
    result = smooth(timeline, half_width)
    np.testing.assert_allclose(result.values, expected, atol=1e-6)
    np.testing.assert_allclose(result.values.sum(1), 1, atol=1e-5)
    assert result.values.dtype == np.float32


def test_the_window_is_in_seconds_and_both_ends_belong_to_it() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 5.0])
    timeline = Timeline(
        VALENCE_AROUSAL, "trained", times, np.array([[0, 1], [1, 0], [0, 0], [0.5, 0], [-1, -1]], np.float32)
    )
    np.testing.assert_allclose(smooth(timeline, 0.1).values[:, 0], [0.5, 1 / 3, 0.5, 0.25, -1], rtol=1e-6)


def test_the_frame_rate_does_not_matter() -> None:
    middle = []
    for step in (0.01, 0.1):
        times = np.arange(0, 10, step)
        values = np.sin(times)[:, None].repeat(2, 1).astype(np.float32)
        middle.append(
            smooth(Timeline(VALENCE_AROUSAL, "trained", times, values), 0.5).values[len(times) // 2, 0]
        )
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
    timeline = Timeline(
        VALENCE_AROUSAL, "prior", np.array([1.0, 3.0]), np.array([[0, 1], [1, -1]], np.float32)
    )
    times = np.array([0.0, 1.0, 1.5, 3.0, 9.0])
    filled = fill_gaps(timeline, times)
    np.testing.assert_allclose(filled.values, [[0, 1], [0, 1], [0.25, 0.5], [1, -1], [1, -1]])
    assert np.array_equal(filled.times_s, times)
    assert (filled.provenance, filled.values.dtype) == ("prior", np.float32)


def test_filled_probabilities_still_sum_to_one() -> None:
    filled = fill_gaps(make(np.array([0.0, 0.35, 2.0])), np.linspace(-1, 3, 41))
    np.testing.assert_allclose(filled.values.sum(1), 1, atol=1e-6)


def test_summary() -> None:
    timeline = Timeline(
        VALENCE_AROUSAL, "rule", np.arange(3.0), np.array([[0, 1], [0.5, 1], [1, 1]], np.float32)
    )
    prediction = summarize(timeline)
    np.testing.assert_allclose(prediction.values, [0.5, 1])
    np.testing.assert_allclose(prediction.spread, [np.sqrt(1 / 6), 0], atol=1e-7)
    assert (prediction.frames, prediction.provenance, prediction.spread.dtype) == (3, "rule", np.float32)
    single = summarize(Timeline(VALENCE_AROUSAL, "rule", np.zeros(1), np.array([[0.25, -1]], np.float32)))
    assert single.values.tolist() == [0.25, -1]
    assert np.isnan(single.spread).all()


def draw(seed: int, count: int, gaps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return rising frame numbers with gaps and values of three labels."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(1, gaps + 1, count)), rng.uniform(-1, 1, (count, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [(0, 0.0), (10, 0.0), (11, 0.1), (13, 0.3), (20, 1.0), (25, 0.5), (30, 0.0), (99, 0.0)],
)
def test_the_nearer_neighbor_counts_more_in_a_gap(frame: int, expected: float) -> None:
    values = np.array([[0.0], [1.0], [0.0]], np.float32)
    assert interpolate(np.array([10, 20, 30]), values, np.array([frame]))[0, 0] == pytest.approx(expected)


def test_interpolation_needs_a_value_for_each_frame() -> None:
    assert (
        interpolate(np.array([5]), np.array([[0.25, 1]], np.float32), np.arange(3)).tolist()
        == [[0.25, 1]] * 3
    )
    assert interpolate(np.array([5]), np.zeros((1, 0), np.float32), np.arange(3)).shape == (3, 0)
    with pytest.raises(ValueError, match="from no values"):
        interpolate(np.zeros(0), np.zeros((0, 2), np.float32), np.arange(3))
    with pytest.raises(ValueError, match=r"expected shape \(2, any\), got \(3, 1\)"):
        interpolate(np.arange(2), np.zeros((3, 1), np.float32), np.arange(3))


def test_a_box_of_frames_is_a_mean_of_at_most_twice_the_width_and_one() -> None:
    values = np.array([[0], [0], [6], [0], [0]], np.float32)
    assert box_smooth(np.arange(1, 6), values, 1)[:, 0].tolist() == [0, 2, 2, 2, 0]
    assert box_smooth(np.arange(1, 6), values, 2)[:, 0].tolist() == pytest.approx([2, 1.5, 1.2, 1.5, 2])
    assert box_smooth(np.array([1, 2, 3, 9, 10]), values, 2)[:, 0].tolist() == [2, 2, 2, 0, 0]


def test_gaussian_weights_by_hand() -> None:
    near, far = np.exp(-0.5), np.exp(-2)
    values = np.array([[0], [0], [1], [0], [0]], np.float32)
    expected = [
        far / (1 + near + far + np.exp(-4.5) + np.exp(-8)),
        near / (1 + 2 * near + far + np.exp(-4.5)),
        1 / (1 + 2 * near + 2 * far),
    ]
    np.testing.assert_allclose(
        gaussian_smooth(np.arange(5), values, 1.0)[:, 0], [*expected, *expected[1::-1]], rtol=1e-5
    )
    np.testing.assert_allclose(
        gaussian_smooth(np.array([0, 2]), np.array([[1], [0]], np.float32), 1.0)[:, 0],
        [1 / (1 + far), far / (1 + far)],
        rtol=1e-5,
    )
    assert gaussian_smooth(np.array([0.0, 4.1]), np.array([[1], [0]], np.float32), 1.0)[:, 0].tolist() == [
        1,
        0,
    ]


def test_the_width_of_the_gaussian_beside_the_one_of_hsemotion() -> None:
    frames, values = draw(3, 60)
    theirs = np.exp(-((frames[:, None] - frames[None]) ** 2) / 50.0)
    expected = theirs @ values / theirs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gaussian_smooth(frames, values, np.sqrt(50 / 2)), expected, atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.integers(1, 600), st.floats(0.01, 80))
def test_the_gaussian_is_the_weighted_mean_over_the_window(seed: int, count: int, sigma: float) -> None:
    times, values = draw(seed, count)
    distances = np.abs(times[:, None] - times[None])
    weights = np.where(distances <= 4 * sigma, np.exp(-(distances**2) / (2 * sigma**2)), 0)
    np.testing.assert_allclose(
        gaussian_smooth(times, values, sigma), weights @ values / weights.sum(1)[:, None], atol=1e-5
    )


@pytest.mark.parametrize("smoothed", [box_smooth, gaussian_smooth])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), count=st.integers(1, 300), hundredths=st.integers(0, 10_000))
def test_smoothing_keeps_constants_range_and_linear_maps(
    smoothed: Smoother, seed: int, count: int, hundredths: int
) -> None:
    times, values = draw(seed, count)
    width = hundredths / 100
    result = smoothed(times, values, width)
    assert (result.shape, result.dtype) == (values.shape, np.float32)
    assert np.all(result >= values.min(axis=0))
    assert np.all(result <= values.max(axis=0))
    np.testing.assert_allclose(smoothed(times, 3 * values - 2, width), 3 * result - 2, atol=1e-5)
    # seconds for frames
    np.testing.assert_allclose(smoothed(times / 30, values, width / 30), result, atol=5e-3)
    constant = np.full_like(values, np.float32(0.7))
    assert np.array_equal(smoothed(times, constant, width), constant)


@pytest.mark.parametrize("smoothed", [box_smooth, gaussian_smooth])
def test_a_window_of_no_width_and_a_lone_frame_change_nothing(smoothed: Smoother) -> None:
    times, values = draw(1, 20)
    assert smoothed(times, values, 0) is values
    assert np.array_equal(smoothed(times, values, 0.2), values)
    assert np.array_equal(smoothed(times[:1], values[:1], 9), values[:1])
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        smoothed(times, values, -1)
    with pytest.raises(ValueError, match=r"expected shape \(20, any\), got \(19, 3\)"):
        smoothed(times, values[1:], 2)


def test_a_very_wide_window_gives_the_mean_of_the_track() -> None:
    times, values = draw(2, 700)
    for wide in (box_smooth(times, values, 1e7), gaussian_smooth(times, values, 1e7)):
        np.testing.assert_allclose(
            wide, np.broadcast_to(values.mean(axis=0, dtype=np.float64), values.shape), atol=1e-5
        )


def test_a_gaussian_is_close_to_the_box_of_the_same_variance_on_a_slow_signal() -> None:
    frames = np.arange(2000)
    values = np.sin(frames / 300)[:, None].astype(np.float32)
    box = box_smooth(frames, values, 50)
    gaussian = gaussian_smooth(frames, values, np.sqrt(50 * 51 / 3))
    np.testing.assert_allclose(gaussian[200:-200], box[200:-200], atol=1e-3)
