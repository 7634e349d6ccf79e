"""The cascade of MTCNN (Zhang et al., 2016) in numpy, around three networks that run on any engine.

Boxes, scores and landmarks are those of facenet-pytorch's ``detect_face``, but for rounding.
"""

from __future__ import annotations

import numpy as np

from hsemotion_space.types import ByteArray, FaceDetections, FloatArray, IntArray
from hsemotion_space.vision.engine import Runner

THRESHOLDS = (0.6, 0.7, 0.7)  # facenet-pytorch's defaults for its three stages
PYRAMID_FACTOR = 0.709
CELL, STRIDE = 12, 2  # px: what the first network sees for one output, and the step between outputs
RNET_SIZE, ONET_SIZE = 24, 48


def search(rgb: ByteArray, min_face: int, pnet: Runner, rnet: Runner, onet: Runner) -> FaceDetections:
    """Return the faces of a picture, the surest first.

    Args:
        rgb: (H, W, 3) uint8.
        min_face: side in px of the smallest face; nothing is found in a picture with a shorter side.
        pnet: returns corrections (1, 4, h, w) and probabilities (1, 2, h, w) of a picture of any size.
        rnet: returns corrections (N, 4) and probabilities (N, 2).
        onet: returns corrections (N, 4), landmarks (N, 10) and probabilities (N, 2).
    """
    areas = _Areas(rgb)
    boxes = _propose(areas, min_face, pnet)
    boxes, windows = _windows(boxes, areas)
    if not len(boxes):
        return FaceDetections.empty()
    shifts, probabilities = rnet(areas.cut(windows, RNET_SIZE))
    scores = probabilities[:, 1]
    kept = np.flatnonzero(scores > THRESHOLDS[1])
    kept = kept[_suppress(boxes[kept], scores[kept], 0.7)]
    boxes, windows = _windows(_square(_shift(boxes[kept], shifts[kept], 1)), areas)
    if not len(boxes):
        return FaceDetections.empty()
    shifts, points, probabilities = onet(areas.cut(windows, ONET_SIZE))
    scores = probabilities[:, 1]
    kept = np.flatnonzero(scores > THRESHOLDS[2])
    boxes, scores = boxes[kept], scores[kept]
    sizes = boxes[:, None, 2:] - boxes[:, None, :2] + 1
    landmarks = points[kept].reshape(-1, 2, 5).transpose(0, 2, 1) * sizes + boxes[:, None, :2] - 1
    boxes = _shift(boxes, shifts[kept], 1)
    kept = _suppress(boxes, scores, 0.7, nested=True)
    return FaceDetections(boxes[kept], scores[kept], landmarks[kept])


class _Areas:
    """Mean colors of rectangles of a picture, from a table of sums: exact, at a cost that no size changes."""

    def __init__(self, rgb: ByteArray) -> None:
        self.height, self.width = rgb.shape[:2]
        # sums of a large picture wrap around, which their differences do not show
        self._sums = np.zeros((3, self.height + 1, self.width + 1), np.int32)
        self._sums[:, 1:, 1:] = rgb.transpose(2, 0, 1)
        np.cumsum(self._sums, 2, out=self._sums)
        for row in range(1, self.height + 1):  # five times as fast as a cumsum along this axis
            self._sums[:, row] += self._sums[:, row - 1]

    def resize(self, height: int, width: int) -> FloatArray:
        """Return the picture as (1, 3, height, width), normalized for the networks."""
        top, bottom = _steps(np.zeros(1, np.int64), np.array([self.height]), height)
        left, right = _steps(np.zeros(1, np.int64), np.array([self.width]), width)
        rows = self._sums[:, bottom[0]] - self._sums[:, top[0]]
        sums = np.take(rows, right[0], 2) - np.take(rows, left[0], 2)
        return _normalize(sums, (bottom - top).T * (right - left))[None]

    def cut(self, windows: IntArray, side: int) -> FloatArray:
        """Return windows (N, 4), left, top, right, bottom, as (N, 3, side, side), normalized."""
        left, right = _steps(windows[:, 0], windows[:, 2], side)
        top, bottom = _steps(windows[:, 1], windows[:, 3], side)
        table, stride = self._sums.reshape(3, -1), self.width + 1
        corners = [
            np.take(table, (y * stride)[:, :, None] + x[:, None, :], 1)
            for y in (bottom, top)
            for x in (right, left)
        ]
        sums = corners[0] - corners[1] - corners[2] + corners[3]
        area = (bottom - top)[:, :, None] * (right - left)[:, None, :]
        return np.ascontiguousarray(_normalize(sums, area).transpose(1, 0, 2, 3))


