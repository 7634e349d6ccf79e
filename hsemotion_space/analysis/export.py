"""Analyses as files: a flat table (CSV, Parquet) and a nested document (JSON).

``docs/export.md`` describes both.
"""

from __future__ import annotations

import csv
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.analysis import by_hand
from hsemotion_space.analysis.events import events, shares
from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.analysis.reliability import precision
from hsemotion_space.edits import Edits
from hsemotion_space.messages import MessageError
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis, FaceResult, FloatArray, Prediction, Timeline

SCHEMA_VERSION: Final = 1
SUFFIXES: Final = (".csv", ".json", ".parquet")
_FORMULA_SIGNS: Final = tuple("=+-@|\t\r\uff1d\uff0b\uff0d\uff20\uff5c")
_UNSEEN: Final = " \n\v\f\x00\u00a0\u200b\u200e\u200f\u2060\u3000\ufeff"
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

_HEAD: Final[dict[str, tuple[str, str]]] = {
    "media_sha256": ("string", "SHA-256 of the bytes of the media file."),
    "media_kind": ("string", "image or clip."),
    "source": ("string", "A label given by the exporter, such as the file name; may be empty."),
    "frame_index": (
        "int64",
        "Index of the frame in decoding order; empty for a frame that only smoothing filled in.",
    ),
    "time_s": ("float64", "Presentation time of the frame in seconds, 0 for an image."),
    "track_id": ("int64", "Number of the face, from 1, in order of appearance."),
    "box_x0_px": ("float32", "Left edge of the face box in px of the picture."),
    "box_y0_px": ("float32", "Top edge."),
    "box_x1_px": ("float32", "Right edge."),
    "box_y1_px": ("float32", "Bottom edge."),
    "detection_score": ("float32", "Certainty of the face detector, 0 to 1."),
    "face_doubt": (
        "string",
        "Why this may be no face; empty if nothing speaks against it. The same in every row of the face.",
    ),
}
_TAIL: Final[dict[str, tuple[str, str]]] = {
    "checkpoint_id": ("string", "The checkpoint that made the values."),
    "checkpoint_sha256": ("string", "SHA-256 of its weights file."),
    "heads_sha256": ("string", "SHA-256 of its file of heads; empty if it has none."),
    "schema_version": ("int64", "Version of this table; changes when a column changes its name or meaning."),
}


class ExportError(MessageError, ValueError):
    """A file cannot be written."""


def label_column(task: Task, label_name: str) -> str:
    """Return the column of a label: ``<task>.<Label>``, prefixed with ``clip.`` for clip-level values."""
    return f"{'clip.' if task.scope == 'clip' else ''}{task.name}.{label_name}"


def label_columns(task: Task) -> list[str]:
    """Return the columns of all labels."""
    return [label_column(task, name) for name in task.label_names]


def provenance_column(task: Task) -> str:
    """Return the column that says where the values of a task come from."""
    return f"{task.name}.provenance"


def finding_column(task: Task) -> str:
    """Return the column of the label that stands out, of a task whose labels have parts."""
    return f"{task.name}.finding"


def precision_columns(task: Task) -> tuple[tuple[str, str], ...]:
    """Return pairs of columns: the share of such answers that was right, and the number it rests on.

    A ``one_of`` task has one pair, about the most probable label of the row; an independent one has a pair
    per label, about its presence.
    """
    if task.kind == "continuous" or task.scope == "clip":
        return ()
    answers = [f"{task.name}.top"] if task.kind == "one_of" else label_columns(task)
    return tuple((f"{answer}.precision", f"{answer}.answers") for answer in answers)


def _precision_about(task: Task) -> dict[str, tuple[str, str]]:
    about = {}
    for answer, (share, count) in zip(task.label_names, precision_columns(task), strict=False):
        what = (
            "with the most probable label of this row"
            if task.kind == "one_of"
            else f"that {answer} is present"
        )
        about[share] = (
            "float32",
            f"Share of the held-out answers {what} that were right; empty for too few.",
        )
        about[count] = ("int64", f"Number of held-out answers {what}.")
    return about


