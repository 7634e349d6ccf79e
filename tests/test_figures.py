"""Figures: colors of faces, the provenance on each figure, bars and the plane of two labels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import pytest
from analysis_makers import make_analysis
from contrast import contrast

from hsemotion_space import figures
from hsemotion_space.figures.style import CLEAR, MAX_POINTS, ink
from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, TASKS, VALENCE_AROUSAL, Task
from hsemotion_space.types import Analysis, Prediction, Provenance


def of(analysis: Analysis, task: Task) -> tuple[list[Prediction], list[int]]:
    chosen = [(prediction, face.track.track_id) for face in analysis.faces for prediction in face.predictions if prediction.task == task]
    return [prediction for prediction, _ in chosen], [track_id for _, track_id in chosen]


def over_time(analysis: Analysis, task: Task) -> go.Figure:
    return figures.timeline(analysis.faces, task.name, analysis.frame_times_s)


def texts(fig: go.Figure) -> str:
    return "\n".join(annotation.text for annotation in fig.layout.annotations)


# Colors of faces


def test_colors_of_faces_differ_and_repeat_after_all() -> None:
    count = len(figures.FACE_COLORS)
    assert len({figures.face_color(number) for number in range(1, count + 1)}) == count >= 6
    assert figures.face_color(1) == figures.face_color(count + 1) == figures.FACE_COLORS[0]
    looks = {(figures.face_color(number), figures.face_dash(number)) for number in range(1, 25)}
    assert len(looks) == 24 and figures.face_dash(1) != figures.face_dash(2)


@pytest.mark.parametrize("color", figures.FACE_COLORS)
def test_colors_of_faces_stand_out_on_light_and_dark_pages(color: str) -> None:
    assert contrast(color, "#ffffff") >= 3 and contrast(color, "#27272a") >= 3
    assert contrast(color, ink(color)) >= 4.5


@pytest.mark.parametrize(
    "matrix",  # Machado et al. (2009), severity 1: protanopia, deuteranopia, tritanopia
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ],
)
def test_first_colors_of_faces_stay_apart_under_color_blindness(matrix: list[list[float]]) -> None:
    seen = [np.asarray(matrix) @ [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in figures.FACE_COLORS[:4]]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 0.1


# Every figure


def all_figures() -> dict[str, Callable[[], go.Figure]]:
    clip, image, nobody = make_analysis(2, 30), make_analysis(2, kind="image"), dataclasses.replace(make_analysis(1), faces=())
    made: dict[str, Callable[[], go.Figure]] = {"empty": lambda: figures.empty("Nothing."), "nobody": lambda: over_time(nobody, EXPRESSION)}
    for task in TASKS:
        for name, analysis in (("clip", clip), ("image", image)):
            made[f"bars {task.name} {name}"] = lambda analysis=analysis, task=task: figures.bars(*of(analysis, task))
            made[f"timeline {task.name} {name}"] = lambda analysis=analysis, task=task: over_time(analysis, task)
    made["circumplex"] = lambda: figures.circumplex(*of(clip, VALENCE_AROUSAL), clip.faces[0].timelines[1])
    return made


@pytest.mark.parametrize("name", all_figures())
def test_every_figure_renders_and_suits_both_themes(name: str) -> None:
    fig = all_figures()[name]()
    page = fig.to_html(include_plotlyjs=False)
    assert "Plotly.newPlot" in page and "NaN" not in page
    assert fig.layout.title.text is None and fig.layout.paper_bgcolor == fig.layout.plot_bgcolor == CLEAR
    assert contrast(fig.layout.font.color, "#ffffff") > 3.5 and contrast(fig.layout.font.color, "#27272a") > 3.5
    assert fig.layout.margin.l <= 10 and fig.layout.margin.r <= 40 and fig.layout.width is None and fig.layout.height >= 110
    assert fig.layout.template.layout.to_plotly_json() == {}, "no default template that would bring a white background"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_figure_of_numbers_says_where_they_come_from(task: Task) -> None:
    words: dict[Provenance, str] = {"trained": "trained", "rule": "rule, not trained", "prior": "prior, unvalidated"}
    for count in (1, 2):
        analysis = make_analysis(count, 30)
        predictions, ids = of(analysis, task)
        for given_as, word in words.items():
            changed = [dataclasses.replace(prediction, provenance=given_as) for prediction in predictions]
            assert f"<b>{word}</b>" in texts(figures.bars(changed, ids))
            if task.kind == "continuous":
                assert f"<b>{word}</b>" in texts(figures.circumplex(changed, ids))
            faces = [
                dataclasses.replace(
                    face,
                    timelines=tuple(dataclasses.replace(line, provenance=given_as) for line in face.timelines),
                    predictions=tuple(dataclasses.replace(prediction, provenance=given_as) for prediction in face.predictions),
                )
                for face in analysis.faces
            ]
            assert f"<b>{word}</b>" in texts(figures.timeline(faces, task.name, analysis.frame_times_s))


def test_mixed_provenance_is_told_face_by_face() -> None:
    predictions, ids = of(make_analysis(2), EXPRESSION)
    mixed = [predictions[0], dataclasses.replace(predictions[1], provenance="prior")]
    assert "face 1: trained; face 2: prior, unvalidated" in texts(figures.bars(mixed, ids)).replace("<br>", " ")


def test_empty_shows_its_message_without_axes() -> None:
    fig = figures.empty("No face <b>found</b> in this very long file name that has to wrap somewhere.")
    text = texts(fig)
    assert "&lt;b&gt;" in text and "<b>" not in text and "<br>" in text and max(map(len, text.split("<br>"))) <= 40
    assert not fig.data and fig.layout.shapes and fig.layout.xaxis.visible is False and fig.layout.yaxis.visible is False
    assert not figures.bars([], []).data and "No face" in texts(figures.circumplex([], []))


# Bars


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_bars_hold_the_values_in_the_range_of_the_task(task: Task) -> None:
    predictions, ids = of(make_analysis(3), task)
    fig = figures.bars(predictions, ids)
    assert fig.layout.xaxis.range == (task.low, task.high)
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1], "the first label stands on top"
    for trace, prediction, track_id in zip(fig.data, predictions, ids, strict=True):
        assert trace.orientation == "h" and trace.name == f"Face {track_id}" and trace.marker.color == figures.face_color(track_id)
        assert trace.x.dtype == np.float32 and list(trace.y) == [label.short for label in task.labels]
        np.testing.assert_array_equal(trace.x, prediction.values)
    assert len({trace.marker.pattern.shape for trace in fig.data}) == 3, "color is not the only cue"
    assert fig.layout.showlegend


def test_bars_of_one_face_take_label_colors_and_show_numbers() -> None:
    (prediction,), ids = of(make_analysis(1), EXPRESSION)
    fig = figures.bars([prediction], ids)
    assert fig.data[0].marker.color == tuple(label.color for label in EXPRESSION.labels) and not fig.layout.showlegend
    shown = {annotation.y: annotation.text for annotation in fig.layout.annotations if annotation.y in EXPRESSION.label_names}
    bare = {name: text.replace("<b>", "").replace("</b>", "") for name, text in shown.items()}
    assert bare == {name: f"{value:.2f}" for name, value in zip(EXPRESSION.label_names, prediction.values, strict=True)}
    assert [name for name, text in shown.items() if text.startswith("<b>")] == [EXPRESSION.label_names[prediction.top]]


def test_whiskers_show_the_spread_inside_the_range_and_only_where_there_is_one() -> None:
    (prediction,), ids = of(make_analysis(1), EXPRESSION)
    values, spread = np.full(8, 0.5, np.float32), np.full(8, 0.1, np.float32)
    values[0], values[1], spread[0], spread[1], spread[2] = 0.95, 0.02, 0.2, 0.2, np.nan
    error = figures.bars([dataclasses.replace(prediction, values=values, spread=spread)], ids).data[0].error_x
    np.testing.assert_allclose(error.array[:3], [0.05, 0.2, np.nan], rtol=1e-5)
    np.testing.assert_allclose(error.arrayminus[:3], [0.2, 0.02, np.nan], rtol=1e-5)
    assert error.visible
    still = figures.bars(*of(make_analysis(2, kind="image"), EXPRESSION))
    assert all(trace.error_x.visible is False for trace in still.data) and not still.layout.xaxis.title.text
    assert "SD" in figures.bars([prediction], ids).layout.xaxis.title.text


def test_bars_mark_the_threshold_of_each_unit_and_stress_what_reaches_it() -> None:
    prediction = of(make_analysis(1), ACTION_UNITS)[0][0]
    thresholds = tuple(0.3 + 0.05 * k for k in range(12))
    fig = figures.bars([dataclasses.replace(prediction, thresholds=thresholds)], [1])
    marks = [(shape.x0, shape.x1, (shape.y0 + shape.y1) / 2) for shape in fig.layout.shapes]
    assert marks == [(limit, limit, pytest.approx(row)) for row, limit in enumerate(thresholds)]
    assert "dotted: decision threshold" in fig.layout.xaxis.title.text
    stressed = [note.text.startswith("<b>") for note in fig.layout.annotations if note.xanchor == "left" and note.y in
                [label.short for label in ACTION_UNITS.labels]]  # fmt: skip
    assert stressed == [value >= limit for value, limit in zip(prediction.values, thresholds, strict=True)]
    assert "dotted" not in figures.bars([prediction], [1]).layout.xaxis.title.text


def test_bars_take_the_union_of_label_subsets() -> None:
    predictions, ids = of(make_analysis(2), EXPRESSION)
    seven = EXPRESSION.subset([name for name in EXPRESSION.label_names if name != "Contempt"])
    less = dataclasses.replace(predictions[0], task=seven, values=predictions[0].values[:7], spread=predictions[0].spread[:7])
    fig = figures.bars([less, predictions[1]], ids)
    assert set(fig.layout.yaxis.categoryarray) == set(EXPRESSION.label_names) and "Contempt" not in fig.data[0].y


def test_bars_refuse_what_does_not_belong_together() -> None:
    analysis = make_analysis(2)
    predictions, ids = of(analysis, EXPRESSION)
    with pytest.raises(ValueError, match="one task"):
        figures.bars([predictions[0], of(analysis, ACTION_UNITS)[0][0]], ids)
    with pytest.raises(ValueError, match="1 ids"):
        figures.bars(predictions, ids[:1])


# Circumplex


def test_circumplex_puts_a_numbered_marker_per_face_into_the_unit_circle() -> None:
    predictions, ids = of(make_analysis(3), VALENCE_AROUSAL)
    fig = figures.circumplex(predictions, [4, 5, 9])
    assert ids == [1, 2, 3]
    for trace, prediction, track_id in zip(fig.data, predictions, (4, 5, 9), strict=True):
        assert (trace.x[0], trace.y[0]) == tuple(prediction.values) and trace.text == (str(track_id),)
        assert trace.marker.color == figures.face_color(track_id)
        assert (trace.error_x.array[0], trace.error_y.array[0]) == tuple(prediction.spread)
    (circle,) = [shape for shape in fig.layout.shapes if shape.type == "circle"]
    assert (circle.x0, circle.y0, circle.x1, circle.y1) == (-1, -1, 1, 1) and fig.layout.yaxis.scaleanchor == "x"
    assert fig.layout.xaxis.title.text.startswith("Valence") and fig.layout.yaxis.title.text == "Arousal"
    corners = {(np.sign(a.x), np.sign(a.y)) for a in fig.layout.annotations if a.text.startswith("<i>")}
    assert len(corners) == 4


def test_trail_keeps_gaps_and_is_thinned() -> None:
    analysis = make_analysis(1, 3000, gap=False, tasks=(VALENCE_AROUSAL,))
    line = analysis.faces[0].timelines[0]
    line.values[1000:2000] = np.nan
    trail = figures.circumplex(*of(analysis, VALENCE_AROUSAL), line).data[0]
    assert len(trail.x) == MAX_POINTS and trail.connectgaps is False and 190 < np.isnan(trail.x).sum() < 210
    assert (trail.x[0], trail.y[-1]) == (line.values[0, 0], line.values[-1, 1])
    assert trail.line.color == figures.face_color(1) and trail.line.dash == figures.face_dash(1)


def test_circumplex_refuses_other_tasks() -> None:
    analysis = make_analysis(1)
    with pytest.raises(ValueError, match="continuous task of two labels"):
        figures.circumplex(*of(analysis, EXPRESSION))
    with pytest.raises(ValueError, match="continuous task of two labels"):
        figures.circumplex(*of(analysis, VALENCE_AROUSAL), analysis.faces[0].timelines[0])
