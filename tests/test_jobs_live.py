"""Pictures of a camera: answered soon or not at all, and forgotten."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from face_makers import picture_with
from jobs_makers import SLOW, code_of, make_table, wait
from media_makers import encoded, mutated, png_bit_bomb, write_clip
from PIL import Image

from hsemotion_space.inference.pipeline import NO_FACE, Pipeline
from hsemotion_space.jobs import JobError, JobRunner
from hsemotion_space.jobs.requests import FrameRequest
from hsemotion_space.jobs.runner import FRAME_BYTES, MAX_BEFORE_FRAME
from hsemotion_space.jobs.table import MAX_SHORT_LIVED
from hsemotion_space.media.clips import MediaError, read_image
from hsemotion_space.media.images import read_image_bytes
from hsemotion_space.settings import MediaLimits, PipelineConfig, Settings

LIMITS = MediaLimits()


def frame(kind: str = "JPEG", side: int = 200) -> bytes:
    return encoded(Image.fromarray(picture_with([(150, 90)], (360, 480), side)), kind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    make_checkpoint(folder / "checkpoints" / "small", size=32)
    (folder / "frame.jpg").write_bytes(frame())
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    write_clip(folder / "long.mp4", [np.roll(noise, 5 * number, 1) for number in range(300)], codec="mpeg4")
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return Settings(
        checkpoints=folder / "checkpoints", cache=folder / "cache", engine="torch", threads=1, workers=1
    )


@pytest.fixture(scope="module")
def shared_runner(settings: Settings, folder: Path) -> Iterator[JobRunner]:
    runner = JobRunner(settings, root=folder)
    yield runner
    runner.close()


@pytest.fixture
def runner(shared_runner: JobRunner) -> Iterator[JobRunner]:
    yield shared_runner
    for job_id in list(shared_runner._table.jobs):
        shared_runner.cancel(job_id)
        wait(shared_runner, job_id)


def occupy(runner: JobRunner, folder: Path) -> str:
    """Let the worker be busy."""
    job_id = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, job_id, lambda status: status.state == "running")
    return job_id


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_look_is_like_an_analysis_of_the_picture(
    runner: JobRunner, settings: Settings, kind: str, tmp_path: Path
) -> None:
    status = wait(runner, runner.analyze_frame(frame(kind), "small"))
    assert (status.state, status.checkpoints, len(status.analyses)) == ("done", ("small",), 1)
    analysis = status.analyses[0]
    assert (analysis.media.kind, analysis.media.width, analysis.media.height) == ("image", 480, 360)
    assert (len(analysis.faces), analysis.checkpoint.id, analysis.notices) == (1, "small", ())
    (tmp_path / "frame").write_bytes(frame(kind))
    same = Pipeline(settings).analyze(tmp_path / "frame")
    assert analysis.media == same.media
    np.testing.assert_allclose(analysis.faces[0].track.boxes_xyxy, same.faces[0].track.boxes_xyxy, atol=12)


def test_look_fails_with_a_code(runner: JobRunner) -> None:
    empty = encoded(Image.new("RGB", (480, 360), "gray"), "JPEG")
    analysis = wait(runner, runner.analyze_frame(empty, "small")).analyses[0]
    assert (analysis.faces, analysis.notices) == ((), (NO_FACE,))
    for content, checkpoint, code in (
        (b"", "small", "empty"),
        (b"<svg>", "small", "unsupported"),
        (frame()[:2000], "small", "damaged"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "small", "is_clip"),
        (png_bit_bomb(2000, 1001), "small", "too_many_pixels"),
        (frame(), "huge", ""),
    ):
        status = wait(runner, runner.analyze_frame(content, checkpoint))
        assert (status.state, status.analyses) == ("failed", ())
        assert status.message and code in ("", code_of(status))
    with raises_code(JobError, "frame_too_large"):
        runner.analyze_frame(bytes(FRAME_BYTES + 1), "small")


def test_look_is_refused_where_it_would_wait(runner: JobRunner, folder: Path) -> None:
    occupy(runner, folder)
    ids = [runner.submit(folder / "frame.jpg", PipelineConfig()) for _ in range(MAX_BEFORE_FRAME)]
    live = runner.analyze_frame(frame(), "small")
    with raises_code(JobError, "busy"):
        runner.analyze_frame(frame(), "small")
    assert runner.status(live).ahead == MAX_BEFORE_FRAME + 1
    runner.submit(folder / "frame.jpg", PipelineConfig())
    runner.cancel(ids[0])
    runner.cancel(ids[1])
    runner.analyze_frame(frame(), "small")


def test_look_that_nobody_asks_for_is_cancelled(
    runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.lane.TIDY_EVERY_S", 0.05)
    occupy(runner, folder)
    live, waiting = (
        runner.analyze_frame(frame(), "small"),
        runner.submit(folder / "frame.jpg", PipelineConfig()),
    )
    for job_id in (live, waiting):
        runner._table.jobs[job_id].asked_s -= FrameRequest.PATIENCE_S
    deadline = time.monotonic() + 5
    while not runner._table.jobs[live].status.finished:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert code_of(runner.status(live)) == "abandoned"
    assert runner.status(waiting).state == "queued"


def test_look_keeps_nothing_of_a_frame(
    runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.lane.TIDY_EVERY_S", 0.05)
    kept = wait(runner, runner.submit(folder / "frame.jpg", PipelineConfig())).id
    content = frame() + os.urandom(8)  # this very picture
    before, files = sys.getrefcount(content), set(folder.rglob("*"))
    job_id = runner.analyze_frame(content, "small")
    assert sys.getrefcount(content) > before, "it waits in the book"
    status = wait(runner, job_id)
    assert status.state == "done"
    assert sys.getrefcount(content) == before, "the picture is let go of at the end"
    assert set(folder.rglob("*")) == files
    analysis, job = status.analyses[0], runner._table.jobs[job_id]
    del status
    with runner._table.changed:
        job.ended_s -= FrameRequest.KEPT_S - 0.2  # type: ignore[operator]
    del job
    held = sys.getrefcount(analysis)
    deadline = time.monotonic() + 10
    # Without a request; the thread that forgets the job lets go of it a moment later.
    while job_id in runner._table.jobs or sys.getrefcount(analysis) >= held:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with raises_code(JobError, "unknown_job"):
        runner.status(job_id)
    assert runner.status(kept).state == "done"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc")
def test_look_writes_no_file(settings: Settings) -> None:
    written: list[object] = []
    watching = [False]

    def watch(event: str, args: tuple[object, ...]) -> None:
        if watching[0] and event == "open" and int(str(args[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(args[0])

    sys.addaudithook(watch)
    pipeline = Pipeline(settings)
    pipeline.analyze_frame(frame(), "small")  # what is loaded once may be cached
    watching[0] = True
    try:
        with Path(os.devnull).open("w"):
            assert written, "a file that is opened to write is noticed"
        written.clear()
        assert len(pipeline.analyze_frame(frame("PNG"), "small").faces) == 1
        assert pipeline.analyze_frame(frame(side=24), "small").faces == (), "what is tiny is left out"
    finally:
        watching[0] = False
    assert written == []


def test_table_bounds_frames_apart_from_jobs() -> None:
    jobs = make_table()
    looks = [
        jobs.add(FrameRequest(f"{number:032x}", b"frame", "small"), "", 0.0)
        for number in range(MAX_SHORT_LIVED + 5)
    ]
    for number, job in enumerate(looks):
        jobs.end(job, "done", float(number) / 100)
        assert isinstance(job.request, FrameRequest) and job.request.frame == b""
    jobs.expire(1.0)
    assert list(jobs.jobs) == [job.request.id for job in looks[5:]]
    assert jobs.has_short_lived
    jobs.expire(10.0 + 0.2)
    assert [jobs.jobs[key].ended_s >= 0.2 for key in jobs.jobs] == [True] * (MAX_SHORT_LIVED - 15)
    jobs.expire(11.0)
    assert not jobs.jobs and not jobs.has_short_lived


def test_read_image_bytes_is_like_read_image(tmp_path: Path) -> None:
    rng, read = random.Random(4), 0
    seeds = [frame(kind, 120) for kind in ("JPEG", "PNG", "WEBP")]
    for number in range(60):
        content = mutated(seeds[number % 3], rng) if number > 2 else seeds[number]
        (tmp_path / "picture").write_bytes(content)
        try:
            info, expected = read_image(tmp_path / "picture", LIMITS)
        except MediaError as error:
            with pytest.raises(MediaError) as caught:
                read_image_bytes(content, LIMITS)
            assert str(caught.value) == str(error)
            continue
        got_info, got = read_image_bytes(content, LIMITS)
        assert got_info == info
        np.testing.assert_array_equal(got.rgb, expected.rgb)
        read += 1
    assert read > 5
    with raises_code(MediaError, "too_large"):
        read_image_bytes(frame(), MediaLimits(image_bytes=100))
