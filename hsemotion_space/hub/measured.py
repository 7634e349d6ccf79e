"""What was measured of a checkpoint on held-out pictures, as a manifest has it."""

from __future__ import annotations

from collections.abc import Mapping

from hsemotion_space.hub.source import CheckpointError
from hsemotion_space.tasks import Task
from hsemotion_space.types import NOT_MEASURED, Reliability


def read_reliability(table: Mapping[str, object], task: Task, where: str) -> Reliability:
    """Return the ``reliability`` of an entry of ``[[heads]]``; an empty value if it was not measured.

    Args:
        table: the entry.
        task: with the labels of the checkpoint.
        where: the entry, for messages.

    Raises:
        CheckpointError: if the counts are not one pair per label.
    """
    given = table.get("reliability")
    if given is None:
        return NOT_MEASURED
    if not isinstance(given, Mapping):
        raise CheckpointError(f"{where} reliability must be a table, got {given!r}.")
    counts = []
    for key in ("right", "answers"):
        row = given.get(key)
        if not isinstance(row, list) or len(row) != len(task.labels) or any(type(count) is not int for count in row):
            raise CheckpointError(f"{where} reliability needs {len(task.labels)} counts for {key!r}, got {row!r}.")
        counts.append(tuple(row))
    try:
        return Reliability(counts[0], counts[1], str(given.get("pictures", "")))
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def read_support(table: Mapping[str, object], task: Task, where: str) -> float:
    """Return the ``least_support`` of an entry of ``[[heads]]``; 0 if it was not measured.

    Raises:
        CheckpointError: if it is no probability that two labels can have at once, or the labels have no parts.
    """
    least = table.get("least_support", 0.0)
    if not isinstance(least, int | float) or not 0 <= least <= 0.5 or (least and not task.none):
        raise CheckpointError(f"{where} least_support must be from 0 to 0.5, for labels with parts, got {least!r}.")
    return float(least)


def read_least_length(table: Mapping[str, object]) -> float:
    """Return ``least_length`` of the table ``[faces]`` of a manifest; 0 if it was not measured.

    Raises:
        CheckpointError: if it is no positive number.
    """
    faces = table.get("faces", {})
    least = faces.get("least_length", 0.0) if isinstance(faces, Mapping) else None
    if not isinstance(least, int | float) or not 0 <= least < float("inf"):
        raise CheckpointError(f"[faces] least_length must be a length of embeddings, got {least!r}.")
    return float(least)
