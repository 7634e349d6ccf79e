"""The value of the linked viewer as plain JSON: frames, face boxes, all tasks on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from hsemotion_space.analysis.events import events, shares
from hsemotion_space.analysis.reliability import figure, label_reliability_text
from hsemotion_space.edits import Edits
from hsemotion_space.figures import face_color
from hsemotion_space.figures.style import ink
from hsemotion_space.tasks import Label, Task
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, FaceResult, FloatArray, Timeline
from hsemotion_space.ui.data_uri import data_uri
from hsemotion_space.ui.i18n import gettext, script_texts, translate

TIME_DIGITS = 4  # 0.1 ms
BOX_DIGITS = 4  # below a pixel up to 8K
VALUE_DIGITS = 4
THUMBNAIL_PX = 72
UNSMOOTHED = "± 1 SD of the unsmoothed values within ±{seconds} s"
SHOWN = "± 1 SD of the shown values within ±{seconds} s"
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Number = float | None


class MediaEntry(TypedDict):
    """The media: ``id`` is its digest, ``url`` where the browser gets it, size in px, duration in seconds."""

    id: str
    url: str
    kind: str
    width: int
    height: int
    duration: float


class LabelEntry(TypedDict):
    """One label of a task."""

    name: str
    short: str
    color: str
    description: str


class TaskEntry(TypedDict):
    """One task: value bounds, provenance, and the meaning of the band around its lines."""

    name: str
    title: str
    kind: str
    scope: str
    low: float
    high: float
    provenance: str
    labels: list[LabelEntry]
    band: str
    none: str


class EventEntry(TypedDict):
    """A stretch in which a label holds: its column, start and end in s, largest value and its time."""

    column: int
    start: float
    end: float
    peak: float
    at: float


class LineEntry(TypedDict):
    """One task of one face.

    ``values`` and ``band`` hold K lists of F numbers (of one number for a clip-level task), None where the
    face was not found; ``band`` is a standard deviation, empty where there is none. ``top`` holds the F
    columns of the largest value of a one-of task, else nothing; ``none`` the frames in which no label stands
    out. ``mean`` and ``thresholds`` hold K numbers; ``thresholds`` is empty if the task has none. ``right``
    holds how often an answer with each of the K labels is right, a sentence for a one-of task, else a figure;
    it is empty if that was not measured. ``share`` holds the K shares of time, ``events`` the stretches in
    which a label holds; both are empty if labels do not hold in time. ``neutral`` holds the K values of the
    person's own neutral, nothing if none is marked.
    """

    values: list[list[Number]]
    band: list[list[Number]]
    top: list[int | None]
    none: list[int]
    mean: list[Number]
    thresholds: list[float]
    right: list[str]
    share: list[Number]
    events: list[EventEntry]
    neutral: list[Number]


class FaceEntry(TypedDict):
    """One face: F ``boxes`` (left, top, right, bottom as shares), ``gaps`` in s, ``thumbnail`` as a URI.

    By hand: its ``name``, which may be empty, the numbers of the faces ``merged`` into it, and the moment of
    its ``neutral`` in s or None.
    """

    number: int
    name: str
    merged: list[int]
    neutral: Number
    color: str
    ink: str
    thumbnail: str
    boxes: list[list[Number] | None]
    gaps: list[list[float]]
    lines: dict[str, LineEntry]


class WarningEntry(TypedDict):
    """One kind of warning: its title, the numbers of the faces, and a sentence for each of them."""

    title: str
    faces: list[int]
    details: list[str]


class MarkerEntry(TypedDict):
    """A marker: event or exclusion, start and end in s, and its label."""

    kind: str
    start: float
    end: float
    label: str


class ViewerValue(TypedDict):
    """The value of the viewer.

    ``times`` are the F presentation times in seconds that everything else is aligned to; ``say`` holds the
    texts of the viewer in the language of the visitor by the English ones, nothing for English. What else is
    to be read is in that language. ``warnings`` begin with the most serious kind; ``correctable`` says
    whether corrections of the faces are taken. ``cuts`` are the times of hard cuts in seconds.
    """

    media: MediaEntry
    times: list[Number]
    cuts: list[Number]
    markers: list[MarkerEntry]
    texts: Mapping[str, str]
    tasks: list[TaskEntry]
    faces: list[FaceEntry]
    warnings: list[WarningEntry]
    correctable: bool


def viewer_value(
    analysis: Analysis, media_url: str, unsmoothed: Analysis | None = None, *,
    warnings: Sequence[WarningEntry] = (),
    correctable: bool = False,
) -> ViewerValue:  # fmt: skip
    """Return what the viewer shows of an analysis.

    The band around a line is the standard deviation of the values within the task's usual window. It says how
    restless the values are, not how sure the network is.

    Args:
        analysis: of a clip or of an image.
        media_url: where the browser gets the media; a path on this server.
        unsmoothed: the same analysis without smoothing; the band then shows what smoothing hides. Without it,
            the band is that of the values as shown.
        warnings: about its faces.
        correctable: whether corrections of its faces are taken.
    """
    ticks = _ticks(analysis)
    raw = {face.track.track_id: face for face in (unsmoothed or analysis).faces}
    media = analysis.media
    return {
        "media": {
            "id": media.sha256, "url": media_url, "kind": media.kind, "width": media.width,
            "height": media.height,
            "duration": float(media.duration_s),
        },
        "times": _numbers(ticks / 1e6, TIME_DIGITS),
        "cuts": _numbers(analysis.cuts_s, TIME_DIGITS),
        "markers": [
            {"kind": mark.kind, "start": mark.start_s, "end": mark.end_s, "label": mark.label}
            for mark in analysis.edits.markers
        ],
        "texts": script_texts("viewer"),
        "tasks": _tasks(analysis.faces, len(ticks), unsmoothed is not None),
        "faces": [
            _face(
                face, raw.get(face.track.track_id, face), ticks, (media.width, media.height), analysis.edits
            )
            for face in analysis.faces
        ],
        "warnings": list(warnings),
        "correctable": correctable,
    }  # fmt: skip


def _ticks(analysis: Analysis) -> npt.NDArray[np.int64]:
    """Return all times (F,) in whole microseconds, rising; times of faces and of frames meet there."""
    parts = [analysis.frame_times_s, *(face.track.times_s for face in analysis.faces)]
    return np.unique(_microseconds(np.concatenate(parts)))


def _microseconds(times_s: Doubles) -> npt.NDArray[np.int64]:
    return np.round(times_s * 1e6).astype(np.int64)


def _numbers(values: npt.NDArray[np.floating], digits: int) -> list[Number]:
    """Return rounded numbers; None for what JSON cannot say."""
    rounded = np.round(values.astype(np.float64), digits) + 0.0  # no negative zero
    plain = rounded.astype(object)
    plain[~np.isfinite(rounded)] = None
    listed: list[Number] = plain.tolist()
    return listed


def _tasks(faces: Sequence[FaceResult], frames: int, raw: bool) -> list[TaskEntry]:
    """Return the tasks of all faces in the order of their first appearance."""
    lines: dict[str, list[Timeline]] = {}
    for face in faces:
        for line in face.timelines:
            lines.setdefault(line.task.name, []).append(line)
    return [_task(given, frames, raw) for given in lines.values()]


def _task(lines: Sequence[Timeline], frames: int, raw: bool) -> TaskEntry:
    task = lines[0].task
    provenance = " / ".join(dict.fromkeys(gettext(PROVENANCE_LABELS[line.provenance]) for line in lines))
    band = gettext(UNSMOOTHED if raw else SHOWN, seconds=f"{task.smoothing_s:g}")
    return {
        "name": task.name, "title": gettext(task.title), "provenance": provenance,
        "kind": task.kind, "scope": task.scope, "low": task.low, "high": task.high,
        "labels": [_label(label) for label in task.labels],
        "band": band if _has_band(task) and frames > 1 else "",
        "none": gettext(task.none),
    }  # fmt: skip


def _label(label: Label) -> LabelEntry:
    return {
        "name": gettext(label.name),
        "short": gettext(label.short),
        "color": label.color,
        "description": gettext(label.description),
    }


def _has_band(task: Task) -> bool:
    return task.scope == "frame" and task.smoothing_s > 0


def _face(
    face: FaceResult, raw: FaceResult, ticks: npt.NDArray[np.int64], size: tuple[int, int], edits: Edits
) -> FaceEntry:
    track = face.track
    rows = np.searchsorted(ticks, _microseconds(track.times_s))
    shares = track.boxes_xyxy / np.asarray([*size, *size], np.float32)
    boxes: list[list[Number] | None] = [None] * len(ticks)
    for row, box in zip(rows.tolist(), shares, strict=True):
        boxes[row] = _numbers(box, BOX_DIGITS) if np.isfinite(box).all() else None
    bare = {line.task.name: line for line in raw.timelines}
    return {
        "number": track.track_id,
        "name": edits.names.get(track.track_id, ""),
        "merged": sorted(face for face, into in edits.merged.items() if into == track.track_id),
        "neutral": edits.neutral_s.get(track.track_id),
        "color": face_color(track.track_id),
        "ink": ink(face_color(track.track_id)),
        "thumbnail": data_uri(track.thumbnail, (THUMBNAIL_PX, THUMBNAIL_PX)),
        "boxes": boxes,
        "gaps": _gaps(rows, ticks),
        "lines": {
            line.task.name: _line(line, bare.get(line.task.name, line), ticks) for line in face.timelines
        },
    }


def _gaps(rows: Rows, ticks: npt.NDArray[np.int64]) -> list[list[float]]:
    """Return start and end in seconds of each stretch without the face, from its last to its next frame."""
    seen = np.zeros(len(ticks) + 2, np.bool_)
    seen[[0, -1]], seen[rows + 1] = True, True
    edges = np.flatnonzero(np.diff(seen)).reshape(-1, 2)
    last = len(ticks) - 1
    return [
        [round(float(ticks[row]) / 1e6, TIME_DIGITS) for row in (max(start - 1, 0), min(stop, last))]
        for start, stop in edges
    ]


def _line(line: Timeline, raw: Timeline, ticks: npt.NDArray[np.int64]) -> LineEntry:
    task, finite = line.task, np.isfinite(line.values).all(axis=1)
    top: list[int | None] = []
    none: list[int] = []
    values, band = line.values, np.zeros((0, len(task.labels)), np.float32)
    if task.scope == "frame":
        rows = np.searchsorted(ticks, _microseconds(line.times_s))
        if task.kind == "one_of":
            top = [None] * len(ticks)
            for row, column in zip(
                rows[finite].tolist(), line.values[finite].argmax(axis=1).tolist(), strict=True
            ):
                top[row] = column
        none = rows[~line.stands_out].tolist()
        if _has_band(task) and len(line.times_s) > 1:
            spread = local_deviation(raw.times_s, raw.values, task.smoothing_s)
            band = _aligned(np.searchsorted(ticks, _microseconds(raw.times_s)), spread, len(ticks))
        values = _aligned(rows, line.values, len(ticks))
    return {
        "values": [_numbers(column, VALUE_DIGITS) for column in values.T],
        "band": [_numbers(column, VALUE_DIGITS) for column in band.T] if len(band) else [],
        "top": top,
        "none": none,
        "mean": _numbers(
            line.values[finite].mean(axis=0) if finite.any() else np.full(len(task.labels), np.nan),
            VALUE_DIGITS,
        ),
        "thresholds": [float(limit) for limit in line.thresholds],
        "right": _right(line),
        **_in_time(line),
        "neutral": _numbers(line.neutral, VALUE_DIGITS),
    }


class InTime(TypedDict):
    """When labels hold, as in :class:`LineEntry`."""

    share: list[Number]
    events: list[EventEntry]


def _in_time(line: Timeline) -> InTime:
    """Return shares of time and events."""
    share = shares(line)
    if not np.isfinite(share).all():
        return {"share": [], "events": []}
    found: list[EventEntry] = [
        {
            "column": event.column, "start": round(event.start_s, 3), "end": round(event.end_s, 3),
            "peak": round(event.peak, VALUE_DIGITS), "at": round(event.peak_s, TIME_DIGITS),
        }
        for event in events(line)
    ]  # fmt: skip
    return {"share": _numbers(share, VALUE_DIGITS), "events": found}


def _right(line: Timeline) -> list[str]:
    """Return for each label how often such answers are right; empty if that was not measured."""
    found, labels = line.reliability, line.task.labels
    if not found:
        return []
    if line.task.kind == "one_of":
        return [translate(label_reliability_text(found, column)) for column in range(len(labels))]
    return [f"{gettext(label.short)} {figure(found, column)}" for column, label in enumerate(labels)]


def _aligned(rows: Rows, values: FloatArray, count: int) -> FloatArray:
    """Return values (F, K) at all times; NaN where there are none."""
    everywhere = np.full((count, values.shape[1]), np.nan, np.float32)
    everywhere[rows] = values
    return everywhere


def local_deviation(times_s: Doubles, values: FloatArray, half_width_s: float) -> FloatArray:
    """Return the standard deviation (T, K) of the values within ``half_width_s`` before and after each time.

    Args:
        times_s: (T,) rising; gaps are allowed and do not count.
        values: (T, K).
        half_width_s: in seconds; both ends belong to the window.

    Returns:
        (T, K), NaN where a window holds a single frame or a value that is not finite.
    """
    first = np.searchsorted(times_s, times_s - half_width_s - 1e-9)
    last = np.searchsorted(times_s, times_s + half_width_s + 1e-9, side="right")
    count = (last - first)[:, None]
    plain = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    sums, squares, broken = (
        np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(part, axis=0)])
        for part in (plain, plain**2, ~np.isfinite(values))
    )
    mean = (sums[last] - sums[first]) / count
    variance = np.maximum((squares[last] - squares[first]) / count - mean**2, 0)
    known = (count > 1) & (broken[last] == broken[first])
    return np.where(known, np.sqrt(variance), np.nan).astype(np.float32)
