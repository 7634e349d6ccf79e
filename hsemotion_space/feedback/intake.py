"""The intake of corrections: what a client sends is validated here, once, and becomes a record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from hsemotion_space.feedback.consent import CROP, read_consent
from hsemotion_space.feedback.crops import find_track, make_crop, surest_row
from hsemotion_space.feedback.form import (
    Submission,
    check_statement,
    read_comment,
    read_corrected,
    read_span,
    read_verdict,
)
from hsemotion_space.feedback.keys import HASH_LENGTH, Keys, read_code
from hsemotion_space.feedback.limits import DAY_S, Limits
from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, Json, State, Values, canonical
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.trace import Attempt, Device, TraceRecord, TraceSubmission, read_trace
from hsemotion_space.logs import log_event
from hsemotion_space.messages import Message
from hsemotion_space.types import Analysis, FaceTrack

SAVED: Final = Message("Saved on this server.")
SAVED_BEFORE: Final = Message("You already sent this correction; it is saved once.")


@dataclass(frozen=True, slots=True)
class Context:
    """What this server knows about a submission by itself.

    Attributes:
        job: id of the analysis, which nobody can guess: a new receipt code follows from it and from the face,
            so that a double click makes one contributor.
        preprocessing: digest of how faces were found and prepared.
        blind: whether the person has not been shown yet what is predicted, nor any known answer.
        bundled: whether the face came with this program; then no picture is kept, and ``adult_and_permitted``
            stands for being an adult.
        instead_of: id of the record that this one takes the place of, empty if there is none; without it, a
            statement that was made before and changed in between would count as sent again.
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
    """What a contributor receives: receipt code, record id, whether it is new, and its state."""

    code: str
    record_id: str
    created: bool
    state: State

    @property
    def message(self) -> Message:
        """A sentence on it."""
        return SAVED if self.created else SAVED_BEFORE


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
        self,
        store: FeedbackStore,
        keys: Keys,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        answers: Limits | None = None,
    ) -> None:
        self._store, self._keys, self._clock = store, keys, clock
        self._limits, self._answers = limits, limits if answers is None else answers

    def submit(self, analysis: Analysis, submission: Submission, client: str, context: Context) -> Receipt:
        """Check a correction and keep it; the same one sent again is kept once.

        Only what is kept counts against the limits.

        Args:
            analysis: that it is about.
            submission: as it came.
            client: address it came from, which is not kept.
            context: of it.

        Raises:
            FeedbackError: if it cannot be taken; the sentence says why.
        """
        return self._counted([self._limits], client, lambda: self._keep(analysis, submission, context))

    def answer(self, analysis: Analysis, submission: Submission, client: str, context: Context) -> Receipt:
        """Check an annotator's answer and store it, as :meth:`submit` does a correction, with other limits.

        Who has a receipt code may answer quickly; whoever would be a new contributor counts against the usual
        limits too.
        """
        limits = [self._answers] if self._returns(submission) else [self._answers, self._limits]
        return self._counted(limits, client, lambda: self._keep(analysis, submission, context))

    def trace(self, analysis: Analysis, sent: TraceSubmission, client: str, context: Context) -> Receipt:
        """Check a trace and store it without a picture, with the limits of :meth:`answer`.

        Raises:
            FeedbackError: if it cannot be taken, or the clip must be traced again.
        """
        limits = [self._answers] if self._returns(sent) else [self._answers, self._limits]
        return self._counted(limits, client, lambda: self._keep_trace(analysis, sent, context))

    def _keep_trace(self, analysis: Analysis, sent: TraceSubmission, context: Context) -> Receipt:
        track = find_track(analysis, sent.face)
        trace = read_trace(sent, track)
        scopes = [name for name in sent.scopes if name != CROP.name] if isinstance(sent.scopes, list) else ()
        consent = read_consent(scopes, sent.adult_and_permitted, context.bundled, context.language)
        clip = self._item(analysis, track.track_id, ())
        dimension, attempt = cast("str", sent.dimension), cast("Attempt", sent.attempt)
        item = hashlib.sha256(canonical([clip, dimension, attempt]).encode()).hexdigest()[:HASH_LENGTH]
        code = self._code(sent.code, f"{context.job} {track.track_id}")
        samples: tuple[list[float], list[float]] = (trace.times_s.tolist(), trace.values.tolist())
        name = canonical([self._keys.owner(code), item, trace.bounded, *samples, list(consent[1])])
        record = TraceRecord(
            self._keys.sign("record", name)[:HASH_LENGTH], self._keys.contributor(code), item, clip,
            track.track_id, (float(track.times_s[0]), float(track.times_s[-1])), dimension, attempt,
            trace.bounded, cast("Device", sent.device), tuple(samples[0]), tuple(samples[1]), *consent,
            blind=context.blind,
        )  # fmt: skip
        ack = self._store.add(record)
        return Receipt(code, record.id, ack.created, ack.state)

    def _returns(self, submission: Submission | TraceSubmission) -> bool:
        """Return whether a receipt code belongs to a contributor; a mistyped one is refused later."""
        try:
            return self._store.has_contributor(self._keys.contributor(str(submission.code)))
        except FeedbackError:
            return False

    def _counted(self, limits: Sequence[Limits], client: str, keep: Callable[[], Receipt]) -> Receipt:
        counted_as = self._keys.client(client, int(self._clock() // DAY_S))
        try:
            with ExitStack() as undo:
                for limit in dict.fromkeys(limits):
                    undo.callback(limit.release, counted_as, limit.acquire(counted_as))
                receipt = keep()
                if receipt.created:
                    undo.pop_all()
        except FeedbackError as error:
            log_event("refusal", where="feedback", code=error.code)
            raise
        return receipt

    def item(self, analysis: Analysis, face: int, span_s: object = ()) -> str:
        """Return the name of what a statement about a face would be about, ``FeedbackRecord.item``.

        Args:
            analysis: with the face.
            face: number of it.
            span_s: start and end in a clip, or nothing; unchecked.

        Raises:
            FeedbackError: if the face is not visible there.
        """
        return self._item(analysis, face, read_span(find_track(analysis, face), analysis.media.kind, span_s))

    def _item(self, analysis: Analysis, face: int, span_s: tuple[float, ...]) -> str:
        return self.face_item(analysis.media.sha256, face, span_s)

    def face_item(self, media_sha256: str, face: int, span_s: tuple[float, ...] = ()) -> str:
        """Return ``FeedbackRecord.item`` for a face of a file with this SHA-256."""
        named = canonical([self._keys.media(media_sha256), face, list(span_s)])
        return hashlib.sha256(named.encode()).hexdigest()[:HASH_LENGTH]

    def _keep(self, analysis: Analysis, submission: Submission, context: Context) -> Receipt:
        if analysis.imported:  # its predictions are whatever the file says
            raise FeedbackError(
                "A session file takes no corrections. Analyze the media again.", code="imported"
            )
        track = find_track(analysis, submission.face)
        predicted, provenance = read_predicted(analysis, track.track_id)
        verdict = read_verdict(submission.verdict)
        corrected = read_corrected(submission.corrected, list(predicted))
        check_statement(verdict, corrected, predicted)
        comment = read_comment(submission.comment)
        version, scopes, stated = read_consent(
            submission.scopes, submission.adult_and_permitted, context.bundled, context.language
        )
        span_s = read_span(track, analysis.media.kind, submission.span_s)
        code = self._code(submission.code, f"{context.job} {track.track_id}")
        contributor, item = self._keys.contributor(code), self._item(analysis, track.track_id, span_s)
        weights = [analysis.checkpoint.id, analysis.checkpoint.sha256, analysis.checkpoint.heads_sha256]
        said: list[Json] = [
            verdict,
            cast("Json", corrected),
            comment,
            *([context.instead_of] if context.instead_of else []),
        ]
        name = canonical([self._keys.owner(code), item, weights, [*said, version, list(scopes)]])
        record = FeedbackRecord(
            self._keys.sign("record", name)[:HASH_LENGTH], contributor, item, analysis.media.kind,
            track.track_id,
            _box(analysis, track), span_s, weights[0], weights[1], weights[2], context.preprocessing,
            predicted, provenance,
            verdict, corrected, version, scopes, stated, comment, context.blind,
            crop=make_crop(analysis, track.track_id) if "crop" in scopes else b"",
        )  # fmt: skip
        ack = self._store.add(record)
        return Receipt(code, record.id, ack.created, ack.state)

    def _code(self, code: object, nonce: str) -> str:
        if code is None or (isinstance(code, str) and not code.strip()):
            return self._keys.code(nonce)
        if not isinstance(code, str):
            raise FeedbackError("The receipt code must be text.", code="code_type")
        return read_code(code)


def read_predicted(analysis: Analysis, face: int) -> tuple[Mapping[str, Values], Mapping[str, str]]:
    """Return predicted values and provenance for a face, by task; tasks without a value are left out."""
    [predictions] = [one.predictions for one in analysis.faces if one.track.track_id == face]
    known = [one for one in predictions if np.isfinite(one.values).all()]
    values = {
        one.task.name: dict(zip(one.task.label_names, map(float, one.values), strict=True)) for one in known
    }
    return values, {one.task.name: one.provenance for one in known}


def _box(analysis: Analysis, track: FaceTrack) -> tuple[float, float, float, float]:
    """Return the box of the surest detection in shares of width and height."""
    size = np.array([analysis.media.width, analysis.media.height] * 2, np.float64)
    x0, y0, x1, y1 = np.clip(track.boxes_xyxy[surest_row(track)] / size, 0, 1).round(6).tolist()
    return x0, y0, x1, y1