def _task_columns(task: Task) -> dict[str, tuple[str, str]]:
    same = ", the same in every row of the face" if task.scope == "clip" else ""
    what = f"{task.low:g} to {task.high:g}{same}"
    given = ("string", f"{task.title}: trained, rule (not trained) or prior (unvalidated).")
    labels = {
        label_column(task, label.name): ("float32", f"{label.description} {what}.") for label in task.labels
    }
    finding = ("string", f"{task.title}: the label that stands out; empty if none does.")
    found = {finding_column(task): finding} if task.none else {}
    found |= _precision_about(task) | {provenance_column(task): given}
    return labels | found | by_hand.relative_about(task, list(labels))


COLUMNS: Final[dict[str, tuple[str, str]]] = (
    _HEAD
    | {by_hand.NAME_COLUMN: by_hand.NAME_ABOUT}
    | {name: about for task in TASKS for name, about in _task_columns(task).items()}
    | _TAIL
)
"""Every column in its order: Arrow type and meaning; a file has the columns of its tasks and labels."""


def table(analyses: Sequence[Analysis], sources: Sequence[str] = ()) -> pa.Table:
    """Return one row per face and frame.

    Args:
        analyses: of any media and checkpoints; where one lacks a label of another, its cells are null.
        sources: a label per analysis, such as the file name; empty texts without it.

    Raises:
        ExportError: if there are not as many sources as analyses.
    """
    given = _sources(analyses, sources)
    parts = [
        _face_table(analysis, face, source)
        for analysis, source in zip(analyses, given, strict=True)
        for face in analysis.faces
    ]
    base = pa.schema([_field(name) for name in (*_HEAD, *_TAIL)]).empty_table()
    whole = pa.concat_tables([base, *parts], promote_options="default")
    chosen = [name for name in COLUMNS if name in set(whole.column_names)]
    return whole.select(chosen).replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})


def document(analyses: Sequence[Analysis], sources: Sequence[str] = ()) -> dict[str, Json]:
    """Return the analyses as one value of JSON types; numbers that are not finite become None.

    Raises:
        ExportError: if there are not as many sources as analyses.
    """
    given = _sources(analyses, sources)
    return {
        "schema_version": SCHEMA_VERSION,
        "analyses": [_analysis(analysis, source) for analysis, source in zip(analyses, given, strict=True)],
    }


def write(analyses: Sequence[Analysis], path: Path, sources: Sequence[str] = ()) -> Path:
    """Write a file whose suffix names its format: ``.csv``, ``.json`` or ``.parquet``.

    The file is written under a partial name and then renamed, so a reader never sees half of it.

    Args:
        analyses: what to write, in this order.
        path: replaced if it exists; its folder must exist.
        sources: a label per analysis, such as the file name.

    Returns:
        The path.

    Raises:
        ExportError: for another suffix, a wrong number of sources, or a folder that cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ExportError(
            "Cannot export to '{name}': use a file name that ends in .csv, .json or .parquet.",
            code="unknown_suffix",
            name=path.name,
        )
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        if suffix == ".json":
            partial.write_text(
                json.dumps(document(analyses, sources), allow_nan=False, ensure_ascii=False) + "\n",
                encoding="utf-8",
            )
        elif suffix == ".csv":
            _write_csv(table(analyses, sources), partial)
        else:
            pq.write_table(table(analyses, sources), partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(
            "Cannot write '{name}': {reason}.", code="unwritable", name=path.name, reason=reason
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet reads as a formula: ``'`` is put before a risky first character.

    The signs are those of the OWASP page on CSV injection with their full-width forms; white space and
    invisible characters before a sign do not hide it.
    """
    return f"'{text}" if text.lstrip(_UNSEEN)[:1] in _FORMULA_SIGNS else text


def _sources(analyses: Sequence[Analysis], sources: Sequence[str]) -> list[str]:
    if sources and len(sources) != len(analyses):
        text = "There are {count} analyses but {names} names for them."
        raise ExportError(text, code="source_count", count=len(analyses), names=len(sources))
    return [_text(source) for source in sources] or [""] * len(analyses)


def _text(text: str) -> str:
    """Return a text that UTF-8 can hold: file names may carry lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _field(name: str) -> pa.Field:
    return pa.field(name, pa.type_for_alias(COLUMNS[name][0]), metadata={"description": COLUMNS[name][1]})


def _micro(times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return times in whole microseconds, where the times of tracks and timelines meet."""
    return np.round(times_s * 1e6).astype(np.int64)


