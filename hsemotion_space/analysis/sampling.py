"""What to ask an annotator about: faces of pictures and stretches of clips, the most uncertain first.

A face of a picture is asked about once. Of a clip, stretches of ``WINDOW_S`` are chosen around the moments
with the highest score, a few per face. The score of a moment is how far the backbones are apart where several
were run, else how unsure the one is (see ``compare``); only one-of tasks of trained heads count. The two
kinds of score have no common scale, so lists of both are merged by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final, Literal, TypeVar

import numpy as np

from hsemotion_space.analysis.disagreement import disagreements, uncertainty
from hsemotion_space.inference.temporal import summarize
from hsemotion_space.types import Analysis, FaceResult, FaceTrack, FloatArray, Timeline

Reason = Literal["disagreement", "uncertainty", "none"]

WINDOW_S: Final = 2.0
GRID_S: Final = 0.5
"""Stretches begin at multiples of it, so that several people who add one clip are asked about the same ones.
"""
LEAST_FRAMES: Final = 3
MOST_WINDOWS: Final = 6
"""Of one face of a clip."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to ask about.

    Attributes:
        face: number of the track, from 1.
        span_s: start and end in a clip, in seconds; empty for a picture, and for all of a face that is not
            visible for longer.
        score: in 0..1, how far networks are apart or how unsure one is, at the worst moment.
        reason: what the score is; ``none`` if no head tells either, and the score is 0.
    """

    face: int
    span_s: tuple[float, ...]
    score: float
    reason: Reason


def candidates(analyses: Sequence[Analysis]) -> tuple[Candidate, ...]:
    """Return what to ask about one picture or clip, the highest score first, then by face and time.

    Args:
        analyses: of one file; several of them with the same tracks, as one pass gives them. Faces and times
            are those of the first.
    """
    first = analyses[0]
    found = [one for face in first.faces for one in _of_face(first, face, *_scores(analyses, face))]
    return tuple(sorted(found, key=lambda one: (-one.score, one.face, one.span_s)))


def _of_face(analysis: Analysis, face: FaceResult, scores: FloatArray, reason: Reason) -> Iterator[Candidate]:
    track = face.track
    if analysis.media.kind == "image":
        yield Candidate(track.track_id, (), round(float(scores.max()), 4), reason)
        return
    taken: list[tuple[float, float]] = []
    for row in np.argsort(-scores, kind="stable"):
        start, end = window(track, float(track.times_s[row]))
        if len(taken) == MOST_WINDOWS:
            return
        seen = within(track, (start, end)).sum()
        if seen < LEAST_FRAMES or any(
            start < other_end and other_start < end for other_start, other_end in taken
        ):
            continue
        taken.append((start, end))
        whole = (start, end) == _ends(track)
        yield Candidate(track.track_id, () if whole else (start, end), round(float(scores[row]), 4), reason)


def _ends(track: FaceTrack) -> tuple[float, float]:
    return round(float(track.times_s[0]), 2), round(float(track.times_s[-1]), 2)


def window(track: FaceTrack, time_s: float) -> tuple[float, float]:
    """Return start and end of the stretch around a moment: ``WINDOW_S`` long, within the track."""
    first, last = _ends(track)
    start = round((time_s - WINDOW_S / 2) / GRID_S) * GRID_S
    start = max(first, min(start, last - WINDOW_S))
    return round(start, 2), round(min(last, start + WINDOW_S), 2)


def within(track: FaceTrack, span_s: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows of a track are in a stretch (T,); all if there is none.

    Times are those of records, rounded to 0.01 s.
    """
    times = np.round(track.times_s, 2)
    return (times >= span_s[0]) & (times <= span_s[1]) if span_s else np.ones(len(times), np.bool_)


def _scores(analyses: Sequence[Analysis], face: FaceResult) -> tuple[FloatArray, Reason]:
    """Return how doubtful each frame of a face is (T,), and what makes it so."""
    rows, number = len(face.track.times_s), face.track.track_id
    if len(analyses) > 1:
        apart = [
            one.score
            for one in disagreements(analyses)
            if one.track_id == number
            and one.task.kind == "one_of"
            and set(one.provenances) == {"trained"}
            and len(one.score) == rows
        ]
        if apart:
            return np.max(apart, axis=0), "disagreement"
    unsure = [uncertainty(line) for line in face.timelines if _counts(line, rows)]
    if unsure:
        return np.nan_to_num(np.max(unsure, axis=0)), "uncertainty"
    return np.zeros(rows, np.float32), "none"


def _counts(line: Timeline, rows: int) -> bool:
    return line.task.kind == "one_of" and line.provenance == "trained" and len(line.times_s) == rows


def narrowed(analysis: Analysis, face: int, span_s: Sequence[float]) -> Analysis:
    """Return an analysis that predicts one face from the frames of a stretch; the track stays as it is.

    What a network says about a stretch is the mean over its frames, as everywhere. Numbers that belong to a
    whole clip are left out. Without a stretch it is the same analysis.

    Args:
        analysis: with the face.
        face: its number.
        span_s: start and end, or nothing; with at least one frame of the face in it.
    """
    if not span_s:
        return analysis
    return replace(
        analysis,
        faces=tuple(_narrowed(one, span_s) if one.track.track_id == face else one for one in analysis.faces),
    )


def _narrowed(face: FaceResult, span_s: Sequence[float]) -> FaceResult:
    rows = within(face.track, span_s)
    lines = [line for line in face.timelines if line.task.scope == "frame" and len(line.times_s) == len(rows)]
    parts = [
        replace(
            line,
            times_s=line.times_s[rows],
            values=line.values[rows],
            support=line.support[rows] if len(line.support) else line.support,
        )
        for line in lines
    ]
    return replace(face, predictions=tuple(summarize(part) for part in parts))


def merged(lists: Sequence[Sequence[T]]) -> list[T]:
    """Interleave lists, first elements first: scores of different kinds compare by rank only."""
    nothing = object()
    return [one for row in zip_longest(*lists, fillvalue=nothing) for one in row if one is not nothing]  # type: ignore[misc]
