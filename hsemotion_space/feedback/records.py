"""A feedback record: what was predicted for one face, what a person says about it, and what they agreed to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

from hsemotion_space.messages import MessageError
from hsemotion_space.tasks import Task, get_task
from hsemotion_space.types import PROVENANCE_WORDS

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
State = Literal["received", "sealed", "pushed", "verified"]
Review = Literal["", "approved", "rejected"]
Verdict = Literal["correct", "wrong", "cannot_tell", "not_a_face"]
Values: TypeAlias = Mapping[str, float]
"""By the name of the label, in the range of its task."""

SCHEMA_VERSION: Final = 1
TIERS: Final = ("raw", "agreed", "reviewed")
"""How sure a record is, from the least: one person said it, several said the same, a reviewer looked at it."""
COMMENT_LENGTH: Final = 500
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)


class FeedbackError(MessageError, ValueError):
    """A correction cannot be accepted or found; the message can be shown to the person who sent it."""


@dataclass(frozen=True, slots=True)
class TaskPrediction:
    """What a checkpoint said about one task: ``values`` by label, their ``spread`` over the frames (empty for one frame)."""

    task: str
    task_version: int
    provenance: str
    values: Values
    spread: Values
    frames: int


@dataclass(frozen=True, slots=True)
class Subject:
    """The face that a record is about, without anything that tells whose it is.

    Attributes:
        media: keyed hash of the digest of the media: corrections of one picture meet, and nobody can look a picture up.
        kind: ``image`` or ``clip``.
        face: number of the track, from 1.
        box_xyxy: in shares of width and height, in 0..1.
        span_s: start and end in a clip; empty for a picture and for all of a clip.
    """

    media: str
    kind: str
    face: int
    box_xyxy: tuple[float, float, float, float]
    span_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("image", "clip") or self.face < 1 or not all(0 <= edge <= 1 for edge in self.box_xyxy):
            raise FeedbackError(f"This is no face of a picture or clip: {self.kind!r}, face {self.face}, box {self.box_xyxy}.")
        if self.span_s and not (self.kind == "clip" and len(self.span_s) == 2 and 0 <= self.span_s[0] <= self.span_s[1] < math.inf):
            raise FeedbackError(f"A time range needs a start and a later end in a clip, got {self.span_s}.")

    @property
    def item(self) -> str:
        """Name of what was judged, equal for everybody who judges the same face and range; 32 hexadecimal digits."""
        return hashlib.sha256(canonical([self.media, self.face, list(self.span_s)]).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Predicted:
    """What one checkpoint predicted: ids and digests of the weights and of the preprocessing, and every task."""

    checkpoint: str
    checkpoint_sha256: str
    heads_sha256: str
    preprocessing: str
    tasks: tuple[TaskPrediction, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, which a ticket signs."""
        return hashlib.sha256(canonical(to_json(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person agreed to.

    Attributes:
        version: of the text.
        scopes: the steps of the ladder that they ticked besides having it processed now.
        adult_and_permitted: whether they stated that they are adults and may give this face away.
        adult: whether they stated the first of it alone, which is enough for a face that came with this program.
    """

    version: str
    scopes: tuple[str, ...]
    adult_and_permitted: bool
    adult: bool = False


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """One statement of one contributor about one face.

    Attributes:
        id: 32 hexadecimal digits, the same whenever the same statement is sent again.
        contributor: pseudonym, a keyed hash of the receipt code.
        corrected: by task, what would be right. With the verdict ``correct`` it holds what was confirmed, and that alone was; empty there
            if the person confirmed the prediction as a whole.
        comment: at most COMMENT_LENGTH characters.
        blind: whether it was said before the person was shown what is predicted, or any known answer.
    """

    id: str
    contributor: str
    subject: Subject
    predicted: Predicted
    verdict: Verdict
    corrected: Mapping[str, Values]
    consent: Consent
    comment: str = ""
    schema_version: int = SCHEMA_VERSION
    blind: bool = False


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as the store has it.

    Attributes:
        number: rises with every record; the order of arrival, whatever the clock says.
        created_s: UTC, in seconds since 1970.
        state: received, sealed into a batch, pushed to the Hub, or verified there.
        batch: id of its batch; empty before it is sealed.
        superseded: whether the same contributor has said something newer about the same item.
        review: decision of a reviewer; empty if there is none.
        reverted: whether everything of its contributor was set aside.
        gold: whether it states a known answer, by which contributors are judged.
        crop: PNG of the face, empty if it was not to be kept.
    """

    number: int
    record: FeedbackRecord
    created_s: float
    state: State
    batch: str = ""
    superseded: bool = False
    review: Review = ""
    reverted: bool = False
    gold: bool = False
    crop: bytes = b""


def to_json(value: object) -> Json:
    """Return a record or a part of it as JSON values."""
    return cast("Json", json.loads(json.dumps(asdict(value), allow_nan=False)))  # type: ignore[call-overload]  # tuples become lists


def canonical(value: Json) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_verdict(value: object) -> Verdict:
    """Check a verdict that a client sent.

    Raises:
        FeedbackError: listing what there is.
    """
    if not isinstance(value, str) or value not in VERDICTS:
        raise FeedbackError(f"The verdict must be one of {', '.join(VERDICTS)}.")
    return value


def read_comment(value: object) -> str:
    """Check a comment that a client sent; control characters are taken out.

    Raises:
        FeedbackError: if it is no text or too long.
    """
    if not isinstance(value, str) or len(value) > COMMENT_LENGTH:
        raise FeedbackError(f"The comment must be a text of at most {COMMENT_LENGTH} characters.")
    return "".join(letter for letter in value if letter.isprintable() or letter == "\n").strip()


def read_corrected(value: object, predicted: Predicted) -> Mapping[str, Values]:
    """Check corrections that a client sent: ``{task: {label: number}}``, or ``{task: label}`` for one of several classes.

    Args:
        value: untrusted.
        predicted: only tasks that were predicted can be corrected.

    Raises:
        FeedbackError: naming the task and the label that are wrong.
    """
    if not isinstance(value, Mapping):
        raise FeedbackError("Corrections must be given by task.")
    allowed = [prediction.task for prediction in predicted.tasks]
    corrected: dict[str, Values] = {}
    for name, answer in value.items():
        if not isinstance(name, str) or name not in allowed:
            raise FeedbackError(f"Only predicted tasks can be corrected ({', '.join(allowed)}), got {str(name)[:40]!r}.")
        corrected[name] = _read_answer(get_task(name), answer)
    return corrected


def _read_answer(task: Task, answer: object) -> Values:
    """Check the answer to one task; units and intensities may be given for some of the labels."""
    if task.kind == "one_of":
        if not isinstance(answer, str) or answer not in task.label_names:
            raise FeedbackError(f"{task.title} must be one of {', '.join(task.label_names)}.")
        return {answer: 1.0}
    if not isinstance(answer, Mapping) or not answer:
        raise FeedbackError(f"{task.title} needs a number per label.")
    if task.kind == "continuous" and set(answer) != set(task.label_names):
        raise FeedbackError(f"{task.title} needs {' and '.join(task.label_names)}.")
    values = {}
    for label, number in answer.items():
        if label not in task.label_names:
            raise FeedbackError(f"{task.title} has no label {str(label)[:40]!r}; it has {', '.join(task.label_names)}.")
        if not isinstance(number, int | float) or not task.low <= number <= task.high:  # NaN is in no range
            raise FeedbackError(f"{task.title}: {label} must be a number from {task.low:g} to {task.high:g}.")
        values[str(label)] = float(number)
    return {label: values[label] for label in task.label_names if label in values}


def check_statement(verdict: Verdict, corrected: Mapping[str, Values], predicted: Predicted) -> None:
    """Check that verdict and corrections say the same thing.

    Raises:
        FeedbackError: if a wrong prediction is not corrected, one that is confirmed differs, or something else is corrected.
    """
    if verdict == "wrong" and not corrected:
        raise FeedbackError("Please say what would be right for at least one task, or choose 'cannot tell'.")
    if verdict not in ("wrong", "correct") and corrected:
        raise FeedbackError("Corrections belong to the verdict 'wrong'.")
    if verdict == "correct" and any(top_of(one) not in corrected[one.task] for one in predicted.tasks if _names_class(one, corrected)):
        raise FeedbackError("What is confirmed must be what was predicted.")


def _names_class(prediction: TaskPrediction, corrected: Mapping[str, Values]) -> bool:
    return prediction.task in corrected and get_task(prediction.task).kind == "one_of"


def top_of(prediction: TaskPrediction) -> str:
    """Return the label with the largest value."""
    return max(prediction.values, key=lambda label: prediction.values[label])


def _read_blind(value: object) -> bool:
    """Check what older records lack."""
    if not isinstance(value, bool):
        raise FeedbackError("Whether an answer was blind must be true or false.")
    return value


def record_from_json(value: Json) -> FeedbackRecord:
    """Return a record that :func:`to_json` wrote, checked anew.

    Raises:
        FeedbackError: if it is not one, or of a schema that is not known.
    """
    try:
        table = cast("Mapping[str, Json]", value)
        if table["schema_version"] != SCHEMA_VERSION:
            raise FeedbackError(f"A record has the schema version {table['schema_version']!r}; this program knows {SCHEMA_VERSION}.")
        subject, consent = cast("Mapping[str, list[float]]", table["subject"]), cast("Mapping[str, list[str]]", table["consent"])
        predicted = cast("Mapping[str, Json]", table["predicted"])
        tasks = tuple(TaskPrediction(**item) for item in cast("list[dict[str, object]]", predicted["tasks"]))  # type: ignore[arg-type]
        if any(item.provenance not in PROVENANCE_WORDS for item in tasks):
            raise FeedbackError("A record has a prediction of unknown provenance.")
        box, span = subject["box_xyxy"], subject["span_s"]
        return FeedbackRecord(
            str(table["id"]),
            str(table["contributor"]),
            Subject(**{**subject, "box_xyxy": tuple(box), "span_s": tuple(span)}),  # type: ignore[arg-type]
            Predicted(**{**predicted, "tasks": tasks}),  # type: ignore[arg-type]
            read_verdict(table["verdict"]),
            cast("Mapping[str, Values]", table["corrected"]),
            Consent(**{**consent, "scopes": tuple(consent["scopes"])}),  # type: ignore[arg-type]
            read_comment(table["comment"]),
            blind=_read_blind(table.get("blind", False)),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise error if isinstance(error, FeedbackError) else FeedbackError(f"This is no feedback record ({error}).") from error
