"""Cut a face out of a picture in the geometry that a checkpoint expects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from hsemotion_space.hub.manifest import InputSpec
from hsemotion_space.types import ByteArray


def crop_region(box_xyxy: npt.NDArray[np.floating], spec: InputSpec) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 in px of the region to cut, which may reach beyond the picture."""
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    width, height = x1 - x0, y1 - y0
    if spec.crop == "square":
        width = height = max(width, height)
    half_width, half_height = width * (0.5 + spec.margin), height * (0.5 + spec.margin)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def align_face(rgb: ByteArray, box_xyxy: npt.NDArray[np.floating], spec: InputSpec) -> ByteArray:
    """Return the face (S, S, 3) uint8: cropped, squashed to a square, bilinear with antialiasing (Pillow).

    A ``box`` crop is clipped to the picture, as upstream does; a ``square`` crop repeats the picture's edge
    pixels outside of it.

    Args:
        rgb: (H, W, 3) uint8.
        box_xyxy: (4,) in px.
        spec: of the checkpoint.

    Raises:
        ValueError: if the box does not touch the picture.
    """
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = (int(value) for value in np.round(crop_region(box_xyxy, spec)))
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if right <= left or bottom <= top:
        raise ValueError(
            f"The box {np.round(box_xyxy).tolist()} lies outside of the picture of {width} x {height} px."
        )
    face = rgb[top:bottom, left:right]
    if spec.crop == "square" and (left, top, right, bottom) != (x0, y0, x1, y1):
        face = np.pad(face, ((top - y0, y1 - bottom), (left - x0, x1 - right), (0, 0)), mode="edge")
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(face)).resize((spec.size, spec.size), Image.Resampling.BILINEAR)
    )
