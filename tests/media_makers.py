"""Makers of odd, broken and hostile media for the tests of images and clips."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
TIME_BASE = Fraction(1, 1000)
EVEN_RATES = ("mpeg1video", "mpeg2video")  # codecs that know no other times
Corners = tuple[tuple[int, int, int], ...]
UPRIGHT = (RED, GREEN, BLUE, WHITE)
"""Corners of ``quadrants``: top left, top right, bottom left, bottom right."""
ORIENTED: dict[int, Corners] = {
    1: UPRIGHT,
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
    0: UPRIGHT,
    9: UPRIGHT,
    255: UPRIGHT,
    65535: UPRIGHT,
}


def quadrants(width: int = 64, height: int = 48) -> Pixels:
    """Return (H, W, 3): red, green above blue, white."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    return pixels


def numbered(count: int, width: int = 64, height: int = 48) -> list[Pixels]:
    """Return gray pictures whose level tells their number modulo 11."""
    return [np.full((height, width, 3), 20 + 20 * (number % 11), np.uint8) for number in range(count)]


def number_of(pixels: Pixels) -> int:
    return round((float(pixels.mean()) - 20) / 20)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif_with(orientation: int) -> Image.Exif:
    """Return EXIF with an orientation and a position that names a canary."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "CANARY-DESCRIPTION"
    exif.get_ifd(0x8825).update(
        {1: "N", 2: (48.0, 12.0, 30.0), 3: "E", 4: (11.0, 5.0, 7.0), 29: "CANARY-GPS"}
    )
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    depth: int,
    color: int,
    rows: bytes,
    *,
    before: Sequence[bytes] = (),
    interlace: int = 0,
) -> bytes:
    """Return a PNG of raw ``rows`` (each with its filter byte), with ready chunks ``before`` the data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    chunks = [
        png_chunk(b"IHDR", header),
        *before,
        png_chunk(b"IDAT", zlib.compress(rows, 9)),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_bit_bomb(width: int, height: int) -> bytes:
    """Return a small, valid 1-bit PNG of any size."""
    row, packer = bytes(1 + (width + 7) // 8), zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    )


def jpeg_with_size(width: int, height: int) -> bytes:
    """Return a small JPEG whose header claims another size."""
    data = bytearray(encoded(Image.fromarray(quadrants()), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_canvas_bomb(side: int) -> bytes:
    """Return an animated WebP with a huge canvas and one tiny picture."""
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, BLUE)]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=40))
    at = data.index(b"VP8X")
    data[at + 12 : at + 18] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a copy with flipped, removed, repeated or overwritten bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 8, 16))):
        at = rng.randrange(len(out))
        match rng.randrange(6):
            case 0 | 1:
                out[at] = rng.randrange(256)
            case 2:
                out[at] ^= 1 << rng.randrange(8)
            case 3:
                out[at : at + 4] = rng.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1")
                )
            case 4:
                del out[at : at + rng.randrange(1, 9)]
            case _:
                out[at:at] = out[at : at + rng.randrange(1, 33)]
        if not out:
            return b"\0"
    return bytes(out[: rng.randrange(1, len(out))] if rng.random() < 0.1 else out)


def write_clip(
    path: Path,
    pictures: Sequence[Pixels],
    times_s: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    kind: str | None = None,
    pix_fmt: str | None = None,
    turn: tuple[float, bool] | None = None,
    aspect_ratio: Fraction | None = None,
    audio: str | None = None,
    audio_start_s: float = 0.0,
    cover: bool = False,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    rate: int = 10,
) -> Path:
    """Encode a clip.

    Args:
        times_s: presentation times; without them an even ``rate``.
        turn: display rotation in degrees counterclockwise, and whether mirrored.
        aspect_ratio: width to height of a pixel.
        audio: codec of a second stream, of one second of silence.
        audio_start_s: when it begins.
        cover: add a still picture as cover art.
        options: of the encoder.
        muxer: options of the container.
    """
    times_s = [number / rate for number in range(len(pictures))] if times_s is None else times_s
    quiet = {
        "libx265": {"x265-params": "log-level=none"},
        "libx264": {"preset": "ultrafast", "bf": "2", "tune": "psnr"},
    }.get(codec, {})
    with av.open(str(path), "w", format=kind, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=quiet | (options or {}))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        stream.codec_context.time_base = Fraction(1, rate) if codec in EVEN_RATES else TIME_BASE
        if aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = aspect_ratio
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        sound = container.add_stream(audio, rate=48000) if audio else None
        art = container.add_stream("mjpeg", rate=1) if cover else None
        if art is not None:
            art.width, art.height, art.pix_fmt = 32, 32, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
        for picture, time_s in zip(pictures, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time_s / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if art is not None:
            container.mux(
                art.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, np.uint8), format="rgb24"))
            )
            container.mux(art.encode(None))
        if sound is not None:
            write_silence(container, sound, audio_start_s)
    # as root this encoder makes the process realtime, and all others starve
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def write_silence(
    container: av.container.OutputContainer, stream: av.AudioStream, start_s: float = 0.0
) -> None:
    """Write one second."""
    step = stream.codec_context.frame_size or 1024
    for start in range(0, 48000, step):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, step), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = (
            48000,
            start + round(start_s * 48000),
            Fraction(1, 48000),
        )
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_audio(path: Path, codec: str = "aac", kind: str | None = None) -> Path:
    with av.open(str(path), "w", format=kind) as container:
        write_silence(container, container.add_stream(codec, rate=48000))
    return path


def jpeg_packet(picture: Pixels) -> bytes:
    return encoded(Image.fromarray(picture), "JPEG", quality=95, subsampling=0, optimize=True)


def write_packets(
    path: Path,
    packets: Sequence[tuple[float, bytes]],
    *,
    size: tuple[int, int] = (64, 48),
    kind: str = "matroska",
) -> Path:
    """Mux ready MJPEG packets (time in s, bytes) as they are."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj444p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        for time_s, body in packets:
            packet = av.Packet(body)
            packet.stream, packet.time_base, packet.is_keyframe = stream, TIME_BASE, True
            packet.pts = packet.dts = round(time_s * 1000)
            container.mux_one(packet)
    return path


def edit_box(data: bytes, route: Sequence[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """Return MP4 bytes in which the body of the box at ``route`` is changed and all sizes around it are
    corrected."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if kind == route[0]:
            body = change(body) if len(route) == 1 else edit_box(body, route[1:], change)
        out += struct.pack(">I4s", len(body) + 8, kind) + body
        at += size
    return out
