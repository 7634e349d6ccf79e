"""How the pictures of a clip are shown: pixel aspect ratio, rotation and mirroring."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Self, SupportsBytes, cast

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from hsemotion_space.types import ByteArray

MAX_ASPECT_RATIO = 4  # of a pixel; more is taken for a damaged header


def _unnamed(kind: type[Type], value: object) -> Type:
    """Name a side-data type that this version of PyAV does not know; the known ones stay readable."""
    member = object.__new__(kind)
    member._name_ = f"UNNAMED_{value}"
    member._value_ = value  # type: ignore[assignment]
    return member


Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment,method-assign]


@dataclass(frozen=True, slots=True)
class Display:
    """The size in px before rotation; a, b, c, d of the display matrix: x to a·x + c·y, y to b·x + d·y."""

    width: int
    height: int
    matrix: tuple[int, int, int, int]

    @classmethod
    def of(cls, picture: VideoFrame, aspect_ratio: Fraction | None, limit_pixels: int) -> Self:
        """Return how a picture is shown whose pixels have the ``aspect_ratio`` width to height."""
        size = display_size(picture.width, picture.height, aspect_ratio, limit_pixels)
        # keeps the picture alive: once a clip
        data = cast("SupportsBytes | None", picture.side_data.get("DISPLAYMATRIX"))
        if data is None:
            return cls(*size, (1, 0, 0, 1))
        a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
        return cls(*size, (a, b, c, d))

    def turn(self, pixels: ByteArray) -> ByteArray:
        """Apply the matrix to pixels (H, W, 3), to the next quarter turn or mirror."""
        a, b, c, d = self.matrix
        if abs(b) > abs(a):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def display_size(
    width: int, height: int, aspect_ratio: Fraction | None, limit_pixels: int
) -> tuple[int, int]:
    """Return the size in px at which a picture is shown with square pixels.

    As in browsers, the side that is short of pixels grows; where that would exceed ``limit_pixels``, the
    other side shrinks.
    """
    if not aspect_ratio or not 1 / MAX_ASPECT_RATIO <= aspect_ratio <= MAX_ASPECT_RATIO:
        return width, height
    wide, high = round(width * aspect_ratio), round(height / aspect_ratio)
    larger, smaller = (wide, height), (width, high)
    if aspect_ratio < 1:
        larger, smaller = smaller, larger
    return larger if larger[0] * larger[1] <= limit_pixels else (max(smaller[0], 1), max(smaller[1], 1))
