"""The columns of published feedback, one set per task, and their schema in the layout that ``datasets`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

import pyarrow as pa

from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import PROVENANCE_WORDS


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
    "4 numbers": _list(_NUMBER, 4),
    "texts": _list(_TEXT),
    "picture": Kind(pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}),
}

_HEAD: Final[Mapping[str, Column]] = {
    "id": Column("text", "32 hexadecimal digits, the name of the statement."),
    "item": Column("text", "32 hexadecimal digits, equal for everybody who judged the same face and time range."),
    "contributor": Column("text", "Pseudonym of who made the statement."),
    "created": Column("time", "UTC, cut to the hour, so that it does not tell who was there."),
    "schema_version": Column("whole number", "Version of these columns; changes when one changes its name or meaning."),
    "kind": Column("text", "image or clip."),
    "face": Column("whole number", "Number of the face, from 1."),
    "box": Column("4 numbers", "Left, top, right and bottom of the face in shares of width and height, 0 to 1."),
    "span_start_s": Column("seconds", "Start of the judged part of a clip; null for a picture and for all of a clip."),
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
    "consent_scopes": Column("texts", "The steps of it that were ticked."),
    "blind": Column("true or false", "Whether it was said before its contributor was shown what is predicted, or any known answer."),
}
LATER_COLUMNS: Final = frozenset({"blind"})
"""Columns that older files lack."""
EXPORT_COLUMNS: Final[Mapping[str, Column]] = {
    "tier": Column("text", "raw, agreed or reviewed; only in exports."),
    "review": Column("text", "Decision of a reviewer, approved or empty; only in exports."),
}


def predicted_column(task: Task) -> str:
    """Return the column of what was predicted for a task."""
    return f"predicted_{task.name}"


def provenance_column(task: Task) -> str:
    """Return the column that says what kind of head predicted a task."""
    return f"predicted_{task.name}_provenance"


def corrected_column(task: Task) -> str:
    """Return the column of what a contributor says would be right."""
    return f"corrected_{task.name}"


def _task_columns(task: Task) -> Mapping[str, Column]:
    labels, scale = ", ".join(task.label_names), f"{task.low:g} to {task.high:g}"
    right = {
        "one_of": Column("text", f"{task.title} that would be right: one of the same labels; null if it was not judged."),
        "continuous": Column("numbers", f"{task.title} that would be right, in the same order and range; null if it was not judged."),
        "independent": Column("numbers", f"{task.title} that would be right; null for each label that was not judged."),
    }
    return {
        predicted_column(task): Column("numbers", f"{task.title}: {labels}; {scale}, null where it was not predicted."),
        provenance_column(task): Column("text", f"{', '.join(PROVENANCE_WORDS)}; null where it was not predicted."),
        corrected_column(task): right[task.kind],
    }


COLUMNS: Final[Mapping[str, Column]] = {**_HEAD, **{name: of for task in TASKS for name, of in _task_columns(task).items()}, **_TAIL}
"""Every column of a batch in its order."""


def _schema(columns: Mapping[str, Column]) -> pa.Schema:
    features = {name: KINDS[column.kind].feature for name, column in columns.items()}
    labels = {task.name: {"version": task.version, "labels": task.label_names} for task in TASKS}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "tasks": json.dumps(labels)}
    return pa.schema([pa.field(name, KINDS[column.kind].arrow) for name, column in columns.items()], metadata)


SCHEMA: Final[pa.Schema] = _schema(COLUMNS)
"""Of a batch. The metadata ``huggingface`` gives ``datasets`` the types, and ``tasks`` has the labels in their order."""
EXPORT_SCHEMA: Final[pa.Schema] = _schema({**COLUMNS, **EXPORT_COLUMNS})
"""Of an export, which says of each row how sure it is."""