def _face_table(analysis: Analysis, face: FaceResult, source: str) -> pa.Table:
    """Return the rows of one face: every frame of its track and every frame that a timeline fills in."""
    track, lines = face.track, [line for line in face.timelines if line.task.scope == "frame"]
    ticks = np.unique(np.concatenate([_micro(track.times_s), *(_micro(line.times_s) for line in lines)]))
    count, seen = len(ticks), np.searchsorted(ticks, _micro(track.times_s))
    times_s = ticks / 1e6
    times_s[seen] = track.times_s  # not rounded where the frame is known
    index = np.full(count, -1, np.int64)
    index[seen] = track.frame_index
    columns: dict[str, object] = {
        "media_sha256": [analysis.media.sha256] * count, "media_kind": [analysis.media.kind] * count,
        "source": [source] * count,
        "frame_index": pa.array(index, mask=index < 0), "time_s": times_s,
        "track_id": np.full(count, track.track_id),
        "checkpoint_id": [analysis.checkpoint.id] * count,
        "checkpoint_sha256": [analysis.checkpoint.sha256] * count,
        "heads_sha256": [analysis.checkpoint.heads_sha256] * count,
        "schema_version": np.full(count, SCHEMA_VERSION),
    }  # fmt: skip
    columns["face_doubt"] = [found.text if (found := doubt(face)) else ""] * count
    boxes = np.column_stack([track.boxes_xyxy, track.detection_scores])
    for column, name in enumerate(("box_x0_px", "box_y0_px", "box_x1_px", "box_y1_px", "detection_score")):
        columns[name] = _placed(boxes[:, column], seen, count)
    for line in face.timelines:
        rows = np.searchsorted(ticks, _micro(line.times_s))
        for column, label in enumerate(line.task.labels):
            values = line.values[:, column]
            columns[label_column(line.task, label.name)] = (
                _placed(values, rows, count)
                if line.task.scope == "frame"
                else _placed(np.repeat(values[:1], count), np.arange(count), count)
            )
        columns |= _precisions(line, rows, count)
        if len(line.support):
            cells: list[str | None] = [None] * count
            for row, finding in zip(rows.tolist(), _findings(line), strict=True):
                cells[row] = finding
            columns[finding_column(line.task)] = cells
        columns[provenance_column(line.task)] = [line.provenance] * count
        relative, texts = by_hand.relative(line, label_columns(line.task))
        columns |= {name: _placed(column, rows, count) for name, column in relative.items()}
        columns |= {name: [text] * count for name, text in texts.items()}
    columns |= {name: [text] * count for name, text in by_hand.name_cell(analysis.edits, track.track_id)}
    schema = pa.schema([_field(name) for name in COLUMNS if name in columns])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _findings(line: Timeline) -> list[str | None]:
    """Return the name of the label that stands out in each frame, None where none does."""
    tops = zip(line.values.argmax(axis=1).tolist(), line.stands_out.tolist(), strict=True)
    return [line.task.labels[top].name if stands_out else None for top, stands_out in tops]


def _precisions(line: Timeline, rows: npt.NDArray[np.int64], count: int) -> dict[str, object]:
    """Return the columns of :func:`precision_columns`; none if nothing was measured."""
    found = line.reliability
    if not found:
        return {}
    shares = np.array([precision(found, column) for column in range(len(found.answers))], np.float32)
    columns: dict[str, object] = {}
    for label, (share, answers) in enumerate(precision_columns(line.task)):
        top = line.values.argmax(axis=1) if line.task.kind == "one_of" else np.full(len(rows), label)
        columns[share] = _placed(shares[top], rows, count)
        cells = np.full(count, -1, np.int64)
        cells[rows] = np.array(found.answers)[top]
        columns[answers] = pa.array(cells, mask=cells < 0)
    return columns


def _placed(values: FloatArray, rows: npt.NDArray[np.int64], count: int) -> pa.Array:
    """Return ``count`` cells with the values in their rows; null elsewhere and for non-finite values."""
    cells = np.full(count, np.nan, np.float32)
    cells[rows] = values
    return pa.array(cells, mask=~np.isfinite(cells))


