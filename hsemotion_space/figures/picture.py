"""The annotated picture: numbered face boxes with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hsemotion_space.figures.style import face_color, ink
from hsemotion_space.types import ByteArray, FloatArray, check_shape


def annotate(rgb: ByteArray, boxes_xyxy: FloatArray, captions: Sequence[str], track_ids: Sequence[int] | None = None) -> ByteArray:
    """Draw numbered face boxes into a copy of a picture.

    Args:
        rgb: (H, W, 3) uint8.
        boxes_xyxy: (N, 4) in px of the picture; a box with a value that is not finite is left out.
        captions: N texts, shortened where the picture is too narrow for them.
        track_ids: N numbers and colors; 1 to N without it.

    Returns:
        (H, W, 3) uint8; line width and letters follow the size of the picture and of the faces.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_shape("annotate", "rgb", rgb, (None, None, 3))
    check_shape("annotate", "boxes_xyxy", boxes_xyxy, (len(captions), 4))
    numbers = range(1, len(captions) + 1) if track_ids is None else track_ids
    drawn = [row for row in zip(boxes_xyxy, captions, numbers, strict=True) if np.isfinite(row[0]).all()]
    picture = Image.fromarray(rgb).copy()
    if not drawn or min(picture.size) < 1:
        return np.array(picture)
    draw, side = ImageDraw.Draw(picture), max(picture.size)
    room = float(np.median([abs(box[3] - box[1]) for box, _, _ in drawn])) * 0.35
    letters = int(np.clip(room, max(12.0, side / 80), max(12.0, side / 36)))
    line = max(2, round(letters / 8))
    places: list[tuple[float, float, float, float]] = []
    for box, _, number in drawn:
        place = (*np.minimum(box[:2], box[2:]).tolist(), *np.maximum(box[:2], box[2:]).tolist())
        places.append((place[0], place[1], place[2], place[3]))
        draw.rectangle(tuple(value + grow for value, grow in zip(place, (-1, -1, 1, 1), strict=True)), outline="#000000", width=line + 2)
        draw.rectangle(place, outline=face_color(number), width=line)
    taken: list[tuple[float, float, float, float]] = []
    font = ImageFont.load_default(letters)
    for place, (_, caption, number) in zip(places, drawn, strict=True):
        taken.append(_draw_caption(draw, place, f"{number}  {caption}".strip(), (font, face_color(number)), taken))
    return np.array(picture)


def _draw_caption(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: str,
    style: tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, str],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write a caption above, inside or below its box: the first place inside the picture that covers no other caption."""
    (font, color), (width, height) = style, draw.im.size
    low, high = font.getbbox("Ág")[1::2]
    pad = max(2.0, (high - low) / 6)
    while len(text) > 1 and font.getlength(text) + 2 * pad > width:
        text = text.rstrip(".")[:-1] + ("..." if len(text) > 6 else "")
    across, tall = font.getlength(text) + 2 * pad, high - low + 2 * pad
    left = min(max(box[0], 0.0), max(0.0, width - across))
    tops = [min(max(top, 0.0), max(0.0, height - tall)) for top in (box[1] - tall, box[1], box[3], box[3] - tall)]
    spots = [(left, top, left + across, top + tall) for top in tops]
    free = [spot for spot in spots if not any(_overlap(spot, other) for other in taken)]
    spot = (free or spots)[0]
    draw.rectangle(spot, fill=color)
    draw.text((spot[0] + pad, spot[1] + pad - low), text, font=font, fill=ink(color))
    return spot


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
