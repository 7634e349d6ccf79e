"""Wait for jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hsemotion_space.jobs import JobRunner, JobStatus, table
from hsemotion_space.jobs.files import JobFiles
from hsemotion_space.jobs.table import JobTable
from hsemotion_space.messages import Message
from hsemotion_space.settings import PipelineConfig, Settings

PATIENCE_S = 120.0
SLOW = PipelineConfig(sample_fps=0, detect_every=1, min_face=12)

MAX_WAITING = table.MAX_WAITING["short"]


def make_table(workers: int = 1) -> JobTable:
    """Return a table without any thread, to be used by this one alone."""
    made = JobTable(Settings(workers=workers, results_ttl_s=900.0), JobFiles(None))
    made.changed.acquire()
    return made


def fill(runner: JobRunner, picture: Path, count: int = MAX_WAITING) -> list[str]:
    """Let pictures of as many clients wait as it takes."""
    share = table.MAX_OF_CLIENT["short"]
    return [
        runner.submit(picture, PipelineConfig(), client=f"client {number // share}")
        for number in range(count)
    ]


def wait(
    runner: JobRunner, job_id: str, until: Callable[[JobStatus], bool] = lambda status: status.finished
) -> JobStatus:
    deadline = time.monotonic() + PATIENCE_S
    for status in runner.watch(job_id, 0.02):
        if until(status) or status.finished:
            return status
        assert time.monotonic() < deadline, status
    raise AssertionError("unreachable")


def code_of(status: JobStatus) -> str:
    """Return the code of the message of a status, empty if there is none."""
    return status.message.code if isinstance(status.message, Message) else ""


def worker_pid(runner: JobRunner, lane: int = 0) -> int:
    process = runner._lanes[lane].worker.process
    assert process is not None and process.pid is not None
    return process.pid


def wait_running(runner: JobRunner, job_id: str) -> JobStatus:
    return wait(runner, job_id, lambda status: status.done > 0)
