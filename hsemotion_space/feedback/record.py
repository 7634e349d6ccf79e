"""The record of a correction: what was predicted, what a person says about it, what they agreed to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from hsemotion_space.messages import Message, MessageError
from hsemotion_space.tasks import get_task
from hsemotion_space.types import PROVENANCE_LABELS

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
State = Literal["received", "sealed", "pushed", "verified"]
Review = Literal["", "approved", "rejected"]
Verdict = Literal["correct", "wrong", "cannot_tell", "not_a_face"]
Values: TypeAlias = Mapping[str, float]
"""By the name of the label, in the range of its task."""
R = TypeVar("R")

SCHEMA_VERSION: Final = 1
"""Of the published columns."""
TIERS: Final = ("raw", "agreed", "reviewed")
"""How sure a record is, from the least: one person said it, several said the same, a reviewer approved it."""
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
HEX: Final = re.compile(r"[0-9a-f]{32}")
CONTRIBUTOR: Final = re.compile(r"[\w-]{8,128}", re.ASCII)


class FeedbackError(MessageError, ValueError):
    """A correction cannot be accepted or found; the message can be shown to the person who sent it."""


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """One statement of one contributor about one face; published rows lack ``comment`` and exact time.

    Attributes:
        id: 32 hexadecimal digits, the same whenever the same statement is sent again.
        contributor: pseudonym, a keyed hash of the receipt code; the same here and in the published dataset.
        item: name of the judged face and range, equal for everybody who judges it; 32 hexadecimal digits.
        kind: ``image`` or ``clip``.
        face: number of the track, from 1.
        box_xyxy: in shares of width and height, in 0..1.
        span_s: start and end in a clip; empty for a picture and for all of a clip.
        checkpoint, checkpoint_sha256, heads_sha256: id and digests of what predicted.
        preprocessing: digest of how the face was found and prepared.
        predicted, provenance: values by label, and the kind of the head, by task.
        corrected: by task, what would be right. With the verdict ``correct`` it holds what was confirmed, and
            that alone was; empty there if the person confirmed the prediction as a whole.
        consent_version, consent_scopes: of the text, and the steps that were ticked.
        consent_statement: ``adult_and_permitted``, or ``adult`` for a face that came with this program; empty
            in published rows.
        blind: whether it was said before the person was shown what is predicted, or any known answer.
        number: rises with every record of a store; the order of arrival, whatever the clock says.
        created_s: UTC, in seconds since 1970; a whole hour in published rows.
        state, batch: how far it has come to the Hub, and the id of its batch, empty before it is sealed.
        superseded: whether the same contributor has said something newer about the same item.
        review: decision of a reviewer; empty if there is none.
        reverted: whether everything of its contributor was set aside.
        gold: whether it states a known answer, by which contributors are judged.
        crop: PNG of the face; empty without one.
        tier: one of ``TIERS`` in an export, else empty.
    """

    id: str
    contributor: str
    item: str
    kind: str
    face: int
    box_xyxy: tuple[float, float, float, float]
    span_s: tuple[float, ...]
    checkpoint: str
    checkpoint_sha256: str
    heads_sha256: str
    preprocessing: str
    predicted: Mapping[str, Values]
    provenance: Mapping[str, str]
    verdict: Verdict
    corrected: Mapping[str, Values]
    consent_version: str
    consent_scopes: tuple[str, ...]
    consent_statement: str = ""
    comment: str = ""
    blind: bool = False
    number: int = 0
    created_s: float = 0.0
    state: State = "received"
    batch: str = ""
    superseded: bool = False
    review: Review = ""
    reverted: bool = False
    gold: bool = False
    crop: bytes = b""
    tier: str = ""

    def __post_init__(self) -> None:
        if (
            not HEX.fullmatch(self.id)
            or not HEX.fullmatch(self.item)
            or not CONTRIBUTOR.fullmatch(self.contributor)
        ):
            raise FeedbackError(
                "A record needs an id and an item of 32 hexadecimal digits and the pseudonym of a"
                " contributor.",
                code="record_id",
            )
        if (
            self.kind not in ("image", "clip")
            or self.face < 1
            or not all(0 <= edge <= 1 for edge in self.box_xyxy)
        ):
            raise FeedbackError(
                "{face} is not a face of an image or a clip.",
                code="record_face",
                face=f"{self.kind!r}, {self.face}, {self.box_xyxy}",
            )
        span = self.span_s
        if span and not (self.kind == "clip" and len(span) == 2 and 0 <= span[0] <= span[1] < math.inf):
            raise FeedbackError(
                "A time range needs a start and a later end in a clip, got {span}.",
                code="record_span",
                span=span,
            )
        if self.verdict not in VERDICTS:
            raise FeedbackError(
                "The verdict must be one of {names}.", code="verdict", names=", ".join(VERDICTS)
            )
        if not set(self.provenance.values()) <= PROVENANCE_LABELS.keys():
            raise FeedbackError(
                "A prediction of the record has an unknown provenance.", code="record_provenance"
            )

    @property
    def consented_crop(self) -> bytes:
        """The crop, if its contributor agreed to have it kept."""
        return self.crop if "crop" in self.consent_scopes else b""


def to_json(record: Any) -> Mapping[str, Json]:
    """Return what a record of any type states as JSON values, without the fields of the store."""
    names = [field.name for field in fields(record)]
    values = asdict(record)
    return {name: values[name] for name in names[: names.index("number")]}


def from_json(kind: Callable[..., R], stated: Mapping[str, Json], **marks: object) -> R:
    """Return a record that :func:`to_json` wrote.

    Args:
        kind: its type.
        stated: its values.
        marks: the fields of the store.

    Raises:
        FeedbackError: if it is not one.
    """
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()}
        return kind(**values, **marks)
    except (KeyError, TypeError, AttributeError) as error:
        raise FeedbackError(
            "This is not a feedback record ({reason}).", code="record", reason=str(error)
        ) from error


def canonical(value: Json) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def top_of(values: Values) -> str:
    """Return the label with the largest value."""
    return max(values, key=lambda label: values[label])


def answers_of(record: FeedbackRecord) -> Mapping[str, Values]:
    """Return what a record says, by task.

    That all is correct confirms the most probable class where a trained head chose among several, or only
    what was named; numbers that nobody looked at are not confirmed. That it is not a face answers every task
    with no values.
    """
    if record.verdict == "wrong" or record.corrected:
        return record.corrected
    if record.verdict == "not_a_face":
        return {task: {} for task in record.predicted}
    if record.verdict == "cannot_tell":
        return {}
    chosen = [
        task
        for task in record.predicted
        if get_task(task).kind == "one_of" and record.provenance[task] == "trained"
    ]
    return {task: {top_of(record.predicted[task]): 1.0} for task in chosen}


def subject_of(record: FeedbackRecord) -> Message:
    """Return which face a statement is about, such as ``clip, face 2, 1.5 to 3 s``."""
    if record.span_s:
        start, end = record.span_s
        return Message(
            "clip, face {number}, {start:g} to {end:g} s", number=record.face, start=start, end=end
        )
    template = "image, face {number}" if record.kind == "image" else "clip, face {number}"
    return Message(template, number=record.face)


def corrections_of(record: FeedbackRecord, translate: Callable[[str], str] = str) -> str:
    """Return the corrected labels, such as ``Expression: Fear; Action units: AU4``; empty without any.

    Args:
        record: with the corrections.
        translate: puts a title or a label into the language of the reader.
    """
    answers = record.corrected.items()
    return "; ".join(
        f"{translate(get_task(name).title)}: {answer_text(name, values, translate)}"
        for name, values in answers
    )


def answer_text(name: str, values: Values, translate: Callable[[str], str] = str) -> str:
    """Return what would be right of one task, such as ``Fear``, translated as in :func:`corrections_of`."""
    task = get_task(name)
    if task.kind == "one_of":
        return ", ".join(map(translate, values))
    if task.kind == "independent" and task.scope == "frame":
        middle = (task.low + task.high) / 2
        return ", ".join(translate(label) for label, value in values.items() if value >= middle) or translate(
            "none visible"
        )
    return ", ".join(f"{translate(label)} {value:g}" for label, value in values.items())
