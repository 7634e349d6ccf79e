"""Feedback as Parquet files for ``datasets``; ``docs/feedback-dataset.md`` describes the columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.feedback.record import (
    SCHEMA_VERSION,
    FeedbackError,
    FeedbackRecord,
    Review,
    Values,
    from_json,
)
from hsemotion_space.feedback.tables import Record
from hsemotion_space.feedback.trace import DEVICES, DIMENSIONS, TraceRecord
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import PROVENANCE_LABELS

Scalar: TypeAlias = str | int | float | bytes | datetime
Cell: TypeAlias = "Scalar | Sequence[float | None] | Sequence[str] | Mapping[str, Cell] | None"
Cells: TypeAlias = Mapping[str, Cell]

ROW_GROUP: Final = 100  # rows
MOST_ROWS: Final = 100_000  # of a file that is read
MOST_BYTES: Final = 2**29  # of its decoded columns
HOUR_S: Final = 3600
_READ_ROWS: Final = 64
_ROUNDING: Final = 1e-5
_SAME: Final = ("id", "item", "contributor", "kind", "face", "checkpoint", "checkpoint_sha256",
                "heads_sha256", "preprocessing", "verdict", "consent_version",
                "consent_scopes", "blind")  # fmt: skip
"""Columns that are fields of a record as they are."""


class Column(NamedTuple):
    """One column: a key of ``KINDS``, and what it means."""

    kind: str
    about: str


class Kind(NamedTuple):
    """A type of columns, as Arrow and as ``datasets`` have it."""

    arrow: pa.DataType
    feature: Mapping[str, object]


def _value(arrow: pa.DataType, dtype: str) -> Kind:
    return Kind(arrow, {"dtype": dtype, "_type": "Value"})


def _list(item: Kind, length: int = -1) -> Kind:
    sized = {"length": length} if length >= 0 else {}
    return Kind(pa.list_(item.arrow, length), {"feature": item.feature, **sized, "_type": "List"})


_TEXT, _NUMBER = _value(pa.string(), "string"), _value(pa.float32(), "float32")
KINDS: Final[Mapping[str, Kind]] = {
    "text": _TEXT,
    "whole number": _value(pa.int32(), "int32"),
    "true or false": _value(pa.bool_(), "bool"),
    "seconds": _value(pa.float64(), "float64"),
    "time": _value(pa.timestamp("ms", "UTC"), "timestamp[ms, tz=UTC]"),
    "numbers": _list(_NUMBER),
    "exact numbers": _list(_value(pa.float64(), "float64")),
    "4 numbers": _list(_NUMBER, 4),
    "texts": _list(_TEXT),
    "picture": Kind(pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}),
}

_HEAD: Final[Mapping[str, Column]] = {
    "id": Column("text", "32 hexadecimal digits, the name of the statement."),
    "item": Column(
        "text", "32 hexadecimal digits, equal for everybody who judged the same face and time range."
    ),
    "contributor": Column("text", "Pseudonym of who made the statement."),
    "created": Column("time", "UTC, cut to the hour, so that it does not tell who was there."),
    "schema_version": Column(
        "whole number", "Version of these columns; changes when one changes its name or meaning."
    ),
    "kind": Column("text", "image or clip."),
    "face": Column("whole number", "Number of the face, from 1."),
    "box": Column(
        "4 numbers", "Left, top, right and bottom of the face in shares of width and height, 0 to 1."
    ),
    "span_start_s": Column(
        "seconds", "Start of the judged part of a clip; null for a picture and for all of a clip."
    ),
    "span_end_s": Column("seconds", "End of that part."),
    "image": Column("picture", "PNG of the face; null unless its contributor gave it too."),
    "checkpoint": Column("text", "The checkpoint that predicted."),
    "checkpoint_sha256": Column("text", "SHA-256 of its weights."),
    "heads_sha256": Column("text", "SHA-256 of its file of heads; empty if it has none."),
    "preprocessing": Column("text", "Digest of how the face was found and prepared."),
    "verdict": Column("text", "correct, wrong, cannot_tell or not_a_face."),
}
_TAIL: Final[Mapping[str, Column]] = {
    "consent_version": Column("text", "Version of the text that the contributor agreed to."),
    "consent_scopes": Column("texts", "The steps that were selected."),
    "blind": Column(
        "true or false",
        "Whether it was said before its contributor was shown what is predicted, or any known answer.",
    ),
}
LATER_COLUMNS: Final = frozenset({"blind"})
"""Columns that older files lack."""
EXPORT_COLUMNS: Final[Mapping[str, Column]] = {
    "tier": Column("text", "raw, agreed or reviewed; only in exports."),
    "review": Column("text", "Decision of a reviewer, approved or empty; only in exports."),
}


def columns_of(task: Task) -> tuple[str, str, str]:
    """Return a task's columns: the prediction, the kind of head, and the correction."""
    return f"predicted_{task.name}", f"predicted_{task.name}_provenance", f"corrected_{task.name}"


