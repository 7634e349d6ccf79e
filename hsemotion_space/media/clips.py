"""Safe decoding of untrusted media; clips here, still images in ``images``.

The content decides what a file is, never its name; times come from presentation time stamps, never from a
header. A forged index can still make libav allocate without bound, so clips of strangers belong in a process
with a memory limit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from hsemotion_space.media.container import open_container, video_stream
from hsemotion_space.media.display import Display, display_size
from hsemotion_space.media.formats import MediaError, file_sha256, sniff
from hsemotion_space.media.images import check_size, read_image, read_image_bytes
from hsemotion_space.messages import Message
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import ByteArray, Frame, MediaInfo

__all__ = [
    "Clip",
    "MediaError",
    "file_sha256",
    "open_clip",
    "read_frame",
    "read_image",
    "read_image_bytes",
    "sniff",
]

_DAMAGED = Message("Parts of the clip are damaged and were skipped.", code="parts_damaged")
_ESTIMATED = Message(
    "Some timestamps of the clip are missing or out of order; those times are estimates.",
    code="bad_timestamps",
)
NO_FRAME = Message("No frame of the clip can be decoded.", code="no_frame")
# pictures; MP4 is searched by decoding times, which come before presentation times by as many or fewer
_REORDERED = 4
_TIME_ROUNDING_S = 0.001  # Matroska stores times in whole milliseconds


def open_clip(path: Path, limits: MediaLimits, sample_fps: float) -> Clip:
    """Open a clip; nothing is decoded beyond what finding its streams takes.

    Args:
        path: the file; only its content counts.
        limits: beyond ``clip_bytes`` and ``clip_pixels`` a clip is refused, beyond the others it is cut with
            a notice.
        sample_fps: frames taken per second of presentation time; 0 takes every frame.

    Raises:
        MediaError: if the file is no supported clip, has no video, is damaged or too large.
    """
    with contextlib.ExitStack() as on_error:
        try:
            container = open_container(path, limits)
            on_error.callback(container.close)
            clip = Clip(container, file_sha256(path), limits, sample_fps)
        except MediaError:
            raise
        except Exception as error:
            raise MediaError(
                "The clip is damaged or incomplete and cannot be read.", code="damaged"
            ) from error
        on_error.pop_all()
    return clip


def read_frame(path: Path, limits: MediaLimits, time_s: float) -> Frame:
    """Return the frame of a clip at or nearest to a time, with the same pixels as :func:`open_clip` gives.

    Its ``index`` counts damaged pictures before it too.

    What lies between the keyframe before it and the frame is decoded. A clip whose time stamps tell too
    little, or that is damaged there, is decoded from its beginning.

    Args:
        path: the file; only its content counts.
        limits: as for :func:`open_clip`, but for the number of frames.
        time_s: presentation time, as the frames of the clip have it.

    Raises:
        MediaError: as :func:`open_clip` and the iteration of its clip.
    """
    with open_clip(path, limits, 0) as clip:
        frame = clip.jump(time_s)
    if frame is not None:
        return frame
    with open_clip(path, replace(limits, clip_frames=limits.clip_packets), 0) as clip:
        return _nearest(clip, time_s)


def _nearest(frames: Iterable[Frame], time_s: float) -> Frame:
    """Return the frame nearest to a time, the earlier of equals; there is at least one."""
    best = None
    for frame in frames:
        if best is not None and abs(frame.time_s - time_s) >= abs(best.time_s - time_s):
            break
        best = frame
    if best is None:
        raise MediaError(NO_FRAME)
    return best


class Clip:
    """Frames of a clip, decoded while they are iterated, once; a context manager that closes the file.

    A frame's ``index`` counts decoded frames; its ``time_s`` is presentation time from where sound or video
    begins, whichever is first. With a ``sample_fps`` the frames are the first ones at or after each multiple
    of ``1 / sample_fps`` s. Only time spent on decoding counts towards ``decode_deadline_s``.

    Attributes:
        estimated_frames: number of frames to expect, at least 1, from headers that may be wrong.
    """

    def __init__(
        self, container: InputContainer, sha256: str, limits: MediaLimits, sample_fps: float
    ) -> None:
        self._container, self._sha256, self._limits, self._sample_fps = container, sha256, limits, sample_fps
        self._stream = video_stream(container, limits)
        self._stream.codec_context.options = {"max_pixels": str(limits.clip_pixels)}
        self._reformatter = VideoReformatter()  # one for all frames: each holds threads of its own
        self._has_pts = container.format.name != "avi"
        coded = self._stream.codec_context
        check_size(coded.width, coded.height, limits.clip_pixels)
        self._size = display_size(
            coded.width, coded.height, self._stream.sample_aspect_ratio, limits.clip_pixels
        )
        rate = float(self._stream.guessed_rate or 25)
        self._step_s = 1 / min(max(rate, 1.0), 240.0)
        self._coded_size = 0, 0
        self._display: Display | None = None
        self._origin_s: float | None = None
        self._sound_start_s = _start_s(container.streams.audio)
        self._last_s = -self._step_s
        self._end_s = 0.0
        self._reached_s = 0.0
        self._deadline = 0.0
        self._notices: dict[Message, None] = {}
        self._announced_s = max(container.duration or 0, 0) / av.time_base
        fps = min(sample_fps or math.inf, 1 / self._step_s)
        self.estimated_frames = max(
            1, min(math.ceil(min(self._announced_s, limits.clip_duration_s) * fps), limits.clip_frames)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def info(self) -> MediaInfo:
        """What was opened; size, duration and notices are final after the iteration."""
        return MediaInfo(
            self._sha256, "clip", *self._size, duration_s=self._end_s, notices=tuple(self._notices)
        )

    @property
    def origin_s(self) -> float:
        """Return the time stamp in s from which times count; known when the first frame is."""
        return self._origin_s or 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames.

        Raises:
            MediaError: if no frame at all can be decoded.
        """
        limits = self._limits
        self._deadline = time.monotonic() + limits.decode_deadline_s
        taken, next_slot = 0, 0
        for index, picture in enumerate(self._pictures()):
            time_s = self._time_of(picture)
            slot = math.floor((time_s + _TIME_ROUNDING_S) * self._sample_fps) if self._sample_fps else index
            if time_s >= limits.clip_duration_s or (slot >= next_slot and taken >= limits.clip_frames):
                self._cut()
                break
            self._end_s = min(time_s + self._step_s, limits.clip_duration_s)
            if slot < next_slot:
                continue
            next_slot = slot + 1
            taken += 1
            rgb = self._rgb(picture)
            self._size = rgb.shape[1], rgb.shape[0]
            paused = time.monotonic()
            yield Frame(rgb, index, time_s)
            self._deadline += time.monotonic() - paused
        if not taken:
            raise MediaError(
                "No frame of the clip can be decoded. The clip may be damaged, protected, or larger than "
                "{limit:.1f} megapixels.",
                code="no_frame", limit=limits.clip_pixels / 1e6,
            )  # fmt: skip

    def jump(self, time_s: float) -> Frame | None:
        """Return the frame at a time, within 1 ms, from the keyframe before; None if seeking fails.

        The clip cannot be iterated afterwards.
        """
        self._deadline = time.monotonic() + self._limits.decode_deadline_s
        stamps = self._stamps()
        if not stamps or not self._seek(stamps[0]):
            return None
        first = next(self._pictures(), None)
        if first is None or first.pts != stamps[0]:
            return None
        self._time_of(first)  # where times begin
        rgb = self._rgb(first)  # which size and turn all pictures get
        times_s = np.array([float(stamp * cast("Fraction", first.time_base)) for stamp in stamps]) - (
            self._origin_s or 0.0
        )
        index = int(np.abs(times_s - time_s).argmin())
        if abs(times_s[index] - time_s) > _TIME_ROUNDING_S:
            return None
        if index:
            before = _REORDERED if self._stream.codec_context.has_b_frames else 0
            picture = self._picture_at(stamps[index], stamps[max(index - before, 0)])
            if picture is None:
                return None
            rgb = self._rgb(picture)
        return None if self._notices else Frame(rgb, index, float(times_s[index]))

    def _stamps(self) -> list[int]:
        """Return all time stamps in order, without decoding; nothing if they do not define the order."""
        stamps: list[int] = []
        with contextlib.suppress(Exception):
            for count, packet in enumerate(self._container.demux(self._stream)):
                if packet.pts is None and not packet.size:
                    break  # the end
                if (
                    packet.pts is None
                    or count == self._limits.clip_packets
                    or time.monotonic() > self._deadline
                ):
                    return []
                if not packet.is_discard:
                    stamps.append(packet.pts)
            ordered = sorted(set(stamps))
            reordered = self._stream.codec_context.has_b_frames
            if self._has_pts and len(ordered) == len(stamps) and (reordered or ordered == stamps):
                return ordered
        return []

    def _picture_at(self, stamp: int, start: int) -> VideoFrame | None:
        """Return the picture with a time stamp, decoded from the keyframe before ``start``, or None."""
        if self._seek(start):
            for picture in self._pictures():
                if picture.pts is None or picture.pts >= stamp:
                    return picture if picture.pts == stamp else None
        return None

    def _seek(self, stamp: int) -> bool:
        """Go to the keyframe before a time stamp; return whether this worked."""
        with contextlib.suppress(Exception):
            self._container.seek(stamp, stream=self._stream)
            return True
        return False

    def _pictures(self) -> Iterator[VideoFrame]:
        """Yield decoded pictures in presentation order, stepping over what is damaged."""
        packets = self._container.demux()
        count = 0
        while count < self._limits.clip_packets and time.monotonic() <= self._deadline:
            try:
                packet = next(packets, None)
                if packet is not None and packet.size:
                    self._reached_s = max(self._reached_s, _end_s(packet))
                if packet is not None and packet.stream.index != self._stream.index:
                    continue
                count += 1
                pictures = _decode(packet, self._stream)
            except Exception:  # noqa: BLE001  whatever libav raises, the next packet may be whole
                self._notice(_DAMAGED)
                continue
            for picture in pictures:
                if picture.is_corrupt or picture.width * picture.height > self._limits.clip_pixels:
                    self._notice(_DAMAGED)
                else:
                    yield picture
            if packet is None:
                self._check_end()
                return
        self._cut()

    def _check_end(self) -> None:
        """Notice that no stream reaches the end that the header announces."""
        reached_s = max(self._reached_s, self._end_s + max(self._origin_s or 0.0, 0.0))
        if self._announced_s - reached_s > 1 + 0.1 * self._announced_s:
            text = "The clip ends after {end:.1f} s, earlier than its header says; it may be incomplete."
            self._notice(Message(text, code="ends_early", end=self._end_s))

    def _time_of(self, picture: VideoFrame) -> float:
        """Return the presentation time in s from the first picture; always rising, whatever the stamps."""
        expected_s = self._last_s + self._step_s
        # AVI holds no presentation times, but its frames follow each other evenly
        stamp = picture.pts if self._has_pts else picture.dts
        time_s = expected_s
        if stamp is not None and picture.time_base:
            stamp_s = float(stamp * picture.time_base)
            if self._origin_s is None:
                self._origin_s = self._origin(stamp_s - expected_s)
            time_s = stamp_s - self._origin_s
        if time_s <= self._last_s or (stamp is None and self._has_pts):
            self._notice(_ESTIMATED)
            time_s = expected_s
        self._last_s = time_s
        return time_s

    def _origin(self, start_s: float) -> float:
        """Return the time stamp in s from which times count, if the video begins at ``start_s``."""
        late_s = start_s - max(self._sound_start_s, 0.0)  # before 0 lie samples that only prepare the decoder
        if not self._has_pts or late_s <= 0:
            return start_s
        if late_s < self._limits.clip_duration_s:
            return start_s - late_s
        self._notice(_ESTIMATED)
        return start_s

    def _rgb(self, picture: VideoFrame) -> ByteArray:
        """Return (H, W, 3), of the first picture's size, with square pixels, and turned as the file asks."""
        try:
            if self._display is None:
                self._coded_size = picture.width, picture.height
                self._display = Display.of(
                    picture, self._stream.sample_aspect_ratio, self._limits.clip_pixels
                )
            if (picture.width, picture.height) != self._coded_size:
                text = (
                    "The frame size changes within the clip; all frames were scaled to the size of the first."
                )
                self._notice(Message(text, code="size_changes"))
            size = self._display.width, self._display.height
            rgb = self._reformatter.reformat(picture, *size, format="rgb24", threads=1)
            return self._display.turn(np.asarray(rgb.to_ndarray(), np.uint8))
        except Exception as error:
            raise MediaError("A frame of the clip cannot be decoded.", code="frame_damaged") from error

    def _cut(self) -> None:
        text = "Only the first {end:.1f} s of the clip were analyzed; the rest exceeds the limits."
        self._notice(Message(text, code="cut", end=self._end_s))

    def _notice(self, message: Message) -> None:
        self._notices[message] = None


def _start_s(streams: Iterable[AudioStream]) -> float:
    """Return the presentation time in s at which the first of some streams begins; infinity without any."""
    starts = [
        one.start_time * one.time_base for one in streams if one.start_time is not None and one.time_base
    ]
    return float(min(starts, default=math.inf))


def _end_s(packet: Packet[Stream]) -> float:
    """Return when what a packet holds ends, in s; 0 if that is not known."""
    if packet.pts is None or packet.time_base is None:
        return 0.0
    lasts = packet.duration or 0 if packet.stream.type != "data" else 0  # a chapter lasts as long as it likes
    return float((packet.pts + lasts) * packet.time_base)


def _decode(packet: Packet[Stream] | None, stream: VideoStream) -> list[VideoFrame]:
    """Return the pictures of a packet of a stream, or the decoder's rest."""
    if packet is None:
        with contextlib.suppress(EOFError):
            return stream.decode(None)
        return []
    if packet.is_corrupt:
        raise MediaError(_DAMAGED)
    return cast("list[VideoFrame]", packet.decode())
