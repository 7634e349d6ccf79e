"""Pictures of faces: cut out of a photograph, and decoded when they are asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from hsemotion_space.training.files import DataError, located
from hsemotion_space.types import BoolArray, ByteArray, IntArray

DARK_LEVEL = 10  # a pixel whose brightest channel is below this counts as blacked out
MASKED_SHARE = 0.08  # a picture with a larger blacked-out border region is a masked one
SQUARE_MARGIN = 1.0  # crops of annotated faces: side of the square in longer sides of the face box
MAX_THREADS = 8

Crop = Literal["square", "box"]
"""How a face box is cut out: the square around its center, or the box squashed to a square (AffectNet)."""


def blacked_out(rgb: ByteArray) -> BoolArray:
    """Return (H, W), True where darkness touches the border and is large enough for a removed background."""
    labels, count = ndimage.label(rgb.max(2) < DARK_LEVEL)
    border = (
        np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        if count
        else np.zeros(0, int)
    )
    region = np.isin(labels, border[border > 0])
    if region.mean() < MASKED_SHARE:
        return np.zeros(region.shape, np.bool_)
    return np.asarray(ndimage.binary_dilation(region, iterations=2), np.bool_)


def open_picture(content: bytes) -> Image.Image:
    """Decode a picture to RGB."""
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except Exception as error:  # Pillow raises whatever its codecs raise
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError("the picture cannot be decoded ({reason}).", code="picture", reason=reason) from error


def cut_face(
    image: Image.Image,
    box_xyxy: Sequence[float] | None,
    size: int,
    crop: Crop = "square",
    cutout: bool = False,
) -> ByteArray:
    """Return a face as (size, size, 4) RGBA.

    Args:
        image: an RGB picture.
        box_xyxy: the face in px, None for the whole picture.
        size: side of the result in px.
        crop: what is cut out around the box; ``box`` ends where the picture ends, ``square`` is black beyond
            it.
        cutout: whether a blacked-out background becomes transparent; else everything is opaque.
    """
    if box_xyxy is not None:
        image = image.crop(_region(box_xyxy, image.size, crop))
    rgb = np.asarray(image)
    opaque = ~blacked_out(rgb) if cutout else np.ones(rgb.shape[:2], np.bool_)
    rgba = Image.fromarray(np.dstack([rgb, np.where(opaque, 255, 0).astype(np.uint8)]))
    return np.asarray(
        rgba.resize(
            (size, size), Image.Resampling.BILINEAR if image.width < 2 * size else Image.Resampling.BOX
        )
    )


def _region(box_xyxy: Sequence[float], size: tuple[int, int], crop: Crop) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box_xyxy
    if crop == "square":
        half, cx, cy = SQUARE_MARGIN * max(x1 - x0, y1 - y0) / 2, (x0 + x1) / 2, (y0 + y1) / 2
        region = round(cx - half), round(cy - half), round(cx + half), round(cy + half)
    else:
        region = max(0, round(x0)), max(0, round(y0)), min(size[0], round(x1)), min(size[1], round(y1))
    if region[0] >= region[2] or region[1] >= region[3]:
        raise DataError("the face box {box} contains no pixel.", code="face_box", box=tuple(box_xyxy))
    return region


class Picture(NamedTuple):
    """Where a face is: a picture file or encoded bytes, a face box or None for all of it, and a name."""

    content: Path | bytes | None
    box: Sequence[float] | None
    name: str


class LazyPictures:
    """Faces that a few threads decode on request; indexing with rows gives (len(rows), S, S, 4) RGBA.

    Face boxes are in px, or in shares of the picture if ``relative``; see :func:`cut_face` for the other
    options.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        size: int,
        crop: Crop = "square",
        *,
        relative: bool = False,
        cutout: bool = False,
    ) -> None:
        self._pictures, self._size, self._relative = pictures, size, relative
        self._cut = partial(cut_face, size=size, crop=crop, cutout=cutout)
        self._threads = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "decode")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, rows: IntArray, /) -> ByteArray:
        """Return (len(rows), S, S, 4) RGBA."""
        faces = list(self._threads.map(self._decode, rows.tolist()))
        return np.stack(faces) if faces else np.zeros((0, self._size, self._size, 4), np.uint8)

    def _decode(self, row: int) -> ByteArray:
        content, box, name = self._pictures[row]
        with located(name):
            try:
                data = content.read_bytes() if isinstance(content, Path) else content
            except OSError as error:
                raise DataError(
                    "the file cannot be read: {reason}.", code="unreadable", reason=error.strerror or error
                ) from error
            if data is None:
                raise DataError("the column image has no picture.", code="no_picture")
            image = open_picture(data)
            try:
                if box is not None and self._relative:
                    box = [share * side for share, side in zip(box, image.size * 2, strict=True)]
                return self._cut(image, box)
            except (TypeError, ValueError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(
                    "the face box must be four numbers ({reason}).", code="face_box", reason=error
                ) from error
