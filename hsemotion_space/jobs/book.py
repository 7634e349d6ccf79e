"""All jobs and their order: what waits, what runs, how long results stay. Without threads; the runner holds the lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Final

import numpy as np

from hsemotion_space.jobs.status import JobStatus, State
from hsemotion_space.jobs.worker import Request
from hsemotion_space.types import Analysis

MAX_KEPT: Final = 64  # finished jobs
MAX_KEPT_BYTES: Final = 2**30  # of their arrays
ABANDONED_S: Final = 600.0  # a job that nobody has asked for during this time is not worth the CPU
ABANDONED: Final = f"Nobody asked for this analysis for {ABANDONED_S / 60:.0f} minutes, so it was cancelled."


@dataclass(slots=True)
class Job:
    """A job with its clock; all times are monotonic seconds.

    Attributes:
        cancel: whether it is to stop; only the thread that runs it stops a running job.
        reason: told when it was cancelled.
        asked_s: when somebody last asked for it.
        sent_s: when the worker got it.
        running_s: when it got the weights, as far as known.
        ended_s: when it ended.
        size: bytes of its analyses.
    """

    request: Request
    status: JobStatus
    asked_s: float
    cancel: bool = False
    reason: str = ""
    sent_s: float = 0.0
    running_s: float = 0.0
    ended_s: float = 0.0
    size: int = 0


class Book:
    """Jobs by id, in the order they came."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.waiting: deque[str] = deque()
        self.running: Job | None = None

    def add(self, request: Request, now_s: float) -> Job:
        """Queue a request."""
        status = JobStatus(request.id, "queued", checkpoints=request.checkpoints, config=request.config)
        job = self.jobs[request.id] = Job(request, status, now_s)
        self.waiting.append(request.id)
        return job

    def look(self, job: Job) -> JobStatus:
        """Return the status of a job with its place in the queue."""
        if job.status.state != "queued":
            return job.status
        return replace(job.status, ahead=self.waiting.index(job.request.id) + (self.running is not None))

    def take(self) -> Job | None:
        """Take the next job off the queue and let it run; None if nothing waits."""
        if not self.waiting:
            return None
        job = self.running = self.jobs[self.waiting.popleft()]
        job.status = replace(job.status, state="running")
        return job

    def end(self, job: Job, state: State, now_s: float, message: str = "", analyses: tuple[Analysis, ...] = ()) -> None:
        """Note how a job ended."""
        if job.request.id in self.waiting:
            self.waiting.remove(job.request.id)
        if self.running is job:
            self.running = None
        job.status = replace(job.status, state=state, message=message, analyses=analyses)
        job.ended_s, job.size = now_s, weigh(analyses)

    def abandoned(self, now_s: float) -> list[Job]:
        """Return the jobs that wait or run although nobody has asked for them for ABANDONED_S."""
        open_jobs = [*(self.jobs[key] for key in self.waiting), *([self.running] if self.running else [])]
        return [job for job in open_jobs if now_s - job.asked_s > ABANDONED_S]

    def forget(self, now_s: float, results_ttl_s: float) -> None:
        """Drop finished jobs that are too old, then the oldest beyond MAX_KEPT and MAX_KEPT_BYTES; the latest one stays in any case."""
        finished = sorted((job for job in self.jobs.values() if job.status.finished), key=lambda job: job.ended_s)
        old = [job for job in finished if now_s - job.ended_s > results_ttl_s]
        finished = finished[len(old) :]
        size = sum(job.size for job in finished)
        while len(finished) > 1 and (len(finished) > MAX_KEPT or size > MAX_KEPT_BYTES):
            size -= finished[0].size
            old.append(finished.pop(0))
        for job in old:
            del self.jobs[job.request.id]


def weigh(analyses: tuple[Analysis, ...]) -> int:
    """Return the bytes of all arrays in some analyses; arrays that several share count once."""
    return sum({id(array): array.nbytes for array in _arrays(analyses)}.values())


def _arrays(value: object) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _arrays(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from _arrays(getattr(value, item.name))
