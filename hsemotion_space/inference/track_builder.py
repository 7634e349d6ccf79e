"""Tracks while they grow: what is known of each face frame by frame, and what each backbone says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hsemotion_space.types import ByteArray, FaceDetections, FaceTrack, FloatArray, Frame


@dataclass(slots=True)
class Outputs:
    """What one backbone gave for a face so far: an embedding (D,) and scores (K,) per frame."""

    embeddings: list[FloatArray] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """A track that is still growing, with one ``Outputs`` per backbone, in the order of the backbones."""

    outputs: tuple[Outputs, ...]
    frame_index: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    boxes: list[FloatArray] = field(default_factory=list)
    detection_scores: list[float] = field(default_factory=list)
    landmarks: list[FloatArray] = field(default_factory=list)
    thumbnail: ByteArray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))

    def __len__(self) -> int:
        return len(self.times_s)

    def add(self, frame: Frame, faces: FaceDetections, row: int) -> bool:
        """Note one face of a frame; return whether the detector was never surer of this track."""
        score = float(faces.scores[row])
        surest = not self.detection_scores or score > max(self.detection_scores)
        self.frame_index.append(frame.index)
        self.times_s.append(frame.time_s)
        self.boxes.append(faces.boxes_xyxy[row])
        self.detection_scores.append(score)
        self.landmarks.append(faces.landmarks[row])
        return surest

    def tracks(self, track_id: int) -> tuple[FaceTrack, ...]:
        """Return the finished track once per backbone; what does not depend on the backbone is shared."""
        frame_index, times_s = np.array(self.frame_index, np.int64), np.array(self.times_s, np.float64)
        boxes, landmarks = (
            np.stack(self.boxes).astype(np.float32),
            np.stack(self.landmarks).astype(np.float32),
        )
        detection_scores = np.array(self.detection_scores, np.float32)
        return tuple(
            FaceTrack(
                track_id,
                frame_index,
                times_s,
                boxes,
                detection_scores,
                np.stack(output.embeddings),
                np.stack(output.scores),
                self.thumbnail,
                landmarks,
            )
            for output in self.outputs
        )
