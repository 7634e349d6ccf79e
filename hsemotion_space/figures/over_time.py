"""A task over time: one row per face, as lines or as a heat map, with visible gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hsemotion_space.figures.style import FACE_DASHES, MAX_POINTS, NOTHING, SHADE, TEXT, empty, face_color, finish, provenance_text
from hsemotion_space.figures.summary import bars
from hsemotion_space.tasks import Label, get_task
from hsemotion_space.types import FaceResult, FloatArray, Timeline

MAX_LINES: Final = 8  # more independent labels become a heat map
_COLORBAR: Final = {"orientation": "h", "thickness": 10, "x": 0.5, "len": 0.9, "y": 0, "yref": "container", "yanchor": "bottom"}
Times = npt.NDArray[np.float64]
Tell: TypeAlias = Callable[[str], str]
"""Puts a finished English text into the language of the reader."""


def timeline(faces: Sequence[FaceResult], task_name: str, frame_times_s: Times) -> go.Figure:
    """Draw a task over time, one row per face; where a face is absent the lines break and the row is shaded.

    More than eight independent labels become a heat map; a clip-level task, or a single frame, becomes bars.

    Args:
        faces: the faces to show.
        task_name: one of the tasks.
        frame_times_s: (F,) presentation times of all analyzed frames, with or without a face.

    Raises:
        ValueError: if there is no such task.
    """
    task = get_task(task_name)
    lines = {face.track.track_id: line for face in faces for line in face.timelines if line.task.name == task_name}
    if not lines:
        return empty(NOTHING if not faces else f"This checkpoint says nothing about {task.title.lower()}.")
    if task.scope == "clip" or len(frame_times_s) < 2:
        chosen = {face.track.track_id: p for face in faces for p in face.predictions if p.task.name == task_name}
        return bars(list(chosen.values()), list(chosen))
    most = max(len(line.task.labels) for line in lines.values())
    heat = task.kind == "independent" and most > MAX_LINES
    tall, between = (16 * most if heat else 130), 30
    plot = len(lines) * tall + (len(lines) - 1) * between
    fig = make_subplots(rows=len(lines), cols=1, shared_xaxes=True, vertical_spacing=between / plot if len(lines) > 1 else None)
    shapes: list[dict[str, object]] = []
    for row, (track_id, line) in enumerate(lines.items(), start=1):
        times, values = _aligned(line, frame_times_s)
        (_add_heat if heat else _add_lines)(fig, row, track_id, line.task.labels, (times, values))
        shapes += _name_and_shade(fig, row, track_id, _gaps(times, values))
    x_range = [float(frame_times_s[0]), float(frame_times_s[-1])]
    y_range, steps = ([most - 0.5, -0.5], most) if heat else ([task.low, task.high], 5)
    fig.update_xaxes(range=x_range, ticksuffix=" s", nticks=6, zeroline=False, showgrid=not heat)
    fig.update_yaxes(range=y_range, nticks=steps, zerolinecolor=TEXT, showgrid=not heat)
    if shapes:
        fig.update_xaxes(title={"text": "shaded: face not visible", "standoff": 4}, row=len(lines))
    fig.update_layout(shapes=shapes, coloraxis={"colorscale": "Cividis", "cmin": task.low, "cmax": task.high, "colorbar": _COLORBAR})
    return finish(
        fig, plot + (104 if most > 2 else 80), provenance_text([line.provenance for line in lines.values()], list(lines)), lift=20
    )


def _name_and_shade(
    fig: go.Figure, row: int, track_id: int, gaps: Sequence[tuple[float, float]], tell: Tell = str
) -> list[dict[str, object]]:
    """Write the name of a face above its row and return the rectangles that shade its gaps."""
    x, y = f"x{row if row > 1 else ''}", f"y{row if row > 1 else ''} domain"
    text = f'<span style="color:{face_color(track_id)}">■</span> {tell(f"Face {track_id}")}'
    fig.add_annotation(text=text, x=0, y=1, xref="paper", yref=y, xanchor="left", yanchor="bottom", showarrow=False)
    look = {"type": "rect", "xref": x, "yref": y, "y0": 0, "y1": 1, "fillcolor": SHADE, "line": {"width": 0}, "layer": "below"}
    return [look | {"x0": start, "x1": stop} for start, stop in gaps]


def _aligned(line: Timeline, frame_times_s: Times) -> tuple[Times, FloatArray]:
    """Return times (F,) of all frames and values (F, K) with NaN where the timeline has none; times meet at a microsecond."""
    keys = np.round(np.concatenate([frame_times_s, line.times_s]) * 1e6).astype(np.int64)
    ticks = np.unique(keys)
    values = np.full((len(ticks), line.values.shape[1]), np.nan, np.float32)
    values[np.searchsorted(ticks, keys[len(frame_times_s) :])] = line.values
    return ticks / 1e6, values


def _gaps(times_s: Times, values: FloatArray) -> list[tuple[float, float]]:
    """Return start and end in seconds of each stretch without a value: from the last frame before it to the first one after it."""
    seen = np.concatenate([[True], np.isfinite(values).any(axis=1), [True]])
    edges = np.flatnonzero(np.diff(seen)).reshape(-1, 2)
    return [(float(times_s[max(start - 1, 0)]), float(times_s[min(stop, len(times_s) - 1)])) for start, stop in edges]


def _thin(times_s: Times, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return one line (F,) as float32 with about 600 points at most: lowest and highest of each bucket, one NaN per gap."""
    if len(values) > MAX_POINTS:
        keep: list[npt.NDArray[np.int64]] = []
        for run in np.split(np.arange(len(values)), np.flatnonzero(np.diff(np.isfinite(values))) + 1):
            if not np.isfinite(values[run[0]]):
                keep.append(run[:1])
                continue
            keep.append(run[[0, -1]])
            for part in np.array_split(run, max(1, len(run) * MAX_POINTS // (2 * len(values)))):
                keep.append(part[[values[part].argmin(), values[part].argmax()]])  # noqa: PERF401
        chosen = np.unique(np.concatenate(keep))
        times_s, values = times_s[chosen], values[chosen]
    return times_s.astype(np.float32), values.astype(np.float32)


def _add_lines(fig: go.Figure, row: int, track_id: int, labels: Sequence[Label], data: tuple[Times, FloatArray]) -> None:
    named = {trace.legendgroup for trace in fig.data}
    for column, label in enumerate(labels):
        times, values = _thin(data[0], data[1][:, column])
        absent = np.concatenate([[True], np.isnan(values), [True]])
        lonely = absent[:-2] & ~absent[1:-1] & absent[2:]  # a point between gaps has no line
        fig.add_scatter(
            x=times, y=values, name=label.short, legendgroup=label.name, showlegend=label.name not in named, connectgaps=False,
            mode="lines+markers" if lonely.any() else "lines",
            marker={"size": np.where(lonely, 5, 0).astype(np.float32)} if lonely.any() else None,
            line={"color": label.color, "width": 2, "dash": FACE_DASHES[column % 3]}, row=row, col=1,
            hovertemplate=f"<b>{label.name}</b><br>%{{x:.2f}} s: %{{y:.2f}}<extra>Face {track_id}</extra>",
        )  # fmt: skip


def _add_heat(fig: go.Figure, row: int, track_id: int, labels: Sequence[Label], data: tuple[Times, FloatArray]) -> None:
    times, values = data
    if len(times) > MAX_POINTS:  # keep the peak of each bucket
        starts = np.linspace(0, len(times), MAX_POINTS, endpoint=False).astype(np.int64)
        times, values = times[starts], np.fmax.reduceat(values, starts, axis=0)
    fig.add_heatmap(
        x=times.astype(np.float32), y=[label.short for label in labels], z=np.ascontiguousarray(values.T), coloraxis="coloraxis",
        hoverongaps=False, row=row, col=1, hovertemplate=f"<b>%{{y}}</b><br>%{{x:.2f}} s: %{{z:.2f}}<extra>Face {track_id}</extra>",
    )  # fmt: skip
