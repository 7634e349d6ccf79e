"""Draw faces that MTCNN finds, so that no photo of a person is needed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from hsemotion_space.types import ByteArray

HAIR, SKIN, SHADE, LIP = (50, 35, 28), (205, 160, 135), (164, 128, 108), (165, 75, 75)
FACE_BOX = (0.22, 0.23, 0.76, 0.89)  # what the detector finds in a drawn square, as shares of its side


def draw_face(side: int = 160) -> ByteArray:
    """Return a frontal face on a plain background (side, side, 3)."""
    image = Image.new("RGB", (side, side), (90, 110, 130))
    draw = ImageDraw.Draw(image)

    def ellipse(cx: float, cy: float, rx: float, ry: float, color: tuple[int, int, int]) -> None:
        draw.ellipse([(cx - rx) * side, (cy - ry) * side, (cx + rx) * side, (cy + ry) * side], fill=color)

    ellipse(0.5, 0.44, 0.31, 0.37, HAIR)
    draw.rectangle([0.38 * side, 0.8 * side, 0.62 * side, side], fill=SHADE)
    ellipse(0.5, 0.53, 0.278, 0.366, SKIN)
    ellipse(0.5, 0.24, 0.264, 0.12, HAIR)
    for sign in (-1, 1):
        eye = 0.5 + sign * 0.123
        ellipse(eye, 0.452, 0.072, 0.045, SHADE)
        ellipse(eye, 0.457, 0.052, 0.026, (235, 230, 225))
        ellipse(eye, 0.457, 0.025, 0.026, (40, 28, 22))
        draw.line(
            [(eye - 0.065) * side, 0.382 * side, (eye + 0.065) * side, 0.372 * side],
            fill=HAIR,
            width=max(2, side // 40),
        )
    ellipse(0.5, 0.535, 0.035, 0.05, (217, 170, 143))
    for sign in (-1, 1):
        ellipse(0.5 + sign * 0.03, 0.567, 0.014, 0.009, (92, 72, 61))
    ellipse(0.5, 0.702, 0.085, 0.028, LIP)
    draw.line(
        [0.42 * side, 0.702 * side, 0.58 * side, 0.702 * side], fill=(95, 40, 40), width=max(1, side // 100)
    )
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.7 * side / 160)))


def picture_with(
    places: Iterable[tuple[int, int]], size: tuple[int, int] = (240, 320), side: int = 120
) -> ByteArray:
    """Return (H, W, 3) gray with a drawn face of ``side`` px at each (left, top)."""
    picture = np.full((*size, 3), 110, np.uint8)
    for left, top in places:
        picture[top : top + side, left : left + side] = draw_face(side)
    return picture
