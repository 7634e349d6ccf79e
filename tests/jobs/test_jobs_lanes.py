"""Two workers: nothing short waits for a clip, and what happens to one worker does not reach the other."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from jobs_makers import SLOW, wait, wait_running, worker_pid

from hsemotion_space.environment import PAGE_SECRETS
from hsemotion_space.jobs import JobRunner, worker
from hsemotion_space.jobs.runner import CLIP_NICENESS
from hsemotion_space.jobs.worker import WorkerProcess
from hsemotion_space.settings import PipelineConfig, Settings


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[JobRunner]:
    runner = JobRunner(replace(settings, workers=2))
    yield runner
    runner.close()


@pytest.fixture
def runner(shared: JobRunner) -> Iterator[JobRunner]:
    yield shared
    for job_id in list(shared._table.jobs):
        shared.cancel(job_id)
        wait(shared, job_id)


def send(runner: JobRunner, lane: int, number: signal.Signals) -> None:
    os.kill(worker_pid(runner, lane), number)


def test_a_picture_does_not_wait_for_a_clip(runner: JobRunner, folder: Path) -> None:
    clip = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, clip)
    named = folder / "picture.mp4"  # what a file is says its content, not its name
    named.write_bytes((folder / "face.png").read_bytes())
    picture = runner.submit(named, PipelineConfig())
    assert wait(runner, picture).state == "done"
    assert wait(runner, runner.analyze_frame((folder / "face.png").read_bytes(), "small")).state == "done"
    assert runner.status(clip).state == "running"
    second = runner.submit(folder / "long.mp4", SLOW)
    assert runner.status(second).ahead == 1, "clips wait for clips"


@pytest.mark.parametrize("lane", [0, 1])
def test_a_worker_that_dies_harms_no_job_of_the_other(runner: JobRunner, folder: Path, lane: int) -> None:
    for name in ("face.png", "long.mp4"):  # then both are ready
        wait(runner, runner.submit(folder / name, PipelineConfig(sample_fps=0.5)))
    safe = runner._lanes[1 - lane].worker.process
    send(runner, lane, signal.SIGSTOP)
    ids = [runner.submit(folder / "face.png", PipelineConfig()), runner.submit(folder / "long.mp4", SLOW)]
    for job_id in ids:
        wait(runner, job_id, lambda status: status.state == "running")
    if lane == 0:
        wait_running(runner, ids[1])
    send(runner, lane, signal.SIGKILL)
    assert wait(runner, ids[lane]).state == "failed"
    if lane == 0:
        assert runner.status(ids[1]).state == "running"
    else:
        assert wait(runner, ids[0]).state == "done"
    assert runner._lanes[1 - lane].worker.process is safe
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="needs priorities")
def test_the_worker_for_clips_lets_the_other_go_first(runner: JobRunner, folder: Path) -> None:
    clip = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, clip)
    wait(runner, runner.submit(folder / "face.png", PipelineConfig()))
    short, clips = (os.getpriority(os.PRIO_PROCESS, worker_pid(runner, lane)) for lane in (0, 1))
    assert (short, clips) == (os.getpriority(os.PRIO_PROCESS, 0), min(short + CLIP_NICENESS, 19))


def echo(connection: Connection, settings: Settings, _niceness: int) -> None:
    """Tell what a worker knows."""
    connection.send(("known", pickle.dumps(settings), dict(os.environ)))


def test_a_worker_is_told_no_secret(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "work", echo)
    for name in PAGE_SECRETS:
        monkeypatch.setenv(name, "s3cret")
    secret = replace(
        settings,
        feedback_secret="s3cret",
        review_token="s3cret",
        feedback_database="postgresql://me:s3cret@host/db",
    )
    process = WorkerProcess(secret)
    process.start()
    try:
        answer = None
        while answer is None:
            answer = process.receive()
    finally:
        process.stop()
    _, received, environ = answer
    assert isinstance(received, bytes) and b"s3cret" not in received
    assert pickle.loads(received) == settings
    assert "s3cret" not in str(environ) and multiprocessing.current_process().name == "MainProcess"
    assert all(os.environ[name] == "s3cret" for name in PAGE_SECRETS)
