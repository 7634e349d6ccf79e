"""How far contributors agree: Krippendorff's alpha for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from krippendorff import alpha

from hsemotion_space.feedback.quality import votes
from hsemotion_space.feedback.records import StoredRecord, Values
from hsemotion_space.tasks import TASKS, Task

STEP: Final = 0.01  # to which numbers are rounded, so that the size of the computation does not grow with the number of votes
ALONE: Final = "No item was judged by two people."
ONE_ANSWER: Final = "All gave the same answer; alpha needs at least two different ones."


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement on one task, or on one label of it.

    Attributes:
        task: name.
        label: name; empty for a task that asks for one of several classes.
        level: ``nominal`` or ``interval``.
        alpha: 1 for full agreement, 0 for that of chance, below for less; None where it is not defined.
        items: number of items that at least two people judged.
        raters: number of people who judged these.
        reason: a sentence why alpha is None, else empty.
    """

    task: str
    label: str
    level: Literal["nominal", "interval"]
    alpha: float | None
    items: int
    raters: int
    reason: str = ""


def agreement(records: Sequence[StoredRecord]) -> tuple[Agreement, ...]:
    """Return the agreement on every task: one for classes, one per dimension, unit or intensity.

    A vote is the newest statement of a contributor about an item, as in ``quality``; that something is not a face says nothing here.
    Whether a unit is present is nominal, dimensions and intensities are interval.
    """
    given = votes(records)
    found: list[Agreement] = []
    for task in TASKS:
        answers = [
            {vote.one.record.contributor: vote.answers[task.name] for vote in item if vote.answers.get(task.name)}
            for item in given.values()
        ]
        labels = ("",) if task.kind == "one_of" else task.label_names
        found.extend(_agreement(task, label, [_ratings(task, label, item) for item in answers]) for label in labels)
    return tuple(found)


def _ratings(task: Task, label: str, answers: Mapping[str, Values]) -> Mapping[str, float]:
    """Return a number for every contributor who judged a label of one item."""
    if not label:
        return {contributor: float(task.index(next(iter(values)))) for contributor, values in answers.items()}
    numbers = {contributor: values[label] for contributor, values in answers.items() if label in values}
    if _level(task) == "nominal":
        return {contributor: float(number >= (task.low + task.high) / 2) for contributor, number in numbers.items()}
    return {contributor: round(number / STEP) * STEP for contributor, number in numbers.items()}


def _level(task: Task) -> Literal["nominal", "interval"]:
    return "nominal" if task.kind == "one_of" or (task.kind == "independent" and task.scope == "frame") else "interval"


def _agreement(task: Task, label: str, ratings: Sequence[Mapping[str, float]]) -> Agreement:
    shared = [item for item in ratings if len(item) > 1]
    raters = len({contributor for item in shared for contributor in item})
    domain = sorted({number for item in shared for number in item.values()})
    level = _level(task)
    if len(domain) < 2:
        return Agreement(task.name, label, level, None, len(shared), raters, ONE_ANSWER if domain else ALONE)
    column = {number: place for place, number in enumerate(domain)}
    counts = np.zeros((len(shared), len(domain)), np.int64)
    for row, item in enumerate(shared):
        for number in item.values():
            counts[row, column[number]] += 1
    value = alpha(value_counts=counts, value_domain=domain, level_of_measurement=level)
    return Agreement(task.name, label, level, float(value), len(shared), raters)
