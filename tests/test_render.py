"""A clip rendered with its faces: the same times and sound, boxes and labels where the faces are."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from pathlib import Path

import av
import numpy as np
import pytest
from analysis_makers import make_analysis
from clip_makers import LIMITS, TEN, decode, shortened, times
from error_codes import codes, raises_code
from media_makers import BLUE, GREEN, RED, WHITE, mutated, quadrants, write_clip
from PIL import Image

from hsemotion_space.analysis.overlay import Overlay
from hsemotion_space.cli import main
from hsemotion_space.media.clips import MediaError
from hsemotion_space.media.render import render
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.types import ByteArray, Frame

OWN = LIMITS.for_own_files()
UNEVEN = [1.0, 1.1, 1.25, 1.3, 1.4, 1.5, 1.9, 2.0, 2.1, 2.2]
CLIPS: dict[str, dict[str, object]] = {
    "mp4-aac": {"kind": "mp4", "audio": "aac"},
    "mp4-late": {"kind": "mp4", "audio": "aac", "times_s": UNEVEN},
    "mp4-sound-outlasts": {"kind": "mp4", "audio": "aac", "audio_start_s": 3.0},
    "mov-pcm": {"kind": "mov", "codec": "mjpeg", "audio": "pcm_s16le"},
    "webm-opus": {"kind": "webm", "codec": "libvpx", "audio": "libopus"},
    "mpegts-aac": {"kind": "mpegts", "audio": "aac", "times_s": UNEVEN},
    "mpeg-ps-mp2": {"kind": "vob", "codec": "mpeg2video", "audio": "mp2", "rate": 25},
    "avi-silent": {"kind": "avi", "codec": "mpeg4"},
}


def plain(frame: Frame) -> ByteArray:
    return frame.rgb


def sound(path: Path) -> tuple[str, float, float]:
    """Return codec, start and end in s of the sound, relative to the first picture."""
    with av.open(str(path)) as container:
        stream, start = container.streams.audio[0], container.streams.video[0]
        pieces = list(container.decode(stream))
        first_s = float(start.start_time * start.time_base)
        seconds = [float(piece.pts * piece.time_base) - first_s for piece in pieces]
        return stream.codec_context.name, seconds[0], seconds[-1] + pieces[-1].samples / pieces[-1].rate


@pytest.mark.parametrize("name", CLIPS)
def test_pictures_and_sound_keep_their_times(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "clip", tmp_path / "out.mp4"
    write_clip(path, TEN, **CLIPS[name])  # type: ignore[arg-type]
    assert render(path, out, OWN, plain) == ()
    (before, clip), (after, rendered) = decode(path, limits=OWN), decode(out)
    assert rendered.duration_s == pytest.approx(clip.duration_s, abs=0.002)
    assert times(after) == times(before)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one.rgb, other.rgb, atol=4)
    if "audio" in CLIPS[name]:
        codec, start_s, end_s = sound(path)
        copied = "aac" if codec not in ("aac", "opus") else codec
        assert sound(out) == (copied, pytest.approx(start_s, abs=0.002), pytest.approx(end_s, abs=0.025))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip", "out.mp4"]


def test_turned_clips_of_odd_size_are_rendered_as_they_are_shown(tmp_path: Path) -> None:
    path, out = tmp_path / "clip", tmp_path / "out.mp4"
    write_clip(path, [quadrants(65, 47)] * 3, kind="mp4", pix_fmt="yuv444p", turn=(90, False))
    assert render(path, out, OWN, plain) == ()
    frame = decode(out)[0][0]
    assert frame.rgb.shape == (66, 48, 3)
    np.testing.assert_allclose(frame.rgb[[0, 0, -1, -1], [0, -1, 0, -1]], [GREEN, WHITE, RED, BLUE], atol=4)


def test_damaged_clips_are_rendered_as_far_as_they_go(tmp_path: Path) -> None:
    path = shortened(tmp_path / "clip", 0.6, kind="matroska", codec="mjpeg", audio="aac")
    notices = render(path, tmp_path / "out.mp4", OWN, plain)
    assert codes(notices) and times(decode(tmp_path / "out.mp4")[0]) == times(decode(path)[0])


def test_sound_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip", TEN, kind="matroska", audio="wavpack")
    assert codes(render(path, tmp_path / "out.mp4", OWN, plain)) == ["no_sound"]


def test_mutated_clips_are_rendered_or_refused(tmp_path: Path) -> None:
    rng, path, done = random.Random(7), tmp_path / "clip", 0
    seeds = [
        write_clip(path, TEN, **CLIPS[name]).read_bytes() for name in ("mp4-aac", "mov-pcm", "mpegts-aac")
    ]  # type: ignore[arg-type]
    limits = dataclasses.replace(OWN, decode_deadline_s=10.0, clip_pixels=10**6)
    for number in range(90):
        path.write_bytes(mutated(seeds[number % 3], rng))
        with contextlib.suppress(MediaError):
            render(path, tmp_path / "out.mp4", limits, plain)
            done += 1
    assert done > 20


@pytest.mark.parametrize("fault", ["picture", "folder", "painter"])
def test_a_failure_leaves_no_file(fault: str, tmp_path: Path) -> None:
    def paint(frame: Frame) -> ByteArray:
        if fault == "painter":
            raise MediaError("Stopped.", code="stopped")
        return frame.rgb

    path = write_clip(tmp_path / "clip", TEN, kind="mp4")
    if fault == "picture":
        Image.fromarray(quadrants()).save(path, "PNG")
    out = tmp_path / ("none" if fault == "folder" else "") / "out.mp4"
    with raises_code(
        MediaError, {"picture": "is_image", "folder": "unwritable", "painter": "stopped"}[fault]
    ):
        render(path, out, OWN, paint)
    assert [file.name for file in tmp_path.iterdir()] == ["clip"]


def test_boxes_follow_the_faces_and_labels_the_values() -> None:
    analysis = make_analysis(1, 10, gap=False, tasks=(EXPRESSION,))
    face = analysis.faces[0]
    boxes = np.float32([[100 + 20 * row, 100, 200 + 20 * row, 220] for row in range(10)])
    present = np.array([row not in (4, 5, 6) for row in range(10)])
    track = dataclasses.replace(
        face.track, boxes_xyxy=boxes[present], landmarks=np.zeros((0, 5, 2), np.float32),
        **{name: getattr(face.track, name)[present]
           for name in ("times_s", "frame_index", "detection_scores", "embeddings", "scores")},
    )  # fmt: skip
    line = dataclasses.replace(
        face.timelines[0], times_s=track.times_s, values=face.timelines[0].values[present]
    )
    analysis = dataclasses.replace(
        analysis, faces=(dataclasses.replace(face, track=track, timelines=(line,)),)
    )
    black, step_s = np.zeros((480, 640, 3), np.uint8), float(np.median(np.diff(analysis.frame_times_s)))

    def painted(time_s: float) -> ByteArray:
        return Overlay(analysis).paint(Frame(black, 0, time_s))

    for row, (time_s, values) in enumerate(zip(line.times_s, line.values, strict=True)):
        pixels = painted(time_s)
        color = EXPRESSION.labels[values.argmax()].color
        x0, y0, x1, y1 = track.boxes_xyxy[row].astype(int)
        for x, y in ((x0, (y0 + y1) // 2), (x1, (y0 + y1) // 2), ((x0 + x1) // 2, y1), (x0, y0 - 2)):
            assert "#{:02x}{:02x}{:02x}".format(*pixels[y, x]) == color
        assert not pixels[y0 + 10 : y1 - 10, x0 + 10 : x1 - 10].any()
    between = (line.times_s[1] + line.times_s[2]) / 2
    assert painted(between)[160, 130].any() and not painted(between)[160, 120].any()
    assert not painted(line.times_s[3] + 0.6 * step_s).any(), "the face is lost"
    assert not painted(line.times_s[0] - 0.01).any()


@pytest.mark.parametrize(
    ("inputs", "target", "text"),
    [
        (["clip.mp4", "picture.png"], "out.mp4", "one clip"),
        (["clip.mp4"], "out.avi", ".mp4"),
        (["clip.mp4"], "none/out.mp4", "does not exist"),
        (["clip.mp4"], "clip.mp4", "overwrite"),
        (["picture.png"], "out.mp4", "is a picture"),
    ],
)
def test_the_command_refuses_before_it_works(
    inputs: list[str], target: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "clip.mp4", TEN, kind="mp4")
    Image.fromarray(quadrants()).save(tmp_path / "picture.png")
    status = main(["analyze", *(str(tmp_path / name) for name in inputs), "--render", str(tmp_path / target)])
    assert status == 2 and text in capsys.readouterr().err
