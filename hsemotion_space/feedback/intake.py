"""Where corrections come in: what a client sends about a result of this server is checked before it is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
    canonical,
    check_statement,
    read_comment,
    read_corrected,
    read_verdict,
)
from hsemotion_space.types import Analysis, FaceResult, FaceTrack, FloatArray, Prediction

SPAN_STEP_S: Final = 0.01
"""To so much time ranges are rounded, so that those of several people meet."""


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

    def knows(self, contributor: str) -> bool:
        """Return whether there is a record of a contributor."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client sent, all of it untrusted.

    Attributes:
        face: number of the face in the analysis, from 1.
        verdict: one of ``VERDICTS``.
        corrected: by task, as ``read_corrected`` takes it.
        span_s: start and end in the clip; nothing or an empty list for all of it.
        comment: text.
        scopes: what was ticked of the consent ladder.
        adult_and_permitted: whether the statement was ticked.
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


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What this server knows about a submission by itself.

    Attributes:
        job: id of the analysis, which nobody can guess: a new receipt code follows from it and from the face.
        preprocessing: digest of how faces were found and prepared.
        blind: whether the person has not been shown yet what is predicted, nor any known answer.
        bundled: whether the face came with this program; then no picture is kept, and ``adult_and_permitted`` stands for being an adult.
        instead_of: id of the record that this one takes the place of, empty if there is none; without it, a statement that was made
            before and changed in between would count as sent again.
        language: in which the person read what they agreed to; one of ``consent.VERSIONS``.
    """

    job: str
    preprocessing: str
    blind: bool = False
    bundled: bool = False
    instead_of: str = ""
    language: str = "en"


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
        answers: on how many answers of annotators are taken; ``limits`` if left out.
    """

    def __init__(
        self, store: Keeper, keys: Keys, limits: Limits, clock: Callable[[], float] = time.time, answers: Limits | None = None
    ) -> None:
        self._store, self._keys, self._limits, self._clock, self._answers = (
            store,
            keys,
            limits,
            clock,
            (limits if answers is None else answers),
        )

    def submit(self, analysis: Analysis, submission: Submission, client: str, known: Circumstances) -> Receipt:
        """Check a correction and keep it; the same one sent again is kept once. Only what is kept counts against the limits.

        Args:
            analysis: that it is about.
            submission: as it came.
            client: address it came from, which is not kept.
            known: about it.

        Raises:
            FeedbackError: if it cannot be taken; the sentence says why.
        """
        return self._counted([self._limits], client, lambda: self._keep(analysis, submission, known))

    def answer(self, analysis: Analysis, submission: Submission, client: str, known: Circumstances) -> Receipt:
        """Check an answer of an annotator and keep it, as :meth:`submit` does a correction, but under other limits.

        Who has a receipt code may answer quickly; whoever would be a new contributor counts against the usual limits too.
        """
        limits = [self._answers] if self._returns(submission) else [self._answers, self._limits]
        return self._counted(limits, client, lambda: self._keep(analysis, submission, known))

    def _returns(self, submission: Submission) -> bool:
        """Return whether a receipt code belongs to somebody who gave something; a mistyped one is refused later."""
        try:
            return self._store.knows(self._keys.contributor(str(submission.code)))
        except FeedbackError:
            return False

    def _counted(self, limits: Sequence[Limits], client: str, keep: Callable[[], Receipt]) -> Receipt:
        now_s = self._clock()
        counted_as = self._keys.client(client, int(now_s // DAY_S))
        with ExitStack() as undo:
            for limit in dict.fromkeys(limits):
                undo.callback(limit.give_back, counted_as, limit.take(counted_as))
            receipt = keep()
            if receipt.created:
                undo.pop_all()
        return receipt

    def subject(self, analysis: Analysis, face: FaceResult, span_s: object = ()) -> Subject:
        """Return what a statement about a face would be about.

        Args:
            analysis: with the face.
            face: of it.
            span_s: start and end in a clip, or nothing; unchecked.

        Raises:
            FeedbackError: if the face is not visible there.
        """
        media, kind = self._keys.media(analysis.media.sha256), analysis.media.kind
        return Subject(media, kind, face.track.track_id, _box(analysis, face.track), _span(analysis, face, span_s))

    def _keep(self, analysis: Analysis, submission: Submission, known: Circumstances) -> Receipt:
        face = find_face(analysis, submission.face)
        predicted = read_predicted(analysis, face, known.preprocessing)
        verdict = read_verdict(submission.verdict)
        corrected = read_corrected(submission.corrected, predicted)
        check_statement(verdict, corrected, predicted)
        comment = read_comment(submission.comment)
        consent = read_consent(submission.scopes, submission.adult_and_permitted, known.bundled, known.language)
        subject = self.subject(analysis, face, submission.span_s)
        code = self._code(submission.code, f"{known.job} {face.track.track_id}")
        contributor = self._keys.contributor(code)
        said = [verdict, cast("Json", corrected), comment, *([known.instead_of] if known.instead_of else [])]
        name = self._name(contributor, (subject, predicted), said, consent)
        record = FeedbackRecord(name, contributor, subject, predicted, verdict, corrected, consent, comment, blind=known.blind)
        crop = make_crop(analysis, face.track.track_id) if CROP.name in consent.scopes else b""
        answer = self._store.add(record, crop)
        words = "Saved here." if answer.created else "You had sent this before; it is kept once."
        return Receipt(code, record.id, answer.created, answer.state, words)

    def _code(self, code: object, nonce: str) -> str:
        if code is None or (isinstance(code, str) and not code.strip()):
            return self._keys.code(nonce)
        if not isinstance(code, str):
            raise FeedbackError("The receipt code must be a text.")
        return read_code(code)

    def _name(
        self,
        contributor: str,
        about: tuple[Subject, Predicted],
        said: Sequence[Json],
        consent: Consent,
    ) -> str:
        """Return the id of a record: keyed hash of who says what about what, so that sending it again changes nothing."""
        subject, predicted = about
        weights = [predicted.checkpoint, predicted.checkpoint_sha256, predicted.heads_sha256]
        statement = [*said, consent.version, list(consent.scopes)]
        return self._keys.sign("record", canonical([contributor, subject.item, weights, statement]))[:HASH_LENGTH]


def find_face(analysis: Analysis, number: object) -> FaceResult:
    """Return a face of an analysis by a number that a client sent.

    Raises:
        FeedbackError: if there is none.
    """
    for face in analysis.faces:
        if not isinstance(number, bool | float) and face.track.track_id == number:
            return face
    raise FeedbackError(f"This result has no face {str(number)[:20]}.")


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


def _span(analysis: Analysis, face: FaceResult, span: object) -> tuple[float, ...]:
    """Check a time range: inside the track, and with the face in it; all of the track is no range."""
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
