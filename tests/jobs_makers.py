"""Wait for jobs."""

from __future__ import annotations

import time
from collections.abc import Callable

from hsemotion_space.jobs import JobRunner, JobStatus
from hsemotion_space.settings import PipelineConfig

PATIENCE_S = 120.0
SLOW = PipelineConfig(sample_fps=0, detect_every=1, min_face=12)


def wait(runner: JobRunner, job_id: str, until: Callable[[JobStatus], bool] = lambda status: status.finished) -> JobStatus:
    deadline = time.monotonic() + PATIENCE_S
    for status in runner.watch(job_id, 0.02):
        if until(status) or status.finished:
            return status
        assert time.monotonic() < deadline, status
    raise AssertionError("unreachable")


def wait_running(runner: JobRunner, job_id: str) -> JobStatus:
    return wait(runner, job_id, lambda status: status.done > 0)
