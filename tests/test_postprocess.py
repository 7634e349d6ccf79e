from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, MIMICRY_INTENSITY, VALENCE_AROUSAL, Task
from hsemotion_space.training import challenge
from hsemotion_space.training.challenge import tune, tune_blend, tune_thresholds
from hsemotion_space.training.files import DataError
from hsemotion_space.training.postprocess import (
    Smoothing,
    blend,
    blend_all,
    complete,
    smooth_all,
    smooth_series,
)
from hsemotion_space.training.series import Series

NAN = float("nan")
UNITS = ACTION_UNITS.subset(["AU1", "AU2", "AU4"])


def make(video: str, frames: Sequence[int], *columns: Sequence[float]) -> Series:
    return Series(
        video, np.array(frames, np.int64), np.array(columns, np.float32).T.reshape(len(frames), len(columns))
    )


def draw(seed: int, count: int, labels: int = 8) -> Series:
    rng = np.random.default_rng(seed)
    return Series(
        "v", np.cumsum(rng.integers(1, 4, count)), rng.dirichlet(np.ones(labels), count).astype(np.float32)
    )


@pytest.fixture
def close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let choices be made by closeness to the labels instead of the official measure."""
    monkeypatch.setattr(challenge, "measure", closeness)


def closeness(task: Task, labels: Sequence[Series], predictions: Sequence[Series]) -> float:
    """Minus the mean absolute error over the frames of the labels, which all have a prediction."""
    found = {series.video: series for series in predictions}
    errors = [
        np.abs(series.values - complete(found[series.video], series.frames).values).ravel()
        for series in labels
    ]
    # rounded, so that what is equal in theory is a tie
    return -round(float(np.concatenate(errors).mean()), 6)


def test_complete_weights_the_nearer_prediction_more_in_gaps() -> None:
    series = make("v", [11, 21], [0.0, 1.0], [1.0, 0.5])
    completed = complete(series, np.array([1, 11, 12, 20, 21, 30]))
    # a reversed weight gives 0.9 at frame 12
    np.testing.assert_allclose(completed.values[:, 0], [0, 0, 0.1, 0.9, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(completed.values[:, 1], [1, 1, 0.95, 0.55, 0.5, 0.5], rtol=1e-6)
    assert completed.frames.tolist() == [1, 11, 12, 20, 21, 30]


def test_complete_takes_rows_with_nan_as_no_predictions() -> None:
    series = make("v", [1, 2, 3], [0.0, NAN, 1.0], [0.0, 9.0, 1.0])
    assert complete(series, np.arange(1, 4)).values.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]
    unknown = complete(make("v", [4], [NAN], [NAN]), np.arange(1, 4))
    assert (unknown.video, unknown.values.shape) == ("v", (3, 2))
    assert np.isnan(unknown.values).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.integers(1, 60))
def test_complete_leaves_known_values_and_sums_alone(seed: int, count: int) -> None:
    series = draw(seed, count)
    whole = complete(series, np.arange(int(series.frames[-1]) + 3))
    np.testing.assert_array_equal(whole.values[series.frames], series.values)
    np.testing.assert_allclose(whole.values.sum(axis=1), 1, atol=1e-6)


def test_smooth_series_divides_by_the_frames_in_the_window() -> None:
    """Sums that are never divided would leave 0..1, and with them every threshold."""
    frames = list(range(1, 12))
    units = make("v", frames, [0.4] * 11, [0.0] * 5 + [1.0] + [0.0] * 5)
    for smoothing in (Smoothing("box", 5), Smoothing("gaussian", 3)):
        smoothed = smooth_series(units, smoothing)
        np.testing.assert_allclose(smoothed.values[:, 0], 0.4, rtol=1e-6)
        assert 0 <= smoothed.values.min() <= smoothed.values.max() <= 1
    assert smooth_series(units, Smoothing("box", 5)).values[[0, 5, 10], 1].tolist() == pytest.approx(
        [1 / 6, 1 / 11, 1 / 6]
    )
    near = np.exp(-0.5)
    ends = smooth_series(make("v", [1, 2, 3], [0.0, 1.0, 1.0]), Smoothing("gaussian", 1)).values[:, 0]
    assert ends[1:].tolist() == pytest.approx(
        [(1 + near) / (1 + 2 * near), (1 + near) / (1 + near + np.exp(-2))]
    )


def test_smooth_all_converts_seconds_by_the_frame_rate_of_the_video() -> None:
    impulse = [0.0] * 4 + [1.0] + [0.0] * 4
    a, b = make("a", range(1, 10), impulse), make("b", range(1, 10), impulse)
    smoothed = smooth_all([a, b], Smoothing("box", 0.1, "seconds"), {"a": 10.0})
    assert smoothed[0].values[:, 0].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    assert smoothed[1].values[:, 0].tolist() == smooth_series(b, Smoothing("box", 3)).values[:, 0].tolist()
    assert smooth_series(a, Smoothing("box", 1), 10.0).values[3, 0] == pytest.approx(1 / 3)


def test_smooth_all_stays_inside_each_video() -> None:
    a, b = make("a", [1, 2], [0.0, 0.0]), make("b", [1, 2], [1.0, 1.0])
    smoothed = smooth_all([a, b], Smoothing("box", 50))
    assert [series.values.ravel().tolist() for series in smoothed] == [[0, 0], [1, 1]]


def test_smooth_series_leaves_unknown_frames_out() -> None:
    series = make("v", [1, 2, 3], [0.0, NAN, 1.0])
    np.testing.assert_array_equal(smooth_series(series, Smoothing("box", 2)).values[:, 0], [0.5, NAN, 0.5])
    assert np.isnan(smooth_series(make("v", [1, 2], [NAN, NAN]), Smoothing("gaussian", 2)).values).all()


def test_smooth_series_without_width_changes_nothing() -> None:
    series = draw(0, 9)
    for smoothing in (
        Smoothing(),
        Smoothing("none", 5),
        Smoothing("box", 0),
        Smoothing("gaussian", 0, "seconds"),
    ):
        assert smooth_series(series, smoothing) is series
    for width in (-1.0, NAN, float("inf")):
        with raises_code(DataError, "width"):
            Smoothing("box", width)


def test_blend_is_the_weighted_mean_or_the_only_prediction() -> None:
    a = make("v", [1, 2, 4], [1.0, NAN, 0.5], [0.0, 0.3, 0.5])
    b = make("v", [2, 4, 9], [0.2, 0.0, 0.6], [0.8, 1.0, 0.4])
    mixed = blend(a, b, 0.7)
    assert mixed.frames.tolist() == [1, 2, 4, 9]
    np.testing.assert_allclose(mixed.values, [[1, 0], [0.2, 0.8], [0.35, 0.65], [0.6, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(
        blend(a, b, [1.0, 0.25]).values, [[1, 0], [0.2, 0.8], [0.5, 0.875], [0.6, 0.4]], rtol=1e-6
    )


def test_blend_leaves_frames_of_neither_system_unknown() -> None:
    mixed = blend(make("v", [1, 2], [NAN, 1.0]), make("v", [1], [NAN]), 0.5)
    np.testing.assert_array_equal(mixed.values[:, 0], [NAN, 1.0])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.floats(0, 1), st.floats(0.1, 60), st.sampled_from(["box", "gaussian"]))
def test_blend_and_smooth_series_commute_on_whole_tracks(
    seed: int, weight: float, width: float, kind: str
) -> None:
    smoothing = Smoothing(kind, width)
    frames = np.arange(1, 60)
    a, b = (complete(draw(seed + extra, 30), frames) for extra in (0, 1))
    first = smooth_series(blend(a, b, weight), smoothing)
    last = blend(smooth_series(a, smoothing), smooth_series(b, smoothing), weight)
    np.testing.assert_allclose(first.values, last.values, atol=1e-6)
    np.testing.assert_allclose(first.values.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(blend(a, b, 1).values, a.values)
    assert np.array_equal(blend(a, b, 0).values, b.values)


def test_blend_of_different_labels_or_weights_is_refused() -> None:
    a = make("v", [1], [0.0], [1.0])
    with raises_code(DataError, "other_labels"):
        blend(a, make("w", [1], [0.0], [1.0]), 0.5)
    with raises_code(DataError, "other_labels"):
        blend(a, make("v", [1], [0.0]), 0.5)
    for weight in (1.1, -0.1, NAN, [0.5, 0.5, 0.5], []):
        with raises_code(DataError, "weights"):
            blend(a, a, weight)


def test_blend_all_contains_videos_of_one_system_alone() -> None:
    a = [make("x", [1], [1.0]), make("y", [1], [1.0])]
    b = [make("z", [1], [0.0]), make("y", [1], [0.0])]
    mixed = blend_all(a, b, 0.25)
    assert [(series.video, series.values.item()) for series in mixed] == [("x", 1), ("y", 0.25), ("z", 0)]


@pytest.mark.usefixtures("close")
def test_tune_chooses_the_smoothing_with_the_best_measure() -> None:
    frames, rng = np.arange(1, 301), np.random.default_rng(0)
    truth = np.stack([np.sin(frames / 40), np.cos(frames / 40)], 1).astype(np.float32)
    noisy = Series("v", frames, truth + rng.normal(0, 0.3, truth.shape).astype(np.float32))
    labels = [Series("v", frames, truth)]
    boxes = [Smoothing("box", width) for width in (1, 10, 200)]
    candidates = [Smoothing(), *boxes, Smoothing("gaussian", 0.2, "seconds")]
    best = tune(VALENCE_AROUSAL, [[noisy]], labels, candidates).smoothing
    values = {item: closeness(VALENCE_AROUSAL, labels, smooth_all([noisy], item)) for item in candidates}
    assert best in (candidates[2], candidates[4]) and values[best] == max(values.values())


def test_tune_chooses_the_first_of_equals_and_nothing_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    series = [make("v", [1, 2, 3], [0.5] * 3, [0.5] * 3)]
    narrow, wide = Smoothing("box", 2), Smoothing("box", 5)
    for values, expected in (((0.5, 0.5), narrow), ((0.4, 0.5), wide), ((NAN, 0.1), wide)):
        results = iter(values)
        monkeypatch.setattr(challenge, "measure", lambda *_, results=results: next(results))
        assert tune(VALENCE_AROUSAL, [series], series, [narrow, wide]).smoothing == expected
    monkeypatch.setattr(challenge, "measure", lambda *_: NAN)
    with raises_code(DataError, "no_value"):
        tune(VALENCE_AROUSAL, [series], series, [wide, narrow])


@pytest.mark.usefixtures("close")
def test_tune_applies_frame_rates_to_the_candidates() -> None:
    impulse = [make("v", range(1, 8), [0, 0, 0, 1, 0, 0, 0])]
    target = [make("v", range(1, 8), [0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0])]
    candidates = (Smoothing(), Smoothing("box", 0.1, "seconds"))
    valence = VALENCE_AROUSAL.subset(["Valence"])
    assert tune(valence, [impulse], target, candidates, rates={"v": 10}).smoothing == candidates[1]
    assert tune(valence, [impulse], target, candidates, rates={"v": 1}).smoothing == candidates[0]


def test_tune_thresholds_equals_a_result_by_hand() -> None:
    labels = [make("v", range(1, 6), [0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0])]
    scores = [make("v", range(1, 6), [0.05, 0.12, 0.25, 0.3, 0.4], [0.9] * 5, [0.1, 0.95, 0.2, 0.85, 0.75])]
    assert tune_thresholds(UNITS, scores, labels) == (0.2, 0.5, 0.8)


def test_tune_thresholds_breaks_ties_toward_the_middle() -> None:
    labels = [make("v", [1, 2], [1, 0])]
    unit = ACTION_UNITS.subset(["AU1"])
    assert tune_thresholds(unit, [make("v", [1, 2], [0.3, 0.2999])], labels) == (0.3,)
    assert tune_thresholds(unit, [make("v", [1, 2], [0.9, 0.1])], labels) == (0.5,)
    assert tune_thresholds(unit, [make("v", [1, 2], [0.45, 0.1])], labels) == (0.4,)
    assert tune_thresholds(unit, [make("v", [1, 2], [0.9, 0.1])], labels, grid=(0.2, 0.6)) == (0.6,)


def test_tune_thresholds_ignores_unannotated_frames_and_completes_faceless_ones() -> None:
    labels = [make("v", [1, 2, 3, 4, 5], [1, NAN, 1, 0, 0]), make("w", [1], [1])]
    scores = [make("v", [1, 2, 4, 5], [0.8, 0.99, 0.2, 0.1])]  # frame 3 becomes 0.595 between 0.99 and 0.2
    unit = ACTION_UNITS.subset(["AU1"])
    assert tune_thresholds(unit, scores, labels, grid=(0.1, 0.59, 0.7)) == (0.59,)
    with raises_code(DataError, "no_label"):
        tune_thresholds(unit, scores, [make("v", [1], [NAN])])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999))
def test_tune_thresholds_maximizes_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 40)
    values = np.clip(truth * 0.3 + rng.uniform(0, 0.7, 40), 0, 1)
    truth[0] = 1

    def f1(threshold: float) -> float:
        present = values.astype(np.float32) >= np.float32(threshold)
        return 2 * float((present & (truth == 1)).sum()) / (present.sum() + truth.sum())

    unit = ACTION_UNITS.subset(["AU1"])
    (chosen,) = tune_thresholds(unit, [make("v", range(40), values)], [make("v", range(40), truth)])
    assert f1(chosen) == max(f1(step / 10) for step in range(1, 10))


CLIP = MIMICRY_INTENSITY.subset(["Amusement", "Joy"])
TENTHS = [step / 10 for step in range(11)]


@pytest.mark.usefixtures("close")
def test_tune_blend_finds_one_weight_or_one_per_label_of_clips() -> None:
    a, b = make("v", [1, 2], [1.0, 0.0], [1.0, 0.0]), make("v", [1, 2], [0.0, 1.0], [0.0, 1.0])
    labels = [blend(a, b, [0.8, 0.2])]
    # from 0.2 to 0.8 the error is the same
    assert tune_blend(VALENCE_AROUSAL, ([a], [b]), labels, TENTHS) == (0.5, 0.5)
    assert tune_blend(CLIP, ([a], [b]), labels, TENTHS) == (0.8, 0.2)


@pytest.mark.usefixtures("close")
def test_tune_blend_gives_an_indifferent_label_the_common_weight() -> None:
    a, b = make("v", [1, 2], [1.0, 0.0], [0.3, 0.3]), make("v", [1, 2], [0.0, 1.0], [0.3, 0.3])
    assert tune_blend(CLIP, ([a], [b]), [blend(a, b, 0.9)], TENTHS) == (0.9, 0.9)


def test_the_whole_order_of_steps_leaves_probabilities() -> None:
    frames = np.arange(1, 90)
    a, b = draw(1, 20), draw(2, 25)
    final = smooth_series(complete(blend(a, b, 0.7), frames), Smoothing("box", 50))
    assert final.values.shape == (89, len(EXPRESSION.labels))
    np.testing.assert_allclose(final.values.sum(axis=1), 1, atol=1e-5)
