"""The form of a correction: its values as a client sends them, each checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hsemotion_space.feedback.limits import DAY_S
from hsemotion_space.feedback.record import VERDICTS, FeedbackError, Values, Verdict, top_of
from hsemotion_space.tasks import Task, get_task
from hsemotion_space.types import FaceTrack

COMMENT_LENGTH: Final = 500
SPAN_STEP_S: Final = 0.01
"""To so much time ranges are rounded, so that those of several people meet."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The values of the form, all of them untrusted.

    Attributes:
        face: number of the face in the analysis, from 1.
        verdict: one of ``VERDICTS``.
        corrected: by task, as ``read_corrected`` takes it.
        span_s: start and end in the clip; nothing or an empty list for all of it.
        comment: text.
        scopes: selected steps of the consent ladder.
        adult_and_permitted: whether the statement was selected.
        code: receipt code of earlier corrections; nothing or empty for a new one.
    """

    face: object
    verdict: object
    corrected: object
    span_s: object
    comment: object
    scopes: object
    adult_and_permitted: object
    code: object


def read_verdict(value: object) -> Verdict:
    """Return a verdict that a client sent.

    Raises:
        FeedbackError: listing what there is.
    """
    if not isinstance(value, str) or value not in VERDICTS:
        raise FeedbackError("The verdict must be one of {names}.", code="verdict", names=", ".join(VERDICTS))
    return value


def read_comment(value: object) -> str:
    """Return a comment that a client sent, without control characters.

    Raises:
        FeedbackError: if it is no text or too long.
    """
    if not isinstance(value, str) or len(value) > COMMENT_LENGTH:
        raise FeedbackError(
            "The comment must be text of at most {count} characters.", code="comment", count=COMMENT_LENGTH
        )
    return "".join(letter for letter in value if letter.isprintable() or letter == "\n").strip()


def read_corrected(value: object, predicted: Sequence[str]) -> Mapping[str, Values]:
    """Return corrections sent by a client: ``{task: {label: number}}``, or ``{task: label}`` (one-of).

    Args:
        value: untrusted.
        predicted: names of the tasks that were predicted; only these can be corrected.

    Raises:
        FeedbackError: naming the task and the label that are wrong.
    """
    if not isinstance(value, Mapping):
        raise FeedbackError("The corrections must map tasks to values.", code="corrected")
    corrected: dict[str, Values] = {}
    for name, answer in value.items():
        if not isinstance(name, str) or name not in predicted:
            raise FeedbackError(
                "Only predicted tasks can be corrected ({names}), got {name}.",
                code="task", names=", ".join(predicted), name=repr(str(name)[:40]),
            )  # fmt: skip
        corrected[name] = _read_answer(get_task(name), answer)
    return corrected


def _read_answer(task: Task, answer: object) -> Values:
    """Return the answer to one task; units and intensities may be given for some of the labels."""
    names = ", ".join(task.label_names)
    if task.kind == "one_of":
        if not isinstance(answer, str) or answer not in task.label_names:
            raise FeedbackError("{task} must be one of {names}.", code="label", task=task.title, names=names)
        return {answer: 1.0}
    if (
        not isinstance(answer, Mapping)
        or not answer
        or (task.kind == "continuous" and set(answer) != set(task.label_names))
    ):
        raise FeedbackError(
            "{task} needs one number per label: {names}.", code="numbers", task=task.title, names=names
        )
    for label, number in answer.items():
        if label not in task.label_names:
            raise FeedbackError("{task} must be one of {names}.", code="label", task=task.title, names=names)
        if not isinstance(number, int | float) or not task.low <= number <= task.high:  # NaN is in no range
            raise FeedbackError(
                "{task}: {label} must be a number from {low:g} to {high:g}.",
                code="range", task=task.title, label=label, low=task.low, high=task.high,
            )  # fmt: skip
    return {label: float(answer[label]) for label in task.label_names if label in answer}


def check_statement(
    verdict: Verdict, corrected: Mapping[str, Values], predicted: Mapping[str, Values]
) -> None:
    """Check that verdict and corrections say the same thing.

    Raises:
        FeedbackError: if a wrong prediction is not corrected, one that is confirmed differs, or something
            else is corrected.
    """
    if verdict == "wrong" and not corrected:
        raise FeedbackError("Correct at least one task, or select “cannot tell”.", code="no_correction")
    if verdict not in ("wrong", "correct") and corrected:
        raise FeedbackError("Corrections require the verdict “wrong”.", code="needless")
    confirmed = [name for name in corrected if verdict == "correct" and get_task(name).kind == "one_of"]
    if any(top_of(predicted[name]) not in corrected[name] for name in confirmed):
        raise FeedbackError("A confirmed label must be the predicted label.", code="unlike")


def read_span(track: FaceTrack, kind: str, span: object) -> tuple[float, ...]:
    """Return a time range sent by a client: inside the track and with the face; all of the track is no range.

    Raises:
        FeedbackError: if the face is not visible there, or ``kind`` is not ``clip``.
    """
    if span is None or (isinstance(span, list | tuple) and not span):
        return ()
    if kind != "clip":
        raise FeedbackError("Only a video clip has a time range.", code="span_image")
    if (
        not isinstance(span, list | tuple)
        or len(span) != 2
        or not all(map(_is_time, span))
        or span[0] > span[1]
    ):
        raise FeedbackError("A time range needs a start and a later end, in seconds.", code="span")
    times, number = track.times_s, track.track_id
    first, last = float(times[0]), float(times[-1])
    if span[0] < first - SPAN_STEP_S or span[1] > last + SPAN_STEP_S:
        raise FeedbackError(
            "Face {number} is visible from {first:.2f} to {last:.2f} s. Select a time range within it.",
            code="span_outside", number=number, first=first, last=last,
        )  # fmt: skip
    start, end = (round(float(value), 2) for value in span)
    if not np.any((times >= start - SPAN_STEP_S) & (times <= end + SPAN_STEP_S)):
        raise FeedbackError(
            "Face {number} is not visible between {start:.2f} and {end:.2f} s.",
            code="span_empty", number=number, start=start, end=end,
        )  # fmt: skip
    if start <= first + SPAN_STEP_S and end >= last - SPAN_STEP_S:
        return ()
    return min(max(start, first), last), min(max(end, first), last)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < DAY_S  # NaN is not
