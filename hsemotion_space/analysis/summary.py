"""One row per face of an analysis: means, shares of the time, number of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from hsemotion_space.analysis.events import events, shares
from hsemotion_space.analysis.export import label_column
from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis, FaceResult

Person = Mapping[str, str | int | float | None]
"""A row: values by the names of ``SUMMARY_COLUMNS``; columns of tasks that were not predicted are absent."""


def _task_columns(task: Task) -> dict[str, tuple[str, str]]:
    columns = {}
    for label in task.labels:
        name = label_column(task, label.name)
        columns[f"{name}.mean"] = ("float32", f"Mean of {label.name}.")
        columns[f"{name}.sd"] = ("float32", f"Standard deviation of {label.name}; empty for one frame.")
        if task.scope == "frame" and task.kind != "continuous":
            columns[f"{name}.share"] = ("float32", f"Share of the visible time in which {label.name} holds.")
            columns[f"{name}.events"] = (
                "int64",
                f"Number of stretches of 0.3 s or more in which {label.name} holds.",
            )
    return columns


SUMMARY_COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "source": ("string", "Name of the input, as in the table of frames."),
    "media_sha256": ("string", "SHA-256 of the bytes of the media file."),
    "media_kind": ("string", "image or clip."),
    "duration_s": (
        "float64",
        "Presentation time in seconds up to which the clip was analyzed; 0 for an image.",
    ),
    "track_id": ("int64", "Number of the face, as in the table of frames."),
    "first_s": ("float64", "Presentation time in seconds at which the face is seen first."),
    "last_s": ("float64", "Presentation time in seconds at which it is seen last."),
    "frames": ("int64", "Number of frames in which it was detected."),
    "face_doubt": ("string", "Why this may be no face; empty if nothing speaks against it."),
    "checkpoint_id": ("string", "The checkpoint that made the values."),
} | {name: about for task in TASKS for name, about in _task_columns(task).items()}
"""Every column a summary can have, in its order: Arrow type and meaning."""


def schema_of(columns: Mapping[str, tuple[str, str]]) -> pa.Schema:
    """Return the Arrow schema of columns that are given as Arrow type and meaning."""
    return pa.schema(
        [
            pa.field(
                name,
                pa.list_(pa.string()) if kind == "list<string>" else pa.type_for_alias(kind),
                metadata={"description": about},
            )
            for name, (kind, about) in columns.items()
        ]
    )


SUMMARY_SCHEMA: Final = schema_of(SUMMARY_COLUMNS)


def summarize(analysis: Analysis, source: str) -> list[Person]:
    """Return a row per face, of values as smoothed; empty for an analysis without a face.

    A label holds where it is the most probable one, or reaches its threshold
    (:func:`hsemotion_space.analysis.events.active`).
    """
    return [_person(analysis, face, source) for face in analysis.faces]


def _person(analysis: Analysis, face: FaceResult, source: str) -> Person:
    track, found = face.track, doubt(face)
    row: dict[str, str | int | float | None] = {
        "source": source, "media_sha256": analysis.media.sha256, "media_kind": analysis.media.kind,
        "duration_s": analysis.media.duration_s, "track_id": track.track_id,
        "first_s": float(track.times_s[0]), "last_s": float(track.times_s[-1]), "frames": len(track.times_s),
        "face_doubt": found.text if found else "", "checkpoint_id": analysis.checkpoint.id,
    }  # fmt: skip
    for line, mean in zip(face.timelines, face.predictions, strict=True):
        share, happened = shares(line), events(line)
        for column, label in enumerate(line.task.labels):
            name = label_column(line.task, label.name)
            row[f"{name}.mean"] = _number(mean.values[column])
            row[f"{name}.sd"] = _number(mean.spread[column])
            if f"{name}.share" in SUMMARY_COLUMNS:
                row[f"{name}.share"] = _number(share[column])
                row[f"{name}.events"] = (
                    sum(event.column == column for event in happened) if np.isfinite(share[column]) else None
                )
    return row


def _number(value: np.floating) -> float | None:
    """Return the shortest number that reads back as the same float32; None where it is not finite."""
    return float(str(value)) if np.isfinite(value) else None
