"""Scores of predictions against annotations: official measures, frames without a prediction, intervals over
videos."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from error_codes import raises_code
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from hsemotion_space.metrics import bootstrap_additive, concordance, expected_calibration_error, f1_per_class
from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    CHALLENGE,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.training.files import DataError
from hsemotion_space.training.scoring import TaskScore, score
from hsemotion_space.training.series import Series

NAN = float("nan")
TWO_UNITS = ACTION_UNITS.subset(["AU1", "AU12"])


def series(video: str, frames: list[int], values: list[list[float]]) -> Series:
    return Series(video, np.array(frames, np.int64), np.array(values, np.float32))


def make(task: Task, videos: int, seed: int) -> tuple[list[Series], list[Series]]:
    """Return random labels and related predictions for every frame."""
    rng, labels, predictions = np.random.default_rng(seed), [], []
    for number in range(videos):
        frames = np.arange(1, rng.integers(20, 60)) if task.scope == "frame" else np.zeros(1, np.int64)
        shape = (len(frames), len(task.labels))
        if task.kind == "one_of":
            # the last class is absent
            target = rng.integers(0, len(task.labels) - 1, (len(frames), 1)).astype(np.float32)
            values = rng.dirichlet(np.ones(len(task.labels)), len(frames))
            values[np.arange(len(frames)), target[:, 0].astype(int)] += 0.3
            values /= values.sum(1, keepdims=True)
        elif task.kind == "independent" and task.scope == "frame":
            target = (rng.random(shape) < 0.3).astype(np.float32)
            values = 0.3 * target + 0.7 * rng.random(shape)
        else:
            target = rng.uniform(task.low, task.high, shape)
            values = np.clip(0.6 * target + 0.2 * rng.normal(size=shape), task.low, task.high)
        labels.append(Series(str(number), frames, target.astype(np.float32)))
        predictions.append(Series(str(number), frames, values.astype(np.float32)))
    return labels, predictions


def joined(parts: list[Series]) -> np.ndarray:
    return np.concatenate([item.values for item in parts])


def counts(result: TaskScore) -> tuple[int, int, int, int]:
    return result.frames_labeled, result.frames_predicted, result.frames_filled, result.frames_missing_video


# Official measures, with a prediction for each frame


def test_score_is_the_concordance_over_all_frames() -> None:
    labels, predictions = make(VALENCE_AROUSAL, 6, 1)
    result = score(VALENCE_AROUSAL, labels, predictions, rounds=50)
    expected = [concordance(joined(predictions)[:, k], joined(labels)[:, k]) for k in (0, 1)]
    assert result.measure == "P_VA" and result.value == pytest.approx(np.mean(expected))
    assert [label.value for label in result.per_label] == pytest.approx(expected)
    assert [(label.name, label.support) for label in result.per_label] == [
        ("Valence", len(joined(labels))),
        ("Arousal", len(joined(labels))),
    ]
    assert math.isnan(result.accuracy) and math.isnan(result.ece)
    assert result.confusion.shape == (0, 0) and not result.calibration.count.size
    per_video = np.mean(
        [concordance(p.values[:, 0], t.values[:, 0]) for p, t in zip(predictions, labels, strict=True)]
    )
    assert result.per_label[0].value != pytest.approx(per_video, abs=1e-4), "not a mean over videos"


@pytest.mark.parametrize("task", [AFF_WILD2_EXPRESSION, COMPOUND_EXPRESSION])
def test_score_is_the_macro_f1_over_all_classes(task: Task) -> None:
    labels, predictions = make(task, 5, 2)
    result = score(task, labels, predictions, rounds=50)
    target, values = joined(labels)[:, 0].astype(int), joined(predictions)
    chosen, every = values.argmax(1), range(len(task.labels))
    assert result.measure == "macro F1"
    assert result.value == pytest.approx(
        f1_score(target, chosen, labels=every, average="macro", zero_division=0)
    )
    assert [label.value for label in result.per_label] == pytest.approx(
        f1_score(target, chosen, labels=every, average=None, zero_division=0)
    )
    assert [label.support for label in result.per_label] == np.bincount(target, minlength=len(every)).tolist()
    assert result.per_label[-1].support == 0 and result.per_label[-1].value == 0
    np.testing.assert_array_equal(result.confusion, confusion_matrix(target, chosen, labels=every))
    assert result.accuracy == pytest.approx(accuracy_score(target, chosen))
    assert result.ece == pytest.approx(expected_calibration_error(values.max(1), chosen == target))
    assert result.calibration.count.sum() == len(target)


def test_score_is_the_mean_f1_of_the_units() -> None:
    labels, predictions = make(ACTION_UNITS, 5, 3)
    target, values = joined(labels), joined(predictions)
    for thresholds in (None, np.linspace(0.2, 0.8, 12).tolist()):
        result = score(ACTION_UNITS, labels, predictions, thresholds, rounds=50)
        present = values >= np.float32(0.5 if thresholds is None else thresholds)
        expected = f1_score(target, present, average=None, zero_division=0)
        assert result.measure == "mean F1" and result.value == pytest.approx(np.mean(expected))
        assert [label.value for label in result.per_label] == pytest.approx(expected)
        assert [label.support for label in result.per_label] == target.sum(0).tolist()
        assert result.ece == pytest.approx(expected_calibration_error(values, target))
        assert math.isnan(result.accuracy)
        assert result.calibration.count.sum() == target.size and result.confusion.shape == (0, 0)


def test_score_is_the_mean_correlation_of_the_intensities_of_clips() -> None:
    labels, predictions = make(MIMICRY_INTENSITY, 40, 4)
    result = score(MIMICRY_INTENSITY, labels, predictions, rounds=50)
    expected = [pearsonr(joined(predictions)[:, k], joined(labels)[:, k]).statistic for k in range(6)]
    assert result.measure == "mean Pearson r" and result.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert [label.value for label in result.per_label] == pytest.approx(expected, abs=1e-6)
    assert (result.videos, counts(result)) == (40, (40, 40, 0, 0))
    assert math.isnan(result.ece) and math.isnan(result.accuracy)


def test_score_counts_a_unit_at_its_threshold_as_present() -> None:
    labels = [series("a", [1, 2], [[1, 0], [0, 1]])]
    predictions = [series("a", [1, 2], [[0.3, 0.1], [0.29, 0.9]])]
    assert score(TWO_UNITS, labels, predictions, [0.3, 0.9]).value == 1
    assert score(TWO_UNITS, labels, predictions).value == 0.5, "0.5 by default"


def test_score_of_constant_predictions_is_zero() -> None:
    for task in (VALENCE_AROUSAL, MIMICRY_INTENSITY):
        labels, _ = make(task, 9, 5)
        constant = [replace(item, values=np.full_like(item.values, 0.1)) for item in labels]
        result = score(task, labels, constant, rounds=20)
        assert (result.value, *result.interval) == pytest.approx((0, 0, 0), abs=1e-9)


# Frames and videos without annotation or prediction


def test_score_leaves_rows_without_annotation_out() -> None:
    labels, predictions = make(AFF_WILD2_EXPRESSION, 4, 6)
    for item in labels[:3]:
        item.values[::3] = NAN
    labels[3].values[:] = NAN
    annotated = [Series(item.video, item.frames[item.known], item.values[item.known]) for item in labels[:3]]
    full, less = (score(AFF_WILD2_EXPRESSION, rows, predictions, rounds=20) for rows in (labels, annotated))
    assert full.value == less.value and full.interval == less.interval and full.videos == 3
    assert counts(full) == (len(joined(annotated)), len(joined(annotated)), 0, 0)


def test_score_leaves_a_frame_with_one_missing_dimension_out() -> None:
    labels = [series("a", [1, 2, 3], [[0, 0], [1, NAN], [1, 1]])]
    result = score(VALENCE_AROUSAL, labels, [series("a", [1, 2, 3], [[0, 0], [-1, -1], [1, 1]])])
    assert result.value == 1 and result.frames_labeled == 2


def test_score_interpolates_frames_without_prediction_and_holds_the_ends() -> None:
    frames = [1, 2, 3, 4, 5, 6, 8, 20]
    predictions = [series("a", [2, 3, 4, 6, 10], [[0.1, 0], [NAN, NAN], [0.5, -1], [0.9, NAN], [-0.1, 0.5]])]
    filled = [[0.1, 0], [0.1, 0], [0.3, -0.5], [0.5, -1], [0.4, -0.75], [0.3, -0.5], [0.1, 0], [-0.1, 0.5]]
    result = score(VALENCE_AROUSAL, [series("a", frames, filled)], predictions)
    assert result.value == pytest.approx(1), "these are the values that the frames should have got"
    assert counts(result) == (8, 2, 6, 0), "2 and 4; 10 is not annotated, a row with NaN is no prediction"
    assert all(math.isnan(bound) for bound in result.interval), "a single video says nothing about others"


def test_score_chooses_classes_after_the_interpolation() -> None:
    task = AFF_WILD2_EXPRESSION.subset(["Neutral", "Anger", "Fear"])
    predictions = [series("a", [1, 5], [[0.6, 0.4, 0], [0, 0.4, 0.6]])]
    result = score(task, [series("a", [1, 2, 3, 4, 5, 6], [[0], [0], [1], [2], [2], [2]])], predictions)
    assert result.value == 1 and counts(result) == (6, 2, 4, 0)


@pytest.mark.parametrize(
    ("task", "chosen"),
    [(AFF_WILD2_EXPRESSION, 0), (EXPRESSION, 5), (COMPOUND_EXPRESSION, 0)],
    ids=["first", "inside", "none"],
)
def test_score_takes_a_video_without_crops_as_neutral(task: Task, chosen: int) -> None:
    labels = [series("a", [1, 2], [[1], [2]]), series("b", [1, 2, 3], [[chosen], [1], [chosen]])]
    perfect = np.eye(len(task.labels), dtype=np.float32)[[1, 2]]
    no_crops = Series("b", np.array([1, 2, 3]), np.full((3, len(task.labels)), NAN, np.float32))
    first = Series("a", np.array([1, 2]), perfect)
    for predictions in ([first], [first, no_crops]):
        result = score(task, labels, predictions)
        assert counts(result) == (5, 2, 0, 3) and result.videos == 2
        assert result.confusion[[chosen, 1], chosen].tolist() == [2, 1]
        assert result.accuracy == pytest.approx(4 / 5)
        sure = 1 / len(task.labels)
        assert result.ece == pytest.approx(3 / 5 * (2 / 3 - sure), abs=1e-6), "equal probabilities"


def test_score_takes_zeros_for_other_videos_without_prediction() -> None:
    va = score(VALENCE_AROUSAL, [series("a", [1, 2], [[0, 0], [0, 0]])], [])
    assert va.value == 1 and counts(va) == (2, 0, 0, 2)
    known = series("b", [1], [[1, 1]])
    units = score(TWO_UNITS, [series("a", [1, 2], [[1, 0], [0, 0]]), known], [known])
    assert [label.value for label in units.per_label] == pytest.approx([2 / 3, 1])
    assert counts(units) == (3, 1, 0, 2)
    clips = [series(str(value), [0], [[value] * 6]) for value in (1, 0, 0.5)]
    unknown = replace(clips[2], values=np.full((1, 6), NAN, np.float32))
    mimicry = score(MIMICRY_INTENSITY, clips, [clips[0], unknown])
    assert mimicry.value == pytest.approx(pearsonr([1, 0, 0.5], [1, 0, 0]).statistic)
    assert counts(mimicry) == (3, 1, 0, 2)


def test_score_does_not_rise_when_hard_frames_are_dropped() -> None:
    """The upstream evaluation leaves frames without a crop out; here they stay in."""
    labels = [series("a", [1, 2, 3, 4], [[0], [1], [0], [1]])]
    task = AFF_WILD2_EXPRESSION.subset(["Neutral", "Anger"])
    result = score(task, labels, [series("a", [1, 3], [[1, 0], [1, 0]])])
    assert result.accuracy == 0.5 and counts(result) == (4, 2, 2, 0)


def test_score_ignores_videos_without_labels_and_the_order() -> None:
    labels, predictions = make(ACTION_UNITS, 5, 7)
    others = [Series("other", np.array([1]), np.full((1, 3), 9, np.float32))] * 2
    plain = score(ACTION_UNITS, labels, predictions)
    mixed = score(ACTION_UNITS, iter(labels), iter([*others, *predictions[::-1]]))
    assert mixed.value == plain.value and mixed.interval == plain.interval and counts(mixed) == counts(plain)


def test_score_bounds_values_as_in_a_submission() -> None:
    labels = [series("a", [1, 2], [[-1, 1], [1, -1]])]
    assert score(VALENCE_AROUSAL, labels, [series("a", [1, 2], [[-1.5, 3], [1.01, -2]])]).value == 1


# Intervals


@pytest.mark.parametrize("task", CHALLENGE, ids=lambda task: task.name)
def test_score_draws_whole_videos_for_the_interval(task: Task) -> None:
    labels, predictions = make(task, 7, 8)
    result = score(task, labels, predictions, rounds=30, seed=4)
    rng, values = np.random.default_rng(4), []
    for _ in range(30):
        drawn = np.repeat(np.arange(7), rng.multinomial(7, np.full(7, 1 / 7)))
        again = [
            [replace(parts[video], video=str(place)) for place, video in enumerate(drawn)]
            for parts in (labels, predictions)
        ]
        values.append(score(task, *again, rounds=1).value)
    assert result.interval == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-6)
    assert result.interval[0] < result.value < result.interval[1]
    assert score(task, labels, predictions, rounds=30, seed=5).interval != result.interval


def test_score_has_a_wider_interval_than_single_frames_give() -> None:
    labels, predictions = [], []
    rng = np.random.default_rng(9)
    task = AFF_WILD2_EXPRESSION.subset(["Neutral", "Anger"])
    for number in range(12):  # in each video all frames are right or all are wrong
        target, frames = rng.integers(0, 2, 50), np.arange(1, 51)
        labels.append(Series(str(number), frames, target[:, None].astype(np.float32)))
        chosen = target if number % 2 else 1 - target
        predictions.append(Series(str(number), frames, np.eye(2, dtype=np.float32)[chosen]))
    result = score(task, labels, predictions)
    rows = np.zeros((600, 4))
    rows[np.arange(600), 2 * joined(labels)[:, 0].astype(int) + joined(predictions).argmax(1)] = 1
    low, high = bootstrap_additive(rows, lambda sums: float(f1_per_class(sums.reshape(2, 2)).mean()))
    assert result.interval[1] - result.interval[0] > 4 * (high - low)


# What cannot be scored


@pytest.mark.parametrize("task", CHALLENGE, ids=lambda task: task.name)
def test_score_without_annotation_is_refused(task: Task) -> None:
    blank = series("a", [0], [[NAN] * (1 if task.kind == "one_of" else len(task.labels))])
    for labels in ([], [blank]):
        with raises_code(DataError, "no_label"):
            score(task, labels, [])


@pytest.mark.parametrize(
    ("task", "row", "code"),
    [
        (VALENCE_AROUSAL, [0, -5], "label"),
        (AFF_WILD2_EXPRESSION, [-1], "label"),
        (AFF_WILD2_EXPRESSION, [1.5], "label"),
        (COMPOUND_EXPRESSION, [7], "label"),
        (TWO_UNITS, [1, -1], "label"),
        (AFF_WILD2_EXPRESSION, [0, 1], "columns"),
        (TWO_UNITS, [0, 1, 0], "columns"),
        (MIMICRY_INTENSITY, [0.5] * 6, "clip_rows"),
    ],
)
def test_score_with_labels_of_another_task_is_refused(task: Task, row: list[float], code: str) -> None:
    with raises_code(DataError, code, video="a"):
        score(task, [series("a", [3], [row])], [])


def test_score_with_predictions_of_another_task_is_refused() -> None:
    labels = [series("a", [1], [[1]])]
    with raises_code(DataError, "columns", kind="predictions"):
        score(AFF_WILD2_EXPRESSION, labels, [series("a", [1], [[1, 0]])])
    with raises_code(DataError, "probabilities"):
        score(AFF_WILD2_EXPRESSION, labels, [series("a", [1], [[3, -1, 0, 0, 0, 0, 0, 0]])])


def test_score_of_a_video_given_twice_is_refused() -> None:
    one = series("a", [1], [[0, 0]])
    for labels, predictions, what in (([one, one], [], "labels"), ([one], [one, one], "predictions")):
        with raises_code(DataError, "twice", kind=what):
            score(VALENCE_AROUSAL, labels, predictions)


@pytest.mark.parametrize(
    ("task", "thresholds"),
    [(TWO_UNITS, [0.5]), (VALENCE_AROUSAL, [0.5, 0.5]), (MIMICRY_INTENSITY, [0.5] * 6)],
)
def test_score_with_thresholds_that_do_not_fit_is_refused(task: Task, thresholds: list[float]) -> None:
    with raises_code(DataError, "thresholds"):
        score(task, [], [], thresholds)
