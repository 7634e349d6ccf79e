"""Disagreement between checkpoints and uncertainty of one, by hand and by property."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from analysis_makers import change_lines, make_analysis, make_siblings
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from hsemotion_space.analysis.disagreement import (
    Moment,
    disagreements,
    jensen_shannon,
    mean_pairwise,
    most_disagreed,
    uncertainty,
)
from hsemotion_space.tasks import (
    ACTION_UNITS,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    MIMICRY_INTENSITY,
    TASKS,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.types import Analysis, Disagreement, Timeline

THREE = EXPRESSION.subset(["Anger", "Fear", "Sadness"])
TWO_UNITS = ACTION_UNITS.subset(["AU1", "AU12"])


def pair(task: Task, one: object, other: object, **changes: object) -> Disagreement:
    """Return what is found of one task, one face and two checkpoints with these values in each of three
    frames or in turn."""
    first, second = make_siblings(2, faces=1, frames=3, gap=False, tasks=(task,))
    (found,) = disagreements(
        [change_lines(first, task, one, **changes), change_lines(second, task, other, **changes)]
    )  # type: ignore[arg-type]
    return found


def distributions(count: int, labels: int = 4) -> st.SearchStrategy[np.ndarray]:
    weights = arrays(np.float64, (count, 1, labels), elements=st.floats(0, 1, width=32))
    return weights.map(
        lambda drawn: (
            (drawn + np.eye(labels)[0] * 1e-3) / (drawn + np.eye(labels)[0] * 1e-3).sum(axis=2, keepdims=True)
        )
    )


# Measures


def test_jensen_shannon_by_hand() -> None:
    even, sure = [0.5, 0.5], [1.0, 0.0]
    # mean (0.75, 0.25) with entropy 0.811278 bits; the entropies of the two are 1 and 0
    assert jensen_shannon(np.array([[even], [sure]])) == pytest.approx([0.8112781 - 0.5], abs=1e-7)
    # three that share nothing reach log2 3 bits, two of three that agree reach the entropy of (2/3, 1/3),
    # 0.918296 bits
    assert jensen_shannon(np.eye(3)[:, None]) == pytest.approx([1.0])
    assert jensen_shannon(np.eye(2)[[0, 0, 1], None]) == pytest.approx([0.9182958 / np.log2(3)], abs=1e-7)


@settings(max_examples=150, deadline=None)
@given(distributions(2))
def test_jensen_shannon_of_two_is_scipys_squared_distance(values: np.ndarray) -> None:
    # scipy's sum for two that are almost equal may be a little below zero
    with np.errstate(invalid="ignore"):
        expected = jensenshannon(values[0, 0], values[1, 0], base=2) ** 2
    assert jensen_shannon(values)[0] == pytest.approx(np.nan_to_num(expected), abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 5).flatmap(distributions), st.randoms(use_true_random=False))
def test_measures_are_symmetric_bounded_and_zero_for_equals(values: np.ndarray, random: object) -> None:
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for measure in (jensen_shannon, mean_pairwise):
        (score,) = measure(values)
        assert 0 <= score <= 1
        assert measure(values[order])[0] == pytest.approx(score, abs=1e-9)
        assert measure(np.repeat(values[:1], len(values), axis=0)).tolist() == [0]
        if np.abs(values - values[0]).max() > 0.01:
            assert score > 0


# Disagreement


def test_one_of_by_hand() -> None:
    found = pair(THREE, [[1, 0, 0], [0.5, 0.5, 0], [0.6, 0.4, 0]], [[0, 0, 1], [1, 0, 0], [0.6, 0.4, 0]])
    assert found.score == pytest.approx([1, 0.3112781, 0], abs=1e-6)
    assert found.score[2] == 0
    assert found.decisions.tolist() == [1, 0, 0]
    assert (found.track_id, found.task, found.provenances, found.mixed, found.partial) == (
        1,
        THREE,
        ("trained",) * 2,
        False,
        (),
    )
    assert [ref.id for ref in found.checkpoints] == ["c0", "c1"]


def test_continuous_by_hand() -> None:
    found = pair(VALENCE_AROUSAL, [[-1, -1], [0.5, 0], [0.2, 0.1]], [[1, 1], [0, 0], [0.2, 0.1]])
    # the range is 2 wide; in the middle frame the mean difference is (0.5 + 0) / 2
    assert found.score == pytest.approx([1, 0.125, 0])
    assert np.isnan(found.decisions).all()


def test_independent_by_hand() -> None:
    limits = (0.5, 0.3)
    found = pair(
        TWO_UNITS, [[0, 0], [0.6, 0.2], [0.5, 0.3]], [[1, 1], [0.4, 0.1], [0.5, 0.3]], thresholds=limits
    )
    assert found.score == pytest.approx([1, 0.15, 0])
    assert found.decisions.tolist() == [1, 0.5, 0]
    assert np.isnan(pair(TWO_UNITS, [0, 0], [1, 1]).decisions).all()


def test_each_checkpoint_is_held_against_its_own_thresholds() -> None:
    first, second = make_siblings(2, faces=1, frames=3, gap=False, tasks=(TWO_UNITS,))
    one = change_lines(first, TWO_UNITS, [0.4, 0.4], thresholds=(0.5, 0.3))
    other = change_lines(second, TWO_UNITS, [0.4, 0.4], thresholds=(0.3, 0.3))
    (found,) = disagreements([one, other])
    assert (found.score.tolist(), found.decisions.tolist()) == ([0] * 3, [0.5] * 3)
    (half,) = disagreements([one, change_lines(second, TWO_UNITS, [0.4, 0.4])])
    assert np.isnan(half.decisions).all(), "one of them decides nothing"


def test_three_checkpoints_are_compared_pair_by_pair() -> None:
    given_values = ([0.0, 0.0], [0.5, 0.0], [1.0, 0.0])
    made = make_siblings(3, faces=1, frames=3, gap=False, tasks=(TWO_UNITS,))
    (found,) = disagreements(
        [change_lines(item, TWO_UNITS, row) for item, row in zip(made, given_values, strict=True)]
    )
    assert found.score == pytest.approx([(0.5 + 1 + 0.5) / 3 / 2] * 3)  # three pairs, two labels


def test_labels_are_matched_by_name_and_missing_ones_have_no_probability() -> None:
    first, second = make_siblings(2, faces=1, frames=3, gap=False, tasks=(EXPRESSION,))
    back = EXPRESSION.subset(EXPRESSION.label_names[::-1])
    values = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05], np.float32)
    (same,) = disagreements(
        [change_lines(first, EXPRESSION, values), change_lines(second, back, values[::-1])]
    )
    assert same.score.tolist() == [0] * 3
    assert same.decisions.tolist() == [0] * 3
    seven = EXPRESSION.subset([name for name in EXPRESSION.label_names if name != "Contempt"])
    sure = np.eye(8, dtype=np.float32)[EXPRESSION.index("Contempt")]
    lacking = change_lines(second, seven, np.eye(7, dtype=np.float32)[0])
    for order in ((0, 1), (1, 0)):
        both = [(change_lines(first, EXPRESSION, sure), lacking)[place] for place in order]
        (apart,) = disagreements(both)
        assert (apart.score.tolist(), apart.decisions.tolist(), apart.partial) == (
            [1] * 3,
            [1] * 3,
            ("Contempt",),
        )
        assert set(apart.task.label_names) == set(EXPRESSION.label_names)


def test_labels_that_only_some_have_are_left_out_of_independent_tasks() -> None:
    first, second = make_siblings(2, faces=1, frames=3, gap=False, tasks=(TWO_UNITS,))
    other = ACTION_UNITS.subset(["AU26", "AU12"])
    (found,) = disagreements(
        [change_lines(first, TWO_UNITS, [1, 0.2]), change_lines(second, other, [0.9, 0.4])]
    )
    assert found.score == pytest.approx([0.2] * 3)
    assert (found.task.label_names, found.partial) == (("AU12",), ("AU1", "AU26"))
    nothing = ACTION_UNITS.subset(["AU26", "AU2"])
    assert disagreements([first, change_lines(second, nothing, [0.9, 0.4])]) == ()


def test_numbers_of_different_provenance_are_marked() -> None:
    first, second = make_siblings(2, faces=1, frames=3, gap=False, tasks=(COMPOUND_EXPRESSION,))
    ruled = disagreements([first, second])[0]
    assert (ruled.provenances, ruled.mixed) == (("rule", "rule"), False)
    line = second.faces[0].timelines[0]
    trained = change_lines(second, COMPOUND_EXPRESSION, line.values, provenance="trained")
    found = disagreements([first, trained])[0]
    assert (found.provenances, found.mixed) == (("rule", "trained"), True)
    moment = most_disagreed([found], 1)[0]
    assert (moment.mixed, moment.provenances) == (True, ("rule", "trained"))


def test_every_face_and_task_that_two_have_is_compared() -> None:
    made = make_siblings(3, faces=2, frames=12)
    found = disagreements(made)
    assert [(item.track_id, item.task.name) for item in found] == [
        (face, task.name) for face in (1, 2) for task in TASKS
    ]
    for item, face in zip(found, [made[0].faces[0]] * 5 + [made[0].faces[1]] * 5, strict=True):
        assert len(item.score) == (len(face.track.times_s) if item.task.scope == "frame" else 1)
        assert (item.score > 0).all()
        assert (item.score <= 1).all()
    without = replace(
        made[0],
        faces=tuple(
            replace(face, timelines=face.timelines[1:], predictions=face.predictions[1:])
            for face in made[0].faces
        ),
    )
    pairs = disagreements([without, made[1], made[2]])
    assert {len(item.lines) for item in pairs if item.task.name == "expression"} == {2}
    assert not [item for item in disagreements([without, made[1]]) if item.task.name == "expression"]


def test_only_analyses_of_one_media_and_the_same_tracks_are_compared() -> None:
    first, second = make_siblings(2, faces=2, frames=6)
    with pytest.raises(ValueError, match="two or more analyses, got 1"):
        disagreements([first])
    with pytest.raises(ValueError, match="different media"):
        disagreements([first, replace(second, media=replace(second.media, sha256="1" * 64))])
    moved = replace(
        second.faces[0], track=replace(second.faces[0].track, boxes_xyxy=second.faces[0].track.boxes_xyxy + 1)
    )
    for faces in (second.faces[:1], (moved, second.faces[1])):
        with pytest.raises(ValueError, match="Checkpoint 0 and Checkpoint 1 did not see the same tracks"):
            disagreements([first, replace(second, faces=faces)])
    assert disagreements([replace(first, faces=()), replace(second, faces=())]) == ()


def test_values_check_their_shapes() -> None:
    found = pair(THREE, [1, 0, 0], [0, 1, 0])
    for changes in (
        {"score": found.score[:2]},
        {"decisions": found.decisions[:2]},
        {"lines": found.lines[:1]},
        {"checkpoints": ()},
    ):
        with pytest.raises(ValueError, match="Disagreement"):
            replace(found, **changes)  # type: ignore[arg-type]
    short = replace(found.lines[1], times_s=found.times_s[:2], values=found.lines[1].values[:2])
    with pytest.raises(ValueError, match=r"Disagreement\.lines"):
        replace(found, lines=(found.lines[0], short))


# Moments


def scored(
    scores: Sequence[float],
    track_id: int = 1,
    task: Task = EXPRESSION,
    times_s: Sequence[float] | None = None,
) -> Disagreement:
    """Return a disagreement with given scores; what was said counts the frames."""
    analysis = make_analysis(1, len(scores), tasks=(task,), gap=False)
    line = analysis.faces[0].timelines[0]
    times = np.arange(len(scores)) * 0.5 if times_s is None else np.asarray(times_s)
    line = replace(
        line,
        times_s=times,
        values=np.arange(len(scores), dtype=np.float32)[:, None] * np.ones(len(task.labels), np.float32),
    )
    refs = tuple(item.checkpoint for item in make_siblings(2, faces=1, frames=2))
    return Disagreement(
        track_id, task, refs, (line, line), np.array(scores, np.float32), np.full(len(scores), np.nan, np.float32)
    )  # fmt: skip


def brief(moments: Sequence[Moment]) -> list[tuple[int, str, float, float]]:
    return [(item.track_id, item.task.name, item.time_s, round(item.score, 3)) for item in moments]


def test_the_most_disagreed_moments_by_hand() -> None:
    one = scored([0.1, 0.9, 0.8, 0.2, 0.7, 0.0])
    assert brief(most_disagreed([one], 9)) == [(1, "expression", 0.5, 0.9), (1, "expression", 2.0, 0.7)]
    assert brief(most_disagreed([one], 9, apart_s=0.5))[:3] == [
        (1, "expression", 0.5, 0.9), (1, "expression", 1.0, 0.8), (1, "expression", 2.0, 0.7)
    ]  # fmt: skip
    assert len(most_disagreed([one], 9, apart_s=0)) == 5, "the frame where all say the same is none"
    other_face, other_task = scored([0.85, 0.0], track_id=2), scored([0.0, 0.95], task=ACTION_UNITS)
    assert brief(most_disagreed([one, other_face, other_task], 3)) == [
        (1, "action_units", 0.5, 0.95), (1, "expression", 0.5, 0.9), (2, "expression", 0.0, 0.85)
    ]  # fmt: skip
    assert most_disagreed([one], 0) == most_disagreed([], 5) == ()
    for wrong in ((-1, 1.0), (1, -0.1)):
        with pytest.raises(ValueError, match="at least 0"):
            most_disagreed([one], *wrong)


def test_a_moment_holds_the_prediction_of_each_checkpoint_in_that_frame() -> None:
    found = disagreements(make_siblings(3, faces=1, frames=9, gap=False))
    for moment in most_disagreed(found, 50, apart_s=0):
        (item,) = [one for one in found if one.task.name == moment.task.name]
        (row,) = np.flatnonzero(item.times_s == moment.time_s)
        assert [checkpoint.id for checkpoint in moment.checkpoints] == ["c0", "c1", "c2"]
        for prediction, line in zip(moment.predictions, item.lines, strict=True):
            assert (prediction.task, prediction.frames) == (line.task, 1)
            np.testing.assert_array_equal(prediction.values, line.values[row])
            assert np.isnan(prediction.spread).all()
    whole = [item for item in found if item.task.name == MIMICRY_INTENSITY.name]
    assert brief(most_disagreed(whole, 5))[0][2] == found[0].times_s[0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=40), st.integers(0, 12), st.floats(0, 4))
def test_moments_are_sorted_apart_and_as_high_as_can_be(
    scores: list[float], count: int, apart_s: float
) -> None:
    found = [scored(scores), scored(scores[::-1], track_id=2)]
    moments = most_disagreed(found, count, apart_s)
    assert len(moments) <= count
    heights = [moment.score for moment in moments]
    assert heights == sorted(heights, reverse=True)
    assert all(height > 0 for height in heights)
    for one, other in itertools.combinations(moments, 2):
        if one.track_id == other.track_id:
            assert abs(one.time_s - other.time_s) >= apart_s - 1e-6
    if count and max(scores) > 0:
        assert heights[0] == np.float32(max(scores))
    if len(moments) < count:  # then every other moment is too near to a higher one
        for item in found:
            for time_s, score in zip(item.times_s, item.score, strict=True):
                near = [
                    m
                    for m in moments
                    if m.track_id == item.track_id and abs(m.time_s - time_s) < max(apart_s, 1e-9)
                ]
                assert score == 0 or max(m.score for m in near) >= score


# Uncertainty


def line_of(task: Task, values: object, thresholds: tuple[float, ...] = ()) -> Timeline:
    given_values = np.array(values, np.float32)
    return Timeline(task, "trained", np.arange(len(given_values)) / 10, given_values, thresholds)


def test_uncertainty_by_hand() -> None:
    third = 1 / 3
    one_of = uncertainty(line_of(THREE, [[1, 0, 0], [third, third, third], [0.5, 0.5, 0]]))
    assert one_of == pytest.approx([0, 1, 1 / np.log2(3)], abs=1e-6)
    limits = (0.5, 0.2)
    units = uncertainty(line_of(TWO_UNITS, [[0.5, 0.2], [0, 1], [0.75, 0.2], [0.25, 0.1], [1, 0.6]], limits))
    assert units == pytest.approx([1, 0, 0.75, 0.5, 0.25], abs=1e-6)
    assert uncertainty(line_of(TWO_UNITS, [[0, 1]], (0.0, 1.0))).tolist() == [1], (
        "on thresholds at the ends of the range"
    )


def test_outputs_that_do_not_tell_how_sure_they_are_have_no_uncertainty() -> None:
    assert np.isnan(uncertainty(line_of(VALENCE_AROUSAL, [[0, 0.5], [1, 1]]))).tolist() == [True, True]
    assert np.isnan(uncertainty(line_of(TWO_UNITS, [[0.1, 0.5]]))).tolist() == [True]
    assert uncertainty(line_of(EXPRESSION.subset(["Fear"]), [[1.0]])).tolist() == [0]


@settings(max_examples=100, deadline=None)
@given(distributions(1, 6), st.permutations(range(6)))
def test_uncertainty_is_bounded_and_does_not_depend_on_the_order_of_labels(
    values: np.ndarray, order: list[int]
) -> None:
    task = EXPRESSION.subset(EXPRESSION.label_names[:6])
    (unsure,) = uncertainty(line_of(task, values[0]))
    assert 0 <= unsure <= 1
    assert uncertainty(line_of(task, values[0][:, order]))[0] == pytest.approx(unsure, abs=1e-5)
    units, limits = ACTION_UNITS.subset(ACTION_UNITS.label_names[:6]), np.linspace(0, 1, 6)
    (unsure,) = uncertainty(line_of(units, values[0], tuple(limits)))
    assert 0 <= unsure <= 1
    nearer = (values[0] + limits) / 2
    assert uncertainty(line_of(units, nearer, tuple(limits)))[0] >= unsure - 1e-6


def test_real_timelines_have_uncertainties_frame_by_frame(siblings: tuple[Analysis, ...]) -> None:
    for line in siblings[0].faces[0].timelines:
        unsure = uncertainty(line)
        assert (unsure.shape, unsure.dtype) == (line.times_s.shape, np.float32)
        assert np.isfinite(unsure).all() == (line.task.kind == "one_of")


@pytest.fixture
def siblings() -> tuple[Analysis, ...]:
    return make_siblings(2, frames=8)
