"""Analyses as files: a flat table (CSV, Parquet) and a nested document (JSON).

``docs/export.md`` describes both.
"""

from __future__ import annotations

import csv
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.analysis import by_hand
from hsemotion_space.analysis.columns import (
    COLUMNS,
    HEAD,
    SCHEMA_VERSION,
    TAIL,
    Json,
    finding_column,
    label_column,
    label_columns,
    precision_columns,
    provenance_column,
    smoothing_column,
    table_schema,
    top_columns,
)
from hsemotion_space.analysis.document import ExportError, document, findings, source_labels, tops
from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.analysis.image_quality import face_sharpness, lead, outside_share, pose
from hsemotion_space.analysis.reliability import precision
from hsemotion_space.types import Analysis, FaceResult, FaceTrack, FloatArray, MediaInfo, Timeline

__all__ = [
    "COLUMNS",
    "SCHEMA_VERSION",
    "SUFFIXES",
    "ExportError",
    "Json",
    "document",
    "label_column",
    "label_columns",
    "provenance_column",
    "safe_cell",
    "table",
    "table_schema",
    "write",
]

SUFFIXES: Final = (".csv", ".json", ".parquet")
_FORMULA_SIGNS: Final = tuple("=+-@|\t\r\uff1d\uff0b\uff0d\uff20\uff5c")
_UNSEEN: Final = " \n\v\f\x00\u00a0\u200b\u200e\u200f\u2060\u3000\ufeff"


def table(analyses: Sequence[Analysis], sources: Sequence[str] = ()) -> pa.Table:
    """Return one row per face and frame.

    Args:
        analyses: of any media and checkpoints; where one lacks a label of another, its cells are null.
        sources: a label per analysis, such as the file name; empty texts without it.

    Raises:
        ExportError: if there are not as many sources as analyses.
    """
    given = source_labels(analyses, sources)
    parts = [
        _face_table(analysis, face, source)
        for analysis, source in zip(analyses, given, strict=True)
        for face in analysis.faces
    ]
    base = pa.schema([_field(name) for name in (*HEAD, *TAIL)]).empty_table()
    whole = pa.concat_tables([base, *parts], promote_options="default")
    chosen = [name for name in COLUMNS if name in set(whole.column_names)]
    return whole.select(chosen).replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})


def write(
    analyses: Sequence[Analysis], path: Path, sources: Sequence[str] = (), *, bom: bool = False
) -> Path:
    """Write a file whose suffix names its format: ``.csv``, ``.json`` or ``.parquet``.

    The file is written under a partial name and then renamed, so a reader never sees half of it.

    Args:
        analyses: what to write, in this order.
        path: replaced if it exists; its folder must exist.
        sources: a label per analysis, such as the file name.
        bom: start a CSV file with a byte order mark, by which spreadsheets recognize UTF-8.

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
            _write_csv(table(analyses, sources), partial, bom)
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
        "shot": np.searchsorted(analysis.cuts_s, times_s, side="right") + 1,
        "track_id": np.full(count, track.track_id),
        "face_doubt": [found.text if (found := doubt(face)) else ""] * count,
        "sharpness": pa.array([face_sharpness(track, analysis.media)] * count, pa.float32()),
        "checkpoint_id": [analysis.checkpoint.id] * count,
        "checkpoint_sha256": [analysis.checkpoint.sha256] * count,
        "heads_sha256": [analysis.checkpoint.heads_sha256] * count,
        "checkpoint_license": [analysis.checkpoint.license] * count,
        "schema_version": np.full(count, SCHEMA_VERSION),
    }  # fmt: skip
    for name, values in _measures(track, analysis.media).items():
        columns[name] = _placed(values, seen, count)
    for line in face.timelines:
        rows = np.searchsorted(ticks, _micro(line.times_s))
        for column, label in enumerate(line.task.labels):
            values = line.values[:, column]
            columns[label_column(line.task, label.name)] = (
                _placed(values, rows, count)
                if line.task.scope == "frame"
                else _placed(np.repeat(values[:1], count), np.arange(count), count)
            )
        columns |= _answers(line, rows, count)
        columns[provenance_column(line.task)] = [line.provenance] * count
        relative, texts = by_hand.relative(line, label_columns(line.task))
        columns |= {name: _placed(column, rows, count) for name, column in relative.items()}
        columns |= {name: [text] * count for name, text in texts.items()}
    columns |= {name: [text] * count for name, text in by_hand.name_cell(analysis.edits, track.track_id)}
    schema = pa.schema([_field(name) for name in COLUMNS if name in columns])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _measures(track: FaceTrack, media: MediaInfo) -> dict[str, FloatArray]:
    """Return the columns that have a value per frame of a track (T,)."""
    boxes = track.boxes_xyxy
    poses = pose(track.landmarks) if len(track.landmarks) else np.full((len(boxes), 3), np.nan, np.float32)
    corners = dict(zip(("box_x0_px", "box_y0_px", "box_x1_px", "box_y1_px"), boxes.T, strict=True))
    return corners | {
        "detection_score": track.detection_scores,
        "face_side_px": (boxes[:, 2:] - boxes[:, :2]).min(axis=1),
        "face_outside": outside_share(track, media),
        **dict(zip(("yaw", "pitch", "roll_deg"), poses.T, strict=True)),
    }


def _answers(line: Timeline, rows: npt.NDArray[np.int64], count: int) -> dict[str, object]:
    """Return the columns on the answers of a task: label, lead, finding, smoothing and reliability."""
    task, columns = line.task, {}
    if task.scope != "frame":
        return {}
    if top := top_columns(task):
        columns[top[0]] = _texts(tops(line), rows, count)
        columns[top[1]] = _placed(lead(line.values), rows, count)
    if len(line.support):
        columns[finding_column(task)] = _texts(findings(line), rows, count)
    columns[smoothing_column(task)] = pa.array([line.half_width_s] * count, pa.float32())
    return columns | _precisions(line, rows, count)


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


def _texts(texts: Sequence[str | None], rows: npt.NDArray[np.int64], count: int) -> list[str | None]:
    """Return ``count`` cells with the texts in their rows, None elsewhere."""
    cells: list[str | None] = [None] * count
    for row, text in zip(rows.tolist(), texts, strict=True):
        cells[row] = text
    return cells


def _placed(values: FloatArray, rows: npt.NDArray[np.int64], count: int) -> pa.Array:
    """Return ``count`` cells with the values in their rows; null elsewhere and for non-finite values."""
    cells = np.full(count, np.nan, np.float32)
    cells[rows] = values
    return pa.array(cells, mask=~np.isfinite(cells))


def _write_csv(rows: pa.Table, path: Path, bom: bool) -> None:
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
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
