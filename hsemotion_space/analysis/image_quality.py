"""How far a face can be judged at all: what in the picture, and in the answer, speaks against it.

Everything is computed from an analysis, without a network. The bounds were measured on real faces with the
bundled checkpoints or are choices; ``docs/quality.md`` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.hub.manifest import InputSpec
from hsemotion_space.messages import Message
from hsemotion_space.types import (
    THUMBNAIL_HALF,
    Analysis,
    ByteArray,
    Disagreement,
    FaceResult,
    FaceTrack,
    FloatArray,
    MediaInfo,
    Prediction,
    check_shape,
)

Kind = Literal["unsure", "small", "blurred", "outside", "turned", "undecided", "divided"]
KINDS: Final[tuple[Kind, ...]] = ("unsure", "small", "blurred", "outside", "turned", "undecided", "divided")
"""The most serious first: no face, no detail, not the whole face, not the side that the network knows, no
clear answer, another answer of another network."""

MOST_ENLARGED: Final = 2.0
"""Times that a face is enlarged.

Measured: beyond it, more than a fifth of the faces change their first label.
"""
LEAST_SHARPNESS: Final = 0.02
"""See :func:`sharpness`. Measured: below it, more than a fifth of the faces change their first label."""
MOST_OUTSIDE: Final = 0.2
"""Share of the box. Measured: beyond it, more than a fifth of the faces change their first label."""
MOST_YAW: Final = 0.2
"""See :func:`pose`. Measured: beyond it, answers are right less often."""
USUAL_PITCH: Final = 0.55
MOST_PITCH: Final = 0.25
"""See :func:`pose`. A choice: the pose cannot be told from an open mouth by five points."""
MOST_ROLL: Final = 15.0
"""Degrees. Measured: beyond it, more than a fifth of the faces change their first label."""
LEAST_LEAD: Final = 0.15
"""Of the first label over the second. Measured: below it, the second one is right nearly as often."""
LEAST_AGREEMENT: Final = 0.5
"""Share of the frames in which all checkpoints put the same label first.

