"""Pictures that no file holds, as URIs."""

from __future__ import annotations

import base64
import io
from typing import Literal

from PIL import Image

from hsemotion_space.types import ByteArray


def data_uri(pixels: ByteArray, size: tuple[int, int], encoding: Literal["jpeg", "png"] = "jpeg") -> str:
    """Return a picture in a data URI.

    Args:
        pixels: (H, W, 3) uint8.
        size: width and height in px to which it is scaled.
        encoding: of the pixels.
    """
    with io.BytesIO() as out:
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(out, encoding)
        return f"data:image/{encoding};base64,{base64.b64encode(out.getvalue()).decode()}"
