"""A face with the map of what its value depends on."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from hsemotion_space.types import ByteArray, FloatArray, check_shape

LOWERS: Final = (213, 94, 0)
"""Color of places that carry the value: hiding them lowers it. Vermilion of the Okabe-Ito palette."""
RAISES: Final = (0, 114, 178)
"""Color of places that speak against the value: hiding them raises it. Blue of the Okabe-Ito palette."""
STRONGEST: Final = 0.75  # opacity where the map is largest; the face stays visible below
SIDE: Final = 256  # px


def overlay(
    face: ByteArray, change: FloatArray, place_xyxy: tuple[int, int, int, int] | None = None, side: int = SIDE
) -> ByteArray:
    """Lay a map over a face: vermilion where hiding lowers the value, blue where it raises it, else clear.

    The two colors can be told apart under the common forms of color blindness. Opacity grows with the
    magnitude and is full at the largest one of this map, so two pictures must not be compared by their
    opacity; the numbers belong beside the picture.

    Args:
        face: (S, S, 3) uint8.
        change: (S, S) signed; NaN is taken for no change.
        place_xyxy: a square to be framed, in px of the face.
        side: of the result in px.

    Returns:
        (side, side, 3) uint8.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_shape("overlay", "face", face, (len(face), len(face), 3))
    check_shape("overlay", "change", change, (len(face), len(face)))
    known = np.nan_to_num(change.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(np.abs(known).max(initial=0.0))
    share = np.asarray(
        Image.fromarray(known / (largest or 1.0)).resize((side, side), Image.Resampling.BILINEAR)
    )[..., None]
    below = np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    color = np.where(share > 0, np.array(LOWERS, np.float32), np.array(RAISES, np.float32))
    opacity = STRONGEST * np.abs(share)
    picture = Image.fromarray(np.round((1 - opacity) * below + opacity * color).clip(0, 255).astype(np.uint8))
    if place_xyxy is not None:
        _frame(picture, tuple(round(value * side / len(face)) for value in place_xyxy))
    return np.array(picture)


def _frame(picture: Image.Image, corners: tuple[int, ...]) -> None:
    """Draw a white line between black ones just inside of a square, visible on every face."""
    x0, y0, x1, y1 = corners
    draw, line = ImageDraw.Draw(picture), max(1, round(picture.width / 128))
    for inset, width, color in ((0, 3 * line, "#000000"), (line, line, "#ffffff")):
        draw.rectangle((x0 + inset, y0 + inset, x1 - 1 - inset, y1 - 1 - inset), outline=color, width=width)
