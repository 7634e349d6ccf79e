"""Drawn pictures, a detector that sees what is green in them, and the comparison of analyses."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
from media_makers import write_clip
from PIL import Image
from scipy import ndimage

from hsemotion_space.settings import PipelineConfig
from hsemotion_space.types import Analysis, ByteArray, FaceDetections, FloatArray
from hsemotion_space.vision.tracking import overlap

Places = Sequence[tuple[int, int]]
LEFT, RIGHT = (16, 32), (96, 32)
EVERY_FRAME = PipelineConfig(sample_fps=0, smoothing=0)


class Cancelled(Exception):
    """What a report raises to stop an analysis."""


def draw(places: Places, size: tuple[int, int] = (96, 160), side: int = 32) -> ByteArray:
    """Return a gray picture with a green square, a face to the fake detector, at each (left, top)."""
    picture = np.full((*size, 3), 120, np.uint8)
    for left, top in places:
        picture[top : top + side, left : left + side] = (20, 220, 20)
    return picture


class GreenDetector:
    """Finds green squares; counts its calls and how many pictures are alive at once."""

    def __init__(self) -> None:
        self.searches, self.follows, self.thorough = 0, 0, False
        self.alive: list[weakref.ref[ByteArray]] = []
        self.most_alive = 0

    def _find(self, rgb: ByteArray) -> FaceDetections:
        self.alive = [ref for ref in self.alive if ref() is not None and ref() is not rgb] + [
            weakref.ref(rgb)
        ]
        self.most_alive = max(self.most_alive, len(self.alive))
        labels, _ = ndimage.label((rgb[:, :, 1] > 170) & (rgb[:, :, 0] < 90))
        boxes = [
            (x.start, y.start, x.stop, y.stop)
            for y, x in ndimage.find_objects(labels)
            if y.stop - y.start > 10
        ]
        found = np.array(sorted(boxes), np.float32).reshape(-1, 4)
        landmarks = found[:, None, :2] + np.array(
            [[8, 10], [24, 10], [16, 16], [10, 24], [22, 24]], np.float32
        )
        return FaceDetections(found, np.full(len(found), 0.99, np.float32), landmarks)

    def detect(self, rgb: ByteArray, thorough: bool = False) -> FaceDetections:
        self.searches += 1
        self.thorough |= thorough
        return self._find(rgb)

    def follow(self, rgb: ByteArray, boxes_xyxy: FloatArray) -> tuple[FaceDetections, FloatArray]:
        self.follows += 1
        found = self._find(rgb)
        near = overlap(boxes_xyxy, found.boxes_xyxy) > 0.3
        without = replace(found, landmarks=np.full_like(found.landmarks, np.nan))
        return without.select(near.any(0)), near.any(1).astype(np.float32)


def clip(tmp_path: Path, frames: Sequence[Places], times_s: Sequence[float] | None = None) -> Path:
    return write_clip(tmp_path / "clip.mp4", [draw(places) for places in frames], times_s)


def picture(tmp_path: Path, pixels: ByteArray) -> Path:
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


ALL = ("wide", "small", "twin")


def same(one: Analysis, other: Analysis) -> bool:
    """Whether two analyses are equal in every bit."""
    return _plain(one) == _plain(other)


def _plain(value: object) -> object:
    """Return a value as nested tuples with the bytes of its arrays, whatever is shared inside of it."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        return tuple((item.name, _plain(getattr(value, item.name))) for item in fields(value))
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else repr(value)


def indices(analysis: Analysis) -> list[list[int]]:
    return [face.track.frame_index.tolist() for face in analysis.faces]
