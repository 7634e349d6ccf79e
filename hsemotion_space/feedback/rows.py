"""Feedback as rows of Parquet files that ``datasets`` loads as they are; ``docs/feedback-dataset.md`` describes the columns."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.feedback.columns import (
    COLUMNS,
    EXPORT_COLUMNS,
    EXPORT_SCHEMA,
    LATER_COLUMNS,
    SCHEMA,
    corrected_column,
    predicted_column,
    provenance_column,
)
from hsemotion_space.feedback.records import SCHEMA_VERSION, FeedbackError, StoredRecord, Subject, Values, Verdict, read_verdict
from hsemotion_space.tasks import TASKS, Task

Cell: TypeAlias = "str | int | float | bytes | datetime | Sequence[float | None] | Sequence[str] | Mapping[str, Cell] | None"
Cells: TypeAlias = Mapping[str, Cell]

ROW_GROUP: Final = 100  # rows
MOST_ROWS: Final = 100_000  # of a file that is read
MOST_BYTES: Final = 2**29  # of its decoded columns
HOUR_S: Final = 3600
CROP_SCOPE: Final = "crop"
_READ_ROWS: Final = 64
_ROUNDING: Final = 1e-5
_ID: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Row:
    """One statement as it was published.

    Attributes:
        id, item: 32 hexadecimal digits each; see ``COLUMNS`` for these and what follows.
        created_s: UTC, in seconds since 1970, a whole hour.
        box_xyxy: in shares of width and height.
        span_s: start and end in a clip, or empty.
        crop: encoded picture of the face, empty without one.
        predicted: by task, the labels that were predicted.
        provenance: of the head, by task.
        corrected: by task, the labels that were judged; the right class of several has 1.
        tier, review: of an export; empty in a batch.
        blind: False in files of an earlier version too.
    """

    id: str
    item: str
    contributor: str
    created_s: float
    kind: str
    face: int
    box_xyxy: tuple[float, float, float, float]
    span_s: tuple[float, ...]
    crop: bytes
    checkpoint: str
    checkpoint_sha256: str
    heads_sha256: str
    preprocessing: str
    verdict: Verdict
    predicted: Mapping[str, Values]
    provenance: Mapping[str, str]
    corrected: Mapping[str, Values]
    consent_version: str
    consent_scopes: tuple[str, ...]
    tier: str = ""
    review: str = ""
    blind: bool = False


def to_table(stored: Sequence[StoredRecord], pseudonym: Callable[[str], str], tiers: Mapping[str, str] | None = None) -> pa.Table:
    """Return one row per record, sorted by id; comments stay where they are.

    Args:
        stored: what to publish; a crop is taken along only where its contributor agreed to it.
        pseudonym: turns the contributor of a record into the published one.
        tiers: by the id of a record; adds the columns of an export.
    """
    ordered = sorted(stored, key=lambda one: one.record.id)
    cells = [_cells(one, pseudonym) for one in ordered]
    if tiers is None:
        return pa.Table.from_pylist(cells, SCHEMA)
    graded = [{**row, "tier": tiers[one.record.id], "review": one.review} for row, one in zip(cells, ordered, strict=True)]
    return pa.Table.from_pylist(graded, EXPORT_SCHEMA)


def write_table(table: pa.Table) -> bytes:
    """Return a table as a Parquet file with at most ``ROW_GROUP`` rows in a group; equal tables give equal bytes."""
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=ROW_GROUP, compression="zstd", version="2.6")
    return out.getvalue()


def encode(stored: Sequence[StoredRecord], pseudonym: Callable[[str], str]) -> bytes:
    """Return a batch: the rows of :func:`to_table` as a Parquet file; equal records give equal bytes in whatever order they are."""
    return write_table(to_table(stored, pseudonym))


def shows_crop(one: StoredRecord) -> bool:
    """Return whether there is a crop that its contributor agreed to have kept."""
    return bool(one.crop) and CROP_SCOPE in one.record.consent.scopes


def _cells(one: StoredRecord, pseudonym: Callable[[str], str]) -> dict[str, Cell]:
    record, subject, predicted = one.record, one.record.subject, one.record.predicted
    start, end = subject.span_s or (None, None)
    cells: dict[str, Cell] = {
        "id": record.id,
        "item": subject.item,
        "contributor": pseudonym(record.contributor),
        "created": datetime.fromtimestamp(one.created_s // HOUR_S * HOUR_S, UTC),
        "schema_version": record.schema_version,
        "kind": subject.kind,
        "face": subject.face,
        "box": subject.box_xyxy,
        "span_start_s": start,
        "span_end_s": end,
        "image": {"bytes": one.crop, "path": f"{record.id}.png"} if shows_crop(one) else None,
        "checkpoint": predicted.checkpoint,
        "checkpoint_sha256": predicted.checkpoint_sha256,
        "heads_sha256": predicted.heads_sha256,
        "preprocessing": predicted.preprocessing,
        "verdict": record.verdict,
        "consent_version": record.consent.version,
        "consent_scopes": record.consent.scopes,
        "blind": record.blind,
    }
    given = {prediction.task: prediction for prediction in predicted.tasks}
    for task in TASKS:
        if task.name in given:
            cells[predicted_column(task)] = _in_order(task, given[task.name].values)
            cells[provenance_column(task)] = given[task.name].provenance
        if task.name in record.corrected:
            right = record.corrected[task.name]
            cells[corrected_column(task)] = next(iter(right)) if task.kind == "one_of" else _in_order(task, right)
    return cells


def _in_order(task: Task, values: Values) -> list[float | None]:
    return [values.get(label) for label in task.label_names]


def without(body: bytes, unwanted: Callable[[str], bool]) -> bytes:
    """Return a batch without the rows of unwanted contributors (published pseudonyms); empty if none are left.

    Raises:
        FeedbackError: if it is no batch.
    """
    keep = [not unwanted(row.contributor) for row in decode(body)]
    return write_table(pq.read_table(pa.BufferReader(body)).filter(pa.array(keep))) if any(keep) else b""


def record_ids(body: bytes) -> tuple[str, ...]:
    """Return the ids of the records in a batch.

    Raises:
        FeedbackError: if it is no batch.
    """
    return tuple(_identifier(cells["id"]) for cells in _read(body, ("id",)))


def decode(body: bytes) -> list[Row]:
    """Return the rows of a batch, or of a file of an export, each checked.

    Raises:
        FeedbackError: if it is neither, of another version, or too large.
    """
    return [_row(cells) for cells in _read(body, tuple(COLUMNS))]


def _read(body: bytes, names: Sequence[str]) -> Iterator[Cells]:
    """Yield rows with the columns ``names`` and those of an export that are there, a few at a time."""
    try:
        with pq.ParquetFile(pa.BufferReader(body)) as file:
            found = file.schema_arrow
            if missing := [name for name in COLUMNS if name not in found.names and name not in LATER_COLUMNS]:
                raise FeedbackError(f"This is no file of feedback: it lacks the column {missing[0]}.")
            if file.metadata.num_rows > MOST_ROWS:
                raise FeedbackError(f"A file of feedback has at most {MOST_ROWS:,} rows, this one has {file.metadata.num_rows:,}.")
            chosen = [*(name for name in names if name in found.names), *(name for name in EXPORT_COLUMNS if name in found.names)]
            wanted = pa.schema([EXPORT_SCHEMA.field(name) for name in chosen])
            size = 0
            for batch in file.iter_batches(_READ_ROWS, columns=wanted.names):
                size += batch.nbytes
                if size > MOST_BYTES:
                    raise FeedbackError(f"A file of feedback has at most {MOST_BYTES // 2**20} MiB of rows; split it.")
                yield from pa.Table.from_batches([batch]).select(wanted.names).cast(wanted).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise (
            error if isinstance(error, FeedbackError) else FeedbackError("This is no Parquet file of feedback, or it is damaged.")
        ) from error


def _row(cells: Cells) -> Row:
    """Check one row; every value is foreign."""
    if cells["schema_version"] != SCHEMA_VERSION:
        raise FeedbackError(f"A row has the schema version {cells['schema_version']!r}; this program knows {SCHEMA_VERSION}.")
    texts = {name: _text(cells, name) for name in ("contributor", "kind", *_TEXT_FIELDS)}
    created, box, item = cells["created"], cells["box"], _identifier(cells["item"])
    span = tuple(cast("float", cells[name]) for name in ("span_start_s", "span_end_s") if cells[name] is not None)
    if not isinstance(created, datetime) or not isinstance(box, list) or None in box or not isinstance(cells["face"], int):
        raise FeedbackError("A row of feedback lacks its time, its face or the box of it.")
    subject = Subject(item, texts.pop("kind"), cells["face"], cast("tuple[float, float, float, float]", tuple(box)), span)
    return Row(
        id=_identifier(cells["id"]),
        item=item,
        created_s=created.timestamp(),
        kind=subject.kind,
        face=subject.face,
        box_xyxy=subject.box_xyxy,
        span_s=subject.span_s,
        crop=_picture(cells["image"]),
        verdict=read_verdict(cells["verdict"]),
        predicted={task.name: values for task in TASKS if (values := _numbers(task, cells[predicted_column(task)]))},
        provenance={task.name: _text(cells, name) for task in TASKS if cells[name := provenance_column(task)] is not None},
        corrected={task.name: values for task in TASKS if (values := _right(task, cells[corrected_column(task)]))},
        consent_scopes=tuple(map(str, cast("list[str]", cells["consent_scopes"] or []))),
        tier=str(cells.get("tier") or ""),
        review=str(cells.get("review") or ""),
        blind=bool(cells.get("blind")),
        **texts,
    )


_TEXT_FIELDS: Final = ("checkpoint", "checkpoint_sha256", "heads_sha256", "preprocessing", "consent_version")


def _text(cells: Cells, name: str) -> str:
    value = cells[name]
    if not isinstance(value, str):
        raise FeedbackError(f"A row of feedback has no {name}.")
    return value


def _identifier(value: Cell) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise FeedbackError("A row of feedback has no id of 32 hexadecimal digits.")
    return value


def _picture(value: Cell) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else None
    return content if isinstance(content, bytes) else b""


def _right(task: Task, value: Cell) -> Values:
    """Return the labels that were judged."""
    if task.kind != "one_of" or value is None:
        return _numbers(task, value)
    if value not in task.label_names:
        raise FeedbackError(f"{task.title} of a row is {str(value)[:40]!r}; it must be one of {', '.join(task.label_names)}.")
    return {str(value): 1.0}


def _numbers(task: Task, value: Cell) -> Values:
    """Return the numbers of a list in the order of a task's labels, by label, without those that are null."""
    if value is None:
        return {}
    if not isinstance(value, list) or len(value) != len(task.labels):
        raise FeedbackError(f"{task.title} of a row needs {len(task.labels)} numbers.")
    values = {label: number for label, number in zip(task.label_names, value, strict=True) if number is not None}
    if not all(task.low - _ROUNDING <= number <= task.high + _ROUNDING for number in values.values()):
        raise FeedbackError(f"{task.title} of a row must be from {task.low:g} to {task.high:g}.")
    return values
