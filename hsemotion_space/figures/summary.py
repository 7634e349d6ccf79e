"""Figures of summaries: horizontal bars and the plane of two continuous labels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
import plotly.graph_objects as go

from hsemotion_space.figures.style import (
    FACE_PATTERNS,
    MAX_POINTS,
    NOTHING,
    TEXT,
    empty,
    face_color,
    face_dash,
    finish,
    ink,
    provenance_text,
)
from hsemotion_space.types import Prediction, Timeline

QUADRANTS: Final = (("excited", 1, 1), ("distressed", -1, 1), ("gloomy", -1, -1), ("calm", 1, -1))
"""Words of the circumplex model (Russell, 1980) with the signs of their two axes."""


def bars(predictions: Sequence[Prediction], track_ids: Sequence[int]) -> go.Figure:
    """Draw one task for the given faces as horizontal bars, with the spread over time as whiskers.

    One face takes the colors of the labels and shows its numbers; several take the color and the pattern of each face.

    Args:
        predictions: of one task, one per face; label subsets may differ.
        track_ids: one per prediction.

    Raises:
        ValueError: if the predictions belong to different tasks or their number is not that of the ids.
    """
    if not predictions:
        return empty(NOTHING)
    _check_one_task(predictions, track_ids)
    task, one, note = predictions[0].task, len(predictions) == 1, _spread_note(predictions)
    fig = go.Figure()
    for prediction, track_id in zip(predictions, track_ids, strict=True):
        _add_bars(fig, prediction, track_id, one)
    shorts = list(dict.fromkeys(label.short for prediction in predictions for label in prediction.task.labels))
    fig.update_xaxes(range=[task.low, task.high], nticks=6, zeroline=task.low < 0, zerolinecolor=TEXT, title={"text": note, "standoff": 4})
    fig.update_yaxes(categoryorder="array", categoryarray=shorts, range=[len(shorts) - 0.5, -0.5], showgrid=False)
    fig.update_layout(barmode="group", bargap=0.3, showlegend=not one, margin_r=40 if one else 8)
    if thresholds := predictions[0].thresholds:
        rows = dict(zip([label.short for label in predictions[0].task.labels], thresholds, strict=True))
        look = {"type": "line", "line": {"color": TEXT, "width": 2, "dash": "dot"}}
        places = [(shorts.index(short), limit) for short, limit in rows.items()]
        fig.update_layout(shapes=[look | {"x0": limit, "x1": limit, "y0": row - 0.45, "y1": row + 0.45} for row, limit in places])
    if one:
        for column, (short, value) in enumerate(zip(shorts, predictions[0].values.tolist(), strict=True)):
            strong = column == predictions[0].top if task.kind == "one_of" else bool(thresholds) and value >= thresholds[column]
            text = f"<b>{value:.2f}</b>" if strong else f"{value:.2f}"
            fig.add_annotation(text=text, x=1, y=short, xref="paper", xanchor="left", showarrow=False)
    thickness, below = 24 if one else max(24, 8 + 10 * len(predictions)), 36 + 20 * bool(note) + 28 * (not one)
    return finish(fig, below + thickness * len(shorts), provenance_text([p.provenance for p in predictions], track_ids))


def _add_bars(fig: go.Figure, prediction: Prediction, track_id: int, one: bool) -> None:
    task, labels, spread = prediction.task, prediction.task.labels, prediction.spread
    pattern = {"shape": "" if one else FACE_PATTERNS[(track_id - 1) % len(FACE_PATTERNS)], "fillmode": "overlay", "size": 6}
    fig.add_bar(
        x=prediction.values, y=[label.short for label in labels], orientation="h", name=f"Face {track_id}",
        marker={
            "color": [label.color for label in labels] if one else face_color(track_id),
            "pattern": pattern | {"fgcolor": "#ffffff", "fgopacity": 0.6, "solidity": 0.25},
        },
        error_x={
            "type": "data", "visible": bool(np.isfinite(spread).any()), "color": TEXT,
            "thickness": 2 if one else 1, "width": 3 if one else 0,
            "array": np.minimum(spread, task.high - prediction.values), "arrayminus": np.minimum(spread, prediction.values - task.low),
        },
        hovertext=[_hover(prediction, column) for column in range(len(labels))], hoverinfo="text+name",
    )  # fmt: skip


def _spread_note(predictions: Sequence[Prediction]) -> str:
    """Return what the whiskers and the dotted marks mean, or nothing where there are none."""
    whiskers = "mean ± 1 SD over time" if any(np.isfinite(prediction.spread).any() for prediction in predictions) else ""
    return "; ".join(part for part in (whiskers, "dotted: decision threshold" if predictions[0].thresholds else "") if part)


def circumplex(predictions: Sequence[Prediction], track_ids: Sequence[int], trail: Timeline | None = None) -> go.Figure:
    """Draw a continuous task of two labels as a plane with the unit circle and one numbered marker per face.

    Args:
        predictions: one per face; their spread becomes whiskers.
        track_ids: one per prediction.
        trail: the way of one face through the plane; later points are stronger.

    Raises:
        ValueError: if a task is not continuous with two labels, or tasks and ids do not fit together.
    """
    if not predictions:
        return empty(NOTHING)
    _check_one_task(predictions, track_ids)
    for task in (*(prediction.task for prediction in predictions), *((trail.task,) if trail else ())):
        if task.kind != "continuous" or len(task.labels) != 2:
            raise ValueError(f"Expected a continuous task of two labels, got {task.title} ({task.kind}, {len(task.labels)} labels).")
    fig, labels = go.Figure(), predictions[0].task.labels
    if trail is not None:
        _add_trail(fig, trail, track_ids[0] if len(track_ids) == 1 else None)
    for prediction, track_id in zip(predictions, track_ids, strict=True):
        _add_marker(fig, prediction, track_id)
    fig.add_shape(type="circle", x0=-1, y0=-1, x1=1, y1=1, line={"color": TEXT, "width": 1.5}, layer="below")
    for word, right, up in QUADRANTS:
        fig.add_annotation(text=f"<i>{word}</i>", x=0.48 * right, y=0.62 * up, showarrow=False, opacity=0.8)
    axis = {"range": [-1.08, 1.08], "dtick": 0.5, "zeroline": True, "zerolinecolor": TEXT, "constrain": "domain"}
    whiskers = _spread_note(predictions)
    fig.update_xaxes(**axis, title={"text": labels[0].name + (f" ({whiskers})" if whiskers else ""), "standoff": 4})
    fig.update_yaxes(**axis, title={"text": labels[1].name, "standoff": 4}, scaleanchor="x", constraintoward="top")
    fig.update_layout(showlegend=False)
    return finish(fig, 330, provenance_text([p.provenance for p in predictions], track_ids))


def _add_marker(fig: go.Figure, prediction: Prediction, track_id: int) -> None:
    color, seen = face_color(track_id), bool(np.isfinite(prediction.spread).any())
    error = [{"array": prediction.spread[k : k + 1], "visible": seen, "color": color, "thickness": 1.5, "width": 0} for k in (0, 1)]
    fig.add_scatter(
        x=prediction.values[:1], y=prediction.values[1:], error_x=error[0], error_y=error[1], mode="markers+text", text=[str(track_id)],
        marker={"color": color, "size": 22, "line": {"color": ink(color), "width": 1}}, textfont={"color": ink(color), "size": 13},
        name=f"Face {track_id}", hovertext=["<br>".join(_hover(prediction, k) for k in (0, 1))], hoverinfo="text+name", cliponaxis=False,
    )  # fmt: skip


def _add_trail(fig: go.Figure, trail: Timeline, track_id: int | None) -> None:
    keep = np.unique(np.linspace(0, len(trail.times_s) - 1, min(len(trail.times_s), MAX_POINTS)).astype(np.int64))
    values, times = trail.values[keep], trail.times_s[keep].astype(np.float32)
    fig.add_scatter(
        x=values[:, 0], y=values[:, 1], customdata=times, mode="lines+markers", name="Trail", connectgaps=False, opacity=0.75,
        line={"color": TEXT if track_id is None else face_color(track_id), "width": 1.2, "dash": face_dash(track_id or 1)},
        marker={"size": 4, "opacity": np.linspace(0.15, 1, len(keep), dtype=np.float32)},
        hovertemplate="%{customdata:.2f} s: %{x:.2f}, %{y:.2f}<extra></extra>",
    )  # fmt: skip


def _hover(prediction: Prediction, column: int) -> str:
    label, spread = prediction.task.labels[column], float(prediction.spread[column])
    about = "<br>".join(textwrap.wrap(label.description, 44))
    return f"<b>{label.name}</b>: {prediction.values[column]:.2f}" + (f" ± {spread:.2f}" if np.isfinite(spread) else "") + f"<br>{about}"


def _check_one_task(predictions: Sequence[Prediction], track_ids: Sequence[int]) -> None:
    names = {prediction.task.name for prediction in predictions}
    if len(names) != 1 or len(predictions) != len(track_ids):
        raise ValueError(f"Expected predictions of one task and as many track ids, got tasks {sorted(names)} and {len(track_ids)} ids.")
