"""Feedback as training data: published Parquet files, read as ``docs/feedback-dataset.md`` says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from hsemotion_space.tasks import CHALLENGE, EXPRESSION, OTHER, TASKS, VALENCE_AROUSAL, Task, get_task
from hsemotion_space.training.data import split_of
from hsemotion_space.training.files import DataError, located, reading, unexpected
from hsemotion_space.training.formats.annotations import write_labels
from hsemotion_space.training.formats.samples import FaceSample
from hsemotion_space.training.series import DEFAULT_THRESHOLD, Series
from hsemotion_space.types import FloatArray

TIERS: Final = ("raw", "agreed", "reviewed")
DEFAULT_TIERS: Final = TIERS[1:]
SCHEMA_VERSION: Final = 1
COLUMNS: Final = ("item", "contributor", "created", "schema_version", "image", "verdict")
"""Columns that every file has; those of a task are read where they are."""
FACES, LABELS = "faces", "labels"
ROUNDING: Final = 1e-5

Cells = Mapping[str, Any]  # one row, as pyarrow gives it


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """What one contributor says about one face.

    Attributes:
        item: equal for everybody who judged the same face.
        contributor: pseudonym, letters and digits.
        created_s: UTC, in seconds since 1970.
        tier: one of ``TIERS``; ``raw`` in a published batch.
        crop: encoded picture of the face; empty if the contributor did not give it.
        labels: (K,) by task, in its range; NaN for each label that was not judged.
    """

    item: str
    contributor: str
    created_s: float
    tier: str
    crop: bytes
    labels: Mapping[str, FloatArray]


def read_rows(paths: Sequence[Path], tiers: Collection[str] = DEFAULT_TIERS) -> list[FeedbackRow]:
    """Return the rows with a picture of some tiers: the latest of each contributor about each item.

    ``paths`` are exports or batches: Parquet files, or folders that contain some at any depth.
    """
    if unknown := sorted(set(tiers) - set(TIERS)):
        raise DataError(
            "The tier {tier!r} is unknown; use {tiers}.", code="tier", tier=unknown[0], tiers=", ".join(TIERS)
        )
    latest: dict[tuple[str, str], FeedbackRow] = {}
    for file in (
        file for path in paths for file in (sorted(path.rglob("*.parquet")) if path.is_dir() else [path])
    ):
        for row in _read_file(file):
            known = latest.get((row.contributor, row.item))
            if known is None or known.created_s <= row.created_s:
                latest[row.contributor, row.item] = row
    return [row for row in latest.values() if row.crop and row.tier in tiers]


def _read_file(file: Path) -> Iterator[FeedbackRow]:
    with reading(file, "feedback file"), pq.ParquetFile(file) as table:
        if missing := [name for name in COLUMNS if name not in table.schema_arrow.names]:
            raise DataError(
                "{file} is not a feedback file: the column {name} is missing.",
                code="columns",
                file=file,
                name=missing[0],
            )
        rows = (cells for batch in table.iter_batches(64) for cells in batch.to_pylist())
        for number, cells in enumerate(rows, 1):
            with located(f"{file}, row {number}"):
                yield _row(cells)


def _row(cells: Cells) -> FeedbackRow:
    if cells["schema_version"] != SCHEMA_VERSION:
        raise unexpected(f"schema version {SCHEMA_VERSION}", str(cells["schema_version"]), "version")
    item, contributor = (str(cells[name] or "") for name in ("item", "contributor"))
    # a contributor becomes the name of a folder
    if not (item and contributor.isascii() and contributor.isalnum()):
        raise unexpected(
            "an item, and a contributor of letters and digits", f"{item}, {contributor}", "identity"
        )
    tier = str(cells.get("tier") or TIERS[0])
    crop = (cells["image"] or {}).get("bytes") or b""
    labels = {task.name: _labels(cells, task) for task in TASKS}
    return FeedbackRow(item, contributor, cells["created"].timestamp(), tier, crop, labels)


def _labels(cells: Cells, task: Task) -> FloatArray:
    """Return (K,) corrections.

    The verdict ``correct`` without any correction confirms the most probable class of a trained head; numbers
    that nobody moved are not confirmed.
    """
    values = _numbers(task, cells.get(f"corrected_{task.name}"))
    if (
        task.kind != "one_of"
        or not np.isnan(values).all()
        or cells["verdict"] != "correct"
        or _is_corrected(cells)
    ):
        return values
    predicted = cells.get(f"predicted_{task.name}")
    if predicted is None or cells.get(f"predicted_{task.name}_provenance") != "trained":
        return values
    return _one_hot(task, int(np.nanargmax(np.array(predicted, np.float32))))


def _is_corrected(cells: Cells) -> bool:
    return any(not np.isnan(_numbers(task, cells.get(f"corrected_{task.name}"))).all() for task in TASKS)


def _numbers(task: Task, value: object) -> FloatArray:
    if value is None:
        return np.full(len(task.labels), np.nan, np.float32)
    if task.kind == "one_of":
        if value not in task.label_names:
            raise unexpected(f"one of {', '.join(task.label_names)} for {task.title}", str(value), "label")
        return _one_hot(task, task.index(str(value)))
    values = np.array(value, np.float32)
    if (
        values.shape != (len(task.labels),)
        or (values < task.low - ROUNDING).any()
        or (values > task.high + ROUNDING).any()
    ):
        raise unexpected(
            f"{len(task.labels)} numbers from {task.low:g} to {task.high:g} for {task.title}",
            str(value),
            "numbers",
        )
    return np.clip(values, task.low, task.high)


def _one_hot(task: Task, column: int) -> FloatArray:
    values = np.zeros(len(task.labels), np.float32)
    values[column] = 1
    return values


def read_feedback(
    paths: Sequence[Path], tuning: float, tiers: Collection[str] = DEFAULT_TIERS
) -> Iterator[FaceSample]:
    """Yield the faces of :func:`read_rows` by contributor, so that a contributor is in one split only.

    A face that several contributors judged stays in the split that is most held out; labels by contributors
    of the others are left out, so that a face is in one split only as well. ``tuning`` is a share of the
    contributors.
    """
    rows = read_rows(paths, tiers)
    splits = {row.contributor: split_of(row.contributor.encode(), None, tuning) for row in rows}
    most_held_out: dict[str, int] = {}
    for row in rows:
        most_held_out[row.item] = max(most_held_out.get(row.item, 0), splits[row.contributor])
    for row in rows:
        if splits[row.contributor] == most_held_out[row.item]:
            yield _sample(row)


def _sample(row: FeedbackRow) -> FaceSample:
    expression, affect = (row.labels[task.name] for task in (EXPRESSION, VALENCE_AROUSAL))
    return FaceSample(
        row.crop,
        None,
        None if np.isnan(expression).any() else int(expression.argmax()),
        None if np.isnan(affect).any() else (float(affect[0]), float(affect[1])),
        "train",
        row.contributor,
    )


def unpack(paths: Sequence[Path], folder: Path, tiers: Collection[str] = DEFAULT_TIERS) -> dict[str, int]:
    """Write feedback in the layout of Aff-Wild2, one "video" per contributor, for features and heads.

    ``faces/<contributor>/<number>.png`` are the crops and ``labels/<task>/<contributor>.txt`` the labels of
    frame-level tasks. A row with a label that was not judged is not annotated, and units are present from
    half of their range. Returns the number of labeled crops by task.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            "The folder {folder} is not empty; choose a new one.", code="not_empty", folder=folder
        )
    people: dict[str, list[FeedbackRow]] = {}
    for row in sorted(read_rows(paths, tiers), key=lambda row: row.item):
        people.setdefault(row.contributor, []).append(row)
    for name, rows in people.items():
        (folder / FACES / name).mkdir(parents=True)
        for number, row in enumerate(rows, 1):
            (folder / FACES / name / f"{number:05}.png").write_bytes(row.crop)
    counts = {}
    for task in (task for task in CHALLENGE if task.scope == "frame"):
        tables = {
            name: np.stack([_challenge_values(task, row) for row in rows]) for name, rows in people.items()
        }
        labeled = [
            Series(name, np.arange(1, len(values) + 1), values)
            for name, values in tables.items()
            if not np.isnan(values).all()
        ]
        if labeled:
            write_labels(folder / LABELS / task.name, task, labeled)
            counts[task.name] = sum(len(series.known) for series in labeled)
    return counts


def _challenge_values(task: Task, row: FeedbackRow) -> FloatArray:
    """Return the labels of a row as a label file has them; NaN unless every label was judged."""
    own = get_task(task.name)
    values = row.labels[task.name]
    if np.isnan(values).any():
        return np.full(1 if task.kind == "one_of" else len(task.labels), np.nan, np.float32)
    if task.kind == "one_of":
        name = own.label_names[int(values.argmax())]
        return np.array([task.index(name if name in task.label_names else OTHER.name)], np.float32)
    return (values >= DEFAULT_THRESHOLD).astype(np.float32) if task.kind == "independent" else values
