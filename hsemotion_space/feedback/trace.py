"""Traces: continuous ratings of one dimension of a face of a clip, as a type of record of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, get_args

import numpy as np

from hsemotion_space.feedback.record import CONTRIBUTOR, HEX, FeedbackError, Review, State
from hsemotion_space.messages import Message
from hsemotion_space.metrics import Doubles
from hsemotion_space.tasks import VALENCE_AROUSAL
from hsemotion_space.traces import (
    LATEST_START_S,
    LEAST_COVERED,
    LONGEST_GAP_S,
    RATE_HZ,
    Trace,
    TraceAgreement,
    agreement,
    problem_of,
)
from hsemotion_space.types import FaceTrack

Attempt = Literal["first", "second", "repair"]
Device = Literal["mouse", "touch", "keys", "gamepad"]

DIMENSIONS: Final = VALENCE_AROUSAL.label_names
ATTEMPTS: Final[tuple[Attempt, ...]] = get_args(Attempt)
"""The second pass knows nothing of the first; a repair is the second with some parts rated anew."""
DEVICES: Final[tuple[Device, ...]] = get_args(Device)
MOST_UNBOUNDED: Final = 1000.0
TIME_DIGITS, VALUE_DIGITS = 3, 4
EDGE_S: Final = 0.1  # by which a browser's time of a frame may miss the first and the last of the face
REDO: Final = {
    "late": "The first rating is more than {start:g} s after the start. Trace the clip again from the start.",
    "gap": "Nothing was rated for more than {gap:g} s. Trace the clip again without a pause.",
    "sparse": "Less than {share:.0%} of the clip was rated. Trace the clip again up to its end.",
}


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """A raw trace as it was given; resampled and lag-corrected copies are derived and never stored.

    Attributes:
        id, contributor, consent_version, consent_scopes, consent_statement, blind: as of a correction.
        item: name of face, dimension and attempt, equal for everybody who traces it; 32 hexadecimal digits.
        clip: ``item`` of corrections of the whole face, which all traces of it share.
        face: number of the track, from 1.
        span_s: when the face is visible, first and last presentation time.
        dimension: one of ``DIMENSIONS``.
        attempt: one of ``ATTEMPTS``.
        bounded: whether values are from -1 to 1, or on a scale of the contributor's own.
        device: one of ``DEVICES``.
        times_s, values: the samples; presentation times of the frames that were on screen.
        number, created_s, state, batch, superseded, review, reverted, gold, crop: of the store, as of a
            correction; there is never a picture.
    """

    id: str
    contributor: str
    item: str
    clip: str
    face: int
    span_s: tuple[float, float]
    dimension: str
    attempt: Attempt
    bounded: bool
    device: Device
    times_s: tuple[float, ...]
    values: tuple[float, ...]
    consent_version: str
    consent_scopes: tuple[str, ...]
    consent_statement: str = ""
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

    def __post_init__(self) -> None:
        names = all(HEX.fullmatch(name) for name in (self.id, self.item, self.clip))
        stated = self.dimension in DIMENSIONS and self.attempt in ATTEMPTS and self.device in DEVICES
        if not (names and CONTRIBUTOR.fullmatch(self.contributor) and stated and self.face >= 1):
            raise FeedbackError("This is not the record of a trace.", code="record_trace")
        if len(self.span_s) != 2 or not self.span_s[0] <= self.span_s[1]:
            raise FeedbackError(
                "A time range needs a start and a later end in a clip, got {span}.",
                code="record_span",
                span=self.span_s,
            )
        _make_trace(self.times_s, self.values, self.bounded)

    @property
    def trace(self) -> Trace:
        """The samples."""
        return _make_trace(self.times_s, self.values, self.bounded)

    @property
    def consented_crop(self) -> bytes:
        """Nothing: a trace has no picture."""
        return b""


def _make_trace(times_s: Sequence[float], values: Sequence[float], bounded: bool) -> Trace:
    try:
        trace = Trace(np.array(times_s, np.float64), np.array(values, np.float64), bounded)
    except (ValueError, TypeError, OverflowError) as error:
        raise FeedbackError(
            "A trace needs at least two times in rising order and one value for each, from -1 to 1 on the"
            " bounded scale.",
            code="trace",
        ) from error
    if np.abs(trace.values).max() > MOST_UNBOUNDED:
        raise FeedbackError(
            "The values of a trace must be from {low:g} to {high:g}.",
            code="trace_range", low=-MOST_UNBOUNDED, high=MOST_UNBOUNDED,
        )  # fmt: skip
    return trace


@dataclass(frozen=True, slots=True)
class TraceSubmission:
    """What a browser sends of a trace, all of it untrusted; fields as of :class:`TraceRecord`.

    ``scopes``, ``adult_and_permitted`` and ``code`` are as of a correction.
    """

    face: object
    dimension: object
    attempt: object
    bounded: object
    device: object
    times_s: object
    values: object
    scopes: object = ()
    adult_and_permitted: object = False
    code: object = ""


def read_trace(sent: TraceSubmission, track: FaceTrack) -> Trace:
    """Return a trace of a face that a browser sent: complete, within the clip and within its scale.

    Raises:
        FeedbackError: saying what is wrong with it, or that and why the clip must be traced again.
    """
    for given, known in ((sent.dimension, DIMENSIONS), (sent.attempt, ATTEMPTS), (sent.device, DEVICES)):
        if not isinstance(given, str) or given not in known:
            raise FeedbackError(
                "A value of the trace must be one of {names}.", code="trace_kind", names=", ".join(known)
            )
    start, end = float(track.times_s[0]), float(track.times_s[-1])
    times = _numbers(sent.times_s, (end - start) * RATE_HZ + 2, TIME_DIGITS)
    values = _numbers(sent.values, len(times), VALUE_DIGITS)
    trace = _make_trace(times.tolist(), values.tolist(), sent.bounded is not False)
    if times[0] < start - EDGE_S or times[-1] > end + EDGE_S:
        raise FeedbackError(
            "Face {number} is visible from {first:.2f} to {last:.2f} s. Select a time range within it.",
            code="span_outside", number=track.track_id, first=start, last=end,
        )  # fmt: skip
    if problem := problem_of(trace, start, end):
        limits = {"start": LATEST_START_S, "gap": LONGEST_GAP_S, "share": LEAST_COVERED}
        raise FeedbackError(REDO[problem], code=f"trace_{problem}", **limits)
    return trace


def _numbers(value: object, most: float, digits: int) -> Doubles:
    """Return a list of numbers that a browser sent, rounded."""
    if (
        not isinstance(value, list | tuple)
        or len(value) > most
        or not all(type(one) in (int, float) and abs(one) < 1e9 for one in value)
    ):
        raise FeedbackError(
            "A trace needs one time and one value per sample, at most {rate} samples per second.",
            code="trace_numbers",
            rate=RATE_HZ,
        )
    return np.asarray(np.round(value, digits), np.float64)


def agreements(traces: Sequence[TraceRecord]) -> Iterator[tuple[str, bool, TraceAgreement]]:
    """Yield the dimension of two traces of one face, whether one person gave both, and how far they agree.

    Of one person the first pass is compared with the second, which knows nothing of it. Of different people
    the last passes are compared, those with repairs before others.
    """
    held = [one for one in traces if not (one.superseded or one.reverted)]
    by_face: dict[tuple[str, str], dict[str, dict[str, Trace]]] = {}
    for one in held:
        people = by_face.setdefault((one.clip, one.dimension), {})
        people.setdefault(one.contributor, {})[one.attempt] = one.trace
    for (_, dimension), people in by_face.items():
        own = [
            (passes["first"], passes["second"])
            for passes in people.values()
            if passes.keys() >= {"first", "second"}
        ]
        last = [
            next(passes[name] for name in reversed(ATTEMPTS) if name in passes) for passes in people.values()
        ]
        for alone, pairs in ((True, own), (False, list(combinations(last, 2)))):
            found = (agreement(first, second) for first, second in pairs)
            yield from ((dimension, alone, one) for one in found if one is not None)


def trace_subject(record: TraceRecord) -> Message:
    """Return what a trace is about, such as ``clip, face 2, 0 to 6.5 s``."""
    start, end = record.span_s
    return Message("clip, face {number}, {start:g} to {end:g} s", number=record.face, start=start, end=end)
