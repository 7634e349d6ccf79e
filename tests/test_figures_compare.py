"""Figures of several checkpoints: lines, bars, gaps, provenance, and how many lines are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from analysis_makers import change_lines, make_siblings
from contrast import contrast

from hsemotion_space import figures
from hsemotion_space.analysis.disagreement import disagreements
from hsemotion_space.figures.compared import MAX_CHECKPOINTS, MAX_SERIES, NO_PAIR
from hsemotion_space.figures.lines import MAX_POINTS
from hsemotion_space.figures.style import CLEAR, FACE_COLORS, FACE_DASHES, TEXT
from hsemotion_space.tasks import (
    ACTION_UNITS,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    MIMICRY_INTENSITY,
    TASKS,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.types import Analysis, Disagreement


def texts(fig: go.Figure) -> str:
    return "\n".join(annotation.text for annotation in fig.layout.annotations).replace("<br>", " ")


def lines(fig: go.Figure) -> list[go.Scatter]:
    """Return the traces with data; the others are keys of the legend."""
    return [trace for trace in fig.data if trace.x is not None and trace.x[0] is not None]


def keys(fig: go.Figure) -> list[go.Scatter]:
    return [trace for trace in fig.data if trace.x[0] is None]


def find(found: Sequence[Disagreement], task: Task) -> list[Disagreement]:
    return [item for item in found if item.task.name == task.name]


def all_figures() -> dict[str, Callable[[], go.Figure]]:
    clip, image = make_siblings(3, faces=2), make_siblings(3, faces=2, kind="image")
    made: dict[str, Callable[[], go.Figure]] = {
        "no pair": lambda: figures.disagreement([], clip[0].frame_times_s)
    }
    for name, analyses in (("clip", clip), ("image", image)):
        for task in TASKS:
            made[f"comparison {task.name} {name}"] = lambda given=analyses, task=task: figures.comparison(
                given, 2, task.name
            )
        made[f"disagreement {name}"] = lambda given=analyses: figures.disagreement(
            disagreements(given), given[0].frame_times_s
        )
    made["nobody"] = lambda: figures.comparison(clip, 9, "expression")
    return made


@pytest.mark.parametrize("name", all_figures())
def test_every_figure_renders_and_suits_both_themes(name: str) -> None:
    fig = all_figures()[name]()
    page = fig.to_html(include_plotlyjs=False)
    assert "Plotly.newPlot" in page and "NaN" not in page
    assert fig.layout.title.text is None and fig.layout.paper_bgcolor == fig.layout.plot_bgcolor == CLEAR
    assert (
        contrast(fig.layout.font.color, "#ffffff") > 3.5 and contrast(fig.layout.font.color, "#27272a") > 3.5
    )
    assert (
        fig.layout.margin.l <= 10
        and fig.layout.margin.r <= 40
        and fig.layout.width is None
        and fig.layout.height >= 110
    )
    assert fig.layout.template.layout.to_plotly_json() == {}


# Comparison


@pytest.mark.parametrize("task", [VALENCE_AROUSAL, ACTION_UNITS], ids=lambda task: task.name)
def test_comparison_has_a_color_per_label_and_a_dash_per_checkpoint(task: Task) -> None:
    made = make_siblings(3, faces=2, gap=False)
    fig = figures.comparison(made, 2, task.name)
    drawn = lines(fig)
    labels = {label.short: label for label in task.labels}
    assert len(drawn) == 3 * min(len(labels), MAX_SERIES // 3) <= MAX_SERIES
    for trace in drawn:
        short, title = trace.name.split(", ")
        number = int(title[-1])
        (line,) = [line for line in made[number].faces[1].timelines if line.task.name == task.name]
        assert (trace.line.color, trace.line.dash) == (labels[short].color, FACE_DASHES[number])
        assert (trace.legendgroup, trace.showlegend, trace.connectgaps, trace.mode) == (
            str(number),
            False,
            False,
            "lines",
        )
        assert trace.x.dtype == trace.y.dtype == np.float32
        np.testing.assert_array_equal(trace.y, line.values[:, line.task.index(labels[short].name)])
        assert f"<extra>{title}</extra>" in trace.hovertemplate and labels[short].name in trace.hovertemplate
    assert [(key.name, key.line.dash, key.line.color, key.legendgroup) for key in keys(fig)] == [
        (f"Checkpoint {number}", FACE_DASHES[number], TEXT, str(number)) for number in range(3)
    ]
    assert all(f'<span style="color:{trace.line.color}">■</span>' in texts(fig) for trace in drawn)
    assert fig.layout.yaxis.range == (task.low, task.high) and fig.layout.xaxis.ticksuffix == " s"
    some = f"the {len(drawn) // 3} of {len(labels)} labels that differ most"
    assert (fig.layout.xaxis.title.text or "") == (some if len(drawn) < 3 * len(labels) else "")


def test_comparison_draws_the_labels_that_differ_most() -> None:
    first, second, third = make_siblings(3, faces=1, gap=False, tasks=(EXPRESSION,))
    base = np.full(8, 0.1)
    apart = {"Surprise": 0.4, "Fear": 0.3, "Anger": 0.2, "Neutral": 0.15}
    other = base + [apart.get(name, 0.001 * place) for place, name in enumerate(EXPRESSION.label_names)]
    made = [
        change_lines(first, EXPRESSION, base),
        change_lines(second, EXPRESSION, other),
        change_lines(third, EXPRESSION, base),
    ]
    fig = figures.comparison(made, 1, "expression")
    assert [trace.name.split(", ")[0] for trace in lines(fig)[:4]] == ["Anger", "Fear", "Neutral", "Surprise"]
    chosen = figures.comparison(made, 1, "expression", ["Surprise", "Disgust"])
    assert [trace.name.split(", ")[0] for trace in lines(chosen)[:2]] == ["Disgust", "Surprise"] and len(
        lines(chosen)
    ) == 6
    assert chosen.layout.xaxis.title.text == "2 of 8 labels, as selected"
    with pytest.raises(ValueError, match="Expression has no label 'Joy'"):
        figures.comparison(made, 1, "expression", ["Joy"])


def test_comparison_draws_a_bounded_number_of_checkpoints() -> None:
    made = make_siblings(MAX_CHECKPOINTS + 2, faces=1)
    fig = figures.comparison(made, 1, "expression")
    assert (len(keys(fig)), len(lines(fig))) == (MAX_CHECKPOINTS, MAX_SERIES)
    assert f"{MAX_CHECKPOINTS} of {MAX_CHECKPOINTS + 2} checkpoints" in fig.layout.xaxis.title.text
    bars = figures.comparison(made, 1, "mimicry_intensity")
    assert len(bars.data) == MAX_CHECKPOINTS and "6 of 8 checkpoints" in bars.layout.xaxis.title.text


def test_comparison_breaks_lines_at_absent_frames() -> None:
    made = make_siblings(2, faces=1, frames=30, gap=True)
    times = made[0].frame_times_s
    fig = figures.comparison(made, 1, "valence_arousal")
    assert len(lines(fig)) == 4
    assert all(np.flatnonzero(np.isnan(trace.y)).tolist() == list(range(10, 20)) for trace in lines(fig))
    (shade,) = fig.layout.shapes
    assert (shade.x0, shade.x1, shade.yref, shade.layer) == (times[9], times[20], "paper", "below")
    assert fig.layout.xaxis.title.text == "shaded: face not visible"


def test_comparison_thins_long_lines_and_marks_lonely_points() -> None:
    long = make_siblings(2, faces=1, frames=4000, tasks=(VALENCE_AROUSAL,), gap=False)
    long[1].faces[0].timelines[0].values[777, 1] = 1.0
    trace = lines(figures.comparison(long, 1, "valence_arousal"))[3]
    assert len(trace.x) <= MAX_POINTS + 10 and trace.y.max() == 1.0
    made = []
    for item in make_siblings(2, faces=1, frames=9, tasks=(VALENCE_AROUSAL,), gap=False):
        line = item.faces[0].timelines[0]
        kept = replace(line, times_s=line.times_s[[0, 1, 4, 8]], values=line.values[[0, 1, 4, 8]])
        made.append(replace(item, faces=(replace(item.faces[0], timelines=(kept,)),)))
    fig = figures.comparison(made, 1, "valence_arousal")
    assert all(
        trace.mode == "lines+markers" and np.flatnonzero(trace.marker.size).tolist() == [4, 8]
        for trace in lines(fig)
    )


@pytest.mark.parametrize(
    ("task", "kind"), [(MIMICRY_INTENSITY, "clip"), (EXPRESSION, "image"), (VALENCE_AROUSAL, "image")]
)
def test_comparison_of_a_clip_level_task_or_single_frame_has_bars(task: Task, kind: str) -> None:
    made = make_siblings(2, faces=2, kind=kind)
    fig = figures.comparison(made, 2, task.name)
    assert [(trace.type, trace.name) for trace in fig.data] == [
        ("bar", "Checkpoint 0"),
        ("bar", "Checkpoint 1"),
    ]
    assert fig.data[0].marker.pattern.shape != fig.data[1].marker.pattern.shape
    for trace, analysis in zip(fig.data, made, strict=True):
        (line,) = [line for line in analysis.faces[1].timelines if line.task.name == task.name]
        np.testing.assert_array_equal(trace.x, line.values[0])
        assert list(trace.y) == [label.short for label in task.labels]
        assert list(trace.marker.color) == [label.color for label in task.labels]
    assert fig.layout.xaxis.range == (task.low, task.high)


def test_comparison_names_provenance_by_checkpoint_where_it_differs() -> None:
    first, second = make_siblings(2, faces=1, frames=6)
    assert "<b>rule, not trained</b>" in texts(figures.comparison([first, second], 1, "compound_expression"))
    assert "<b>prior, unvalidated</b>" in texts(figures.comparison([first, second], 1, "mimicry_intensity"))
    line = second.faces[0].timelines[3]
    trained = change_lines(second, COMPOUND_EXPRESSION, line.values, provenance="trained")
    fig = figures.comparison([first, trained], 1, "compound_expression")
    assert "Checkpoint 0: rule, not trained; Checkpoint 1: trained" in texts(fig)


def test_comparison_escapes_titles() -> None:
    first, second = make_siblings(2, faces=1, frames=6)
    odd = replace(first, checkpoint=replace(first.checkpoint, title="<b>bold</b>"))
    for name in ("expression", "mimicry_intensity"):
        fig = figures.comparison([odd, second], 1, name)
        assert fig.data[0].name == "&lt;b&gt;bold&lt;/b&gt;"
        assert "<b>bold" not in str(fig.to_plotly_json())


def test_comparison_has_no_line_for_a_label_that_a_checkpoint_lacks() -> None:
    first, second = make_siblings(2, faces=1, frames=6, gap=False, tasks=(EXPRESSION,))
    seven = EXPRESSION.subset([name for name in EXPRESSION.label_names if name != "Contempt"])
    lacking = change_lines(second, seven, np.full(7, 1 / 7))
    fig = figures.comparison([first, lacking], 1, "expression", ["Contempt", "Fear"])
    assert [trace.name for trace in lines(fig)] == [
        "Contempt, Checkpoint 0",
        "Fear, Checkpoint 0",
        "Fear, Checkpoint 1",
    ]


def test_figures_say_what_is_missing() -> None:
    made = make_siblings(2, faces=1, frames=6, tasks=(EXPRESSION,))
    assert "None of these checkpoints predicts Action units" in texts(
        figures.comparison(made, 1, "action_units")
    )
    assert "No face" in texts(figures.comparison(made, 2, "expression")) and "No face" in texts(
        figures.comparison([], 1, "expression")
    )
    with pytest.raises(ValueError, match="no task 'joy'"):
        figures.comparison(made, 1, "joy")
    assert NO_PAIR.split(":")[0] in texts(figures.disagreement([], made[0].frame_times_s))


# Disagreement


def test_disagreement_has_a_row_per_face_and_a_line_per_task() -> None:
    made = make_siblings(2, faces=2, frames=30)
    found, times = disagreements(made), made[0].frame_times_s
    fig = figures.disagreement(found, times)
    assert len(fig.data) == 2 * len(TASKS)
    for at, (trace, item) in enumerate(zip(fig.data, found, strict=True)):
        row, place = divmod(at, len(TASKS))
        assert (trace.xaxis or "x") == f"x{row + 1 if row else ''}" and trace.legendgroup == TASKS[place].name
        assert (trace.line.color, trace.line.dash) == (
            FACE_COLORS[place],
            FACE_DASHES[place],
        ) and trace.showlegend is (row == 0)
        if item.task.scope == "frame":
            np.testing.assert_array_equal(trace.y[~np.isnan(trace.y)], item.score)
            assert np.isnan(trace.y).sum() == len(times) - len(item.score)
        else:
            assert trace.name == "Emotional mimicry intensity, whole clip"
            assert trace.y.tolist() == [item.score[0]] * 2 and trace.x.tolist() == pytest.approx(
                [times[0], times[-1]]
            )
    (shade,) = fig.layout.shapes
    assert (shade.xref, shade.x0, shade.x1) == ("x2", times[9], times[20])
    assert (
        all(fig.layout[name].range == (0, 1) for name in ("yaxis", "yaxis2")) and fig.layout.xaxis2.title.text
    )
    assert [name in texts(fig) for name in ("Face 1", "Face 2")] == [True, True]
    only = figures.disagreement(find(found, EXPRESSION)[:1], times)
    assert len(only.data) == 1 and not only.layout.shapes


def test_disagreement_of_a_single_frame_has_bars() -> None:
    made = make_siblings(2, faces=2, kind="image")
    found = disagreements(made)
    fig = figures.disagreement(found, made[0].frame_times_s)
    assert [(trace.type, trace.name) for trace in fig.data] == [("bar", "Face 1"), ("bar", "Face 2")]
    for trace, track_id in zip(fig.data, (1, 2), strict=True):
        assert trace.x.tolist() == [float(item.score[0]) for item in found if item.track_id == track_id]
        assert list(trace.y) == [task.title for task in TASKS]
    assert fig.layout.xaxis.range == (0, 1) and fig.layout.showlegend is True


def test_disagreement_names_the_provenance_of_both_sides() -> None:
    first, second = make_siblings(2, faces=1, frames=6)

    def of(task: Task, analyses: Sequence[Analysis]) -> str:
        return texts(figures.disagreement(find(disagreements(analyses), task), first.frame_times_s))

    assert "<b>trained</b>" in of(EXPRESSION, [first, second]) and "<b>rule, not trained</b>" in of(
        COMPOUND_EXPRESSION, [first, second]
    )
    trained = change_lines(
        second, COMPOUND_EXPRESSION, second.faces[0].timelines[3].values, provenance="trained"
    )
    assert "rule, not trained against trained" in of(COMPOUND_EXPRESSION, [first, trained])
    both = figures.disagreement(disagreements([first, trained]), first.frame_times_s)
    assert "Expression: trained; " in texts(
        both
    ) and "Compound expression: rule, not trained against trained;" in texts(both)


def test_figures_translate_their_texts() -> None:
    analyses = make_siblings(2, frames=30)

    def tell(text: str) -> str:
        return f"«{text}»" if text else ""

    number = analyses[0].faces[0].track.track_id
    fig = figures.comparison(analyses, number, "expression", translate=tell)
    assert "«" in texts(fig) and all(
        trace.name.startswith("«") for trace in fig.data if trace.showlegend is False
    )
    apart = figures.disagreement(disagreements(analyses), analyses[0].frame_times_s, translate=tell)
    assert f"«Face {number}»" in texts(apart) and all(trace.name.startswith("«") for trace in apart.data)
