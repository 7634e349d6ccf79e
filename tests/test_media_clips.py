from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clip_makers import (
    BAD_FILE,
    BROKEN,
    CUT,
    ESTIMATED,
    LIMITS,
    NONE,
    RESIZED,
    SHORT,
    TEN,
    TENTHS,
    append,
    decode,
    grown,
    jittered,
    packets,
    retabled,
    retimed,
    shortened,
    times,
    with_block_times,
    with_packets,
)
from error_codes import codes, raises_code
from media_makers import (
    ORIENTED,
    TIME_BASE,
    encoded,
    exif_with,
    jpeg_packet,
    number_of,
    numbered,
    quadrants,
    write_audio,
    write_clip,
    write_packets,
)
from PIL import Image

from hsemotion_space.media import clips as media
from hsemotion_space.media.clips import MediaError, file_sha256, open_clip, read_frame, sniff

ALL = list(range(10))
LATE, HALF_LATE = [1 + t for t in TENTHS], [0.5 + t for t in TENTHS]


def late(path: Path, **options: object) -> Path:
    """Write a clip whose pictures begin after a second."""
    return write_clip(path, TEN, LATE, **options)


# name: (writer, times in s, numbers of the pictures, notice)
GOOD: dict[str, tuple[Callable[[Path], object], list[float], list[int], str]] = {
    "mp4-h264": (lambda p: write_clip(p, TEN, kind="mp4"), TENTHS, ALL, ""),
    "mp4-h264-b-frames": (
        lambda p: write_clip(p, TEN, kind="mp4", options={"preset": "medium", "bf": "3"}),
        TENTHS,
        ALL,
        "",
    ),
    "mp4-h264-10-bit": (lambda p: write_clip(p, TEN, kind="mp4", pix_fmt="yuv420p10le"), TENTHS, ALL, ""),
    "mp4-h264-444": (lambda p: write_clip(p, TEN, kind="mp4", pix_fmt="yuv444p"), TENTHS, ALL, ""),
    "mp4-h264-gray": (lambda p: write_clip(p, TEN, kind="mp4", pix_fmt="gray"), TENTHS, [], ""),
    "mp4-hevc": (lambda p: write_clip(p, TEN, kind="mp4", codec="libx265"), TENTHS, ALL, ""),
    "mp4-av1": (lambda p: write_clip(p, TEN, kind="mp4", codec="libsvtav1"), TENTHS, ALL, ""),
    "mp4-mpeg4": (lambda p: write_clip(p, TEN, kind="mp4", codec="mpeg4"), TENTHS, ALL, ""),
    "mp4-fragments": (
        lambda p: write_clip(p, TEN, kind="mp4", muxer={"movflags": "frag_keyframe+empty_moov"}),
        TENTHS,
        ALL,
        "",
    ),
    "mp4-index-first": (
        lambda p: write_clip(p, TEN, kind="mp4", muxer={"movflags": "faststart"}),
        TENTHS,
        ALL,
        "",
    ),
    "mp4-with-sound": (lambda p: write_clip(p, TEN, kind="mp4", audio="aac"), TENTHS, ALL, ""),
    "mp4-with-cover": (lambda p: write_clip(p, TEN, kind="mp4", cover=True), TENTHS, ALL, ""),
    "mp4-starts-late": (lambda p: write_clip(p, TEN, [3 + t for t in TENTHS], kind="mp4"), TENTHS, ALL, ""),
    "mp4-starts-late-with-sound": (lambda p: late(p, kind="mp4", audio="aac"), LATE, ALL, ""),
    "mov-starts-late-with-sound": (lambda p: late(p, kind="mov", codec="mpeg4", audio="aac"), LATE, ALL, ""),
    "mkv-starts-late-with-sound": (lambda p: late(p, kind="matroska", audio="aac"), LATE, ALL, ""),
    "webm-starts-late-with-sound": (
        lambda p: late(p, kind="webm", codec="libvpx", audio="libopus"),
        LATE,
        ALL,
        "",
    ),
    "mp4-fragments-start-late-with-sound": (
        lambda p: late(p, kind="mp4", audio="aac", muxer={"movflags": "frag_keyframe+empty_moov+delay_moov"}),
        LATE,
        ALL,
        "",
    ),
    "mp4-sound-starts-late": (
        lambda p: write_clip(p, TEN, kind="mp4", audio="aac", audio_start_s=0.2),
        TENTHS,
        ALL,
        "",
    ),
    "mkv-both-start-late": (
        lambda p: late(p, kind="matroska", audio="pcm_s16le", audio_start_s=0.5),
        HALF_LATE,
        ALL,
        "",
    ),
    "mp4-starts-late-with-cover": (lambda p: late(p, kind="mp4", cover=True), TENTHS, ALL, ""),
    "mp4-trailing-bytes": (lambda p: append(write_clip(p, TEN, kind="mp4"), b"junk" * 99), TENTHS, ALL, ""),
    "mp4-edits-lie": (
        lambda p: retimed(p, (3, 1600), (7, 800)),
        [0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6],
        ALL,
        "",
    ),
    # the edit list ends the clip after the jump
    "mp4-time-jumps-a-day": (
        lambda p: retimed(p, (3, 1600), (1, 2**30), (6, 9)),
        [0, 0.1, 0.2, 0.3],
        [0, 1, 2, 3],
        "",
    ),
    "mp4-all-at-once": (lambda p: retimed(p, (10, 0)), [], [], ESTIMATED),
    "mov-mjpeg": (lambda p: write_clip(p, TEN, kind="mov", codec="mjpeg"), TENTHS, ALL, ""),
    "mkv-h264": (lambda p: write_clip(p, TEN, kind="matroska"), TENTHS, ALL, ""),
    "mkv-uneven": (jittered, [0, 0.033, 0.1, 0.4, 0.45, 2.0], [0, 1, 2, 3, 4, 5], ""),
    "mkv-starts-late": (
        lambda p: write_packets(p, [(5 + t, body) for t, body in packets()]),
        TENTHS,
        ALL,
        "",
    ),
    "mkv-before-zero": (lambda p: with_block_times(p, [n * 100 - 500 for n in range(10)]), TENTHS, ALL, ""),
    "mkv-one-step-back": (
        lambda p: with_block_times(p, [0, 100, 200, 150, 400, 500, 600, 700, 800, 900]),
        TENTHS,
        ALL,
        ESTIMATED,
    ),
    "mkv-starts-again": (
        lambda p: with_block_times(p, [0, 100, 200, 300, 400, 0, 100, 200, 300, 400]),
        TENTHS,
        ALL,
        ESTIMATED,
    ),
    "mkv-all-at-once": (lambda p: with_block_times(p, [0] * 10), [], ALL, ESTIMATED),
    "mkv-hours-later": (
        lambda p: write_packets(p, [(t if n < 3 else 9000 + n, b) for n, (t, b) in enumerate(packets())]),
        [0, 0.1, 0.2],
        [0, 1, 2],
        CUT,
    ),
    "mkv-garbage-first": (with_packets({0: b"garbage" * 9}), TENTHS[:9], ALL[1:], BROKEN),
    "mkv-garbage-between": (
        with_packets({3: b"garbage" * 9, 5: b"\0"}),
        [0, 0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9],
        [0, 1, 2, 4, 6, 7, 8, 9],
        BROKEN,
    ),
    "mkv-garbage-last": (with_packets({8: bytes(99), 9: b"\xff" * 99}), TENTHS[:8], ALL[:8], BROKEN),
    "mkv-grows": (lambda p: grown(p, 128, 96), TENTHS, ALL, RESIZED),
    "mkv-shrinks": (lambda p: grown(p, 16, 16), TENTHS, ALL, RESIZED),
    "mkv-grows-too-large": (
        with_packets({4: encoded(Image.new("L", (4000, 3000)), "JPEG")}),
        [t for t in TENTHS if t != 0.4],
        [0, 1, 2, 3, 5, 6, 7, 8, 9],
        BROKEN,
    ),
    "webm-vp8": (lambda p: write_clip(p, TEN, kind="webm", codec="libvpx"), TENTHS, ALL, ""),
    "webm-vp9": (lambda p: write_clip(p, TEN, kind="webm", codec="libvpx-vp9"), TENTHS, ALL, ""),
    "webm-live": (
        lambda p: write_clip(p, TEN, kind="webm", codec="libvpx", muxer={"live": "1"}),
        TENTHS,
        ALL,
        "",
    ),
    "avi-mpeg4": (lambda p: write_clip(p, TEN, kind="avi", codec="mpeg4"), TENTHS, ALL, ""),
    "avi-mjpeg": (lambda p: write_clip(p, TEN, kind="avi", codec="mjpeg"), TENTHS, ALL, ""),
    "avi-h264-b-frames": (
        lambda p: write_clip(p, TEN, kind="avi", options={"preset": "medium", "bf": "3"}),
        TENTHS,
        ALL,
        "",
    ),
    "one-frame-mp4": (lambda p: write_clip(p, TEN[:1], kind="mp4"), [0], [0], ""),
    "one-frame-webm": (lambda p: write_clip(p, TEN[:1], kind="webm", codec="libvpx"), [0], [0], ""),
    "one-frame-avi": (lambda p: write_clip(p, TEN[:1], kind="avi", codec="mjpeg"), [0], [0], ""),
    "one-frame-late": (lambda p: write_clip(p, TEN[:1], [40.0], kind="matroska"), [0], [0], ""),
    "thousand-a-second": (
        lambda p: write_clip(p, TEN, [n / 1000 for n in range(10)], kind="matroska", rate=1000),
        [n / 1000 for n in range(10)],
        ALL,
        "",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_reads_odd_clips_exactly(name: str, tmp_path: Path) -> None:
    write, expected_times, expected_numbers, notice = GOOD[name]
    path = tmp_path / "upload.bin"
    write(path)
    frames, info = decode(path)
    assert sniff(path) == info.kind == "clip"
    assert all(frame.rgb.shape == (48, 64, 3) == (info.height, info.width, 3) for frame in frames)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    if expected_times:
        assert times(frames) == expected_times
    assert np.all(np.diff(times(frames)) > 0)
    if expected_numbers:
        assert [number_of(frame.rgb) for frame in frames] == expected_numbers
    assert codes(info.notices) == ([notice] if notice else [])
    assert info.sha256 == file_sha256(path)
    assert frames[-1].time_s < info.duration_s <= frames[-1].time_s + 1


def test_video_that_begins_beyond_the_limit_is_analyzed_from_its_first_frame(tmp_path: Path) -> None:
    path = late(tmp_path / "clip", kind="mp4", audio="aac")
    frames, info = decode(path, 0, replace(LIMITS, clip_duration_s=1.0))
    assert times(frames) == TENTHS and codes(info.notices) == [ESTIMATED]
    frames, info = decode(path, 10, replace(LIMITS, clip_duration_s=1.5))
    assert (
        times(frames) == LATE[:5] and codes(info.notices) == [CUT] and info.duration_s == pytest.approx(1.5)
    )


@pytest.mark.parametrize("kind", ["mp4", "mov", "matroska"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turns_clips_upright(degrees: int, mirrored: bool, kind: str, tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "clip", [quadrants()] * 2, kind=kind, turn=(degrees, mirrored), pix_fmt="yuv444p"
    )
    frames, info = decode(path)
    expected = np.rot90(quadrants(), degrees // 90)
    expected = np.fliplr(expected) if mirrored else expected
    assert (info.height, info.width, 3) == frames[0].rgb.shape == expected.shape
    assert np.abs(frames[1].rgb[6::12, 6::12].astype(int) - expected[6::12, 6::12]).max() <= 16
    assert frames[0].rgb.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("kind", ["avi", "mov", "matroska"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_side_data_without_a_name_decides_nothing(orientation: int, kind: str, tmp_path: Path) -> None:
    body = encoded(
        Image.fromarray(quadrants()), "JPEG", exif=exif_with(orientation), quality=95, subsampling=0
    )
    frames, info = decode(write_packets(tmp_path / "clip", [(0, body), (0.1, body)], kind=kind))
    corners = frames[1].rgb[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    assert np.abs(corners - np.array(ORIENTED[orientation])).max() <= 4
    assert times(frames) == TENTHS[:2] and info.notices == ()


@pytest.mark.parametrize(
    ("ratio", "limit_pixels", "size"),
    [
        (Fraction(4, 3), 10**6, (48, 85)),
        (Fraction(3, 4), 10**6, (64, 64)),
        (Fraction(4, 3), 3500, (36, 64)),  # never more pixels than the limit
        (Fraction(3, 4), 3500, (48, 48)),
        (Fraction(1, 1), 10**6, (48, 64)),
        (Fraction(200, 1), 10**6, (48, 64)),  # no camera makes such pixels
        (Fraction(1, 200), 10**6, (48, 64)),
    ],
)
@pytest.mark.parametrize(("kind", "codec"), [("mp4", "libx264"), ("mov", "libx265"), ("matroska", "libx264")])
def test_pixels_that_are_not_square_are_shown_square(
    kind: str, codec: str, ratio: Fraction, limit_pixels: int, size: tuple[int, int], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "clip", [quadrants()] * 3, kind=kind, codec=codec, aspect_ratio=ratio)
    frames, info = decode(path, 0, replace(LIMITS, clip_pixels=limit_pixels))
    assert [frame.rgb.shape for frame in frames] == [(*size, 3)] * 3 and (info.height, info.width) == size
    assert [tuple(color > 128) for color in frames[2].rgb[[4, 4, -4, -4], [4, -4, 4, -4]]] == [
        (True, False, False), (False, True, False), (False, False, True), (True, True, True)
    ]  # fmt: skip
    assert np.array_equal(read_frame(path, replace(LIMITS, clip_pixels=limit_pixels), 0.2).rgb, frames[2].rgb)


@pytest.mark.parametrize(("degrees", "size"), [(90, (85, 48)), (180, (48, 85))])
def test_pixels_are_made_square_before_the_picture_is_turned(
    degrees: int, size: tuple[int, int], tmp_path: Path
) -> None:
    path = write_clip(
        tmp_path / "clip", [quadrants()], kind="mp4", turn=(degrees, False), aspect_ratio=Fraction(4, 3)
    )
    assert decode(path)[0][0].rgb.shape == (*size, 3)


def test_odd_sides_are_kept(tmp_path: Path) -> None:
    path = write_packets(tmp_path / "clip", [(0, jpeg_packet(quadrants(63, 47)))], size=(63, 47))
    assert decode(path)[0][0].rgb.shape == (47, 63, 3)


@pytest.mark.parametrize(
    ("rate", "count", "kind", "sample_fps", "expected"),
    [
        (30, 31, "mp4", 10, [n / 10 for n in range(11)]),
        (30, 31, "matroska", 10, [n / 10 for n in range(11)]),
        # times rounded to 1 ms must not cost a frame
        (30, 12, "matroska", 30, [round(n / 30, 3) for n in range(12)]),
        (30, 12, "matroska", 60, [round(n / 30, 3) for n in range(12)]),
        (25, 11, "matroska", 10, [0, 0.12, 0.2, 0.32, 0.4]),
        (10, 10, "mp4", 0, TENTHS),
        (10, 10, "mp4", 60, TENTHS),
        (10, 10, "mp4", 3, [0, 0.4, 0.7]),
        (10, 10, "mp4", 0.5, [0]),
    ],
)
def test_samples_by_presentation_time(
    rate: int, count: int, kind: str, sample_fps: float, expected: list[float], tmp_path: Path
) -> None:
    moments = [number / rate for number in range(count)]
    path = write_clip(tmp_path / "clip", numbered(count), moments, kind=kind, rate=rate)
    frames, info = decode(path, sample_fps)
    assert times(frames) == pytest.approx(expected, abs=0.0011)
    assert [frame.index for frame in frames] == [round(time_s * rate) for time_s in expected]
    assert [number_of(frame.rgb) for frame in frames] == [round(time_s * rate) % 11 for time_s in expected]
    assert info.duration_s == pytest.approx(count / rate, abs=0.002) and info.notices == ()
    with open_clip(path, LIMITS, sample_fps) as clip:
        assert abs(clip.estimated_frames - len(expected)) <= 1


def test_samples_uneven_clips_after_a_gap(tmp_path: Path) -> None:
    assert times(decode(jittered(tmp_path / "clip"), 10)[0]) == [0, 0.1, 0.4, 2.0]


@pytest.mark.parametrize(
    ("changes", "count", "duration_s"),
    [
        ({"clip_duration_s": 0.5}, 5, 0.5),
        ({"clip_frames": 4}, 4, 0.4),
        ({"clip_frames": 1}, 1, 0.1),
        ({"clip_packets": 3}, 3, 0.3),
    ],
)
def test_long_clips_are_cut_with_a_notice(
    changes: dict[str, float], count: int, duration_s: float, tmp_path: Path
) -> None:
    path = write_packets(tmp_path / "clip", packets())
    frames, info = decode(path, 10, replace(LIMITS, **changes))
    assert times(frames) == TENTHS[:count]
    assert info.duration_s == pytest.approx(duration_s)
    assert codes(info.notices) == [CUT] and info.notices[0].values["end"] == pytest.approx(duration_s)  # type: ignore[attr-defined]


def test_limits_are_inclusive(tmp_path: Path) -> None:
    path = write_packets(tmp_path / "clip", packets())
    exact = replace(
        LIMITS,
        clip_duration_s=1.0,
        clip_frames=10,
        clip_packets=12,
        clip_pixels=64 * 48,
        clip_bytes=path.stat().st_size,
    )
    assert decode(path, 10, exact)[1].notices == ()
    with raises_code(MediaError, "too_large"):
        open_clip(path, replace(exact, clip_bytes=exact.clip_bytes - 1), 10)
    with raises_code(MediaError, NONE):
        decode(path, 10, replace(exact, clip_pixels=64 * 48 - 1))
    large = write_clip(tmp_path / "h264", numbered(1, 640, 480), kind="mp4")
    with raises_code(MediaError, "too_many_pixels"):
        open_clip(large, replace(exact, clip_pixels=640 * 480 - 1, clip_bytes=10**6), 10)


def test_only_decoding_counts_towards_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_packets(tmp_path / "clip", packets())
    now = [0.0]
    monkeypatch.setattr(media, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with open_clip(path, LIMITS, 0) as clip:
        for _ in clip:
            now[0] += 1000
    assert clip.info.notices == ()

    def tick() -> float:
        now[0] += 10
        return now[0]

    monkeypatch.setattr(media, "time", SimpleNamespace(monotonic=tick))
    frames, info = decode(path)
    assert 0 < len(frames) < 10 and codes(info.notices)[0] == CUT


@pytest.mark.parametrize(
    ("kind", "options", "share"),
    [
        ("mp4", {"muxer": {"movflags": "faststart"}}, 0.8),
        ("mp4", {"muxer": {"movflags": "faststart"}, "codec": "mjpeg"}, 0.5),
        ("mov", {"muxer": {"movflags": "frag_every_frame+empty_moov"}}, 0.7),
        ("matroska", {"codec": "mjpeg"}, 0.6),
        ("webm", {"codec": "libvpx"}, 0.5),
        ("webm", {"codec": "libvpx", "audio": "libopus"}, 0.5),
        ("avi", {"codec": "mjpeg"}, 0.4),
    ],
)
def test_truncated_clips_yield_what_is_there(
    kind: str, options: dict[str, object], share: float, tmp_path: Path
) -> None:
    frames, info = decode(shortened(tmp_path / "clip", share, kind=kind, **options))
    assert 2 < len(frames) < 40
    assert [number_of(frame.rgb) for frame in frames] == [round(frame.time_s * 10) % 11 for frame in frames]
    assert {BROKEN, SHORT} & set(codes(info.notices))


@pytest.mark.parametrize(
    ("kind", "codec", "audio"),
    [
        ("mp4", "libx264", "aac"),
        ("mov", "mjpeg", "pcm_s16le"),
        ("matroska", "libx264", "aac"),
        ("webm", "libvpx", "libopus"),
        ("avi", "mpeg4", "pcm_s16le"),
    ],
)
def test_a_clip_whose_sound_outlasts_its_video_is_whole(
    kind: str, codec: str, audio: str, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "clip", TEN, kind=kind, codec=codec, audio=audio, audio_start_s=11)
    frames, info = decode(path)
    assert times(frames) == TENTHS and info.duration_s == pytest.approx(1) and codes(info.notices) == []


def test_a_clip_whose_subtitles_outlast_its_video_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    with av.open(str(path), "w", format="matroska") as container:
        video, subtitles = container.add_stream("mjpeg", rate=10), container.add_mux_stream("subrip")
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        for picture in TEN:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        packet = av.Packet(b"Good night.")
        packet.stream, packet.time_base, packet.duration = subtitles, TIME_BASE, 9000
        packet.pts = packet.dts = 4000
        container.mux_one(packet)
    frames, info = decode(path)
    assert len(frames) == 10 and codes(info.notices) == []


def test_stopping_early_and_reading_once(tmp_path: Path) -> None:
    path = write_packets(tmp_path / "clip", packets())
    with open_clip(path, LIMITS, 0) as clip:
        assert clip.info.duration_s == 0
        assert next(iter(clip)).time_s == 0
        assert clip.info.duration_s == pytest.approx(0.1)
    frames = list(open_clip(path, LIMITS, 0))
    assert len(frames) == 10


def image(kind: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(encoded(Image.fromarray(quadrants()), kind))


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def without_index(path: Path) -> None:
    data = write_clip(path, TEN, kind="mp4").read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def head(kind: str, size: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        write_clip(path, TEN, kind=kind, codec="mjpeg")
        path.write_bytes(path.read_bytes()[:size])

    return write


FTYP = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (content(b""), "empty"),
    "one-byte": (content(b"\x1a"), "unsupported"),
    "text": (content(b"ftyp mp42 moov"), "unsupported"),
    "zeros": (content(bytes(4096)), "unsupported"),
    "noise": (content(random.Random(2).randbytes(4096)), "unsupported"),
    "jpeg": (image("JPEG"), "is_image"),
    "gif": (image("GIF"), "is_image"),
    "avif": (image("AVIF"), "is_image"),
    "heic": (content(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "is_image"),
    "wave": (content(b"RIFF\x24\0\0\0WAVEfmt " + bytes(64)), "unsupported"),
    "mpeg-ts": (lambda p: write_clip(p, TEN, kind="mpegts"), "unsupported"),
    "flv": (lambda p: write_clip(p, TEN, kind="flv"), "unsupported"),
    "raw-h264": (lambda p: write_clip(p, TEN, kind="h264"), "unsupported"),
    "mp4-head-only": (content(FTYP), BAD_FILE),
    "mp4-no-tracks": (content(FTYP + b"\0\0\0\x08moov"), f"{BAD_FILE}|no_video"),
    "mp4-noise": (content(FTYP + random.Random(3).randbytes(5000)), f"{BAD_FILE}|no_video"),
    "mp4-endless-box": (content(FTYP + b"\0\0\0\x01moov\x7f" + b"\xff" * 7), f"{BAD_FILE}|no_video"),
    "mp4-without-index": (without_index, f"{BAD_FILE}|no_video"),
    "mp4-deep-boxes": (
        content(FTYP + b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(9000, 0, -1))),
        f"{BAD_FILE}|no_video",
    ),
    "mp4-sound-only": (lambda p: write_audio(p, "aac", "mp4"), "no_video"),
    "m4a": (lambda p: write_audio(p, "aac", "ipod"), "no_video"),
    "mkv-sound-only": (lambda p: write_audio(p, "libopus", "matroska"), "no_video"),
    "webm-sound-only": (lambda p: write_audio(p, "libopus", "webm"), "no_video"),
    "mkv-head-only": (head("matroska", 40), BAD_FILE),
    "mkv-no-frames": (head("matroska", 900), f"{BAD_FILE}|{NONE}"),
    "mkv-all-garbage": (with_packets(dict.fromkeys(range(10), b"garbage" * 9)), NONE),
    "mkv-ffv1": (lambda p: write_clip(p, TEN, kind="matroska", codec="ffv1"), "unsupported_codec"),
    "mkv-raw": (lambda p: write_clip(p, TEN, kind="matroska", codec="rawvideo"), "unsupported_codec"),
    "mov-prores": (
        lambda p: write_clip(p, TEN, kind="mov", codec="prores_ks", pix_fmt="yuv422p10le"),
        "unsupported_codec",
    ),
    "mov-png": (lambda p: write_clip(p, TEN, kind="mov", codec="png", pix_fmt="rgb24"), "unsupported_codec"),
    "avi-flv1": (lambda p: write_clip(p, TEN, kind="avi", codec="flv1"), "unsupported_codec"),
    "avi-head-only": (head("avi", 64), BAD_FILE),
    "avi-noise": (
        content(b"RIFF\xff\xff\0\0AVI LIST" + random.Random(4).randbytes(5000)),
        f"{BAD_FILE}|no_video",
    ),
    "webm-head-only": (content(b"\x1a\x45\xdf\xa3\x84webm"), BAD_FILE),
    "mp4-no-samples": (lambda p: retabled(p, b"stsz", 0, 0), f"{BAD_FILE}|{NONE}"),
    "mp4-samples-beyond-the-end": (lambda p: retabled(p, b"stco", 1, 2**31), f"{BAD_FILE}|{NONE}"),
}


@pytest.mark.parametrize("name", BAD)
def test_open_clip_refuses_broken_files(name: str, tmp_path: Path) -> None:
    write, code = BAD[name]
    path = tmp_path / "upload.mp4"
    write(path)
    with raises_code(MediaError, *code.split("|")) as caught:
        decode(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "a.m3u8",
        "a.avi",
        "a.txt",
        "noname",
        "-i",
        "ü 😀.mkv",
        "a\nb.mp4",
        "http:,,x",
        "a%03d.png",
        "concat:a|b",
    ],
)
def test_names_do_not_count(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "clip", TEN, kind="mp4").rename(tmp_path / name)
    assert times(decode(tmp_path / name)[0]) == TENTHS
    monkeypatch.chdir(tmp_path)
    assert times(decode(Path(name))[0]) == TENTHS


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.mp4", Path("/dev/zero"), Path("http://127.0.0.1/a.mp4")):
        with raises_code(MediaError, "unreadable"):
            open_clip(path, LIMITS, 10)


@pytest.mark.parametrize(
    "error", [MemoryError(), av.InvalidDataError(1, "bad /srv/secret"), OverflowError("x"), RuntimeError("x")]
)
def test_any_failure_of_the_decoder_is_an_error_for_the_user(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_packets(tmp_path / "clip", packets())

    def fail(*args: object, **options: object) -> None:
        raise error

    with open_clip(path, LIMITS, 0) as clip:
        monkeypatch.setattr(media.Display, "turn", fail)
        with raises_code(MediaError, "frame_damaged"):
            list(clip)
    monkeypatch.setattr(media.av, "open", fail)
    with raises_code(MediaError, BAD_FILE):
        open_clip(path, LIMITS, 0)
