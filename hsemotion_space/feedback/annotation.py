"""Answers of an annotator: parsed, turned into statements, compared with known answers and with others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, Values, Verdict, top_of
from hsemotion_space.feedback.trust import Gold, consensus, known_answers, same, votes
from hsemotion_space.tasks import TASKS, Task, get_task

Choice = Literal["label", "cannot_tell", "not_a_face"]

CLASS_TASK: Final[Task] = next(task for task in TASKS if task.kind == "one_of")
"""What is asked about every item: the class that a face shows."""
PLANE_TASK: Final[Task] = next(task for task in TASKS if task.kind == "continuous")
"""What is asked besides if the annotator wants that: a point in the plane of two labels."""
POINT_DIGITS: Final = 2
MIN_ITEMS: Final = 5
"""Below so many items a share says nothing, and none is shown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator says about a face.

    Attributes:
        choice: whether it is a label, or none.
        label: of ``CLASS_TASK``; empty unless that is the choice.
        point: values of the labels of ``PLANE_TASK``; empty if it was not placed.
    """

    choice: Choice
    label: str = ""
    point: tuple[float, ...] = ()

    @property
    def values(self) -> Mapping[str, Values]:
        """What is said, by task; of something that is not a face nothing, as in records."""
        if self.choice == "cannot_tell":
            return {}
        if self.choice == "not_a_face":
            return {CLASS_TASK.name: {}}
        point = (
            {PLANE_TASK.name: dict(zip(PLANE_TASK.label_names, self.point, strict=True))}
            if self.point
            else {}
        )
        return {CLASS_TASK.name: {self.label: 1.0}, **point}


def read_answer(choice: object, label: object = "", point: object = ()) -> Answer:
    """Check an answer that a browser sent.

    Args:
        choice: one of ``Choice``.
        label: of ``CLASS_TASK``, if the choice is a label.
        point: two numbers in the range of ``PLANE_TASK``, or nothing.

    Raises:
        FeedbackError: if it is no answer.
    """
    if choice not in get_args(Choice):
        raise FeedbackError(
            "The answer must be one of {names}.", code="choice", names=", ".join(get_args(Choice))
        )
    if choice != "label":
        return Answer("cannot_tell" if choice == "cannot_tell" else "not_a_face")
    if not isinstance(label, str) or label not in CLASS_TASK.label_names:
        raise FeedbackError(
            "The answer must be one of {names}.", code="answer", names=", ".join(CLASS_TASK.label_names)
        )
    return Answer("label", label, _read_point(point))


def _read_point(point: object) -> tuple[float, ...]:
    if point is None or (isinstance(point, list | tuple) and not point):
        return ()
    if (
        not isinstance(point, list | tuple)
        or len(point) != len(PLANE_TASK.labels)
        or not all(map(_is_in_plane, point))
    ):
        raise FeedbackError(
            "A point must have {count} numbers from {low:g} to {high:g}.",
            code="point",
            count=len(PLANE_TASK.labels),
            low=PLANE_TASK.low,
            high=PLANE_TASK.high,
        )
    return tuple(round(float(number), POINT_DIGITS) + 0.0 for number in point)


def _is_in_plane(number: object) -> bool:
    # NaN is not
    return (
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and PLANE_TASK.low <= number <= PLANE_TASK.high
    )


def to_correction(answer: Answer, predicted: Mapping[str, Values]) -> tuple[Verdict, Mapping[str, object]]:
    """Return the verdict that an answer implies, and the corrections to pass to ``read_corrected``.

    The prediction is ``correct`` if everything that was answered is the same (:func:`trust.same`); what was
    answered is named then too, so that nothing else counts as confirmed. Tasks that were not predicted are
    left out.

    Raises:
        FeedbackError: if nothing of what was answered was predicted.
    """
    if answer.choice != "label":
        return answer.choice, {}
    values = {name: value for name, value in answer.values.items() if name in predicted}
    if not values:
        raise FeedbackError(
            "This checkpoint does not predict this task, so the answer cannot be saved.", code="not_predicted"
        )
    right = all(
        same(
            get_task(name),
            value,
            predicted[name] if get_task(name).kind != "one_of" else {top_of(predicted[name]): 1.0},
        )
        for name, value in values.items()
    )
    corrected = {
        name: value if get_task(name).kind != "one_of" else next(iter(value))
        for name, value in values.items()
    }
    return "correct" if right else "wrong", corrected


@dataclass(frozen=True, slots=True)
class MajorityAnswer:
    """What others say about one task of an item.

    Attributes:
        values: the answer that most of them gave, by label; empty for "not a face".
        support: number of people who gave it.
        people: number of people who answered.
    """

    values: Values
    support: int
    people: int


def majority_answer(
    records: Sequence[FeedbackRecord], item: str, task: str, without: str = ""
) -> MajorityAnswer | None:
    """Return what others say; None if nobody does.

    Args:
        records: about the item, such as those of ``FeedbackStore.records_of_items``.
        item: its name.
        task: name.
        without: contributor who is not one of the others.
    """
    others = [one for one in records if one.item == item and one.contributor != without]
    people = sum(task in vote.answers for vote in votes(others).get(item, ()))
    agreed = consensus(others, known_answers(others)).get(item, {}).get(task)
    return MajorityAnswer(agreed.values, agreed.support, people) if agreed is not None and people else None


def known_answer(
    records: Sequence[FeedbackRecord],
    item: str,
    bundled: Mapping[str, Values] | None = None,
    without: str = "",
) -> Mapping[str, Values]:
    """Return the known answer to an item by task; a reviewer's mark comes before a ``bundled`` answer.

    What the contributor ``without`` said is left out: to be of one mind with oneself tells nothing.
    """
    gold: Gold = known_answers([one for one in records if one.item == item and one.contributor != without])
    return gold.get(item) or bundled or {}


@dataclass(frozen=True, slots=True)
class AgreementCount:
    """How often somebody was of one mind with others: ``same`` of ``items``."""

    same: int = 0
    items: int = 0

    def add(self, agrees: bool | None) -> AgreementCount:
        """Return it with one more item; None for one that nothing can be compared with."""
        return self if agrees is None else AgreementCount(self.same + agrees, self.items + 1)

    @property
    def share(self) -> float | None:
        """Share in 0..1; None for fewer than ``MIN_ITEMS`` items."""
        return self.same / self.items if self.items >= MIN_ITEMS else None


def agrees(answer: Answer, others: Mapping[str, Values]) -> bool | None:
    """Return whether an answer to ``CLASS_TASK`` is the same as another; None if either does not tell."""
    mine = answer.values
    if CLASS_TASK.name not in mine or CLASS_TASK.name not in others:
        return None
    return same(CLASS_TASK, mine[CLASS_TASK.name], others[CLASS_TASK.name])
