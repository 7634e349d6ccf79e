"""Find faces: facenet-pytorch's MTCNN behind a protocol, its three networks run by the engine."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from PIL import Image

from hsemotion_space.types import BoolArray, ByteArray, FaceDetections, FloatArray
from hsemotion_space.vision import mtcnn
from hsemotion_space.vision.engine import EngineOptions, Runner, choose, load, torch_runner

if TYPE_CHECKING:
    from torch import nn

KEEP_SCORE = 0.9  # a new face must be this sure, as in the HSEmotion demo
FOLLOW_SCORE = 0.7  # a face that was there a moment ago
SMALLEST_SIDE = 64  # smaller pictures get a border
RETRY_BORDER = 0.3  # gray border around a picture that is all face, as a share of its sides


class FaceDetector(Protocol):
    """Finds faces in a picture, and finds known ones again nearby."""

    def detect(self, rgb: ByteArray, thorough: bool = False) -> FaceDetections:
        """Search the whole picture (H, W, 3); ``thorough`` tries again with a border if nothing was found."""
        ...

    def follow(self, rgb: ByteArray, boxes_xyxy: FloatArray) -> tuple[FaceDetections, FloatArray]:
        """Refine earlier boxes (N, 4) only; return the refined boxes without lost faces, and all N scores."""
        ...


def _network(name: str, side: int | None, options: EngineOptions) -> Runner:
    """Load PNet, RNet or ONet; ``side`` None takes pictures of any size."""

    def build() -> nn.Module:
        from facenet_pytorch.models import mtcnn  # noqa: PLC0415  torch takes seconds

        return cast("nn.Module", getattr(mtcnn, name)().eval())

    if choose(options.name) == "torch":
        return torch_runner(build(), options.threads, "cpu")  # networks of this size gain nothing on a GPU
    example = np.zeros((1, 3, side or SMALLEST_SIDE, side or SMALLEST_SIDE), np.float32)
    key = f"{name} of facenet-pytorch {version('facenet-pytorch')}"
    return load(build, key, example, options, free_size=side is None)


def _square(boxes: FloatArray) -> FloatArray:
    """Return boxes (N, 4) widened to squares around their centers."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True) / 2
    return np.concatenate([centers - half, centers + half], 1).astype(np.float32)


class MtcnnDetector:
    """MTCNN (Zhang et al., 2016) with the weights that facenet-pytorch carries.

    Args:
        options: where the networks run.
        side: longer side in px of the picture the cascade sees; larger ones are scaled down, boxes are scaled
            back.
        min_face: side in px of the smallest face, in that picture.
    """

    def __init__(self, options: EngineOptions, side: int = 640, min_face: int = 20) -> None:
        self.side, self.min_face = side, min_face
        self.pnet = _network("PNet", None, options)
        self.rnet = _network("RNet", mtcnn.RNET_SIZE, options)
        self.onet = _network("ONet", mtcnn.ONET_SIZE, options)

    def detect(self, rgb: ByteArray, thorough: bool = False) -> FaceDetections:
        """Search the whole picture.

        Args:
            rgb: (H, W, 3) uint8.
            thorough: if there is no face, add a gray border and search again; finds a face that fills the
                picture.
        """
        found = self._cascade(rgb)
        if thorough and not len(found):
            pad = round(max(SMALLEST_SIDE - min(rgb.shape[:2]), RETRY_BORDER * max(rgb.shape[:2])))
            found = self._cascade(np.pad(rgb, ((pad, pad), (pad, pad), (0, 0)), constant_values=128))
            found = FaceDetections(found.boxes_xyxy - pad, found.scores, found.landmarks - pad)
        return found.select(_in_picture(found.boxes_xyxy, rgb))

    def _shrink(self, rgb: ByteArray) -> tuple[ByteArray, float]:
        height, width = rgb.shape[:2]
        scale = min(1.0, self.side / max(height, width))
        if scale == 1.0:
            return rgb, scale
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return (
            np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)),
            scale,
        )

    def _cascade(self, rgb: ByteArray) -> FaceDetections:
        small, scale = self._shrink(rgb)
        missing = [max(0, SMALLEST_SIDE - side) for side in small.shape[:2]]
        if any(missing):
            small = np.pad(small, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=128)
        found = mtcnn.search(small, self.min_face, self.pnet, self.rnet, self.onet)
        found = FaceDetections(found.boxes_xyxy / scale, found.scores, found.landmarks / scale)
        return _order(found, KEEP_SCORE)

    def follow(self, rgb: ByteArray, boxes_xyxy: FloatArray) -> tuple[FaceDetections, FloatArray]:
        """Run only the last stage on earlier boxes.

        Args:
            rgb: (H, W, 3) uint8.
            boxes_xyxy: (N, 4) in px, from a frame shortly before.

        Returns:
            The faces still there with refined boxes, in the given order, and (N,) scores of all.
        """
        if not len(boxes_xyxy):
            return FaceDetections.empty(), np.zeros(0, np.float32)
        height, width = rgb.shape[:2]
        squares = np.round(_square(boxes_xyxy))
        patches = np.zeros((len(squares), 3, mtcnn.ONET_SIZE, mtcnn.ONET_SIZE), np.float32)
        squares = np.clip(squares, 0, [width, height, width, height]).astype(np.float32)
        for patch, (left, top, right, bottom) in zip(patches, squares.astype(int), strict=True):
            if right - left < 2 or bottom - top < 2:
                continue
            face = Image.fromarray(np.ascontiguousarray(rgb[top:bottom, left:right])).resize(
                (mtcnn.ONET_SIZE, mtcnn.ONET_SIZE), Image.Resampling.BOX
            )
            patch[:] = (np.asarray(face, np.float32).transpose(2, 0, 1) - 127.5) / 128
        shift, points, probability = self.onet(patches)
        size = np.tile(squares[:, 2:] - squares[:, :2] + 1, 2)
        landmarks = np.stack(
            [points[:, :5] * size[:, :1] + squares[:, :1], points[:, 5:] * size[:, 1:2] + squares[:, 1:2]], 2
        )
        scores = probability[:, 1].astype(np.float32)
        refined = FaceDetections(
            (squares + shift * size).astype(np.float32), scores, landmarks.astype(np.float32)
        )
        return refined.select((scores >= FOLLOW_SCORE) & _in_picture(refined.boxes_xyxy, rgb)), scores


def _in_picture(boxes: FloatArray, rgb: ByteArray) -> BoolArray:
    """Return which boxes (N, 4) are proper and centered in the picture; others yield no face."""
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    height, width = rgb.shape[:2]
    return np.asarray(((centers > 0) & (centers < [width, height]) & (sizes > 1)).all(1))


def _order(found: FaceDetections, threshold: float) -> FaceDetections:
    """Keep sure boxes, left to right, so that numbering does not depend on the cascade."""
    keep = np.flatnonzero(found.scores >= threshold)
    return found.select(keep[np.argsort(found.boxes_xyxy[keep, 0], kind="stable")])
