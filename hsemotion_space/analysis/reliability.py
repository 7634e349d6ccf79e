"""How often an answer like this one was right on held-out pictures, in words."""

from __future__ import annotations

from typing import Final

from hsemotion_space.messages import Message
from hsemotion_space.types import Prediction, Reliability

FEWEST_ANSWERS: Final = 10
"""Held-out answers with a label.

A choice: of fewer, the 95 % interval of the share is wider than half of the range.
"""


def precision(reliability: Reliability, column: int) -> float:
    """Return the share of right answers for a label; NaN below ``FEWEST_ANSWERS`` or if not measured."""
    if not reliability or reliability.answers[column] < FEWEST_ANSWERS:
        return float("nan")
    return reliability.right[column] / reliability.answers[column]


def out_of_ten(reliability: Reliability, column: int) -> int:
    """Return how many of ten such answers are right; ten only if all were.

    Raises:
        ValueError: if there are too few to say.
    """
    most = 10 if reliability.right[column] == reliability.answers[column] else 9
    return min(most, round(10 * precision(reliability, column)))


def reliability_text(prediction: Prediction) -> str:
    """Return how often such an answer is right; empty if that was not measured or nothing is answered.

    Of a ``one_of`` task it is about the most probable label; of independent ones, about those that are
    present.
    """
    found = prediction.reliability
    if not found or not prediction.stands_out:
        return ""
    if prediction.task.kind == "one_of":
        return label_reliability_text(found, prediction.top)
    columns = zip(prediction.values, prediction.thresholds, strict=False)
    present = [column for column, (value, limit) in enumerate(columns) if value >= limit]
    figures = [f"{prediction.task.labels[column].short} {figure(found, column)}" for column in present]
    return Message("correct of 10 such answers: {figures}", figures=", ".join(figures)) if figures else ""


def label_reliability_text(reliability: Reliability, column: int) -> Message:
    """Return how often an answer with this label is right."""
    count = reliability.answers[column]
    if count < FEWEST_ANSWERS:
        return Message("accuracy unknown: too few held-out pictures with this answer ({count})", count=count)
    text = "correct in {right} of 10 such answers ({count} held-out pictures)"
    return Message(text, right=out_of_ten(reliability, column), count=count)


def figure(reliability: Reliability, column: int) -> str:
    """Return how many of ten answers with this label are right, a dash if there are too few to say."""
    return str(out_of_ten(reliability, column)) if reliability.answers[column] >= FEWEST_ANSWERS else "\u2013"
