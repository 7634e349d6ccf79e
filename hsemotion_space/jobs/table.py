"""All jobs: what waits and for whom, what runs, and how long results and their files are kept."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import zip_longest
from typing import Final

import numpy as np

from hsemotion_space.jobs.files import JobFiles
from hsemotion_space.jobs.requests import (
    LANES,
    Answer,
    FrameRequest,
    JobError,
    JobStatus,
    Kind,
    Lane,
    Request,
    State,
)
from hsemotion_space.logs import log_event
from hsemotion_space.messages import Message
from hsemotion_space.settings import Settings

MAX_WAITING: Final[dict[Lane, int]] = {"short": 32, "clip": 16}
# waiting or running; many may share an address
MAX_OF_CLIENT: Final[dict[Lane, int]] = {"short": 8, "clip": 4}
MAX_OVERTAKEN: Final = 16  # short jobs in a row that go before a clip that waits for the same worker
MAX_KEPT: Final = 64  # finished analyses
MAX_IMPORTED: Final = 16  # of session files, which cost a client nothing; they replace each other alone
MAX_KEPT_BYTES: Final = 2**30  # of their arrays
MAX_SHORT_LIVED: Final = 64  # finished jobs of other kinds
NEWEST_SHARE: Final = 0.3  # of the latest job in the average duration
SURE_SHARE: Final = 0.05  # of a job; from then on its own progress is the best estimate
STOPPING: Final = Message("The server is shutting down. Try again in a minute.", code="closed")


@dataclass(slots=True, eq=False)
class Job:
    """A job with its clock; all times are monotonic seconds.

    Attributes:
        client: the network that it came from.
        cancel: whether it is to stop; only the thread that runs it stops a running job.
        reason: why it was cancelled.
        asked_s: when its status was last requested.
        queued_s: when it came.
        sent_s: when the worker got it.
        running_s: when the worker had the weights, as far as known.
        ended_s: when it ended.
        size: bytes of its result.
        visitor: context of the request, while the job may need a GPU for it.
    """

    request: Request
    status: JobStatus
    asked_s: float
    client: str = ""
    cancel: bool = False
    reason: str = ""
    queued_s: float = 0.0
    sent_s: float = 0.0
    running_s: float = 0.0
    ended_s: float = 0.0
    size: int = 0
    visitor: Context | None = None

    def remaining_s(self, usual_s: float | None, now_s: float) -> float | None:
        """Return the remaining seconds of a running job, None if unknown; ``usual_s`` is typical."""
        done, total = self.status.done, self.status.total
        elapsed_s = now_s - self.running_s if self.running_s else 0.0
        if self.status.phase == "analysis" and done >= SURE_SHARE * total > 0:
            return elapsed_s * max(total - done, 0) / done
        return None if usual_s is None else max(usual_s - elapsed_s, 0.0)


class WorkerQueue:
    """The jobs that wait for one worker, and the one that it runs.

    Short jobs go before clips, but no more than ``MAX_OVERTAKEN`` in a row while a clip waits. In each lane
    the clients take turns, and the jobs of one client keep their order: whoever has nothing in a lane waits
    for at most one job of each other client there.
    """

    def __init__(self) -> None:
        self.running: Job | None = None
        # clients in the order of their turns
        self._turns: dict[Lane, dict[str, deque[Job]]] = {lane: {} for lane in LANES}
        self._overtaken = 0

    def __len__(self) -> int:
        """Return the number of jobs that wait."""
        return sum(len(jobs) for turns in self._turns.values() for jobs in turns.values())

    def add(self, job: Job) -> None:
        """Append a job."""
        self._turns[job.request.lane].setdefault(job.client, deque()).append(job)

    def remove(self, job: Job) -> None:
        """Remove a job, whether it waits, runs or neither."""
        turns = self._turns[job.request.lane]
        if job in turns.get(job.client, ()):
            turns[job.client].remove(job)
            if not turns[job.client]:
                del turns[job.client]
        if self.running is job:
            self.running = None

    def take(self) -> Job | None:
        """Return the next job, which runs from now on; None if nothing waits."""
        job = next(iter(self.waiting()), None)
        if job is None:
            return None
        overtakes = job.request.lane == "short" and self._turns["clip"]
        self._overtaken = self._overtaken + 1 if overtakes else 0
        turns = self._turns[job.request.lane]
        others = turns.pop(job.client)
        others.popleft()
        if others:
            turns[job.client] = others  # behind all other clients
        self.running = job
        return job

    def waiting(self) -> list[Job]:
        """Return the jobs that wait, in the order in which they will run if no other comes."""
        short, clips = (deque(_in_turn(self._turns[lane])) for lane in LANES)
        order, overtaken = [], self._overtaken
        while short or clips:
            if short and (not clips or overtaken < MAX_OVERTAKEN):
                order.append(short.popleft())
                overtaken += 1
            else:
                order.append(clips.popleft())
                overtaken = 0
        return order

    def schedule(
        self, usual_s: Mapping[Kind, float], now_s: float
    ) -> dict[Job, tuple[float | None, float | None]]:
        """Return the seconds until each job begins and ends, running one first; None if unknown."""
        times: dict[Job, tuple[float | None, float | None]] = {}
        begins_s: float | None = 0.0
        for job in [*([self.running] if self.running is not None else []), *self.waiting()]:
            lasts_s = usual_s.get(job.request.kind)
            if job is self.running:
                lasts_s = job.remaining_s(lasts_s, now_s)
            ends_s = None if begins_s is None or lasts_s is None else begins_s + lasts_s
            times[job] = begins_s, ends_s
            begins_s = ends_s
        return times


def _in_turn(turns: dict[str, deque[Job]]) -> list[Job]:
    """Return jobs round by round: in each, one of every client that still has one."""
    return [job for turn in zip_longest(*turns.values()) for job in turn if job is not None]


def rounded_s(seconds: float) -> int:
    """Return seconds for people: rounded up to 5 s, beyond 30 s to 10 s, beyond 2 minutes to 30 s."""
    step = 5 if seconds <= 30 else 10 if seconds <= 120 else 30
    return max(math.ceil(seconds / step) * step, step)


class JobTable:
    """Jobs by id.

    Whoever uses it from several threads holds ``changed``, which wakes those who wait for news.

    Attributes:
        files: of the jobs.
        queues: one for each worker; with two, the last one is for clips.
        problems: why a checkpoint could not be loaded the last time, by its id.
        stopping: whether new jobs are refused because the server is shutting down.
        closed: whether everything is to stop.
        tidied_s: when :meth:`tidy` was called last.
    """

    def __init__(self, settings: Settings, files: JobFiles) -> None:
        self.settings, self.files = settings, files
        self.changed = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.queues = tuple(WorkerQueue() for _ in range(settings.workers))
        self.problems: dict[str, str] = {}
        self.stopping = self.closed = False
        self.tidied_s = 0.0
        self._usual_s: dict[Kind, float] = {}  # exponential averages of durations

    def queue_of(self, lane: Lane) -> WorkerQueue:
        """Return the queue in which jobs of a lane wait."""
        return self.queues[-1 if lane == "clip" else 0]

    def add(self, request: Request, client: str, now_s: float) -> Job:
        """Queue a request."""
        status = JobStatus(request.id, "queued", checkpoints=request.checkpoints, config=request.config)
        job = self.jobs[request.id] = Job(request, status, now_s, client, queued_s=now_s)
        self.queue_of(request.lane).add(job)
        self.changed.notify_all()
        return job

    def check_room(self, lane: Lane, client: str, now_s: float) -> None:
        """Check whether one more job of a client fits into a lane.

        Raises:
            JobError: if not; the message says when to try again.
        """
        if self.stopping:
            raise JobError(STOPPING)
        self.tidy(now_s)
        queue = self.queue_of(lane)
        times = queue.schedule(self._usual_s, now_s)
        there = [job for job in times if job.request.lane == lane]
        mine = [job for job in there if job.client == client]
        if len(mine) >= MAX_OF_CLIENT[lane]:
            text = "{count} analyses from your network are already waiting or running. {again}"
            raise JobError(text, code="client_full", count=len(mine), again=_again(times[mine[0]][1]))
        waiting = [job for job in there if job is not queue.running]
        if len(waiting) >= MAX_WAITING[lane]:
            text = "{count} analyses are already waiting. {again}"
            raise JobError(text, code="queue_full", count=len(waiting), again=_again(times[waiting[0]][0]))

    def status(self, job_id: str, now_s: float) -> JobStatus:
        """Return the status of a job, its place in the queue and the wait, and record the request.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        job = self.jobs.get(job_id)
        if job is None:
            text = (
                "This analysis is no longer available; results are kept for at most {minutes} minutes. Start"
                " it again."
            )
            raise JobError(text, code="unknown_job", minutes=round(self.settings.results_ttl_s / 60))
        job.asked_s = now_s
        if job.status.state != "queued":
            return job.status
        times = self.queue_of(job.request.lane).schedule(self._usual_s, now_s)
        ahead, wait_s = list(times).index(job), times[job][0]
        return replace(
            job.status, ahead=ahead, wait_s=rounded_s(wait_s) if ahead and wait_s is not None else None
        )

    def take(self, queue: WorkerQueue) -> Job | None:
        """Return the next job of a queue, which runs from now on; None if nothing waits."""
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
        """Note how a job ended, unless it has ended already, and let go of a camera frame."""
        if job.status.finished:
            return
        self.queue_of(job.request.lane).remove(job)
        analyses, explained = (answer, None) if isinstance(answer, tuple) else ((), answer)
        job.status = replace(job.status, state=state, message=message, analyses=analyses, explained=explained)
        job.ended_s, job.size, job.visitor = now_s, array_bytes(answer), None
        if state == "done" and job.running_s:
            seconds, kind = now_s - job.running_s, job.request.kind
            usual_s = self._usual_s.get(kind, seconds)
            self._usual_s[kind] = usual_s + NEWEST_SHARE * (seconds - usual_s)
        _log_end(job)
        if isinstance(job.request, FrameRequest):
            job.request = replace(job.request, frame=b"")
        self.expire(now_s)
        self.changed.notify_all()

    def tidy(self, now_s: float) -> None:
        """Delete old results, and stop what waits or runs although nobody requests its status any more."""
        self.tidied_s = now_s
        self.expire(now_s)
        for job in [job for queue in self.queues for job in queue.schedule({}, now_s)]:
            if now_s - job.asked_s > job.request.PATIENCE_S:
                self.stop(job, abandoned(job.request), now_s)

    def expire(self, now_s: float) -> None:
        """Forget finished jobs that are too old, then the oldest beyond the limits, never the latest.

        Analyses, those of session files, and the short-lived jobs of other kinds are counted separately.
        """
        kept: list[Job] = []
        imported: list[Job] = []
        short_lived: list[Job] = []
        for job in sorted(
            (job for job in self.jobs.values() if job.status.finished), key=lambda job: job.ended_s
        ):
            longest_s = self.settings.results_ttl_s
            if now_s - job.ended_s > min(job.request.KEPT_S or longest_s, longest_s):
                self.forget(job)
            elif any(one.imported for one in job.status.analyses):
                imported.append(job)
            else:
                (kept if job.request.KEPT_S is None else short_lived).append(job)
        old, size = (
            [*short_lived[:-MAX_SHORT_LIVED], *imported[:-MAX_IMPORTED]],
            sum(job.size for job in kept),
        )
        while len(kept) > 1 and (len(kept) > MAX_KEPT or size > MAX_KEPT_BYTES):
            size -= kept[0].size
            old.append(kept.pop(0))
        for job in old:
            self.forget(job)

    def forget(self, job: Job) -> None:
        """Delete a job with its result and its file."""
        self.queue_of(job.request.lane).remove(job)
        del self.jobs[job.request.id]
        self.files.remove(job.request.id)

    @property
    def has_short_lived(self) -> bool:
        """Return whether there are jobs whose results are kept for seconds only."""
        return any(job.request.KEPT_S is not None for job in self.jobs.values())

    def stop_taking(self) -> None:
        """Refuse new jobs, and cancel those that wait."""
        self.stopping = True
        for queue in self.queues:
            for job in queue.waiting():
                self.end(job, "cancelled", time.monotonic(), STOPPING)
            if queue.running is not None:
                queue.running.reason = queue.running.reason or STOPPING  # if it does not end in time
        self.changed.notify_all()


