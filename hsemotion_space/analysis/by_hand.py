"""What an export has of changes made by hand: names, values relative to a person's own neutral, markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hsemotion_space.edits import Edits
from hsemotion_space.tasks import Task
from hsemotion_space.types import FloatArray, Timeline

NAME_COLUMN: Final = "face.name"
NAME_ABOUT: Final = ("string", "Name of the face, given by hand; no column if no face has one.")
RELATIVE: Final = ".relative"
"""Ending of the column with the difference of a value from that of the person's own neutral."""


def name_cell(edits: Edits, number: int) -> list[tuple[str, str]]:
    """Return the column of the name of a face and its text; nothing without a name."""
    return [(NAME_COLUMN, edits.names[number])] if number in edits.names else []


def relative_about(task: Task, columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return type and meaning of the columns that only a face with a marked neutral has.

    Args:
        task: of the labels.
        columns: those of its labels.
    """
    if task.kind == "one_of" or task.scope == "clip":
        return {}
    about = {
        f"{column}{RELATIVE}": ("float32", f"{name} minus its value at the person's own neutral.")
        for column, name in zip(columns, task.label_names, strict=True)
    }
    words = f"{task.title}, relative to the person's own neutral: trained, rule or prior."
    return about | {f"{task.name}{RELATIVE}.provenance": ("string", words)}


def relative(line: Timeline, columns: Sequence[str]) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Return the values (T,) of the columns of :func:`relative_about`, and the texts that hold for all rows.

    Both are empty if the neutral of the person is not marked.
    """
    if not len(line.neutral):
        return {}, {}
    names = [f"{column}{RELATIVE}" for column in columns]
    words = f"{line.provenance}, relative to your neutral"
    values = dict(zip(names, (line.values - line.neutral).T, strict=True))
    return values, {f"{line.task.name}{RELATIVE}.provenance": words}


def describe_face(edits: Edits, number: int) -> dict[str, str | float]:
    """Return the name of a face and its neutral moment in s, as far as they were given by hand."""
    name = {"name": edits.names[number]} if number in edits.names else {}
    return name | ({"neutral_time_s": edits.neutral_s[number]} if number in edits.neutral_s else {})


def describe_neutral(line: Timeline) -> dict[str, list[float]]:
    """Return the values of the person's own neutral, if it is marked."""
    return {"neutral": line.neutral.tolist()} if len(line.neutral) else {}


def describe_markers(edits: Edits) -> list[dict[str, str | float]]:
    """Return the markers as rows of kind, start and end in s, and label."""
    return [
        {"kind": mark.kind, "start_s": mark.start_s, "end_s": mark.end_s, "label": mark.label}
        for mark in edits.markers
    ]
