"""One frame of a clip by its time: the same pixels as when the whole clip is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clip_makers import (
    LIMITS,
    append,
    decode,
    jittered,
    packets,
    retimed,
    shortened,
    with_block_times,
    with_packets,
)
from error_codes import raises_code
from media_makers import Pixels, numbered, quadrants, write_clip, write_packets
from test_media_clips import BAD, GOOD

from hsemotion_space.media import clips as media
from hsemotion_space.media.clips import Clip, MediaError, open_clip, read_frame
from hsemotion_space.types import Frame


def moving(count: int, width: int = 64, height: int = 48) -> list[Pixels]:
    """Return pictures that all differ, and in which each is predicted badly from any other."""
    rng = np.random.default_rng(5)
    ground = rng.integers(0, 256, (height, width, 3), np.uint8)
    return [
        np.roll(ground, (number, 3 * number), (0, 1)) // 2 + np.uint8(number * 3 % 120)
        for number in range(count)
    ]


def same(one: Frame, other: Frame) -> bool:
    return one.time_s == other.time_s and np.array_equal(one.rgb, other.rgb)


def jump(path: Path, time_s: float) -> Frame | None:
    with open_clip(path, LIMITS, 0) as clip:
        return clip.jump(time_s)


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_of_odd_clips_is_found_again(name: str, tmp_path: Path) -> None:
    path = tmp_path / "upload.bin"
    GOOD[name][0](path)
    for frame in decode(path)[0]:
        assert same(read_frame(path, LIMITS, frame.time_s), frame), frame.time_s


GOPS = {"g": "12", "keyint_min": "12"}
LONG: dict[str, dict[str, object]] = {
    "h264": {"kind": "mp4", "options": GOPS},
    "h264-b-pyramid": {
        "kind": "mp4",
        "options": {"preset": "medium", "bf": "5", "b-pyramid": "normal", **GOPS},
    },
    "h264-open-groups": {
        "kind": "mp4",
        "options": {"preset": "medium", "bf": "3", "x264-params": "open-gop=1:keyint=12"},
    },
    "h264-mkv": {"kind": "matroska", "options": {"preset": "medium", "bf": "3", **GOPS}},
    "h264-fragments": {"kind": "mp4", "options": GOPS, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "h264-turned": {"kind": "mp4", "options": {"bf": "3", **GOPS}, "turn": (90, True)},
    "h264-with-sound": {"kind": "mov", "options": GOPS, "audio": "aac"},
    "hevc-open-groups": {
        "kind": "mp4",
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=12:bframes=3"},
    },
    "av1": {"kind": "mp4", "codec": "libsvtav1", "options": {"g": "12"}},
    "mpeg4": {"kind": "mp4", "codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp8": {"kind": "webm", "codec": "libvpx", "options": {"g": "12"}},
    "vp9": {"kind": "webm", "codec": "libvpx-vp9", "options": {"g": "12"}},
    "avi": {"kind": "avi", "codec": "mpeg4", "options": {"g": "12"}},
}


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("name", LONG)
def test_frames_between_keyframes_have_the_very_same_pixels(name: str, uneven: bool, tmp_path: Path) -> None:
    moments = (
        np.cumsum(np.random.default_rng(1).choice([0.033, 0.05, 0.2], 40)) - 0.033
        if uneven and name != "avi"
        else None
    )
    path = write_clip(tmp_path / "clip", moving(40), moments, **LONG[name])
    frames, _ = decode(path)
    assert len(frames) == 40
    quick = []
    for frame in (*frames[:3], *frames[9:28], frames[-1]):
        found = read_frame(path, LIMITS, frame.time_s)
        assert same(found, frame), frame.time_s
        assert found.index == frame.index
        quick.append(jump(path, frame.time_s) is not None)
    if name == "avi":
        assert not any(quick), "AVI has no presentation times"
    else:
        assert np.mean(quick) > 0.9, "most are found by a jump to the keyframe before them"


@pytest.mark.parametrize("turn", [(90, False), (180, False), (270, True)])
def test_frames_are_turned_upright(turn: tuple[int, bool], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip", [quadrants()] * 2 + moving(6), kind="mp4", turn=turn)
    for frame in decode(path)[0]:
        assert same(read_frame(path, LIMITS, frame.time_s), frame)
        assert jump(path, frame.time_s) is not None


def test_times_of_a_sampled_clip_are_found(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip", moving(31), [n / 30 for n in range(31)], kind="matroska", rate=30)
    for frame in decode(path, 10)[0]:
        assert same(read_frame(path, LIMITS, frame.time_s), frame)


def test_only_the_frames_from_the_keyframe_on_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip", moving(60), kind="mp4", options={"g": "20", "bf": "0"})
    decoded: list[float] = []
    pictures = Clip._pictures

    def counted(clip: Clip) -> object:
        for picture in pictures(clip):
            decoded.append(float(picture.time or 0))
            yield picture

    monkeypatch.setattr(Clip, "_pictures", counted)
    assert read_frame(path, LIMITS, 4.5).time_s == pytest.approx(4.5)
    assert decoded == pytest.approx([0, 4.0, 4.1, 4.2, 4.3, 4.4, 4.5])


@pytest.mark.parametrize(
    ("asked_s", "found_s"), [(0.52, 0.5), (0.5004, 0.5), (-3, 0), (99, 0.9), (0.549, 0.5), (0.551, 0.6)]
)
def test_between_frames_the_nearest_is_taken(asked_s: float, found_s: float, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip", numbered(10), kind="mp4")
    assert read_frame(path, LIMITS, asked_s).time_s == pytest.approx(found_s)


BEYOND: dict[str, Callable[[Path], object]] = {
    "stamps-that-repeat": lambda path: with_block_times(path, [0, 100, 200, 300, 400, 0, 100, 200, 300, 400]),
    "stamps-that-go-back": lambda path: with_block_times(
        path, [0, 100, 200, 150, 300, 500, 600, 700, 800, 900]
    ),
    "all-at-once": lambda path: retimed(path, (10, 0)),
    "damaged-before": with_packets({0: b"garbage" * 9}),
    "cut-off": lambda path: shortened(path, 0.6, kind="matroska", codec="mjpeg"),
    "junk-behind": lambda path: append(write_packets(path, packets()), b"junk" * 99),
    "uneven": jittered,
}


@pytest.mark.parametrize("name", BEYOND)
def test_clips_whose_stamps_mislead_give_the_frames_of_the_analysis(name: str, tmp_path: Path) -> None:
    BEYOND[name](tmp_path / "clip")
    for frame in decode(tmp_path / "clip")[0]:
        assert same(read_frame(tmp_path / "clip", LIMITS, frame.time_s), frame), frame.time_s


def test_where_seeking_fails_the_clip_is_decoded_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip", moving(10), kind="mp4")
    frames, _ = decode(path)
    # it fails, or leads to another place
    for failing in (lambda *_: False, lambda clip, _: clip._container.seek(0) is None):
        monkeypatch.setattr(Clip, "_seek", failing)
        for frame in (frames[0], frames[7]):
            assert same(read_frame(path, LIMITS, frame.time_s), frame)


def test_the_limits_hold_but_for_the_number_of_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip", moving(10), kind="avi", codec="mpeg4")
    assert read_frame(path, replace(LIMITS, clip_frames=2), 0.9).time_s == pytest.approx(0.9)
    assert read_frame(path, replace(LIMITS, clip_duration_s=0.5), 0.9).time_s == pytest.approx(0.4)
    with raises_code(MediaError, "too_large"):
        read_frame(path, replace(LIMITS, clip_bytes=100), 0)
    with raises_code(MediaError, "no_frame"):
        read_frame(path, replace(LIMITS, clip_pixels=64 * 48 - 1), 0)
    mp4 = write_clip(tmp_path / "mp4", moving(10), kind="mp4")
    with open_clip(mp4, replace(LIMITS, clip_packets=6), 0) as clip:
        assert clip.jump(0.5) is None
    monkeypatch.setattr(media, "time", SimpleNamespace(monotonic=iter(range(0, 10**6, 1000)).__next__))
    assert jump(mp4, 0.5) is None, "it takes too long"


@pytest.mark.parametrize("name", BAD)
def test_read_frame_refuses_broken_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "upload.mp4"
    BAD[name][0](path)
    with raises_code(MediaError, *BAD[name][1].split("|")) as caught:
        read_frame(path, LIMITS, 0.3)
    assert str(tmp_path) not in str(caught.value)
