"""The picture of a face that is kept: pixels only, of this face only."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.types import THUMBNAIL_HALF, Analysis, ByteArray, FaceTrack, FloatArray

MOST_SIDE: Final = 224  # px
GRAY: Final = 128
MARGIN: Final = 0.15  # by which the box of another face is widened on each side, in its sides
BLEED: Final = 2  # px of the thumbnail into which its neighbors were mixed when it was made smaller
# another face that is not found in the frame may still be where it was found so much earlier or later
NEAR_S: Final = 1.0
UNCLEAR: Final = (
    "The image of this face may show another face and cannot be saved. Send the correction without the image."
)


def preview(analysis: Analysis, face_number: int) -> ByteArray:
    """Return the pixels that :func:`make_crop` would keep: (H, W, 3) uint8 RGB, at most MOST_SIDE px.

    Args:
        analysis: with the face.
        face_number: of the track, from 1.

    Raises:
        FeedbackError: if there is no such face, or other faces might be in its picture and it is not known
            where.
    """
    track = find_track(analysis, face_number)
    others = np.array(
        [box for face in analysis.faces if face.track is not track for box in _boxes_near(face.track, track)],
        np.float32,
    )
    pixels = track.thumbnail.copy()
    if len(others):
        _blot(pixels, _region(analysis, track), others.reshape(-1, 4))
    image = Image.fromarray(pixels)
    image.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)


def make_crop(analysis: Analysis, face_number: int) -> bytes:
    """Return the picture of a face as PNG without any metadata; equal analyses give equal bytes.

    Raises:
        FeedbackError: as :func:`preview`.
    """
    out = io.BytesIO()
    Image.fromarray(preview(analysis, face_number)).save(out, "PNG")
    return out.getvalue()


def find_track(analysis: Analysis, face_number: object) -> FaceTrack:
    """Return a track by its number, which may come from a client.

    Raises:
        FeedbackError: if there is none.
    """
    for face in analysis.faces:
        if not isinstance(face_number, bool | float) and face.track.track_id == face_number:
            return face.track
    raise FeedbackError("This result has no face {number}.", code="no_face", number=str(face_number)[:20])


def surest_row(track: FaceTrack) -> int:
    """Return the row of a track in which its thumbnail was taken: the first of the surest detections."""
    return int(np.argmax(track.detection_scores))


def _boxes_near(other: FaceTrack, track: FaceTrack) -> Iterator[FloatArray]:
    """Yield other faces' places in a thumbnail's frame: the box there, else boxes shortly around it."""
    row = surest_row(track)
    rows = np.flatnonzero(other.frame_index == track.frame_index[row])
    if not rows.size:
        rows = np.flatnonzero(np.abs(other.times_s - track.times_s[row]) <= NEAR_S)
    yield from other.boxes_xyxy[rows]


def _region(analysis: Analysis, track: FaceTrack) -> tuple[int, int, int, int]:
    """Return the crop of a thumbnail (left, top, right, bottom in px); its shape must match."""
    box = track.boxes_xyxy[surest_row(track)]
    center, half = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2])) * THUMBNAIL_HALF
    x0, y0 = (int(max(value, 0)) for value in center - half)
    x1, y1 = (
        int(min(value, limit))
        for value, limit in zip(center + half, (analysis.media.width, analysis.media.height), strict=True)
    )
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    height, width = track.thumbnail.shape[:2]
    scale = max(width, height) / max(x1 - x0, y1 - y0)
    if abs((x1 - x0) * scale - width) > 1 or abs((y1 - y0) * scale - height) > 1:
        raise FeedbackError(UNCLEAR, code="crop_unclear")
    return x0, y0, x1, y1


def _blot(pixels: ByteArray, region: tuple[int, int, int, int], boxes_xyxy: FloatArray) -> None:
    """Fill with gray what may show other faces."""
    height, width = pixels.shape[:2]
    scale = np.array([width / (region[2] - region[0]), height / (region[3] - region[1])])
    for box in boxes_xyxy:
        wider = MARGIN * (box[2:] - box[:2])
        low = np.floor((box[:2] - wider - region[:2]) * scale).astype(int) - BLEED
        high = np.ceil((box[2:] + wider - region[:2]) * scale).astype(int) + BLEED
        (x0, y0), (x1, y1) = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
        pixels[y0:y1, x0:x1] = GRAY