def _task_columns(task: Task) -> Mapping[str, Column]:
    labels, scale = ", ".join(task.label_names), f"{task.low:g} to {task.high:g}"
    right = {
        "one_of": Column(
            "text", f"{task.title} that would be right: one of the same labels; null if it was not judged."
        ),
        "continuous": Column(
            "numbers",
            f"{task.title} that would be right, in the same order and range; null if it was not judged.",
        ),
        "independent": Column(
            "numbers", f"{task.title} that would be right; null for each label that was not judged."
        ),
    }
    predicted = Column("numbers", f"{task.title}: {labels}; {scale}, null where it was not predicted.")
    provenance = Column("text", f"{', '.join(PROVENANCE_LABELS)}; null where it was not predicted.")
    return dict(zip(columns_of(task), (predicted, provenance, right[task.kind]), strict=True))


COLUMNS: Final[Mapping[str, Column]] = {
    **_HEAD,
    **{name: of for task in TASKS for name, of in _task_columns(task).items()},
    **_TAIL,
}
"""Every column of a batch in its order."""


def _schema(columns: Mapping[str, Column]) -> pa.Schema:
    features = {name: KINDS[column.kind].feature for name, column in columns.items()}
    labels = {task.name: {"version": task.version, "labels": task.label_names} for task in TASKS}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "tasks": json.dumps(labels)}
    return pa.schema([pa.field(name, KINDS[column.kind].arrow) for name, column in columns.items()], metadata)


SCHEMA: Final[pa.Schema] = _schema(COLUMNS)
"""Of a batch.

The metadata ``huggingface`` gives ``datasets`` the types, and ``tasks`` has the labels in their order.
"""
EXPORT_SCHEMA: Final[pa.Schema] = _schema({**COLUMNS, **EXPORT_COLUMNS})
"""Of an export, which says of each row how sure it is."""
_SAME_OF_TRACE: Final = ("id", "item", "contributor", "clip", "face", "dimension", "attempt",
                         "bounded", "device", "times_s", "values", "consent_version",
                         "consent_scopes", "blind")  # fmt: skip
TRACE_COLUMNS: Final[Mapping[str, Column]] = {
    **{name: _HEAD[name] for name in ("id", "item", "contributor", "created", "schema_version")},
    "item": Column("text", "32 hexadecimal digits, equal for everybody's attempt at one face and dimension."),
    "clip": Column("text", "32 hexadecimal digits, the `item` of corrections of the whole face."),
    "face": _HEAD["face"],
    "span_start_s": Column("seconds", "First presentation time of the face in the clip."),
    "span_end_s": Column("seconds", "Last presentation time of the face in the clip."),
    "dimension": Column("text", f"{' or '.join(DIMENSIONS)}."),
    "attempt": Column("text", "first, second (the first is hidden), or repair (the second, partly redone)."),
    "bounded": Column("true or false", "Whether values are from -1 to 1; else the scale is personal."),
    "device": Column("text", f"{', '.join(DEVICES)}."),
    "times_s": Column("exact numbers", "Presentation times of the samples, at most 10 per second. A person"
                      " reacts to what was shown some seconds earlier; this is not corrected here."),
    "values": Column("exact numbers", "Ratings at these times."),
    **_TAIL,
}  # fmt: skip
"""Every column of a file of traces."""
TRACE_SCHEMA: Final[pa.Schema] = _schema(TRACE_COLUMNS)


def to_table(records: Sequence[FeedbackRecord], tiers: Mapping[str, str] | None = None) -> pa.Table:
    """Return one row per record, sorted by id; comments are left out.

    Args:
        records: what to publish; a crop goes along only where its contributor agreed to it.
        tiers: by the id of a record; adds the columns of an export.
    """
    ordered = sorted(records, key=lambda one: one.id)
    if tiers is None:
        return pa.Table.from_pylist([_cells(one) for one in ordered], SCHEMA)
    return pa.Table.from_pylist(
        [{**_cells(one), "tier": tiers[one.id], "review": one.review} for one in ordered], EXPORT_SCHEMA
    )


