"""A clip encoded again as MP4: with other pictures, its own sound, and the same presentation times."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from hsemotion_space.media.clips import Clip, open_clip
from hsemotion_space.media.container import SOUND_CODECS, open_container, video_stream
from hsemotion_space.media.formats import MediaError
from hsemotion_space.messages import Message
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import ByteArray, Frame

TIME_BASE: Final = Fraction(1, 90_000)
COPIED: Final = ("aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus", "flac")
"""Sound that players expect in MP4; other sound becomes AAC."""
_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
_BT601: Final = 6  # the matrix by which RGB is converted, named in the file
_NO_SOUND = Message(
    "The sound of the clip cannot be read; the video was written without it.", code="no_sound"
)


def render(
    path: Path,
    target: Path,
    limits: MediaLimits,
    paint: Callable[[Frame], ByteArray],
    report: Callable[[int, int], None] | None = None,
) -> tuple[str, ...]:
    """Write every frame of a clip, as it is painted, and its sound to an MP4 file (H.264).

    Sound is copied, or encoded as AAC. The file is written under a partial name and then renamed.

    Args:
        path: of the clip; only its content counts.
        target: replaced if it exists; its folder must exist.
        limits: as for ``open_clip``.
        paint: returns the picture (H, W, 3) to show instead of a frame, of the same size in every frame.
        report: called with (frames done, frames expected); what it raises stops the work.

    Returns:
        What a reader has to know: where the clip was cut or is damaged, and whether it lost its sound.

    Raises:
        MediaError: if the clip cannot be used or the file cannot be written.
    """
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with (
            open_clip(path, limits, 0) as clip,
            open_container(path, limits, SOUND_CODECS) as source,
            av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as out,
        ):
            notices = _encode(_painted(clip, paint, report), clip, source, out, limits)
        partial.replace(target)
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        text = "Cannot write '{name}': {reason}."
        raise MediaError(text, code="unwritable", name=target.name, reason=reason) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return notices


def _painted(
    clip: Clip, paint: Callable[[Frame], ByteArray], report: Callable[[int, int], None] | None
) -> Iterator[tuple[float, ByteArray]]:
    """Yield time in s and picture of every frame, with even sides as H.264 needs them."""
    for done, frame in enumerate(clip, 1):
        pixels = paint(frame)
        height, width = pixels.shape[:2]
        yield frame.time_s, np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if report is not None:
            report(done, max(done, clip.estimated_frames))


def _encode(
    pictures: Iterator[tuple[float, ByteArray]],
    clip: Clip,
    source: InputContainer,
    out: OutputContainer,
    limits: MediaLimits,
) -> tuple[str, ...]:
    first = next(pictures)
    video = _add_video(out, first[1], video_stream(source, limits).guessed_rate)
    sound, notices = _add_sound(source, out, clip.origin_s, limits)
    waiting = next(sound, None)
    for time_s, pixels in chain((first,), pictures):
        while waiting is not None and _start_s(waiting) <= time_s:
            _mux_sound(out, waiting)
            waiting = next(sound, None)
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        picture.pts, picture.time_base = round(time_s / TIME_BASE), TIME_BASE
        out.mux(video.encode(picture))
    out.mux(video.encode(None))
    for packet in chain((waiting,) if waiting is not None else (), sound):
        _mux_sound(out, packet)
    return (*clip.info.notices, *notices)


def _mux_sound(out: OutputContainer, packet: Packet[AudioStream]) -> None:
    with contextlib.suppress(av.error.InvalidDataError):  # damaged sound is silence
        out.mux(packet)


def _start_s(packet: Packet[AudioStream]) -> float:
    """Return when a packet has to be decoded; at once, if that is not known."""
    return 0.0 if packet.dts is None or packet.time_base is None else float(packet.dts * packet.time_base)


def _add_video(out: OutputContainer, pixels: ByteArray, rate: Fraction | None) -> VideoStream:
    """Return a stream for pictures of this size; the last one lasts as long as the ``rate`` says."""
    video = out.add_stream("libx264", rate=rate or 25, options={"crf": "20", "preset": "veryfast"})
    video.height, video.width = pixels.shape[:2]
    video.pix_fmt = "yuv420p"
    video.codec_context.time_base = TIME_BASE
    video.codec_context.colorspace = _BT601
    return video


def _add_sound(
    source: InputContainer, out: OutputContainer, origin_s: float, limits: MediaLimits
) -> tuple[Iterator[Packet[AudioStream]], tuple[Message, ...]]:
    """Return the packets of the first sound of a clip, for ``out``, and a notice if it cannot be read."""
    if not source.streams.audio:
        return iter(()), ()
    stream = source.streams.audio[0]
    name = stream.codec_context.name if stream.codec_context is not None else ""
    with contextlib.suppress(ValueError, OSError):
        if name in COPIED:
            copy = out.add_stream_from_template(stream)
            return _shifted(_packets(source, stream, limits), copy, origin_s), ()
        if name in SOUND_CODECS:
            rate = stream.rate if stream.rate in _RATES else 48_000
            aac = out.add_stream("aac", rate=rate, layout="mono" if stream.channels == 1 else "stereo")
            return _encoded(_packets(source, stream, limits), aac, origin_s), ()
    return iter(()), (_NO_SOUND,)


def _packets(
    source: InputContainer, stream: AudioStream, limits: MediaLimits
) -> Iterator[Packet[AudioStream]]:
    """Yield the packets of a stream within the limits; a damaged end is the end."""
    deadline = time.monotonic() + limits.decode_deadline_s
    with contextlib.suppress(av.FFmpegError):
        for packet in source.demux(stream):
            if time.monotonic() > deadline:
                return
            if packet.size and not packet.is_corrupt:
                yield packet


def _shifted(
    packets: Iterator[Packet[AudioStream]], stream: AudioStream, origin_s: float
) -> Iterator[Packet[AudioStream]]:
    """Yield packets for another stream, with times that count from ``origin_s``."""
    last = -math.inf
    for packet in packets:
        if packet.pts is None or packet.dts is None or packet.time_base is None or packet.dts <= last:
            continue  # MP4 needs rising times
        last, shift = packet.dts, round(origin_s / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
        yield packet


def _encoded(
    packets: Iterator[Packet[AudioStream]], stream: AudioStream, origin_s: float
) -> Iterator[Packet[AudioStream]]:
    """Yield the sound of some packets encoded for another stream, with times that count from ``origin_s``."""
    context = stream.codec_context
    resampler = AudioResampler(context.format, context.layout, context.sample_rate, frame_size=1024)
    for packet in packets:
        with contextlib.suppress(av.FFmpegError):  # as for copied sound
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(origin_s / frame.time_base)
                for piece in resampler.resample(frame):
                    yield from stream.encode(piece)
    for piece in resampler.resample(None):
        yield from stream.encode(piece)
    yield from stream.encode(None)