def _write_csv(rows: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows.column_names)
        writer.writerows(zip(*(_csv_cells(column) for column in rows.columns), strict=True))


def _csv_cells(column: pa.ChunkedArray) -> list[str]:
    """Return the cells of a column: safe texts, and numbers in the shortest form that reads back equal."""
    if pa.types.is_string(column.type):
        return [safe_cell(value or "") for value in column.to_pylist()]
    convert = np.float32 if pa.types.is_float32(column.type) else None
    return [
        "" if value is None else str(convert(value) if convert else value) for value in column.to_pylist()
    ]


def _numbers(array: npt.NDArray[np.generic]) -> Json:
    """Return an array as nested lists: float32 in its shortest form, None where a value is not finite."""
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    if not np.issubdtype(array.dtype, np.floating):
        return [int(value) for value in array]
    return [float(str(value)) if np.isfinite(value) else None for value in array]


def _analysis(analysis: Analysis, source: str) -> dict[str, Json]:
    media, checkpoint = analysis.media, analysis.checkpoint
    return {
        "source": source,
        "media": {
            "sha256": media.sha256, "kind": media.kind, "width": media.width, "height": media.height,
            "duration_s": media.duration_s, "notices": list(media.notices),
        },
        "checkpoint": {
            "id": checkpoint.id, "title": checkpoint.title, "sha256": checkpoint.sha256,
            "heads_sha256": checkpoint.heads_sha256,
        },
        "notices": list(analysis.notices),
        "frame_times_s": _numbers(analysis.frame_times_s),
        "faces": [_face(face, analysis.edits) for face in analysis.faces],
        "markers": by_hand.describe_markers(analysis.edits),
    }  # fmt: skip


def _face(face: FaceResult, edits: Edits) -> dict[str, Json]:
    track = face.track
    return {
        "track_id": track.track_id,
        **by_hand.describe_face(edits, track.track_id),
        "frame_index": _numbers(track.frame_index),
        "times_s": _numbers(track.times_s),
        "boxes_xyxy_px": _numbers(track.boxes_xyxy),
        "detection_scores": _numbers(track.detection_scores),
        "face_doubt": found.text if (found := doubt(face)) else None,
        "timelines": [
            _described(line)
            | {
                "times_s": _numbers(line.times_s),
                "values": _numbers(line.values),
                "smoothing_s": round(line.half_width_s, 4),
            }
            | (
                {"findings": _findings(line), "least_support": line.least_support}
                if len(line.support)
                else {}
            )
            | _in_time(line)
            | by_hand.describe_neutral(line)
            for line in _of(face, "frame")
        ],
        "clip_values": [
            _described(line) | {"values": _numbers(line.values[0])} for line in _of(face, "clip")
        ],
        "predictions": [
            _described(made)
            | {"values": _numbers(made.values), "spread": _numbers(made.spread), "frames": made.frames}
            | (
                {"finding": made.task.labels[made.top].name if made.stands_out else None}
                if len(made.support)
                else {}
            )
            for made in face.predictions
        ],
    }


def _in_time(line: Timeline) -> dict[str, Json]:
    """Return events and shares of time of a timeline; empty where labels do not hold in time."""
    share = shares(line)
    if not np.isfinite(share).all():
        return {}
    found: list[Json] = [
        {
            "label": line.task.labels[event.column].name, "start_s": round(event.start_s, 3),
            "end_s": round(event.end_s, 3),
            "peak": round(event.peak, 4), "peak_s": round(event.peak_s, 3),
        }
        for event in events(line)
    ]  # fmt: skip
    return {"share_of_time": [round(float(value), 4) for value in share], "events": found}


def _of(face: FaceResult, scope: str) -> Iterable[Timeline]:
    return (line for line in face.timelines if line.task.scope == scope)


def _described(value: Timeline | Prediction) -> dict[str, Json]:
    task = value.task
    given: dict[str, Json] = {
        "task": task.name,
        "task_version": task.version,
        "labels": list(task.label_names),
        "provenance": value.provenance,
    }
    if value.thresholds:
        given["thresholds"] = list(value.thresholds)
    if found := value.reliability:
        given["reliability"] = {
            "right": list(found.right),
            "answers": list(found.answers),
            "pictures": found.pictures,
        }
    return given
