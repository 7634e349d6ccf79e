"""Feedback as training data: crops with what people say they show, for backbones and, written as files, for heads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.record import TIERS, FeedbackError, FeedbackRecord
from hsemotion_space.tasks import ACTION_UNITS, CHALLENGE, EXPRESSION, OTHER, VALENCE_AROUSAL, Task, get_task
from hsemotion_space.training.data import DataError, split_of
from hsemotion_space.training.formats.affwild2 import write_labels
from hsemotion_space.training.formats.samples import FaceSample
from hsemotion_space.training.series import DEFAULT_THRESHOLD, Series
from hsemotion_space.types import FloatArray

SURE_TIERS: Final = TIERS[1:]
FACES, LABELS = "faces", "labels"
SUFFIX: Final = ".parquet"


def read_rows(places: Sequence[Path], tiers: Collection[str] = SURE_TIERS) -> list[FeedbackRecord]:
    """Return the rows with a picture of exports or batches: what each contributor said last about each item.

    Args:
        places: Parquet files, or folders with some at any depth.
        tiers: which ones; the rows of a batch have none and count as ``raw``.

    Raises:
        DataError: if a tier is unknown or a file cannot be used.
    """
    if unknown := sorted(set(tiers) - set(TIERS)):
        raise DataError(f"There is no tier {unknown[0]!r}; the tiers are {', '.join(TIERS)}.")
    last: dict[tuple[str, str], FeedbackRecord] = {}
    for file in _files(places):
        try:
            rows = decode(file.read_bytes())
        except (OSError, FeedbackError) as error:
            raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        for row in rows:
            known = last.get((row.contributor, row.item))
            if known is None or known.created_s <= row.created_s:
                last[row.contributor, row.item] = row
    return [row for row in last.values() if row.crop and (row.tier or TIERS[0]) in tiers]


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield from sorted(place.rglob(f"*{SUFFIX}")) if place.is_dir() else [place]


def said(row: FeedbackRecord, task: Task) -> FloatArray:
    """Return what a row says about a task: (K,), NaN for labels that were not judged.

    Besides corrections, the most probable class counts if the verdict is ``correct``, nothing is named that it is about, and the head
    that predicted it was trained.
    """
    values = row.corrected.get(task.name, {})
    predicted = row.predicted.get(task.name, {})
    whole = row.verdict == "correct" and not row.corrected
    if predicted and whole and task.kind == "one_of" and row.provenance.get(task.name) == "trained":
        values = {max(predicted, key=lambda label: predicted[label]): 1.0}
    if values and task.kind == "one_of":
        values = dict.fromkeys(task.label_names, 0.0) | dict(values)
    return np.array([values.get(label, np.nan) for label in task.label_names], np.float32)


def read_feedback(places: Sequence[Path], tuning: float, tiers: Collection[str] = SURE_TIERS) -> Iterator[FaceSample]:
    """Yield the faces of exports or batches, grouped by contributor, so that nobody's faces are on two sides of a split.

    A face that several contributors judged stays on the side that is most held out; what those on the other sides say about it is
    left out, so that no face is on two sides either.

    Args:
        places: Parquet files, or folders with some.
        tuning: share of the contributors in the tuning split.
        tiers: which rows.

    Raises:
        DataError: if a tier is unknown or a file cannot be used.
    """
    rows = read_rows(places, tiers)
    sides = {row.contributor: split_of(row.contributor.encode(), None, tuning) for row in rows}
    held: dict[str, int] = {}
    for row in rows:
        held[row.item] = max(held.get(row.item, 0), sides[row.contributor])
    for row in rows:
        if sides[row.contributor] == held[row.item]:
            yield _sample(row)


def _sample(row: FeedbackRecord) -> FaceSample:
    expression, affect, units = (said(row, task) for task in (EXPRESSION, VALENCE_AROUSAL, ACTION_UNITS))
    return FaceSample(
        row.crop,
        None,
        None if np.isnan(expression).any() else int(expression.argmax()),
        None if np.isnan(affect).any() else (float(affect[0]), float(affect[1])),
        None if np.isnan(units).any() else tuple((units >= DEFAULT_THRESHOLD).astype(int).tolist()),
        "train",
        row.contributor,
    )


def unpack(places: Sequence[Path], folder: Path, tiers: Collection[str] = SURE_TIERS) -> dict[str, int]:
    """Write feedback in the layout of Aff-Wild2, one "video" per contributor, for ``learn features`` and ``learn head``.

    ``faces/<contributor>/<number>.png`` are the crops and ``labels/<task>/<contributor>.txt`` the labels of the tasks that judge single
    pictures. A row with a label that was not judged is not annotated, and units count from half of their range.

    Args:
        places: Parquet files, or folders with some.
        folder: must not exist, or be empty.
        tiers: which rows.

    Returns:
        The number of labeled crops by task.

    Raises:
        DataError: if a tier is unknown, a file cannot be used, or the folder is not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"The folder {folder} is not empty; choose a new one.")
    people: dict[str, list[FeedbackRecord]] = {}
    for row in sorted(read_rows(places, tiers), key=lambda row: row.item):
        people.setdefault(_folder_name(row.contributor), []).append(row)
    for name, rows in people.items():
        (folder / FACES / name).mkdir(parents=True)
        for number, row in enumerate(rows, 1):
            (folder / FACES / name / f"{number:05}.png").write_bytes(row.crop)
    counts = {}
    for task in CHALLENGE:
        series = [made for name, rows in people.items() if len((made := _series(task, name, rows)).known)]
        if task.scope == "frame" and series:
            write_labels(folder / LABELS / task.name, task, series)
            counts[task.name] = sum(len(one.known) for one in series)
    return counts


def _folder_name(contributor: str) -> str:
    if not (contributor.isascii() and contributor.isalnum()):
        raise DataError(f"{contributor[:40]!r} is no pseudonym of a contributor; it must be letters and digits.")
    return contributor


def _series(task: Task, name: str, rows: Sequence[FeedbackRecord]) -> Series:
    """Return the labels of one contributor in the form of the challenge."""
    values = np.stack([_challenge_values(task, row) for row in rows])
    return Series(name, np.arange(1, len(rows) + 1), values)


def _challenge_values(task: Task, row: FeedbackRecord) -> FloatArray:
    own = get_task(task.name)
    values = said(row, own)
    if np.isnan(values).any():
        return np.full(1 if task.kind == "one_of" else len(task.labels), np.nan, np.float32)
    if task.kind == "one_of":
        chosen = own.label_names[int(values.argmax())]
        return np.array([task.index(chosen if chosen in task.label_names else OTHER.name)], np.float32)
    return (values >= DEFAULT_THRESHOLD).astype(np.float32) if task.kind == "independent" else values