A choice: below it, they differ more often than not.
"""
MEASURED_SIDE: Final = 64  # px to which a face is scaled before its sharpness is measured


@dataclass(frozen=True, slots=True)
class QualityFlag:
    """One reason not to rely on a face.

    Attributes:
        kind: which of ``KINDS``.
        text: for the reader, with the number.
        value: what was measured.
        threshold: the bound that it passed.
    """

    kind: Kind
    text: Message
    value: float
    threshold: float


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """The flags of one track, most serious first; no flag does not mean that the numbers are right."""

    track_id: int
    flags: tuple[QualityFlag, ...]


def quality(
    analysis: Analysis, spec: InputSpec, found: Sequence[Disagreement] = ()
) -> tuple[FaceQuality, ...]:
    """Return what speaks against relying on each face of an analysis, in the order of its faces.

    Of a clip, sizes, places, scores and poses are medians over the frames of the face, and sharpness is that
    of its thumbnail.

    Args:
        analysis: of a picture or a clip.
        spec: the input of the checkpoint that made it.
        found: how far it is from other checkpoints on the same faces, if there are others.
    """
    faces = []
    for face in analysis.faces:
        number = face.track.track_id
        apart = [item for item in found if item.track_id == number]
        faces.append(
            FaceQuality(number, (*_of_picture(face, analysis.media, spec), *_of_answers(face, apart)))
        )
    return tuple(faces)


def _of_picture(face: FaceResult, media: MediaInfo, spec: InputSpec) -> Iterator[QualityFlag]:
    """Yield what speaks against the face itself, in the order of ``KINDS``."""
    track = face.track
    yield from _unsure(face)
    yield from _small(track, spec)
    yield from _blurred(track, media)
    yield from _outside(track, media)
    yield from _turned(track)


def _of_answers(face: FaceResult, apart: Sequence[Disagreement]) -> Iterator[QualityFlag]:
    """Yield what speaks against the answers of tasks that have one."""
    for prediction in face.predictions:
        if prediction.task.kind == "one_of" and len(prediction.task.labels) > 1 and prediction.stands_out:
            yield from _undecided(prediction)
    for item in apart:
        if item.task.kind == "one_of":
            yield from _divided(item)


def _unsure(face: FaceResult) -> Iterator[QualityFlag]:
    if found := doubt(face):
        yield QualityFlag("unsure", found.text, found.value, found.threshold)


def _small(track: FaceTrack, spec: InputSpec) -> Iterator[QualityFlag]:
    sides = np.median(track.boxes_xyxy[:, 2:] - track.boxes_xyxy[:, :2], axis=0)
    shorter = float(sides.min() if spec.crop == "box" else sides.max()) * (1 + 2 * spec.margin)
    enlarged = spec.size / max(shorter, 1e-6)
    if enlarged > MOST_ENLARGED:
        text = Message(
            "The face is small: its shorter side is {side:.0f} px. The checkpoint needs {size} px, so the "
            "face is enlarged "
            "{times:.2f} times (more than {limit:g}) and fine detail is interpolated.",
            side=sides.min(), size=spec.size, times=enlarged, limit=MOST_ENLARGED,
        )  # fmt: skip
        yield QualityFlag("small", text, enlarged, MOST_ENLARGED)


def _blurred(track: FaceTrack, media: MediaInfo) -> Iterator[QualityFlag]:
    sharp = face_sharpness(track, media)
    if sharp < LEAST_SHARPNESS:
        text = (
            "The face is blurred: its sharpness is {sharpness:.4f} (below {limit:g}). At this sharpness, more"
            " than a fifth of the measured faces changed their most probable label."
        )
        yield QualityFlag(
            "blurred", Message(text, sharpness=sharp, limit=LEAST_SHARPNESS), sharp, LEAST_SHARPNESS
        )


def face_sharpness(track: FaceTrack, media: MediaInfo) -> float:
    """Return the :func:`sharpness` of the face in its surest frame."""
    return sharpness(track.thumbnail, _box_in_thumbnail(track, media))


def _box_in_thumbnail(track: FaceTrack, media: MediaInfo) -> FloatArray:
    """Return the box (4,) of the best frame in px of the thumbnail, which shows it with a small margin."""
    box = track.boxes_xyxy[int(np.argmax(track.detection_scores))]
    center, half = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2])) * THUMBNAIL_HALF
    low, high = np.maximum(center - half, 0), np.minimum(center + half, (media.width, media.height))
    height, width = track.thumbnail.shape[:2]
    scale = np.array((width, height)) / np.maximum(high - low, 1)
    return np.asarray((box.reshape(2, 2) - low) * scale, np.float32).ravel()


def sharpness(rgb: ByteArray, box_xyxy: FloatArray) -> float:
    """Return how much fine detail a face has, whatever its brightness and contrast: 0 for none.

    The variance of the Laplacian of the luminance (Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000), with the face scaled to 64 x 64 px, divided by the variance of the luminance.

    Args:
        rgb: (H, W, 3) uint8, at least 1 px.
        box_xyxy: (4,) the face in px.
    """
    check_shape("sharpness", "rgb", rgb, (None, None, 3))
    image = Image.fromarray(rgb).convert("L")
    low, high = np.maximum(box_xyxy[:2], 0), np.minimum(box_xyxy[2:], image.size)
    if not (high - low >= 1).all():
        return 0.0
    scaled = image.resize(
        (MEASURED_SIDE, MEASURED_SIDE), Image.Resampling.BILINEAR, box=(*low.tolist(), *high.tolist())
    )
    gray = np.asarray(scaled, np.float64)
    laplacian = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1] - 4 * gray[1:-1, 1:-1]
    return float(laplacian.var() / max(gray.var(), 1e-9))


def outside_share(track: FaceTrack, media: MediaInfo) -> FloatArray:
    """Return the share (T,) of each box that lies outside the picture, 0 to 1."""
    boxes = track.boxes_xyxy.astype(np.float64)
    inside = np.clip(boxes, 0, (media.width, media.height, media.width, media.height))
    areas = [np.maximum(part[:, 2:] - part[:, :2], 0).prod(axis=1) for part in (boxes, inside)]
    return np.asarray(1 - areas[1] / np.maximum(areas[0], 1e-6), np.float32)


def _outside(track: FaceTrack, media: MediaInfo) -> Iterator[QualityFlag]:
    share = float(np.median(outside_share(track, media)))
    if share > MOST_OUTSIDE:
        text = (
            "{share:.1%} of the face is outside the picture (more than {limit:.0%}); the missing part is"
            " filled in."
        )
        yield QualityFlag("outside", Message(text, share=share, limit=MOST_OUTSIDE), share, MOST_OUTSIDE)


def pose(landmarks: FloatArray) -> FloatArray:
    """Return rough head-pose signs (T, 3) from five points in the picture; NaN where these are unknown.

    The columns are: yaw, how far the tip of the nose is from the middle between the eyes along their line, in
    distances of the eyes, 0 for a frontal face; pitch, how far it is down from the eyes to the mouth, 0..1
    for most faces; roll, the angle of the line of the eyes in degrees. Yaw and pitch are no angles of the
    head.

    Args:
        landmarks: (T, 5, 2) px, both eyes, nose, both mouth corners; the first eye is the left one in the
            picture.
    """
    check_shape("pose", "landmarks", landmarks, (None, 5, 2))
    points = landmarks.astype(np.float64)
    across = points[:, 1] - points[:, 0]  # (T, 2)
    eyes = np.hypot(across[:, 0], across[:, 1])
    along = across / np.where(eyes > 0, eyes, np.nan)[:, None]
    down = np.stack([-along[:, 1], along[:, 0]], 1)
    middle = (points[:, 0] + points[:, 1]) / 2
    nose, mouth = points[:, 2] - middle, (points[:, 3] + points[:, 4]) / 2 - middle
    height = (mouth * down).sum(1)
    yaw = (nose * along).sum(1) / np.where(eyes > 0, eyes, np.nan)
    pitch = (nose * down).sum(1) / np.where(height > 0, height, np.nan)
    return np.stack([yaw, pitch, np.degrees(np.arctan2(along[:, 1], along[:, 0]))], 1).astype(np.float32)


def _turned(track: FaceTrack) -> Iterator[QualityFlag]:
    poses = pose(track.landmarks)
    poses = poses[np.isfinite(poses).all(1)]
    if not len(poses):
        return
    yaw, pitch, roll = np.median(np.abs(poses - (0, USUAL_PITCH, 0)), axis=0).tolist()
    side = (
        "The head is turned to the side: the nose is {value:.3f} eye distances off center (more than"
        " {limit:g})."
    )
    up = (
        "The head is turned up or down: the nose is {value:.3f} off its usual height between eyes and mouth"
        " (more than {limit:g})."
    )
    tilt = "The head is tilted by {value:.1f} degrees (more than {limit:g})."
    value, bound, text = max(
        ((yaw, MOST_YAW, side), (pitch, MOST_PITCH, up), (roll, MOST_ROLL, tilt)),
        key=lambda one: one[0] / one[1],
    )
    if value > bound:
        yield QualityFlag("turned", Message(text, value=value, limit=bound), value, bound)


def lead(values: FloatArray) -> FloatArray:
    """Return the largest value minus the second largest of each row (T, K); NaN if there is one label."""
    if values.shape[1] < 2:
        return np.full(len(values), np.nan, np.float32)
    second, first = np.partition(values, -2, axis=1)[:, -2:].T
    return np.asarray(first - second, np.float32)


def _undecided(prediction: Prediction) -> Iterator[QualityFlag]:
    values: npt.NDArray[np.floating] = prediction.values
    first, second = (int(column) for column in np.argsort(-values, kind="stable")[:2])
    lead, spread = float(values[first] - values[second]), float(prediction.spread[first])
    small = "{task}: {first} leads {second} by only {lead:.3f} (less than {limit:g})."
    varied = (
        "{task}: {first} leads {second} by only {lead:.3f}, less than the standard deviation over the frames"
        " ({limit:.3f})."
    )
    text, bound = (small, LEAST_LEAD) if lead < LEAST_LEAD else (varied, spread)
    if lead < bound:
        names = [prediction.task.labels[column].name for column in (first, second)]
        message = Message(
            text, task=prediction.task.title, first=names[0], second=names[1], lead=lead, limit=bound
        )
        yield QualityFlag("undecided", message, lead, bound)


def _divided(item: Disagreement) -> Iterator[QualityFlag]:
    """Yield a flag if the checkpoints differ about the first label in more than half of the frames."""
    frames = len(item.decisions)
    same = int(np.count_nonzero(item.decisions == 0))
    if same < LEAST_AGREEMENT * frames:
        text = "{task}: the {count} backbones disagree on the most probable label."
        if frames > 1:
            text = (
                "{task}: the {count} backbones agree on the most probable label in {same} of {frames} frames"
                " (less than half)."
            )
        message = Message(text, task=item.task.title, count=len(item.checkpoints), same=same, frames=frames)
        yield QualityFlag("divided", message, same / frames, LEAST_AGREEMENT)
