"""How far corrections can be relied on: votes, trust, consensus, and Krippendorff's alpha for each task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from krippendorff import alpha

from hsemotion_space.feedback.record import TIERS, FeedbackRecord, Values, answers_of
from hsemotion_space.tasks import TASKS, Task, get_task

Gold: TypeAlias = Mapping[str, Mapping[str, Values]]
"""Known answers: by item, by task."""

RAW, AGREED, REVIEWED = TIERS
TOLERANCE: Final = 0.15
"""Numbers that differ by so much of the range of their task are the same answer."""
QUORUM: Final = 2  # contributors
# what a newcomer is taken to have answered: one wrong gold answer costs the trust
PRIOR_AGREED, PRIOR_ASKED = 1.4, 2.0
LEAST_TRUST: Final = 0.6
# to which numbers are rounded, so that the size of the computation does not grow with the number of votes
STEP: Final = 0.01
ALONE: Final = "No item was rated by two people."
ONE_ANSWER: Final = "All ratings are equal; alpha needs at least two different ratings."


@dataclass(frozen=True, slots=True)
class Trust:
    """How often a contributor gave the known answer: ``right`` of ``asked``, each a task of a gold item."""

    right: int = 0
    asked: int = 0

    @property
    def share(self) -> float:
        """Share of right answers, 0..1, drawn towards that of a newcomer."""
        return (self.right + PRIOR_AGREED) / (self.asked + PRIOR_ASKED)

    @property
    def enough(self) -> bool:
        """Whether the contributor counts."""
        return self.share >= LEAST_TRUST


@dataclass(frozen=True, slots=True)
class Agreed:
    """The answer to one task of an item.

    Attributes:
        values: by label; of one class, that class with 1; of units, those that the tier was reached for;
            empty for "not a face".
        tier: one of ``TIERS``.
        support: number of contributors who gave it.
    """

    values: Values
    tier: str
    support: int


class Vote(NamedTuple):
    """The newest statement of one contributor about one item, answers by task; empty for "not a face"."""

    record: FeedbackRecord
    answers: Mapping[str, Values]


def votes(records: Sequence[FeedbackRecord]) -> Mapping[str, Sequence[Vote]]:
    """Return by item one vote per contributor: the newest that was neither rejected nor set aside."""
    newest: dict[tuple[str, str], FeedbackRecord] = {}
    for record in records:
        key = (record.item, record.contributor)
        if (
            _counts(record)
            and not record.superseded
            and (key not in newest or newest[key].number < record.number)
        ):
            newest[key] = record
    by_item: dict[str, list[Vote]] = defaultdict(list)
    for (item, _), record in newest.items():
        by_item[item].append(Vote(record, answers_of(record)))
    return by_item


def _counts(record: FeedbackRecord) -> bool:
    return not record.reverted and record.review != "rejected"


def known_answers(records: Sequence[FeedbackRecord]) -> Gold:
    """Return the known answers: statements that a reviewer marked as gold, the newest of each item."""
    return {
        record.item: answers_of(record)
        for record in sorted(records, key=lambda record: record.number)
        if record.gold and _counts(record)
    }


def trust(records: Sequence[FeedbackRecord], gold: Gold) -> Mapping[str, Trust]:
    """Return how far each contributor can be trusted, from their votes on items whose answers are known."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for item, given in votes(records).items():
        for vote in given:
            contributor = vote.record.contributor
            for task, known in gold.get(item, {}).items():
                if task in vote.answers:
                    asked[contributor] += 1
                    right[contributor] += same(get_task(task), vote.answers[task], known)
    return {
        record.contributor: Trust(right[record.contributor], asked[record.contributor]) for record in records
    }


def same(task: Task, first: Values, second: Values) -> bool:
    """Return whether two answers agree on the labels that both judge, at least one unless both are empty."""
    if not first or not second:
        return not first and not second
    if task.kind == "one_of":
        return first.keys() == second.keys()
    both = first.keys() & second.keys()
    return bool(both) and all(_close(task, [first[label], second[label]]) for label in both)


def _close(task: Task, numbers: Sequence[float]) -> bool:
    """Return whether numbers are one answer: for units of a frame on the same side, else near each other."""
    if task.kind == "independent" and task.scope == "frame":
        middle = (task.low + task.high) / 2
        return len({number >= middle for number in numbers}) == 1
    return max(numbers) - min(numbers) <= TOLERANCE * (task.high - task.low) + 1e-9


def consensus(
    records: Sequence[FeedbackRecord], gold: Gold | None = None
) -> Mapping[str, Mapping[str, Agreed]]:
    """Return the answer to every task of every item that anybody judged.

    An approved statement is ``reviewed``, whatever others say before or after, its contributor included;
    ``agreed`` needs two trusted contributors who say the same and none who contradicts; all else is ``raw``.
    Newcomers are trusted, so somebody who makes up contributors can make or prevent ``agreed``, but never
    ``reviewed``.

    Args:
        records: of the store, all of them.
        gold: known answers.
    """
    known = trust(records, gold or {})
    trusted = {contributor for contributor, record in known.items() if record.enough}
    result: dict[str, dict[str, Agreed]] = {}
    for item, given in votes(records).items():
        names = dict.fromkeys(name for vote in given for name in vote.answers)
        if names:
            result[item] = {name: _consensus(get_task(name), given, trusted) for name in names}
    for record in sorted(records, key=lambda record: record.number):
        if record.review == "approved" and not record.reverted:
            for name, values in answers_of(record).items():
                kept = result.setdefault(record.item, {})
                kept[name] = Agreed(values, REVIEWED, 1)
    return result


