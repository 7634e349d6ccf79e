"""Give faces an id while they are visible: overlap of boxes and the Hungarian method.

Boxes only, never identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hsemotion_space.types import FaceDetections, FloatArray, IntArray

MIN_OVERLAP = 0.3  # intersection over union below which two boxes are different faces
SAME_FACE_OVERLAP = 0.6  # two tracks that overlap more have collapsed onto one face
MAX_GAP_S = 1.0  # a face out of sight for longer gets a new number when it returns


def overlap(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """Return intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), 2, dtype=np.float64)
    area_a, area_b = (
        np.prod(a[:, 2:] - a[:, :2], 1, dtype=np.float64),
        np.prod(b[:, 2:] - b[:, :2], 1, dtype=np.float64),
    )
    union = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def without_doubles(faces: FaceDetections) -> FaceDetections:
    """Leave out the less sure of two boxes that lie on one face."""
    order = np.argsort(-faces.scores, kind="stable")
    overlaps = overlap(faces.boxes_xyxy, faces.boxes_xyxy)
    kept: list[int] = []
    for row in order:
        if all(overlaps[row, other] <= SAME_FACE_OVERLAP for other in kept):
            kept.append(int(row))
    return faces.select(np.array(sorted(kept), np.int64))


@dataclass(slots=True)
class _Open:
    """A face that was seen within the last second."""

    track_id: int
    box: FloatArray
    time_s: float


class FaceTracker:
    """Assign track ids frame by frame, in order of time."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._next = 1

    @property
    def boxes_xyxy(self) -> FloatArray:
        """Boxes (N, 4) of the latest frame that showed a face, if it is recent."""
        latest = max((item.time_s for item in self._open), default=0.0)
        boxes = [item.box for item in self._open if item.time_s == latest]
        return np.stack(boxes) if boxes else np.zeros((0, 4), np.float32)

    def end_tracks(self) -> None:
        """End all tracks, as after a hard cut: whatever is seen next gets a new number."""
        self._open.clear()

    def update(self, faces: FaceDetections, time_s: float) -> IntArray:
        """Return the track ids (N,) of the faces of one frame.

        Args:
            faces: without doubles.
            time_s: presentation time, later than at the call before.
        """
        self._open = [item for item in self._open if time_s - item.time_s <= MAX_GAP_S]
        ids = np.zeros(len(faces), np.int64)
        if self._open and len(faces):
            # a third of a second that no picture needs
            from scipy.optimize import linear_sum_assignment  # noqa: PLC0415

            overlaps = overlap(np.stack([item.box for item in self._open]), faces.boxes_xyxy)
            for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
                if overlaps[row, column] >= MIN_OVERLAP:
                    item = self._open[row]
                    ids[column], item.box, item.time_s = item.track_id, faces.boxes_xyxy[column], time_s
        for column in np.flatnonzero(ids == 0):
            ids[column] = self._next
            self._open.append(_Open(self._next, faces.boxes_xyxy[column], time_s))
            self._next += 1
        return ids
