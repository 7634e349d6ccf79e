"""What is asked about: which faces and stretches, and in which order."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from analysis_makers import change_lines, make_analysis, make_siblings

from hsemotion_space.analysis.disagreement import disagreements, uncertainty
from hsemotion_space.analysis.sampling import (
    GRID_S,
    LEAST_FRAMES,
    MOST_WINDOWS,
    WINDOW_S,
    Candidate,
    Reason,
    candidates,
    merged,
    narrowed,
    window,
    within,
)
from hsemotion_space.tasks import EXPRESSION, MIMICRY_INTENSITY
from hsemotion_space.types import Analysis
from hsemotion_space.ui.annotate.items import MOST_ITEMS, Item, in_order, make_items

COUNT = len(EXPRESSION.labels)
SURE = np.eye(COUNT)[3]
EVEN = np.full(COUNT, 1 / COUNT)


def says(analysis: Analysis, **faces: np.ndarray) -> Analysis:
    """Return the analysis with other expressions of some faces; ``face1`` is the first."""
    result = list(analysis.faces)
    for name, values in faces.items():
        place = int(name.removeprefix("face")) - 1
        result[place] = change_lines(analysis, EXPRESSION, values).faces[place]
    return replace(analysis, faces=tuple(result))


def item(number: int, score: float, reason: Reason, job: str = "a") -> Item:
    return Item(job, f"{number:064x}", "image", 1, (), score, reason, False, True)


def test_candidates_of_a_picture_are_its_faces_the_least_sure_first() -> None:
    analysis = says(make_analysis(faces=3, kind="image"), face1=SURE, face2=EVEN, face3=(SURE + EVEN) / 2)
    found = candidates([analysis])
    assert [(one.face, one.span_s, one.reason) for one in found] == [
        (number, (), "uncertainty") for number in (2, 3, 1)
    ]
    assert [one.score for one in found] == [
        1,
        pytest.approx(float(uncertainty(analysis.faces[2].timelines[0])[0]), abs=1e-4),
        0,
    ]


def test_candidates_of_compared_backbones_are_ordered_by_disagreement() -> None:
    first, second = make_siblings(2, faces=2, kind="image")
    other = np.eye(COUNT)[0]
    found = candidates([says(first, face1=EVEN, face2=SURE), says(second, face1=EVEN, face2=other)])
    assert found == (Candidate(2, (), 1, "disagreement"), Candidate(1, (), 0, "disagreement"))
    assert candidates([says(first, face1=EVEN, face2=SURE)])[0] == Candidate(1, (), 1, "uncertainty")


def test_candidates_are_ordered_by_trained_classifiers_only() -> None:
    analysis = make_analysis(faces=1, kind="image")
    untrained = change_lines(analysis, EXPRESSION, EVEN, provenance="prior")
    assert candidates([untrained]) == (Candidate(1, (), 0, "none"),)
    alone = replace(analysis, faces=(replace(analysis.faces[0], timelines=analysis.faces[0].timelines[1:2]),))
    assert candidates([alone]) == (Candidate(1, (), 0, "none"),), "two numbers tell nothing about doubt"


def test_window_lies_around_the_worst_moment_on_the_grid() -> None:
    analysis = make_analysis(faces=1, frames=120, gap=False)
    values = np.tile(SURE, (120, 1))
    values[63] = EVEN
    first, *others = candidates([says(analysis, face1=values)])
    assert (first.face, first.span_s, first.score) == (1, (5.5, 7.5), 1)
    assert others and all(one.score == 0 for one in others)
    assert first.span_s[0] <= analysis.faces[0].track.times_s[63] <= first.span_s[1]


@pytest.mark.parametrize("seed", range(3))
def test_candidates_of_a_clip_do_not_overlap(seed: int) -> None:
    analyses = make_siblings(2, faces=2, frames=300, seed=seed)[: 1 + seed % 2]
    found = candidates(analyses)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for face in analyses[0].faces:
        spans = sorted(one.span_s for one in found if one.face == face.track.track_id)
        assert 2 < len(spans) <= MOST_WINDOWS
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        first, last = face.track.times_s[[0, -1]]
        for start, end in spans:
            assert within(face.track, (start, end)).sum() >= LEAST_FRAMES
            assert first - 0.01 <= start < end <= last + 0.01 and end - start <= WINDOW_S + 0.01
            assert (start / GRID_S).is_integer() or end == pytest.approx(last, abs=0.01), (
                "several people get the same stretches"
            )
    scores = (
        {one.track_id: one.score for one in disagreements(analyses) if one.task == EXPRESSION}
        if len(analyses) > 1
        else {}
    )
    for number, score in scores.items():
        best = next(one for one in found if one.face == number)
        assert best.score == pytest.approx(float(score.max()), abs=1e-4), (
            "the worst moment of a face is among them"
        )


@pytest.mark.parametrize(("frames", "expected"), [(2, 0), (3, 1), (15, 1), (21, 1)])
def test_candidates_of_a_short_track(frames: int, expected: int) -> None:
    found = candidates([make_analysis(faces=1, frames=frames, gap=False)])
    assert [(one.face, one.span_s) for one in found if one.span_s == ()] == [
        (1, ())
    ] * expected or frames == 21
    assert len(found) == expected


def test_window_stays_within_the_track() -> None:
    track = make_analysis(faces=1, frames=50, gap=False).faces[0].track
    last = round(float(track.times_s[-1]), 2)
    assert window(track, 0.0) == (0.0, 2.0)
    assert window(track, 2.6) == (1.5, 3.5)
    assert window(track, last) == (round(last - WINDOW_S, 2), last)


def test_candidates_ignore_moments_without_a_value() -> None:
    first, second = make_siblings(2, faces=1, frames=120, gap=False)
    missing = second.faces[0].timelines[0].values.copy()
    missing[:60] = np.nan
    for analyses in ([says(first, face1=missing)], [first, says(second, face1=missing)]):
        found = candidates(analyses)
        assert found and all(np.isfinite(one.score) for one in found)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert found[0].score > 0 and found[0].span_s[1] > 6, "where it has values"


def test_narrowed_has_the_mean_of_the_stretch() -> None:
    analysis = make_analysis(faces=2, frames=60)
    face = narrowed(analysis, 1, (1.0, 3.0)).faces[0]
    rows = within(analysis.faces[0].track, (1.0, 3.0))
    assert 15 < rows.sum() < 25
    for prediction, line in zip(face.predictions, analysis.faces[0].timelines, strict=False):
        np.testing.assert_allclose(prediction.values, line.values[rows].mean(axis=0), rtol=1e-6)
        assert prediction.frames == rows.sum()
    assert {one.task for one in analysis.faces[0].predictions} - {one.task for one in face.predictions} == {
        MIMICRY_INTENSITY
    }
    assert (
        face.track is analysis.faces[0].track
        and narrowed(analysis, 1, (1.0, 3.0)).faces[1] is analysis.faces[1]
    )
    assert narrowed(analysis, 1, ()) is analysis


def test_merged_takes_lists_by_rank() -> None:
    assert merged([[1, 2, 3], [10], [20, 21]]) == [1, 10, 20, 2, 21, 3]
    assert merged([]) == [] and merged([[None], [0]]) == [None, 0]


def test_in_order_takes_both_reasons_in_turn() -> None:
    given = [
        item(1, 0, "none"), item(2, 0, "none"), item(3, 0.2, "uncertainty"), item(4, 0.9, "uncertainty"), item(5, 0.1, "disagreement"),
        item(6, 0.05, "disagreement"),
    ]  # fmt: skip
    assert [int(one.media, 16) for one in in_order(given)] == [5, 4, 6, 3, 1, 2]


def test_in_order_drops_doubles_and_is_bounded() -> None:
    twice = [item(1, 0.3, "uncertainty", "a"), item(1, 0.8, "disagreement", "b")]
    assert in_order(twice) == (twice[0],)
    assert (
        len(in_order(item(number, 0.5, "uncertainty") for number in range(MOST_ITEMS + 30)))
        == MOST_ITEMS
        == 120
    )


def test_make_items_leaves_out_what_cannot_be_shown() -> None:
    analysis = make_analysis(faces=1, frames=120)
    shown, left_out = make_items("a" * 32, [analysis], True)
    assert left_out == 0 and len(shown) > 2
    assert sum(one.picture for one in shown) == 1, (
        "the picture is from one moment, so it stands for one stretch"
    )
    pictures, left_out = make_items("a" * 32, [analysis], False)
    assert pictures == [one for one in shown if one.picture] and left_out == len(shown) - 1
