"""All jobs and their order: what waits, what runs, how long results stay. Without threads; the runner holds the lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from hsemotion_space.jobs.requests import LookRequest, Request
from hsemotion_space.jobs.status import Explained, JobStatus, State
from hsemotion_space.types import Analysis

MAX_KEPT: Final = 64  # finished analyses
MAX_KEPT_BYTES: Final = 2**30  # of their arrays
MAX_PASSING: Final = 64  # finished jobs of other kinds, which are kept for seconds

Answer: TypeAlias = tuple[Analysis, ...] | Explained


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
        size: bytes of its answer.
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

    @property
    def passing(self) -> bool:
        """Whether its answer is kept for seconds only."""
        return self.request.KEPT_S is not None


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

    def end(self, job: Job, state: State, now_s: float, message: str = "", answer: Answer = ()) -> None:
        """Note how a job ended, and let go of the picture of a camera."""
        if job.request.id in self.waiting:
            self.waiting.remove(job.request.id)
        if self.running is job:
            self.running = None
        analyses, explained = (answer, None) if isinstance(answer, tuple) else ((), answer)
        job.status = replace(job.status, state=state, message=message, analyses=analyses, explained=explained)
        job.ended_s, job.size = now_s, weigh(answer)
        if isinstance(job.request, LookRequest):
            job.request = replace(job.request, frame=b"")

    def abandoned(self, now_s: float) -> list[Job]:
        """Return the jobs that wait or run although nobody has asked for them for the ``PATIENCE_S`` of their kind."""
        open_jobs = [*(self.jobs[key] for key in self.waiting), *([self.running] if self.running else [])]
        return [job for job in open_jobs if now_s - job.asked_s > job.request.PATIENCE_S]

    def forget(self, now_s: float, results_ttl_s: float) -> None:
        """Drop finished jobs that are too old, then the oldest analyses beyond MAX_KEPT and MAX_KEPT_BYTES, but for the latest one.

        Jobs of the other kinds have a count of their own, MAX_PASSING, so that they take no room from analyses.
        """
        finished = sorted((job for job in self.jobs.values() if job.status.finished), key=lambda job: job.ended_s)
        for job in finished:
            kept_s = results_ttl_s if job.request.KEPT_S is None else min(job.request.KEPT_S, results_ttl_s)
            if now_s - job.ended_s > kept_s:
                del self.jobs[job.request.id]
        finished = [job for job in finished if job.request.id in self.jobs]
        kept, passing = [job for job in finished if not job.passing], [job for job in finished if job.passing]
        old, size = passing[:-MAX_PASSING], sum(job.size for job in kept)
        while len(kept) > 1 and (len(kept) > MAX_KEPT or size > MAX_KEPT_BYTES):
            size -= kept[0].size
            old.append(kept.pop(0))
        for job in old:
            del self.jobs[job.request.id]

    @property
    def passing(self) -> bool:
        """Whether there are jobs whose answers are kept for seconds only."""
        return any(job.passing for job in self.jobs.values())


def abandoned(request: Request) -> str:
    """Return why a job was cancelled that nobody asked for."""
    patience = f"{request.PATIENCE_S / 60:.0f} minutes" if request.PATIENCE_S >= 60 else f"{request.PATIENCE_S:.0f} seconds"
    return f"Nobody asked for this analysis for {patience}, so it was cancelled."


def weigh(answer: Answer) -> int:
    """Return the bytes of all arrays in an answer; arrays that are in it several times count once."""
    return sum({id(array): array.nbytes for array in _arrays(answer)}.values())


def _arrays(value: object) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _arrays(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from _arrays(getattr(value, item.name))