def _consensus(task: Task, given: Sequence[Vote], trusted: Collection[str]) -> Agreed:
    everybody = [vote.answers[task.name] for vote in given if task.name in vote.answers]
    reliable = [
        vote.answers[task.name]
        for vote in given
        if task.name in vote.answers and vote.record.contributor in trusted
    ]
    values = dict(_shared(task, reliable))
    if values:
        support = sum(any(label in answer for label in values) for answer in reliable)
        return Agreed(values, AGREED, support)
    if len(reliable) >= QUORUM and not any(reliable):
        return Agreed({}, AGREED, len(reliable))
    return _raw(task, everybody)


def _shared(task: Task, answers: Sequence[Values]) -> Iterator[tuple[str, float]]:
    """Yield the labels that a quorum judged in the same way and nobody in another."""
    if not all(answers):
        return
    if task.kind == "one_of":
        if len(answers) >= QUORUM and all(answer.keys() == answers[0].keys() for answer in answers):
            yield from answers[0].items()
        return
    agreed = []
    for label in task.label_names:
        numbers = [answer[label] for answer in answers if label in answer]
        if len(numbers) >= QUORUM and _close(task, numbers):
            agreed.append((label, sum(numbers) / len(numbers)))
    if task.kind == "independent" or len(agreed) == len(task.labels):
        yield from agreed


def _raw(task: Task, answers: Sequence[Values]) -> Agreed:
    """Return the most frequent class, or the mean of numbers, of those who see a face, unless more do not."""
    faces = [answer for answer in answers if answer]
    if 2 * len(faces) < len(answers):
        return Agreed({}, RAW, len(answers) - len(faces))
    if task.kind == "one_of":
        label, support = Counter(sorted(next(iter(answer)) for answer in faces)).most_common(1)[0]
        return Agreed({label: 1.0}, RAW, support)
    numbers = {label: [answer[label] for answer in faces if label in answer] for label in task.label_names}
    return Agreed(
        {label: sum(given) / len(given) for label, given in numbers.items() if given}, RAW, len(faces)
    )


def tiers(records: Sequence[FeedbackRecord], gold: Gold | None = None) -> Mapping[str, str]:
    """Return the tier of each record by id: ``agreed`` if all that it says was agreed on or reviewed.

    Args:
        records: of the store, all of them.
        gold: known answers.
    """
    known = consensus(records, gold)
    found = {}
    for record in records:
        answers = answers_of(record)
        theirs = known.get(record.item, {})
        shared = bool(answers) and all(
            name in theirs and _part_of(get_task(name), values, theirs[name])
            for name, values in answers.items()
        )
        found[record.id] = (
            REVIEWED if record.review == "approved" else AGREED if shared and _counts(record) else RAW
        )
    return found


def _part_of(task: Task, values: Values, agreed: Agreed) -> bool:
    return agreed.tier != RAW and values.keys() <= agreed.values.keys() and same(task, values, agreed.values)


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


def agreement(records: Sequence[FeedbackRecord]) -> tuple[Agreement, ...]:
    """Return the agreement on every task: one for classes, one per dimension, unit or intensity.

    A vote is the newest statement of a contributor about an item, as in :func:`votes`; that something is not
    a face says nothing here. Whether a unit is present is nominal, dimensions and intensities are interval.
    """
    given = votes(records)
    found: list[Agreement] = []
    for task in TASKS:
        answers = [
            {vote.record.contributor: vote.answers[task.name] for vote in item if vote.answers.get(task.name)}
            for item in given.values()
        ]
        labels = ("",) if task.kind == "one_of" else task.label_names
        found.extend(
            _agreement(task, label, [_ratings(task, label, item) for item in answers]) for label in labels
        )
    return tuple(found)


def _ratings(task: Task, label: str, answers: Mapping[str, Values]) -> Mapping[str, float]:
    """Return a number for every contributor who judged a label of one item."""
    if not label:
        return {contributor: float(task.index(next(iter(values)))) for contributor, values in answers.items()}
    numbers = {contributor: values[label] for contributor, values in answers.items() if label in values}
    if _level(task) == "nominal":
        return {
            contributor: float(number >= (task.low + task.high) / 2)
            for contributor, number in numbers.items()
        }
    return {contributor: round(number / STEP) * STEP for contributor, number in numbers.items()}


def _level(task: Task) -> Literal["nominal", "interval"]:
    return (
        "nominal"
        if task.kind == "one_of" or (task.kind == "independent" and task.scope == "frame")
        else "interval"
    )


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
