"""What a media file is, and the safe decoding of untrusted still images.

The content decides what a file is, never its name; each limit is checked before the bytes that it guards are
decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageFile

from hsemotion_space.messages import Message, MessageError
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import ByteArray, Frame, MediaInfo

_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF")
CLIP_FORMATS = ("mov", "matroska", "avi")
LOST_BITS = 12  # of 16 per channel; from so few used ones only a sixteenth of the levels would be left
HEAD_BYTES = 64  # of a file that tell its format
_MAGIC = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("GIF", rb"GIF8[79]a"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
        ("AVIF", rb".{4}ftyp(?:.{4})*?avi[fs]"),
        ("HEIC", rb".{4}ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)"),
        ("mov", rb".{4}(?:ftyp|moov|mdat|free|skip|wide|pnot)"),
        ("matroska", rb"\x1a\x45\xdf\xa3"),
        ("avi", rb"RIFF.{4}AVI "),
    )
)
_UNREADABLE = Message("The file cannot be opened.", code="unreadable")
_UNSUPPORTED = Message(
    "This file type is not supported. Images can be JPEG, PNG, WebP, BMP, GIF or AVIF; clips can be MP4, MOV,"
    " WebM, MKV or AVI.",
    code="unsupported",
)

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


class MediaError(MessageError, ValueError):
    """A file cannot be used; the message never holds a path of the server."""


def sniff(path: Path) -> Literal["image", "clip"]:
    """Tell by its first bytes whether a file is an image or a clip.

    Raises:
        MediaError: if it is neither, or cannot be read.
    """
    return "image" if identify(path) in _IMAGE_FORMATS else "clip"


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes.

    Raises:
        MediaError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise MediaError(_UNREADABLE) from error


def identify(path: Path, limit_bytes: int | None = None) -> str:
    """Return the format of a file by its first bytes, as Pillow names images, or one of ``CLIP_FORMATS``.

    Raises:
        MediaError: if it is of no supported format, empty, larger than ``limit_bytes``, or cannot be read.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise MediaError(_UNREADABLE) from error
    return _format(head, size, limit_bytes)


def _format(head: bytes, size: int, limit_bytes: int | None) -> str:
    """Return the format of a file of ``size`` bytes that begins with ``head``; errors as :func:`identify`."""
    if not head:
        raise MediaError("The file is empty.", code="empty")
    if limit_bytes is not None and size > limit_bytes:
        raise MediaError(
            "The file is too large; the limit is {limit:.0f} MiB.",
            code="too_large",
            limit=limit_bytes / 2**20,
        )
    name = next((name for name, pattern in _MAGIC if pattern.match(head)), None)
    if name is None:
        raise MediaError(_UNSUPPORTED)
    if name == "HEIC":
        raise MediaError("HEIC photos are not supported. Save the photo as JPEG and try again.", code="heic")
    return name


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
    rgb, notices = _read(path, identify(path, limits.image_bytes), limits)
    return MediaInfo(file_sha256(path), "image", rgb.shape[1], rgb.shape[0], notices=tuple(notices)), Frame(
        rgb, 0, 0.0
    )


def read_image_bytes(content: bytes, limits: MediaLimits) -> tuple[MediaInfo, Frame]:
    """Decode a still image that is in memory; for the rest as :func:`read_image`.

    Raises:
        MediaError: if it is no supported image, is damaged or exceeds a limit.
    """
    rgb, notices = _read(
        io.BytesIO(content), _format(content[:HEAD_BYTES], len(content), limits.image_bytes), limits
    )
    digest = hashlib.sha256(content).hexdigest()
    return MediaInfo(digest, "image", rgb.shape[1], rgb.shape[0], notices=tuple(notices)), Frame(rgb, 0, 0.0)


def _read(source: Path | io.BytesIO, name: str, limits: MediaLimits) -> tuple[ByteArray, list[Message]]:
    """Return the picture (H, W, 3) of a file of the format ``name``, and notices about it."""
    if name in CLIP_FORMATS:
        raise MediaError("This file is a clip, not an image.", code="is_clip")
    try:
        with Image.open(source, formats=[name]) as image:
            check_size(image.width, image.height, limits.image_pixels)
            if max(image.size) > limits.image_side:
                raise MediaError(
                    "The picture is too large; the limit is {limit} px per side.",
                    code="side_too_long",
                    limit=limits.image_side,
                )
            picture, notices = _decode(image, limits.image_output_side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = limits.image_pixels / 1e6
        raise MediaError(
            "The picture is too large; the limit is {limit:.1f} megapixels.",
            code="too_many_pixels",
            limit=limit,
        ) from error
    except MediaError:
        raise
    except Exception as error:
        raise MediaError("The image is damaged or incomplete and cannot be read.", code="damaged") from error
    return np.array(picture), notices


def _decode(image: ImageFile.ImageFile, side: int) -> tuple[Image.Image, list[Message]]:
    width, height = image.size
    scale = min(1.0, side / max(width, height))
    target = max(1, round(width * scale)), max(1, round(height * scale))
    image.draft(None, target)
    is_deep = ";16" in repr(image.tile)  # of which Pillow keeps the upper 8 bits, but for gray
    image.load()
    orientation = _orientation(image)
    animated = Message("The image is animated; only its first frame was analyzed.", code="animated")
    notices = [animated] if _is_animated(image) else []
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


def _is_animated(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):
        return image.format in ("PNG", "GIF", "WEBP", "AVIF") and bool(getattr(image, "is_animated", False))
    return True


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        bits = int(levels.max()).bit_length()  # cameras store 10, 12 or 14 bits in 16
        return Image.fromarray((levels >> max(0, bits + bits % 2 - 8)).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white