def _log_end(job: Job) -> None:
    """Log that a job ended, without its id, which is a key to it; camera frames are only counted."""
    status, code = job.status, job.status.message
    log_event(
        "job",
        logging.DEBUG if isinstance(job.request, FrameRequest) else logging.INFO,
        kind=job.request.kind,
        state=status.state,
        code=code.code if isinstance(code, Message) else "",
        checkpoints=" ".join(analysis.checkpoint.id for analysis in status.analyses),
        faces=max((len(analysis.faces) for analysis in status.analyses), default=0),
        frames=max((len(analysis.frame_times_s) for analysis in status.analyses), default=0),
        waited_s=round((job.sent_s or job.ended_s) - job.queued_s, 3),
        ran_s=round(job.ended_s - job.sent_s, 3) if job.sent_s else 0.0,
    )


def abandoned(request: Request | type[Request]) -> Message:
    """Return why a job was cancelled whose status nobody requested."""
    minutes = "The analysis was canceled because nobody requested its status for {count:.0f} minutes."
    seconds = "The analysis was canceled because nobody requested its status for {count:.0f} seconds."
    long = request.PATIENCE_S >= 60
    return Message(
        minutes if long else seconds, code="abandoned", count=request.PATIENCE_S / (60 if long else 1)
    )


def _again(wait_s: float | None) -> Message:
    """Return when to try again: in so many seconds, if that is known."""
    if wait_s is None:
        return Message("Try again when one of them has finished.")
    return Message("Try again in about {seconds} s.", seconds=rounded_s(wait_s))


def array_bytes(answer: Answer) -> int:
    """Return the bytes of all arrays in a result; an array that occurs several times counts once."""
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
