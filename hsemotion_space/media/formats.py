"""What a media file is: its format by its first bytes, never by its name."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final, Literal

from hsemotion_space.messages import Message, MessageError
from hsemotion_space.settings import MediaLimits

HEAD_BYTES: Final = 400  # of a file that tell its format; two packets of MPEG-TS with their time stamps
CLIP_FORMATS: Final = ("mov", "matroska", "avi")
OWN_CLIP_FORMATS: Final = (*CLIP_FORMATS, "mpegts", "mpeg", "asf", "flv", "mxf", "ogg", "dv")
"""As libav names them; all but the first three are read only where ``MediaLimits.own_files`` allows them."""


def _patterns(*rows: tuple[str, bytes]) -> tuple[tuple[str, re.Pattern[bytes]], ...]:
    return tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in rows)


_MAGIC = _patterns(
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF.{4}WEBP"),
    ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("AVIF", rb".{4}ftyp(?:.{4}){0,13}avi[fs]"),
    ("HEIF", rb".{4}ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)"),
    ("mov", rb".{4}(?:ftyp|moov|mdat|free|skip|wide|pnot)"),
    ("matroska", rb"\x1a\x45\xdf\xa3"),
    ("avi", rb"RIFF.{4}AVI "),
)
_OWN_MAGIC = _patterns(
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("PPM", rb"P[1-6fF]\s"),
    ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("mpegts", rb"G.{187}G.{187}G|.{4}G.{191}G"),
    ("mpeg", rb"\0\0\x01\xba"),
    ("asf", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("flv", rb"FLV\x01"),
    ("mxf", rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01"),
    ("ogg", rb"OggS\0"),
    ("dv", rb"\x1f\x07\0[\x3f\xbf]"),
)
_UNREADABLE = Message("The file cannot be opened.", code="unreadable")
_UNSUPPORTED = Message(
    "This file type is not supported. Images can be JPEG, PNG, WebP, BMP, GIF or AVIF; clips can be MP4, MOV,"
    " WebM, MKV or AVI.",
    code="unsupported",
)
_OWN_UNSUPPORTED = Message(
    "This file type is not supported. Images can be JPEG, PNG, WebP, BMP, GIF, AVIF, HEIC, TIFF, PPM or JPEG"
    " 2000; clips can be MP4, MOV, WebM, MKV, AVI, MPEG-TS, MPEG-PS, WMV, FLV, MXF, Ogg or DV.",
    code="unsupported",
)
_PAGE = MediaLimits()


class MediaError(MessageError, ValueError):
    """A file cannot be used; the message never holds a path of the server."""


def sniff(path: Path, limits: MediaLimits = _PAGE) -> Literal["image", "clip"]:
    """Tell by its first bytes whether a file is an image or a clip.

    Raises:
        MediaError: if it is neither, or cannot be read.
    """
    return "clip" if identify(path, limits) in OWN_CLIP_FORMATS else "image"


def identify(path: Path, limits: MediaLimits = _PAGE, limit_bytes: int | None = None) -> str:
    """Return the format of a file by its first bytes, as Pillow names images and libav names clips.

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
    return identify_bytes(head, size, limits, limit_bytes)


def identify_bytes(head: bytes, size: int, limits: MediaLimits, limit_bytes: int | None = None) -> str:
    """Return the format of a file of ``size`` bytes that begins with ``head``.

    Raises:
        MediaError: as :func:`identify`.
    """
    if not head:
        raise MediaError("The file is empty.", code="empty")
    if limit_bytes is not None and size > limit_bytes:
        raise MediaError(
            "The file is too large; the limit is {limit:.0f} MiB.",
            code="too_large",
            limit=limit_bytes / 2**20,
        )
    known = (*_MAGIC, *_OWN_MAGIC) if limits.own_files else _MAGIC
    name = next((name for name, pattern in known if pattern.match(head)), None)
    if name is None:
        raise MediaError(_OWN_UNSUPPORTED if limits.own_files else _UNSUPPORTED)
    return name


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
