"""Timelines: rows, lines, gaps, heat maps and thinning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import pytest
from analysis_makers import make_analysis
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space import figures
from hsemotion_space.figures.over_time import _thin
from hsemotion_space.figures.style import MAX_POINTS
from hsemotion_space.tasks import ACTION_UNITS, COMPOUND_EXPRESSION, EXPRESSION, VALENCE_AROUSAL, Task
from hsemotion_space.types import Analysis, Timeline


def over_time(analysis: Analysis, task: Task) -> go.Figure:
    return figures.timeline(analysis.faces, task.name, analysis.frame_times_s)


def texts(fig: go.Figure) -> str:
    return "\n".join(annotation.text for annotation in fig.layout.annotations)


@pytest.mark.parametrize("task", [EXPRESSION, VALENCE_AROUSAL, COMPOUND_EXPRESSION], ids=lambda task: task.name)
def test_timeline_has_a_row_per_face_and_a_line_per_label(task: Task) -> None:
    analysis = make_analysis(3, 30)
    fig = over_time(analysis, task)
    lines = [line for face in analysis.faces for line in face.timelines if line.task == task]
    assert len(fig.data) == 3 * len(task.labels)
    for at, trace in enumerate(fig.data):
        row, column = divmod(at, len(task.labels))
        label = task.labels[column]
        assert (trace.line.color, trace.xaxis or "x") == (label.color, f"x{row + 1 if row else ''}")
        assert trace.x.dtype == trace.y.dtype == np.float32 and trace.connectgaps is False and "lines" in trace.mode
        np.testing.assert_array_equal(trace.x, analysis.frame_times_s.astype(np.float32))
        np.testing.assert_array_equal(trace.y[np.isin(analysis.frame_times_s, lines[row].times_s)], lines[row].values[:, column])
        assert label.name in trace.hovertemplate and "%{x:.2f} s" in trace.hovertemplate and "%{y:.2f}" in trace.hovertemplate
        assert trace.showlegend is (row == 0)
    assert all(fig.layout[f"yaxis{row}"].range == (task.low, task.high) for row in ("", "2", "3"))
    assert fig.layout.xaxis.matches == "x3" and fig.layout.xaxis3.ticksuffix == " s"
    assert [name in texts(fig) for name in ("Face 1", "Face 2", "Face 3")] == [True] * 3
    assert fig.layout.legend.orientation == "h" and fig.layout.legend.yref == "container", "below the plot, not over the data"
    assert len({trace.line.dash for trace in fig.data[: len(task.labels)]}) > 1


def test_absent_frames_break_the_line_and_are_shaded() -> None:
    analysis = make_analysis(2, 30)
    times = analysis.frame_times_s
    fig = over_time(analysis, EXPRESSION)
    for trace in fig.data:
        missing = np.flatnonzero(np.isnan(trace.y))
        assert missing.tolist() == (list(range(10, 20)) if trace.xaxis == "x2" else [])
    (shade,) = fig.layout.shapes
    assert (shade.xref, shade.yref, shade.x0, shade.x1, shade.layer) == ("x2", "y2 domain", times[9], times[20], "below")
    assert fig.layout.xaxis2.title.text == "shaded: face not visible"
    whole = over_time(make_analysis(2, 30, gap=False), EXPRESSION)
    assert not whole.layout.shapes and not whole.layout.xaxis2.title.text


@pytest.mark.parametrize(("keep", "expected"), [(slice(5, None), [(0, 5)]), (slice(0, 25), [(24, 29)]), (slice(7, 8), [(0, 7), (7, 29)])])
def test_a_face_that_comes_late_or_leaves_early_is_shaded_to_the_edge(keep: slice, expected: list[tuple[int, int]]) -> None:
    analysis = make_analysis(1, 30, gap=False)
    face, times = analysis.faces[0], analysis.frame_times_s
    line = dataclasses.replace(face.timelines[0], times_s=times[keep], values=face.timelines[0].values[keep])
    fig = figures.timeline([dataclasses.replace(face, timelines=(line,))], "expression", times)
    assert [(shape.x0, shape.x1) for shape in fig.layout.shapes] == [(times[start], times[stop]) for start, stop in expected]
    assert fig.layout.xaxis.range == (times[0], times[-1])


def test_a_lonely_point_is_marked_because_it_has_no_line() -> None:
    analysis = make_analysis(1, 9, gap=False)
    face = analysis.faces[0]
    line = dataclasses.replace(
        face.timelines[0], times_s=analysis.frame_times_s[[0, 1, 4, 8]], values=face.timelines[0].values[[0, 1, 4, 8]]
    )
    trace = figures.timeline([dataclasses.replace(face, timelines=(line,))], "expression", analysis.frame_times_s).data[0]
    assert trace.mode == "lines+markers" and np.flatnonzero(trace.marker.size).tolist() == [4, 8]
    assert over_time(analysis, EXPRESSION).data[0].mode == "lines"


def test_action_units_become_a_heat_map_with_gaps() -> None:
    analysis = make_analysis(2, 30)
    fig = over_time(analysis, ACTION_UNITS)
    for trace, face in zip(fig.data, analysis.faces, strict=True):
        assert trace.type == "heatmap" and list(trace.y) == list(ACTION_UNITS.label_names) and trace.z.dtype == np.float32
        shown = ~np.isnan(trace.z).all(axis=0)
        np.testing.assert_array_equal(trace.z[:, shown], face.timelines[2].values.T)
    assert np.isnan(fig.data[1].z).all(axis=0).sum() == 10 and len(fig.layout.shapes) == 1
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1) and fig.layout.yaxis.range == (11.5, -0.5)
    six = ACTION_UNITS.subset(ACTION_UNITS.label_names[:6])
    assert {trace.type for trace in over_time(make_analysis(1, 30, tasks=(six,)), ACTION_UNITS).data} == {"scatter"}


def test_long_heat_map_keeps_peaks() -> None:
    analysis = make_analysis(1, 3001, tasks=(ACTION_UNITS,), gap=False)
    analysis.faces[0].timelines[0].values[1234, 5] = 1.0
    trace = over_time(analysis, ACTION_UNITS).data[0]
    assert trace.z.shape == (12, MAX_POINTS) and len(trace.x) == MAX_POINTS and trace.z[5].max() == 1.0


@pytest.mark.parametrize("name", ["mimicry_intensity", "expression"])
def test_clip_level_tasks_and_single_frames_give_bars(name: str) -> None:
    analysis = make_analysis(2, 30, kind="clip" if name == "mimicry_intensity" else "image")
    fig = figures.timeline(analysis.faces, name, analysis.frame_times_s)
    assert [trace.type for trace in fig.data] == ["bar", "bar"]
    (expected,) = [prediction for prediction in analysis.faces[1].predictions if prediction.task.name == name]
    np.testing.assert_array_equal(fig.data[1].x, expected.values)


def test_timeline_of_an_unknown_or_missing_task() -> None:
    analysis = make_analysis(1, 30, tasks=(EXPRESSION,))
    with pytest.raises(ValueError, match="no task 'joy'"):
        figures.timeline(analysis.faces, "joy", analysis.frame_times_s)
    assert "says nothing about action units" in texts(over_time(analysis, ACTION_UNITS)).replace("<br>", " ")


def test_long_timeline_is_thinned_but_keeps_extremes_and_gap() -> None:
    analysis = make_analysis(1, 6000)
    values = analysis.faces[0].timelines[0].values
    values[777, 2], values[3500, 2] = 1.0, -0.25
    trace = over_time(analysis, EXPRESSION).data[2]
    assert 300 < len(trace.x) <= MAX_POINTS + 10 and {1.0, -0.25} <= set(trace.y.tolist())
    edges = analysis.frame_times_s[[1999, 4000]].astype(np.float32)
    at = int(np.flatnonzero(np.isnan(trace.y))[0])
    assert np.isnan(trace.y).sum() == 1 and (trace.x[at - 1], trace.x[at + 1]) == tuple(edges)


@settings(max_examples=40, deadline=None)
@given(st.integers(MAX_POINTS + 1, 4000), st.lists(st.tuples(st.integers(0, 3999), st.integers(1, 300)), max_size=6), st.integers(0, 9))
def test_thinning_keeps_every_run_and_every_gap(count: int, gaps: Sequence[tuple[int, int]], seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    for start, length in gaps:
        values[start : start + length] = np.nan
    times, thin = _thin(np.arange(count) * 0.04, values)
    assert len(thin) <= MAX_POINTS + 4 * (len(gaps) + 1) and times.dtype == thin.dtype == np.float32 and (np.diff(times) > 0).all()
    assert np.diff(np.isnan(thin)).sum() == np.diff(np.isnan(values)).sum(), "as many gaps as before"
    if np.isfinite(values).any():
        assert (np.nanmin(thin), np.nanmax(thin)) == (np.nanmin(values), np.nanmax(values))
        np.testing.assert_array_equal(thin, values[np.round(times / 0.04).astype(int)])


def test_timeline_meets_frames_in_spite_of_rounding() -> None:
    analysis = make_analysis(1, 30, gap=False)
    face, line = analysis.faces[0], analysis.faces[0].timelines[0]
    shifted = Timeline(line.task, line.provenance, line.times_s + 1e-9, line.values)
    fig = figures.timeline([dataclasses.replace(face, timelines=(shifted,))], "expression", analysis.frame_times_s)
    assert len(fig.data[0].x) == 30 and not fig.layout.shapes
