"""The subjects of annotation: faces and stretches of finished analyses, and examples with known answers."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np

from hsemotion_space.analysis.sampling import Candidate, Reason, candidates, merged, within
from hsemotion_space.feedback.annotation import CLASS_TASK
from hsemotion_space.feedback.crops import preview, surest_row
from hsemotion_space.feedback.record import FeedbackError, Values
from hsemotion_space.types import Analysis, FaceResult
from hsemotion_space.ui.context import EXAMPLES, example_digests

Key: TypeAlias = tuple[str, int, tuple[float, ...]]
"""Digest of the media, number of the face, stretch: the same whoever analyzed it and whenever."""

MOST_ITEMS: Final = 120
LEAST_TRACED_S: Final = 2.0
"""A face that is visible for less is not traced: nobody reacts so fast."""
SAYS: Final = {"developers": "The developers of this page labeled the posed smile."}
"""Who stands behind a known answer of an example."""


@dataclass(frozen=True, slots=True)
class Item:
    """One face, or one stretch of a clip with it.

    Attributes:
        job: analysis that it is from.
        media: SHA-256 of the file.
        kind: ``image`` or ``clip``.
        face: number of the track.
        span_s: start and end in a clip; empty for a picture and for all of a face.
        score, reason: as in :class:`Candidate`; not for the annotator's eyes before the answer.
        bundled: whether the file came with this program.
        picture: whether the picture of the face that would be kept is from there, and can be told from other
            faces.
    """

    job: str
    media: str
    kind: str
    face: int
    span_s: tuple[float, ...]
    score: float
    reason: Reason
    bundled: bool
    picture: bool

    @property
    def key(self) -> Key:
        """What it is about, whichever analysis it is from."""
        return self.media, self.face, self.span_s


def make_items(job: str, analyses: Sequence[Analysis], has_media: bool) -> tuple[list[Item], int]:
    """Return the items of one analysis in its order, and the number of faces too unclear to annotate.

    Args:
        job: id of the analysis.
        analyses: of it, by one or more backbones.
        has_media: whether the browser can get the file, so that a clip can be played.
    """
    first, found = analyses[0], candidates(analyses)
    items = [_item(job, first, one) for one in found]
    shown = [item for item in items if item.picture or (has_media and item.kind == "clip")]
    return shown, len(items) - len(shown)


def make_clip_faces(job: str, analysis: Analysis, has_media: bool) -> list[Item]:
    """Return the faces of a clip as items to trace, the longest visible first; none of a picture."""
    if analysis.media.kind != "clip" or not has_media:
        return []
    media, bundled = analysis.media, analysis.media.sha256 in example_digests()
    seconds = {face.track.track_id: float(np.ptp(face.track.times_s)) for face in analysis.faces}
    return [
        Item(job, media.sha256, media.kind, face, (), length_s, "none", bundled, picture=False)
        for face, length_s in seconds.items()
        if length_s >= LEAST_TRACED_S
    ]


def _item(job: str, analysis: Analysis, one: Candidate) -> Item:
    face, media = face_of(analysis, one.face), analysis.media
    inside = bool(within(face.track, one.span_s)[surest_row(face.track)])
    picture = inside and _is_clear(analysis, one.face)
    return Item(
        job,
        media.sha256,
        media.kind,
        one.face,
        one.span_s,
        one.score,
        one.reason,
        media.sha256 in example_digests(),
        picture,
    )


def _is_clear(analysis: Analysis, number: int) -> bool:
    try:
        preview(analysis, number)
    except FeedbackError:  # other faces may be in it, and it is not known where
        return False
    return True


def face_of(analysis: Analysis, number: int) -> FaceResult:
    """Return a face by its number; it must be there."""
    return next(face for face in analysis.faces if face.track.track_id == number)


def in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return the queue without duplicates: the most doubted first, of whatever kind, the undoubted last.

    It has at most ``MOST_ITEMS``.
    """
    once = {item.key: item for item in reversed(list(items))}
    ordered = sorted(once.values(), key=lambda item: (item.reason, -item.score, item.key))
    kinds = {reason: list(group) for reason, group in groupby(ordered, key=lambda item: item.reason)}
    undoubted = kinds.pop("none", [])
    return tuple([*merged(list(kinds.values())), *undoubted][:MOST_ITEMS])


@dataclass(frozen=True, slots=True)
class Bundled:
    """A known answer to a face of an example.

    Attributes:
        media: SHA-256 of the file.
        center: a point in the box of the face, in shares of width and height.
        values: the answer by task.
        says: who says so; a key of ``SAYS``.
    """

    media: str
    center: tuple[float, float]
    values: Mapping[str, Values]
    says: str


@cache
def bundled_answers() -> tuple[Bundled, ...]:
    """Return what ``examples/gold.toml`` states; nothing where the examples are not installed."""
    file = EXAMPLES / "gold.toml"
    entries = tomllib.loads(file.read_text("utf-8"))["gold"] if file.is_file() else []
    return tuple(
        Bundled(
            hashlib.sha256((EXAMPLES / entry["file"]).read_bytes()).hexdigest(),
            (entry["center"][0], entry["center"][1]),
            {CLASS_TASK.name: {entry["answer"]: 1.0}},
            entry["says"],
        )
        for entry in entries
    )


def bundled_answer(analysis: Analysis, number: int) -> Bundled | None:
    """Return the known answer to a face of a picture that came with this program; None if there is none."""
    if analysis.media.kind != "image":
        return None
    box = face_of(analysis, number).track.boxes_xyxy[0] / np.array(
        [analysis.media.width, analysis.media.height] * 2
    )
    for one in bundled_answers():
        if (
            one.media == analysis.media.sha256
            and box[0] <= one.center[0] <= box[2]
            and box[1] <= one.center[1] <= box[3]
        ):
            return one
    return None