def write_table(table: pa.Table) -> bytes:
    """Return a table as Parquet, at most ``ROW_GROUP`` rows a group; equal tables give equal bytes."""
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=ROW_GROUP, compression="zstd", version="2.6")
    return out.getvalue()


def encode(records: Sequence[Record]) -> bytes:
    """Return records of one type as Parquet; equal records give equal bytes in whatever order they are."""
    corrections = [one for one in records if isinstance(one, FeedbackRecord)]
    if corrections:
        return write_table(to_table(corrections))
    return write_table(traces_table([one for one in records if isinstance(one, TraceRecord)]))


def traces_table(traces: Sequence[TraceRecord]) -> pa.Table:
    """Return one row per trace, sorted by id."""
    rows = [
        {
            **{name: getattr(one, name) for name in _SAME_OF_TRACE},
            "created": _hour(one.created_s),
            "schema_version": SCHEMA_VERSION,
            "span_start_s": one.span_s[0],
            "span_end_s": one.span_s[1],
        }
        for one in sorted(traces, key=lambda one: one.id)
    ]
    return pa.Table.from_pylist(rows, TRACE_SCHEMA)


def _hour(created_s: float) -> datetime:
    return datetime.fromtimestamp(created_s // HOUR_S * HOUR_S, UTC)


def _cells(record: FeedbackRecord) -> Cells:
    start, end = record.span_s or (None, None)
    cells: dict[str, Cell] = {name: getattr(record, name) for name in _SAME}
    cells |= {
        "created": _hour(record.created_s),
        "schema_version": SCHEMA_VERSION,
        "box": record.box_xyxy,
        "span_start_s": start,
        "span_end_s": end,
        "image": (
            {"bytes": record.consented_crop, "path": f"{record.id}.png"} if record.consented_crop else None
        ),
    }
    for task in TASKS:
        predicted, provenance, corrected = columns_of(task)
        if task.name in record.predicted:
            cells[predicted] = _in_order(task, record.predicted[task.name])
            cells[provenance] = record.provenance[task.name]
        if task.name in record.corrected:
            right = record.corrected[task.name]
            cells[corrected] = next(iter(right)) if task.kind == "one_of" else _in_order(task, right)
    return cells


def _in_order(task: Task, values: Values) -> list[float | None]:
    return [values.get(label) for label in task.label_names]


def record_ids(body: bytes) -> tuple[str, ...]:
    """Return the ids of the records in a file.

    Raises:
        FeedbackError: if it is no file of feedback.
    """
    return tuple(str(cells["id"]) for cells in _read(body, ("id",)))


def decode(body: bytes) -> list[Record]:
    """Return the rows of a batch of any type, or of a file of an export, each checked.

    Raises:
        FeedbackError: if it is neither, of another version, or too large.
    """
    return [_trace(cells) if "attempt" in cells else _record(cells) for cells in _read(body)]


def _read(body: bytes, names: Sequence[str] = ()) -> Iterator[Cells]:
    """Yield rows with the columns ``names``, all if empty, and those of an export, a few at a time."""
    with _hub_errors(), pq.ParquetFile(pa.BufferReader(body)) as file:
        found = file.schema_arrow.names
        columns, schema = (TRACE_COLUMNS, TRACE_SCHEMA) if "attempt" in found else (COLUMNS, EXPORT_SCHEMA)
        if missing := [name for name in columns if name not in found and name not in LATER_COLUMNS]:
            raise FeedbackError(
                "This is not a feedback file: the column {name} is missing.", code="column", name=missing[0]
            )
        if file.metadata.num_rows > MOST_ROWS:
            raise FeedbackError(
                "A feedback file can have at most {limit:,} rows; this file has {count:,}.",
                code="rows", limit=MOST_ROWS, count=file.metadata.num_rows,
            )  # fmt: skip
        chosen = [name for name in schema.names if name in found and name in (names or schema.names)]
        wanted = pa.schema([schema.field(name) for name in chosen])
        size = 0
        for batch in file.iter_batches(_READ_ROWS, columns=wanted.names):
            size += batch.nbytes
            if size > MOST_BYTES:
                raise FeedbackError(
                    "The rows of a feedback file can have at most {limit} MiB. Split the file.",
                    code="bytes",
                    limit=MOST_BYTES >> 20,
                )
            yield from pa.Table.from_batches([batch]).select(wanted.names).cast(wanted).to_pylist()


@contextmanager
def _hub_errors() -> Iterator[None]:
    try:
        yield
    except FeedbackError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise FeedbackError(
            "This is not a feedback file in Parquet format, or it is damaged.", code="parquet"
        ) from error


def _record(cells: Cells) -> FeedbackRecord:
    """Check one row; every value is foreign."""
    if cells["schema_version"] != SCHEMA_VERSION:
        raise FeedbackError(
            "A row has schema version {version}; this program reads version {known}.",
            code="row_version", version=repr(cells["schema_version"]), known=SCHEMA_VERSION,
        )  # fmt: skip
    created, box, scopes, picture = cells["created"], cells["box"], cells["consent_scopes"], cells["image"]
    texts = [
        name
        for name in _SAME
        if name not in ("face", "consent_scopes", "blind") and not isinstance(cells[name], str)
    ]
    if (
        texts
        or not isinstance(created, datetime)
        or not isinstance(box, list)
        or None in box
        or not isinstance(cells["face"], int)
    ):
        raise FeedbackError(
            "A row has no valid value for {names}.",
            code="row_cell",
            names=", ".join(texts) or "created, face, box",
        )
    crop = picture.get("bytes") if isinstance(picture, dict) else None
    of_tasks = [(task, columns_of(task)) for task in TASKS]
    return FeedbackRecord(
        **{name: cells[name] for name in _SAME if name not in ("consent_scopes", "blind")},  # type: ignore[arg-type]  # checked above
        box_xyxy=cast("tuple[float, float, float, float]", tuple(box)),
        span_s=tuple(
            cast("float", cells[name]) for name in ("span_start_s", "span_end_s") if cells[name] is not None
        ),
        predicted={
            task.name: values for task, names in of_tasks if (values := _numbers(task, cells[names[0]]))
        },
        provenance={
            task.name: str(cells[names[1]]) for task, names in of_tasks if cells[names[1]] is not None
        },
        corrected={
            task.name: values for task, names in of_tasks if (values := _answer(task, cells[names[2]]))
        },
        consent_scopes=tuple(map(str, cast("list[str]", scopes or []))),
        blind=bool(cells.get("blind")),
        created_s=created.timestamp(),
        review=cast("Review", str(cells.get("review") or "")),
        crop=crop if isinstance(crop, bytes) else b"",
        tier=str(cells.get("tier") or ""),
    )


def _trace(cells: Cells) -> TraceRecord:
    """Check one row of a file of traces; every value is foreign."""
    created, same = cells["created"], {name: cells[name] for name in _SAME_OF_TRACE}
    texts = [cells[name] for name in ("id", "item", "contributor", "clip", "consent_version")]
    lists = [cells[name] for name in ("times_s", "values", "consent_scopes")]
    if (
        cells["schema_version"] != SCHEMA_VERSION
        or not all(isinstance(text, str) for text in texts)
        or not all(isinstance(values, list) and None not in values for values in lists)
        or not isinstance(created, datetime)
        or None in (cells["face"], cells["span_start_s"], cells["span_end_s"])
    ):
        raise FeedbackError("A row has no valid value for {names}.", code="row_cell", names="a trace")
    span_s = (cells["span_start_s"], cells["span_end_s"])
    return from_json(TraceRecord, same, span_s=span_s, created_s=created.timestamp())  # type: ignore[arg-type]


def _answer(task: Task, value: Cell) -> Values:
    """Return the labels that were judged."""
    if task.kind != "one_of" or value is None:
        return _numbers(task, value)
    if value not in task.label_names:
        raise FeedbackError(
            "{task} must be one of {names}.", code="label", task=task.title, names=", ".join(task.label_names)
        )
    return {str(value): 1.0}


def _numbers(task: Task, value: Cell) -> Values:
    """Return the numbers of a list in the order of a task's labels, by label, without those that are null."""
    if value is None:
        return {}
    if not isinstance(value, list) or len(value) != len(task.labels):
        raise FeedbackError(
            "A row must have {count} numbers for {task}.",
            code="row_numbers",
            task=task.title,
            count=len(task.labels),
        )
    values = {
        label: number for label, number in zip(task.label_names, value, strict=True) if number is not None
    }
    if not all(task.low - _ROUNDING <= number <= task.high + _ROUNDING for number in values.values()):
        raise FeedbackError(
            "The values for {task} must be from {low:g} to {high:g}.",
            code="row_range",
            task=task.title,
            low=task.low,
            high=task.high,
        )
    return values
