"""Where corrections come in: tickets go out with a result, and what comes back is checked before it is kept."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final, Protocol, cast

import numpy as np

from hsemotion_space.feedback.consent import CROP, read_consent
from hsemotion_space.feedback.crops import make_crop, surest_row
from hsemotion_space.feedback.keys import HASH_LENGTH, Keys, read_code
from hsemotion_space.feedback.limits import DAY_S, Limits
from hsemotion_space.feedback.records import (
    Consent,
    FeedbackError,
    FeedbackRecord,
    Json,
    Predicted,
    State,
    Subject,
    TaskPrediction,
    Values,
    Verdict,
    canonical,
    check_statement,
    read_comment,
    read_corrected,
    read_verdict,
)
from hsemotion_space.feedback.tickets import Reference, Ticket, issue, verify
from hsemotion_space.types import Analysis, FaceResult, FaceTrack, FloatArray, Prediction

SPAN_STEP_S: Final = 0.01
"""To so much time ranges are rounded, so that those of several people meet."""
WRONG_TICKET: Final = "This correction belongs to another result than the one shown. Please send it again from the result that it is about."


class Acknowledged(Protocol):
    """What a store answers once a record is on the disk."""

    @property
    def created(self) -> bool:
        """Whether it was not there before."""

    @property
    def state(self) -> State:
        """How far it has come."""


class Keeper(Protocol):
    """What keeps records."""

    def add(self, record: FeedbackRecord, crop: bytes = b"") -> Acknowledged:
        """Keep a record, once."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client sent, all of it untrusted.

    Attributes:
        ticket: from :meth:`Intake.offer`.
        verdict: one of ``VERDICTS``.
        corrected: by task, as ``read_corrected`` takes it.
        span_s: start and end in the clip; nothing or an empty list for all of it.
        comment: text.
        scopes: what was ticked of the consent ladder.
        adult_and_permitted: whether the statement was ticked.
        code: receipt code of earlier corrections; nothing or empty for a new one.
    """

    ticket: object
    verdict: object
    corrected: object
    span_s: object
    comment: object
    scopes: object
    adult_and_permitted: object
    code: object


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a contributor gets: code to list and erase everything by, id of the record, whether it is new, how far it is, and a sentence."""

    code: str
    record_id: str
    created: bool
    state: State
    words: str


