"""Clips with what goes wrong in them: packets, timestamps, tables, references."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from media_makers import edit_box, jpeg_packet, numbered, write_clip, write_packets

from hsemotion_space.media.clips import open_clip
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import Frame, MediaInfo

LIMITS = MediaLimits()
TEN = numbered(10)
TENTHS = [number / 10 for number in range(10)]
BROKEN, ESTIMATED, RESIZED, CUT, SHORT = (
    "parts_damaged",
    "bad_timestamps",
    "size_changes",
    "cut",
    "ends_early",
)
NONE, BAD_FILE = "no_frame", "damaged"
"""Codes of notices and errors."""
MEDIA_BOXES = [b"moov", b"trak", b"mdia", b"minf"]


def decode(path: Path, sample_fps: float = 0, limits: MediaLimits = LIMITS) -> tuple[list[Frame], MediaInfo]:
    with open_clip(path, limits, sample_fps) as clip:
        assert clip.estimated_frames >= 1
        frames = list(clip)
        return frames, clip.info


def times(frames: Sequence[Frame]) -> list[float]:
    return [round(frame.time_s, 3) for frame in frames]


def packets(count: int = 10) -> list[tuple[float, bytes]]:
    return [(number / 10, jpeg_packet(picture)) for number, picture in enumerate(numbered(count))]


def with_packets(changes: dict[int, bytes]) -> Callable[[Path], object]:
    return lambda path: write_packets(
        path, [(time_s, changes.get(number, body)) for number, (time_s, body) in enumerate(packets())]
    )


def with_block_times(path: Path, stamps_ms: Sequence[int]) -> Path:
    """Write a Matroska clip and overwrite the timestamps of its blocks."""
    write_packets(path, packets())
    data = bytearray(path.read_bytes())
    for (_, body), stamp in zip(packets(), stamps_ms, strict=True):
        at = data.index(body)
        data[at - 3 : at - 1] = struct.pack(">h", stamp)
    path.write_bytes(data)
    return path


def shortened(path: Path, share: float, count: int = 40, **options: object) -> Path:
    rate = 10
    write_clip(path, numbered(count, 128, 96), rate=rate, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def edited(path: Path, route: Sequence[bytes], change: Callable[[bytes], bytes]) -> Path:
    write_clip(path, TEN, kind="mov", codec="mjpeg")
    path.write_bytes(edit_box(path.read_bytes(), route, change))
    return path


def retimed(path: Path, *runs: tuple[int, int]) -> Path:
    """Write a clip whose index lists runs of (frames, duration in 1/16000 s)."""
    body = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)
    return edited(path, [*MEDIA_BOXES, b"stbl", b"stts"], lambda _: body)


def retabled(path: Path, box: bytes, *values: int) -> Path:
    """Write a clip in which one table of the index has other values."""
    return edited(
        path, [*MEDIA_BOXES, b"stbl", box], lambda _: struct.pack(f">{1 + len(values)}I", 0, *values)
    )


def grown(path: Path, width: int, height: int) -> Path:
    others = [
        (number / 10, jpeg_packet(picture)) for number, picture in enumerate(numbered(10, width, height))
    ]
    return write_packets(path, packets()[:5] + others[5:])


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def jittered(path: Path) -> Path:
    return write_clip(path, numbered(6), [0, 0.033, 0.1, 0.4, 0.45, 2.0], kind="matroska")


def elsewhere(canary: Path) -> Callable[[bytes], bytes]:
    """Return a change that makes an MP4 refer to another file for its data."""

    def change(_: bytes) -> bytes:
        name = os.fsencode(canary)
        alias = (
            bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
        )
        alias += (
            struct.pack(">hH", 2, len(name))
            + name
            + bytes(len(name) % 2)
            + struct.pack(">hH", -1, 0)
            + bytes(40)
        )
        return struct.pack(">II", 0, 1) + struct.pack(">I4sI", len(alias) + 12, b"alis", 0) + alias

    return change
