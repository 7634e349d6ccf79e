"""Several checkpoints in one figure: what each says of a face over time, and how far they are apart."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hsemotion_space.figures.lines import Times, gaps, thin
from hsemotion_space.figures.style import (
    FACE_COLORS,
    FACE_DASHES,
    FACE_PATTERNS,
    NOTHING,
    SHADE,
    TEXT,
    empty,
    face_color,
    finish,
)
from hsemotion_space.messages import Message
from hsemotion_space.tasks import Label, get_task
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, Disagreement, FloatArray, Timeline

MAX_SERIES: Final = 12  # lines on one pair of axes
MAX_CHECKPOINTS: Final = len(FACE_DASHES)
SHADED: Final = "shaded: face not visible"
ABSENCE: Final = {
    "type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "fillcolor": SHADE,
    "line": {"width": 0}, "layer": "below",
}  # fmt: skip
NO_PAIR: Final = "Nothing to compare. Select two or more checkpoints that share a task."
_KEYS_PER_ROW: Final = 3
Translate: TypeAlias = Callable[[str], str]
"""Translates a message or a label."""
_Series = Sequence[tuple[str, Timeline]]  # title of a checkpoint, what it says


def comparison(
    analyses: Sequence[Analysis],
    track_id: int,
    task_name: str,
    labels: Sequence[str] = (),
    translate: Translate = str,
) -> go.Figure:
    """Draw one task of one face by several checkpoints: a color per label, a dash per checkpoint.

    At most twelve lines are drawn: of more labels than fit, those in which the checkpoints are most apart on
    average over time. A clip-level task, or a single frame, becomes bars with a pattern per checkpoint.

    Args:
        analyses: of one media file with the same tracks, one per checkpoint; the first six that have the task
            are drawn.
        track_id: of the face.
        task_name: one of the tasks.
        labels: names of the labels to draw instead, of which the first ones that fit are drawn.
        translate: puts every text into the language of the reader.

    Raises:
        ValueError: if there is no such task, or none of the checkpoints has such a label.
    """
    task = get_task(task_name)
    every = _series_of(analyses, track_id, task_name)
    if not every:
        seen = any(face.track.track_id == track_id for item in analyses for face in item.faces)
        text = Message("None of these checkpoints predicts {task}.", task=task.title) if seen else NOTHING
        return empty(translate(text))
    series, frame_times_s = every[:MAX_CHECKPOINTS], analyses[0].frame_times_s
    left = ""
    if len(series) < len(every):
        left = translate(Message("{some} of {all} checkpoints", some=len(series), all=len(every)))
    shown, some = _choose(series, labels)
    series = [(title, _translated(line, translate)) for title, line in series]
    shown = [_translated_label(label, translate) for label in shown]
    if task.scope == "clip" or len(frame_times_s) < 2:
        return _bars(series, left, translate)
    fig = go.Figure()
    for number, (title, line) in enumerate(series):
        fig.add_scatter(
            x=[None], y=[None], mode="lines", name=title, legendgroup=str(number),
            line={"color": TEXT, "width": 2, "dash": FACE_DASHES[number]},
        )  # fmt: skip
        _add_lines(fig, number, (title, line), shown, frame_times_s)
    absent = gaps(*_on_frames(series[0][1].times_s, series[0][1].values, frame_times_s))
    texts = "; ".join(part for part in (translate(SHADED) if absent else "", translate(some), left) if part)
    caption = {"text": texts, "standoff": 4}
    fig.update_xaxes(range=_span(frame_times_s), ticksuffix=" s", nticks=6, zeroline=False, title=caption)
    fig.update_yaxes(range=[task.low, task.high], nticks=5, zerolinecolor=TEXT)
    fig.update_layout(shapes=[ABSENCE | {"x0": start, "x1": stop} for start, stop in absent])
    return finish(fig, 260 + 24 * len(series), _provenances(series, translate), lift=_add_key(fig, shown))


def disagreement(
    found: Sequence[Disagreement], frame_times_s: Times, translate: Translate = str
) -> go.Figure:
    """Draw how far checkpoints differ over time: a row per face, a line per task, level for clip-level tasks.

    A single frame becomes bars. Numbers of different provenance that were compared with each other are told
    above the plot.

    Args:
        found: any selection for one media file.
        frame_times_s: (F,) presentation times of all analyzed frames, with or without a face.
        translate: puts every text into the language of the reader.
    """
    if not found:
        return empty(translate(NO_PAIR))
    found = [replace(item, task=replace(item.task, title=translate(item.task.title))) for item in found]
    tasks = list(dict.fromkeys(item.task.name for item in found))
    if len(frame_times_s) < 2:
        return _score_bars(found, translate)
    rows = list(dict.fromkeys(item.track_id for item in found))
    plot = 130 * len(rows) + 30 * (len(rows) - 1)
    fig = make_subplots(
        rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=30 / plot if len(rows) > 1 else None
    )
    shapes: list[dict[str, object]] = []
    for row, track_id in enumerate(rows, start=1):
        absent: list[tuple[float, float]] = []
        for item in (item for item in found if item.track_id == track_id):
            times, scores = _on_frames(item.times_s, item.score[:, None], frame_times_s)
            if item.task.scope == "clip":
                times, scores = np.array(_span(frame_times_s)), np.full((2, 1), item.score[0], np.float32)
            else:
                absent = gaps(times, scores)
            _add_score(
                fig, row, item, tasks.index(item.task.name), (times, scores[:, 0]), translate=translate
            )
        shapes += _name_and_shade(fig, row, track_id, absent, translate=translate)
    fig.update_xaxes(range=_span(frame_times_s), ticksuffix=" s", nticks=6, zeroline=False)
    fig.update_yaxes(range=[0, 1], nticks=5)
    if shapes:
        fig.update_xaxes(title={"text": translate(SHADED), "standoff": 4}, row=len(rows))
    fig.update_layout(shapes=shapes)
    return finish(fig, plot + 80 + 12 * len(tasks), _pairs_of_provenances(found, translate), lift=20)


def _name_and_shade(
    fig: go.Figure, row: int, track_id: int, absent: Sequence[tuple[float, float]], *, translate: Translate
) -> list[dict[str, object]]:
    """Write the name of a face above its row and return the rectangles that shade where it is absent."""
    x, y = f"x{row if row > 1 else ''}", f"y{row if row > 1 else ''} domain"
    text = (
        f'<span style="color:{face_color(track_id)}">■</span>'
        f" {translate(Message('Face {number}', number=track_id))}"
    )
    fig.add_annotation(
        text=text, x=0, y=1, xref="paper", yref=y, xanchor="left", yanchor="bottom", showarrow=False
    )
    look = {
        "type": "rect",
        "xref": x,
        "yref": y,
        "y0": 0,
        "y1": 1,
        "fillcolor": SHADE,
        "line": {"width": 0},
        "layer": "below",
    }
    return [look | {"x0": start, "x1": stop} for start, stop in absent]


def _series_of(analyses: Sequence[Analysis], track_id: int, task_name: str) -> _Series:
    return [
        (html.escape(item.checkpoint.title, quote=False), line)
        for item in analyses
        for face in item.faces
        for line in face.timelines
        if face.track.track_id == track_id and line.task.name == task_name
    ]


def _translated(line: Timeline, translate: Translate) -> Timeline:
    labels = tuple(_translated_label(label, translate) for label in line.task.labels)
    return replace(line, task=replace(line.task, title=translate(line.task.title), labels=labels))


def _translated_label(label: Label, translate: Translate) -> Label:
    return replace(label, name=translate(label.name), short=translate(label.short))


def _span(frame_times_s: Times) -> list[float]:
    return [float(frame_times_s[0]), float(frame_times_s[-1])]


def _on_frames(times_s: Times, values: FloatArray, frame_times_s: Times) -> tuple[Times, FloatArray]:
    """Return times (F,) of all frames and values (F, K), NaN where missing; times match to a microsecond."""
    keys = np.round(np.concatenate([frame_times_s, times_s]) * 1e6).astype(np.int64)
    ticks = np.unique(keys)
    placed = np.full((len(ticks), values.shape[1]), np.nan, np.float32)
    placed[np.searchsorted(ticks, keys[len(frame_times_s) :])] = values
    return ticks / 1e6, placed


def _choose(series: _Series, names: Sequence[str]) -> tuple[list[Label], str]:
    """Return the labels that fit, in their public order, and words if they are not all."""
    labels = {label.name: label for _, line in series for label in line.task.labels}
    if unknown := [name for name in names if name not in labels]:
        raise ValueError(
            f"{series[0][1].task.title} has no label {unknown[0]!r}; it has {', '.join(labels)}."
        )
    fit = max(1, MAX_SERIES // len(series))
    wanted = list(names) or sorted(labels, key=lambda name: _apart(series, name), reverse=True)
    chosen = [labels[name] for name in labels if name in wanted[:fit]]
    text = "{some} of {all} labels, as selected" if names else "the {some} of {all} labels that differ most"
    return chosen, Message(text, some=len(chosen), all=len(labels)) if len(chosen) < len(labels) else ""


def _apart(series: _Series, name: str) -> tuple[float, float]:
    """Return the mean over time, then the maximum, of the distance between checkpoints in a label."""
    lines = [line.values[:, line.task.index(name)] for _, line in series if name in line.task.label_names]
    return float(np.ptp(lines, axis=0).mean()), float(np.max(lines))


def _trace(times_s: Times, values: FloatArray, color: str, dash: str) -> dict[str, object]:
    """Return the options of a line with gaps; a point between gaps, which has no line, is marked."""
    times, kept = thin(times_s, values)
    absent = np.concatenate([[True], np.isnan(kept), [True]])
    lonely = absent[:-2] & ~absent[1:-1] & absent[2:]
    return {
        "x": times, "y": kept, "connectgaps": False, "mode": "lines+markers" if lonely.any() else "lines",
        "marker": {"size": np.where(lonely, 5, 0).astype(np.float32)} if lonely.any() else None,
        "line": {"color": color, "width": 2, "dash": dash},
    }  # fmt: skip


def _add_lines(
    fig: go.Figure, number: int, series: tuple[str, Timeline], labels: Sequence[Label], frame_times_s: Times
) -> None:
    title, line = series
    times, values = _on_frames(line.times_s, line.values, frame_times_s)
    for label in (label for label in labels if label.name in line.task.label_names):
        fig.add_scatter(
            **_trace(times, values[:, line.task.index(label.name)], label.color, FACE_DASHES[number]),
            name=f"{label.short}, {title}",
            legendgroup=str(number), showlegend=False,
            hovertemplate=f"<b>{label.name}</b><br>%{{x:.2f}} s: %{{y:.2f}}<extra>{title}</extra>",
        )  # fmt: skip


def _add_key(fig: go.Figure, labels: Sequence[Label]) -> int:
    """Write the colors of the labels above the plot; return the room that it takes in px."""
    keys = [f'<span style="color:{label.color}">■</span> {label.short}' for label in labels]
    rows = ["  ".join(keys[start : start + _KEYS_PER_ROW]) for start in range(0, len(keys), _KEYS_PER_ROW)]
    fig.add_annotation(
        text="<br>".join(rows),
        x=0,
        y=1,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        align="left",
        showarrow=False,
    )
    return 4 + 16 * len(rows)


def _bars(series: _Series, left: str, translate: Translate) -> go.Figure:
    """Draw one value per label and checkpoint."""
    task, labels = series[0][1].task, {label.name: label for _, line in series for label in line.task.labels}
    fig, shorts = go.Figure(), [label.short for label in labels.values()]
    for number, (title, line) in enumerate(series):
        fig.add_bar(
            x=line.values[0], y=[label.short for label in line.task.labels], orientation="h", name=title,
            hoverinfo="text+name",
            marker={"color": [label.color for label in line.task.labels], "pattern": _pattern(number)},
            hovertext=[
                f"<b>{label.name}</b>: {value:.2f}"
                for label, value in zip(line.task.labels, line.values[0], strict=True)
            ],
        )  # fmt: skip
    fig.update_xaxes(
        range=[task.low, task.high],
        nticks=6,
        zeroline=task.low < 0,
        zerolinecolor=TEXT,
        title={"text": left, "standoff": 4},
    )
    fig.update_yaxes(
        categoryorder="array", categoryarray=shorts, range=[len(shorts) - 0.5, -0.5], showgrid=False
    )
    fig.update_layout(barmode="group", bargap=0.3, showlegend=True)
    return finish(
        fig,
        64 + 24 * len(series) + max(24, 8 + 10 * len(series)) * len(shorts),
        _provenances(series, translate),
    )


def _pattern(place: int) -> dict[str, object]:
    """Return the pattern that tells bars apart beside their color."""
    shape = FACE_PATTERNS[place % len(FACE_PATTERNS)]
    return {
        "shape": shape,
        "fillmode": "overlay",
        "size": 6,
        "fgcolor": "#ffffff",
        "fgopacity": 0.6,
        "solidity": 0.25,
    }


def _add_score(
    fig: go.Figure,
    row: int,
    item: Disagreement,
    place: int,
    data: tuple[Times, FloatArray],
    *,
    translate: Translate,
) -> None:
    named = {trace.legendgroup for trace in fig.data}
    title = f"{item.task.title}, {translate('whole clip')}" if item.task.scope == "clip" else item.task.title
    fig.add_scatter(
        **_trace(*data, FACE_COLORS[place % len(FACE_COLORS)], FACE_DASHES[place % len(FACE_DASHES)]),
        name=title, row=row, col=1,
        legendgroup=item.task.name, showlegend=item.task.name not in named,
        hovertemplate=(
            f"<b>{title}</b><br>%{{x:.2f}} s: "
            f"%{{y:.2f}}<extra>{translate(Message('Face {number}', number=item.track_id))}</extra>"
        ),
    )  # fmt: skip


def _score_bars(found: Sequence[Disagreement], translate: Translate) -> go.Figure:
    """Draw one score per task and face."""
    fig, rows = go.Figure(), list(dict.fromkeys(item.track_id for item in found))
    titles = list(dict.fromkeys(item.task.title for item in found))
    for track_id in rows:
        items = [item for item in found if item.track_id == track_id]
        fig.add_bar(
            x=np.array([item.score[0] for item in items], np.float32), y=[item.task.title for item in items],
            orientation="h",
            name=translate(Message("Face {number}", number=track_id)), hoverinfo="text+name",
            marker={"color": face_color(track_id), "pattern": _pattern(track_id - 1)},
            hovertext=[f"<b>{item.task.title}</b>: {item.score[0]:.2f}" for item in items],
        )  # fmt: skip
    fig.update_xaxes(range=[0, 1], nticks=6)
    fig.update_yaxes(
        categoryorder="array", categoryarray=titles, range=[len(titles) - 0.5, -0.5], showgrid=False
    )
    fig.update_layout(barmode="group", bargap=0.3, showlegend=len(rows) > 1)
    return finish(
        fig, 64 + max(24, 8 + 10 * len(rows)) * len(titles), _pairs_of_provenances(found, translate)
    )


def _provenances(series: _Series, translate: Translate) -> str:
    """Return the words for the provenance, checkpoint by checkpoint where it differs."""
    texts = [translate(PROVENANCE_LABELS[line.provenance]) for _, line in series]
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{title}: {word}" for (title, _), word in zip(series, texts, strict=True))


def _pairs_of_provenances(found: Sequence[Disagreement], translate: Translate) -> str:
    """Return the words for the provenance, by task where it differs; ``against`` if several were compared."""
    against = f" {translate('against')} "
    texts = {
        item.task.title: against.join(
            translate(PROVENANCE_LABELS[given]) for given in dict.fromkeys(item.provenances)
        )
        for item in found
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{title}: {word}" for title, word in texts.items())