def _steps(first: IntArray, last: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Return where ``count`` cells from ``first`` to ``last`` begin and end, (N, count); they may overlap."""
    size, number = (last - first)[:, None], np.arange(count)
    return first[:, None] + number * size // count, first[:, None] - (-(number + 1) * size // count)


def _normalize(sums: IntArray, area: IntArray) -> FloatArray:
    means: FloatArray = np.divide(sums, area, dtype=np.float32)
    return np.asarray((means - np.float32(127.5)) * np.float32(1 / 128))


def _propose(areas: _Areas, min_face: int, pnet: Runner) -> FloatArray:
    """Return squares (N, 4) in which the first network, on every level of the pyramid, suspects a face."""
    found = [np.zeros((0, 4), np.float32)]
    scale = CELL / min_face
    while min(areas.height, areas.width) * scale >= CELL:
        level = areas.resize(int(areas.height * scale + 1), int(areas.width * scale + 1))
        shifts, probabilities = (out[0] for out in pnet(level))
        rows, columns = np.nonzero(probabilities[1] >= THRESHOLDS[0])
        corners = STRIDE * np.stack([columns, rows], 1).astype(np.float32)
        boxes = np.floor(np.concatenate([corners + 1, corners + CELL], 1) / np.float32(scale))
        # boxes of two levels overlap by PYRAMID_FACTOR squared at most and never suppress each other
        kept = _suppress(boxes, probabilities[1, rows, columns], 0.5)
        found.append(_shift(boxes[kept], shifts[:, rows[kept], columns[kept]].T, 0))
        scale *= PYRAMID_FACTOR
    return _square(np.concatenate(found))


def _shift(boxes: FloatArray, shifts: FloatArray, border: int) -> FloatArray:
    """Return boxes (N, 4) with their corners moved by shares of their sides, which include a border in px."""
    return boxes + shifts * np.tile(boxes[:, 2:] - boxes[:, :2] + np.float32(border), 2)


def _square(boxes: FloatArray) -> FloatArray:
    """Return boxes (N, 4) widened to squares around their centers."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    side = sizes.max(1, keepdims=True)
    low = boxes[:, :2] + sizes * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([low, low + side], 1)


def _windows(boxes: FloatArray, areas: _Areas) -> tuple[FloatArray, IntArray]:
    """Return the boxes that touch the picture, and the pixels of each that lie in it."""
    whole = boxes.astype(np.int64)
    low = np.maximum(whole[:, :2], 1) - 1  # the first pixel is 1 in the networks' coordinates
    high = np.minimum(whole[:, 2:], [areas.width, areas.height])
    touching = (high > low).all(1)
    return boxes[touching], np.concatenate([low, high], 1)[touching]


def _suppress(boxes: FloatArray, scores: FloatArray, threshold: float, nested: bool = False) -> IntArray:
    """Return the rows that remain, the surest first, after each suppresses those that overlap it more.

    Args:
        boxes: (N, 4) px.
        scores: (N,).
        threshold: of the intersection over the union; with ``nested`` over the smaller of the two boxes,
            which then include their last pixels.
        nested: see ``threshold``.
    """
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = np.ascontiguousarray(boxes[order].T)
    border = np.float32(nested)
    areas = (x1 - x0 + border) * (y1 - y0 + border)
    kept, rest = [], np.arange(len(order))
    while len(rest):
        row, rest = rest[0], rest[1:]
        kept.append(row)
        width = np.minimum(x1[row], x1[rest]) - np.maximum(x0[row], x0[rest]) + border
        height = np.minimum(y1[row], y1[rest]) - np.maximum(y0[row], y0[rest]) + border
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        other = np.minimum(areas[row], areas[rest]) if nested else areas[row] + areas[rest] - shared
        rest = rest[shared <= threshold * other]
    return order[kept]
