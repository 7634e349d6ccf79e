"""Safe decoding of untrusted still images; each limit is checked before what it guards is decoded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from hsemotion_space.media.formats import (
    HEAD_BYTES,
    OWN_CLIP_FORMATS,
    MediaError,
    file_sha256,
    identify,
    identify_bytes,
)
from hsemotion_space.messages import Message
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import ByteArray, Frame, MediaInfo

LOST_BITS = 12  # of 16 per channel; from so few used ones only a sixteenth of the levels would be left
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_size(width: int, height: int, limit_pixels: int) -> None:
    """Raise a MediaError if a picture of ``width`` by ``height`` px has too many pixels."""
    if width * height > limit_pixels:
        raise MediaError(
            "The picture is too large ({width} x {height} px); the limit is {limit:.1f} megapixels.",
            code="too_many_pixels", width=width, height=height, limit=limit_pixels / 1e6,
        )  # fmt: skip


def read_image(path: Path, limits: MediaLimits) -> tuple[MediaInfo, Frame]:
    """Decode a still image, upright, in RGB, on white where it is transparent, without any of its metadata.

    Args:
        path: the file; only its content counts.
        limits: size in bytes and px, checked before decoding; a larger side than ``image_output_side`` is
            scaled down.

    Returns:
        The info, with the size in px of the returned picture, and the picture as a frame at time 0.

    Raises:
        MediaError: if the file is no supported image, is damaged or exceeds a limit.
    """
    rgb, notices = _read(path, identify(path, limits, limits.image_bytes), limits)
    return MediaInfo(file_sha256(path), "image", rgb.shape[1], rgb.shape[0], notices=tuple(notices)), Frame(
        rgb, 0, 0.0
    )


def read_image_bytes(content: bytes, limits: MediaLimits) -> tuple[MediaInfo, Frame]:
    """Decode a still image that is in memory; for the rest as :func:`read_image`.

    Raises:
        MediaError: if it is no supported image, is damaged or exceeds a limit.
    """
    rgb, notices = _read(
        io.BytesIO(content),
        identify_bytes(content[:HEAD_BYTES], len(content), limits, limits.image_bytes),
        limits,
    )
    digest = hashlib.sha256(content).hexdigest()
    return MediaInfo(digest, "image", rgb.shape[1], rgb.shape[0], notices=tuple(notices)), Frame(rgb, 0, 0.0)


def _read(source: Path | io.BytesIO, name: str, limits: MediaLimits) -> tuple[ByteArray, list[Message]]:
    """Return the picture (H, W, 3) of a file of the format ``name``, and notices about it."""
    if name in OWN_CLIP_FORMATS:
        raise MediaError("This file is a clip, not an image.", code="is_clip")
    limit_pixels = limits.jpeg_pixels if name == "JPEG" else limits.image_pixels
    try:
        file = source.open("rb") if isinstance(source, Path) else source
        with file, warnings.catch_warnings(), _open(file, name) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here
            check_size(image.width, image.height, limit_pixels)
            if max(image.size) > limits.image_side:
                raise MediaError(
                    "The picture is too large; the limit is {limit} px per side.",
                    code="side_too_long",
                    limit=limits.image_side,
                )
            picture, notices = _decode(image, limits.image_output_side)
    except Image.DecompressionBombError as error:
        raise MediaError(
            "The picture is too large; the limit is {limit:.1f} megapixels.",
            code="too_many_pixels",
            limit=limit_pixels / 1e6,
        ) from error
    except MediaError:
        raise
    except Exception as error:
        raise MediaError("The image is damaged or incomplete and cannot be read.", code="damaged") from error
    return np.array(picture), notices


def _open(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Return an image of the format ``name`` before it is decoded, of any size.

    ``Image.open`` has a limit of its own, which is one for all threads.
    """
    if name != "HEIF":
        Image.init()
        return Image.OPEN[name][0](file, "")
    try:
        from pillow_heif import HeifImageFile  # noqa: PLC0415  an optional extra
    except ImportError as error:
        text = (
            "HEIC photos cannot be opened because pillow-heif is not installed. Save the photo as JPEG, or"
            " install hsemotion-space[heic]."
        )
        raise MediaError(text, code="heic") from error
    return cast("ImageFile.ImageFile", HeifImageFile(file))


def _decode(image: ImageFile.ImageFile, side: int) -> tuple[Image.Image, list[Message]]:
    width, height = image.size
    scale = min(1.0, side / max(width, height))
    target = max(1, round(width * scale)), max(1, round(height * scale))
    if image.format == "JPEG":  # HEIF would take any thumbnail of the file for a draft
        image.draft(None, target)
    is_deep = ";16" in repr(image.tile)  # of which Pillow keeps the upper 8 bits, but for gray
    image.load()
    orientation = _orientation(image)
    several = Message(
        "The image has several frames or pages; only the first one was analyzed.", code="animated"
    )
    notices = [several] if _has_several(image) else []
    picture = _to_rgb(image)
    if is_deep and 0 < np.asarray(picture).max() < 2 ** (LOST_BITS - 8):
        raise MediaError(
            "The picture uses {bits} or fewer of its 16 bits per channel. Save it with 8 bits per channel "
            "and try again.",
            code="few_bits", bits=LOST_BITS,
        )  # fmt: skip
    if scale < 1:
        picture = picture.resize(target, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    if scale < 1:
        width, height = picture.size
        notices.append(
            Message(
                "The picture was scaled down to {width} x {height} px.",
                code="scaled_down",
                width=width,
                height=height,
            )
        )
    return picture, notices


def _orientation(image: Image.Image) -> object:
    with contextlib.suppress(Exception):  # damaged metadata must not cost the picture
        return image.getexif().get(_EXIF_ORIENTATION)
    return None


def _has_several(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):
        return image.format in ("PNG", "GIF", "WEBP", "AVIF", "TIFF") and bool(
            getattr(image, "is_animated", False)
        )
    return True


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _eight_bits(levels: npt.NDArray[Any]) -> ByteArray:
    """Return gray levels of more than 8 bits scaled by the values that occur; of fractions, white is 1."""
    if np.issubdtype(levels.dtype, np.floating):
        levels = np.nan_to_num(levels, posinf=0, neginf=0)
        levels = (levels * (255 if levels.max() <= 1 else 1)).clip(0, 2**30).astype(np.int32)
    levels = levels.clip(min=0)
    bits = int(levels.max()).bit_length()  # cameras store 10, 12 or 14 bits in 16
    return np.asarray(levels >> max(0, bits + bits % 2 - 8), np.uint8)
