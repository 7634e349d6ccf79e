"""The columns of exported tables: their names, types and meanings; ``docs/export.md`` describes them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hsemotion_space.analysis import by_hand
from hsemotion_space.tasks import TASKS, Task

SCHEMA_VERSION: Final = 2
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Column = tuple[str, str]
"""Arrow type and meaning."""

HEAD: Final[dict[str, Column]] = {
    "media_sha256": ("string", "SHA-256 of the bytes of the media file."),
    "media_kind": ("string", "image or clip."),
    "source": ("string", "A label given by the exporter, such as the file name; may be empty."),
    "frame_index": (
        "int64",
        "Index of the frame in decoding order; empty for a frame that only smoothing filled in.",
    ),
    "time_s": ("float64", "Presentation time of the frame in seconds, 0 for an image."),
    "shot": ("int64", "Number of the shot, from 1; every hard cut of a clip starts a new one."),
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
    "face_side_px": ("float32", "Shorter side of the face box."),
    "face_outside": ("float32", "Share of the box that lies outside the picture, 0 to 1."),
    "sharpness": (
        "float32",
        "Fine detail of the face in its surest frame, 0 for none. The same in every row of the face.",
    ),
    "yaw": ("float32", "How far the nose is off center, in distances of the eyes; 0 for a frontal face."),
    "pitch": (
        "float32",
        "How far the nose is down from the eyes to the mouth; about 0.55 for a frontal face.",
    ),
    "roll_deg": ("float32", "Tilt of the head: angle of the line of the eyes in degrees."),
}
TAIL: Final[dict[str, Column]] = {
    "checkpoint_id": ("string", "The checkpoint that made the values."),
    "checkpoint_sha256": ("string", "SHA-256 of its weights file."),
    "heads_sha256": ("string", "SHA-256 of its file of heads; empty if it has none."),
    "checkpoint_license": ("string", "License of the weights and terms of their use."),
    "schema_version": (
        "int64",
        "Version of this table; changes when a column is added or changes its name or meaning.",
    ),
}


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


def top_columns(task: Task) -> tuple[str, str] | None:
    """Return the columns of the most probable label and of its lead; None for a task without one per row."""
    one_per_row = task.kind == "one_of" and task.scope == "frame"
    return (f"{task.name}.top", f"{task.name}.top.lead") if one_per_row else None


def smoothing_column(task: Task) -> str:
    """Return the column of the half width of the smoothing window."""
    return f"{task.name}.smoothing_s"


def precision_columns(task: Task) -> tuple[tuple[str, str], ...]:
    """Return pairs of columns: the share of such answers that was right, and the number it rests on.

    A ``one_of`` task has one pair, about the most probable label of the row; an independent one has a pair
    per label, about its presence.
    """
    if task.kind == "continuous" or task.scope == "clip":
        return ()
    top = top_columns(task)
    answers = [top[0]] if top else label_columns(task)
    return tuple((f"{answer}.precision", f"{answer}.answers") for answer in answers)


def _precision_about(task: Task) -> dict[str, Column]:
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


def _task_columns(task: Task) -> dict[str, Column]:
    what = f"{task.low:g} to {task.high:g}" + (
        ", the same in every row of the face" if task.scope == "clip" else ""
    )
    columns: dict[str, Column] = {
        label_column(task, label.name): ("float32", f"{label.description} {what}.") for label in task.labels
    }
    if top := top_columns(task):
        columns[top[0]] = ("string", f"{task.title}: the most probable label.")
        columns[top[1]] = ("float32", f"{task.title}: the largest value minus the second largest.")
    if task.none:
        columns[finding_column(task)] = (
            "string",
            f"{task.title}: the label that stands out; empty if none does.",
        )
    columns |= _precision_about(task)
    if task.scope == "frame":
        about = f"{task.title}: half width of the smoothing window in seconds; 0 for values as measured."
        columns[smoothing_column(task)] = ("float32", about)
    columns[provenance_column(task)] = (
        "string",
        f"{task.title}: trained, rule (not trained) or prior (unvalidated).",
    )
    return columns | by_hand.relative_about(task, label_columns(task))


COLUMNS: Final[dict[str, Column]] = (
    HEAD
    | {by_hand.NAME_COLUMN: by_hand.NAME_ABOUT}
    | {name: about for task in TASKS for name, about in _task_columns(task).items()}
    | TAIL
)
"""Every column a table can have, in its order.

A file has the columns of the tasks and labels present in it.
"""


def table_schema() -> dict[str, Json]:
    """Return the description of a CSV table as a Table Schema of the Data Package standard, version 2.

    It lists every column; a table has only some of them (``fieldsMatch``).
    """
    types = {"string": "string", "int64": "integer", "float32": "number", "float64": "number"}
    bounds = {
        label_column(task, name): {"minimum": task.low, "maximum": task.high}
        for task in TASKS
        for name in task.label_names
    }
    fields: list[Json] = []
    for name, (kind, about) in COLUMNS.items():
        field: dict[str, Json] = {"name": name, "type": types[kind], "description": about}
        fields.append(field | ({"constraints": bounds[name]} if name in bounds else {}))
    return {
        "$schema": "https://datapackage.org/profiles/2.0/tableschema.json",
        "title": "HSEmotion Space: one row per face and analyzed frame",
        "version": SCHEMA_VERSION,
        "fieldsMatch": "superset",
        "missingValues": [""],
        "fields": fields,
    }
