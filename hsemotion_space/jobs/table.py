"""All jobs: what waits and for whom, what runs, how long results stay."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from hsemotion_space.jobs.durations import Durations
from hsemotion_space.jobs.keep import Kept
from hsemotion_space.jobs.queue import Job, WorkerQueue, rounded_s
from hsemotion_space.jobs.requests import Lane, LookRequest, Request
from hsemotion_space.jobs.status import Explained, JobError, JobStatus, State
from hsemotion_space.settings import Settings
from hsemotion_space.types import Analysis

MAX_WAITING: Final[dict[Lane, int]] = {"short": 32, "clip": 16}
MAX_OF_CLIENT: Final[dict[Lane, int]] = {"short": 8, "clip": 4}  # a quarter of that, waiting or running; many may share an address
MAX_KEPT: Final = 64  # finished analyses
MAX_KEPT_BYTES: Final = 2**30  # of their arrays
MAX_PASSING: Final = 64  # finished jobs of other kinds, which are kept for seconds

Answer: TypeAlias = tuple[Analysis, ...] | Explained


class JobTable:
    """Jobs by id. Whoever calls a method from one of several threads holds ``changed``, which wakes those who wait for news.

    Args:
        settings: of the deployment.
        kept: files of jobs that have not ended.

    Attributes:
        queues: one for each worker; with two, the last one is for clips.
        problems: why a checkpoint could not be had the last time, by its id.
        closed: whether everything is to stop.
        tidied_s: when :meth:`tidy` was called last.
    """

    def __init__(self, settings: Settings, kept: Kept) -> None:
        self.settings, self.kept = settings, kept
        self.changed = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.queues = tuple(WorkerQueue() for _ in range(settings.workers))
        self.durations = Durations()
        self.problems: dict[str, str] = {}
        self.closed = False
        self.tidied_s = 0.0

    def queue_of(self, lane: Lane) -> WorkerQueue:
        """Return the queue in which jobs of a lane wait."""
        return self.queues[-1 if lane == "clip" else 0]

    def add(self, request: Request, client: str, now_s: float) -> Job:
        """Queue a request."""
        status = JobStatus(request.id, "queued", checkpoints=request.checkpoints, config=request.config)
        job = self.jobs[request.id] = Job(request, status, now_s, client)
        self.queue_of(request.lane).add(job)
        self.changed.notify_all()
        return job

    def withdraw(self, job: Job) -> None:
        """Take back a job that was just added."""
        self.queue_of(job.request.lane).remove(job)
        del self.jobs[job.request.id]

    def check_room(self, lane: Lane, client: str, now_s: float) -> None:
        """Check whether one more job of a client has room in a lane.

        Raises:
            JobError: if not; the message says when to try again.
        """
        if self.closed:
            raise JobError("The server is being stopped. Please try again in a minute.")
        self.tidy(now_s)
        queue = self.queue_of(lane)
        times = queue.schedule(self.durations, now_s)
        there = [job for job in times if job.request.lane == lane]
        mine = [job for job in there if job.client == client]
        if len(mine) >= MAX_OF_CLIENT[lane]:
            raise JobError(f"{len(mine)} analyses from your network are waiting or running already. {_again(times[mine[0]][1])}")
        waiting = [job for job in there if job is not queue.running]
        if len(waiting) >= MAX_WAITING[lane]:
            raise JobError(f"{len(waiting)} analyses are waiting already. {_again(times[waiting[0]][0])}")

    def look(self, job_id: str, now_s: float) -> JobStatus:
        """Return the status of a job with its place in the queue and the expected wait; whoever asks keeps it alive.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        job = self.jobs.get(job_id)
        if job is None:
            minutes = round(self.settings.results_ttl_s / 60)
            raise JobError(f"This analysis is not here any more; results are kept for {minutes} minutes at most. Please start it again.")
        job.asked_s = now_s
        if job.status.state != "queued":
            return job.status
        times = self.queue_of(job.request.lane).schedule(self.durations, now_s)
        ahead, wait_s = list(times).index(job), times[job][0]
        return replace(job.status, ahead=ahead, wait_s=rounded_s(wait_s) if ahead and wait_s is not None else None)

    def take(self, queue: WorkerQueue) -> Job | None:
        """Let the next job of a queue run; None if nothing waits."""
        job = queue.take()
        if job is not None:
            job.status = replace(job.status, state="running")
            self.changed.notify_all()
        return job

    def stop(self, job: Job, reason: str, now_s: float) -> None:
        """Let a job end as soon as possible."""
        if not job.status.finished and not job.cancel:
            job.cancel, job.reason = True, reason
            if job.status.state == "queued":
                self.end(job, "cancelled", now_s, reason)
            self.changed.notify_all()

    def end(self, job: Job, state: State, now_s: float, message: str = "", answer: Answer = ()) -> None:
        """Note how a job ended, unless it has ended already, and let go of its file and of the picture of a camera."""
        if job.status.finished:
            return
        self.queue_of(job.request.lane).remove(job)
        analyses, explained = (answer, None) if isinstance(answer, tuple) else ((), answer)
        job.status = replace(job.status, state=state, message=message, analyses=analyses, explained=explained)
        job.ended_s, job.size = now_s, weigh(answer)
        if state == "done" and job.running_s:
            self.durations.note(job.request.kind, now_s - job.running_s)
        if isinstance(job.request, LookRequest):
            job.request = replace(job.request, frame=b"")
        self.kept.drop(job.request.id)
        self.forget(now_s)
        self.changed.notify_all()

    def tidy(self, now_s: float) -> None:
        """Forget old results, and stop what waits or runs although nobody has asked for it for the ``PATIENCE_S`` of its kind."""
        self.tidied_s = now_s
        self.forget(now_s)
        for job in [job for queue in self.queues for job in queue.present()]:
            if now_s - job.asked_s > job.request.PATIENCE_S:
                self.stop(job, abandoned(job.request), now_s)

    def forget(self, now_s: float) -> None:
        """Drop finished jobs that are too old, then the oldest analyses beyond MAX_KEPT and MAX_KEPT_BYTES, but for the latest one.

        Jobs of the other kinds have a count of their own, MAX_PASSING, so that they take no room from analyses.
        """
        finished = sorted((job for job in self.jobs.values() if job.status.finished), key=lambda job: job.ended_s)
        for job in finished:
            longest_s = self.settings.results_ttl_s
            kept_s = longest_s if job.request.KEPT_S is None else min(job.request.KEPT_S, longest_s)
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

    def close(self) -> None:
        """Take nothing any more, and cancel what waits."""
        self.closed = True
        for queue in self.queues:
            for job in queue.waiting():
                self.end(job, "cancelled", time.monotonic())
        self.changed.notify_all()


def abandoned(request: Request | type[Request]) -> str:
    """Return why a job was cancelled that nobody asked for."""
    patience = f"{request.PATIENCE_S / 60:.0f} minutes" if request.PATIENCE_S >= 60 else f"{request.PATIENCE_S:.0f} seconds"
    return f"Nobody asked for this analysis for {patience}, so it was cancelled."


def _again(wait_s: float | None) -> str:
    """Return when to try again: in so many seconds, if that is known."""
    return "Please try again when one of them has ended." if wait_s is None else f"Please try again in about {rounded_s(wait_s)} s."


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