class Intake:
    """Takes corrections of predictions that this server made.

    Args:
        store: keeps them.
        keys: of this server.
        limits: on how many are taken.
        clock: UTC in seconds since 1970.
    """

    def __init__(self, store: Keeper, keys: Keys, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._store, self._keys, self._limits, self._clock = store, keys, limits, clock

    def offer(self, analysis: Analysis, preprocessing: str) -> Mapping[int, str]:
        """Return a ticket for every face, by its number.

        Args:
            analysis: as it is shown; a ticket is of no use with another smoothing.
            preprocessing: digest of how faces were found and prepared.
        """
        now_s = self._clock()
        return {
            face.track.track_id: issue(self._keys, self._reference(analysis, face, read_predicted(analysis, face, preprocessing)), now_s)
            for face in analysis.faces
        }

    def submit(self, analysis: Analysis, submission: Submission, client: str) -> Receipt:
        """Check a correction and keep it; the same one sent again is kept once. Only what is kept counts against the limits.

        Args:
            analysis: that it is about.
            submission: as it came.
            client: address it came from, which is not kept.

        Raises:
            FeedbackError: if it cannot be taken; the sentence says why.
        """
        now_s = self._clock()
        counted_as = self._keys.client(client, int(now_s // DAY_S))
        taken = self._limits.take(counted_as)
        try:
            receipt = self._keep(analysis, submission, now_s)
        except Exception:
            self._limits.give_back(counted_as, taken)
            raise
        if not receipt.created:
            self._limits.give_back(counted_as, taken)
        return receipt

    def _keep(self, analysis: Analysis, submission: Submission, now_s: float) -> Receipt:
        ticket = verify(self._keys, submission.ticket, now_s)
        face, predicted = self._predicted(analysis, ticket)
        verdict = read_verdict(submission.verdict)
        corrected = read_corrected(submission.corrected, predicted)
        check_statement(verdict, corrected)
        comment = read_comment(submission.comment)
        consent = read_consent(submission.scopes, submission.adult_and_permitted)
        subject = Subject(
            ticket.reference.media, analysis.media.kind, face.track.track_id, _box(analysis, face.track), _span(analysis, face, submission)
        )
        code = self._code(submission.code, ticket)
        contributor = self._keys.contributor(code)
        name = self._name(contributor, (subject, predicted), (verdict, corrected, comment), consent)
        record = FeedbackRecord(name, contributor, subject, predicted, verdict, corrected, consent, comment)
        crop = make_crop(analysis, face.track.track_id) if CROP.name in consent.scopes else b""
        answer = self._store.add(record, crop)
        words = "Saved here." if answer.created else "You had sent this before; it is kept once."
        return Receipt(code, record.id, answer.created, answer.state, words)

    def _reference(self, analysis: Analysis, face: FaceResult, predicted: Predicted) -> Reference:
        return Reference(
            self._keys.media(analysis.media.sha256),
            analysis.media.kind,
            face.track.track_id,
            predicted.checkpoint,
            predicted.preprocessing,
            predicted.digest,
        )

    def _predicted(self, analysis: Analysis, ticket: Ticket) -> tuple[FaceResult, Predicted]:
        """Return the face that a ticket is for and what was predicted, if it is this result."""
        for face in analysis.faces:
            if face.track.track_id == ticket.reference.face:
                predicted = read_predicted(analysis, face, ticket.reference.preprocessing)
                actual = self._reference(analysis, face, predicted)
                if hmac.compare_digest(canonical(asdict(actual)).encode(), canonical(asdict(ticket.reference)).encode()):
                    return face, predicted
        raise FeedbackError(WRONG_TICKET)

    def _code(self, code: object, ticket: Ticket) -> str:
        if code is None or (isinstance(code, str) and not code.strip()):
            return self._keys.code(ticket.nonce)
        if not isinstance(code, str):
            raise FeedbackError("The receipt code must be a text.")
        return read_code(code)

    def _name(
        self,
        contributor: str,
        about: tuple[Subject, Predicted],
        said: tuple[Verdict, Mapping[str, Values], str],
        consent: Consent,
    ) -> str:
        """Return the id of a record: keyed hash of who says what about what, so that sending it again changes nothing."""
        subject, predicted = about
        verdict, corrected, comment = said
        weights = [predicted.checkpoint, predicted.checkpoint_sha256, predicted.heads_sha256]
        statement = [verdict, cast("Json", corrected), comment, consent.version, list(consent.scopes)]
        return self._keys.sign("record", canonical([contributor, subject.item, weights, statement]))[:HASH_LENGTH]


def read_predicted(analysis: Analysis, face: FaceResult, preprocessing: str) -> Predicted:
    """Return what was predicted for a face, as it is kept; tasks without a value are left out."""
    checkpoint = analysis.checkpoint
    tasks = tuple(_task(prediction) for prediction in face.predictions if np.isfinite(prediction.values).all())
    return Predicted(checkpoint.id, checkpoint.sha256, checkpoint.heads_sha256, preprocessing, tasks)


def _task(prediction: Prediction) -> TaskPrediction:
    task = prediction.task
    spread = _by_label(prediction, prediction.spread) if np.isfinite(prediction.spread).all() else {}
    return TaskPrediction(
        task.name, task.version, prediction.provenance, _by_label(prediction, prediction.values), spread, prediction.frames
    )


def _by_label(prediction: Prediction, values: FloatArray) -> Values:
    return {label: float(value) for label, value in zip(prediction.task.label_names, values, strict=True)}


def _box(analysis: Analysis, track: FaceTrack) -> tuple[float, float, float, float]:
    """Return the box of the surest detection in shares of width and height."""
    size = np.array([analysis.media.width, analysis.media.height] * 2, np.float64)
    x0, y0, x1, y1 = np.clip(track.boxes_xyxy[surest_row(track)] / size, 0, 1).round(6).tolist()
    return x0, y0, x1, y1


def _span(analysis: Analysis, face: FaceResult, submission: Submission) -> tuple[float, ...]:
    """Check a time range: inside the track, and with the face in it; all of the track is no range."""
    span = submission.span_s
    if span is None or (isinstance(span, list | tuple) and not span):
        return ()
    if analysis.media.kind != "clip":
        raise FeedbackError("Only a clip has a time range.")
    if not isinstance(span, list | tuple) or len(span) != 2 or not all(map(_is_time, span)) or span[0] > span[1]:
        raise FeedbackError("A time range needs a start and a later end, in seconds.")
    times = face.track.times_s
    first, last = float(times[0]), float(times[-1])
    if span[0] < first - SPAN_STEP_S or span[1] > last + SPAN_STEP_S:
        raise FeedbackError(f"Face {face.track.track_id} is visible from {first:.2f} to {last:.2f} s; the time range must lie within.")
    start, end = (round(float(value), 2) for value in span)
    if not np.any((times >= start - SPAN_STEP_S) & (times <= end + SPAN_STEP_S)):
        raise FeedbackError(f"Face {face.track.track_id} is not visible between {start:.2f} and {end:.2f} s.")
    if start <= first + SPAN_STEP_S and end >= last - SPAN_STEP_S:
        return ()
    return min(max(start, first), last), min(max(end, first), last)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < DAY_S  # NaN is not
