"""A job, and the queue of one worker: who comes next, and how long that takes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from hsemotion_space.jobs.durations import Durations
from hsemotion_space.jobs.requests import LANES, Lane, Request
from hsemotion_space.jobs.status import JobStatus

MAX_OVERTAKEN: Final = 16  # short jobs in a row that go before a clip that waits for the same worker
SURE_SHARE: Final = 0.05  # of a job; from then on its own progress tells best when it ends


@dataclass(slots=True, eq=False)
class Job:
    """A job with its clock; all times are monotonic seconds.

    Attributes:
        client: the network that it came from.
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
    client: str = ""
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

    def remaining_s(self, usual_s: float | None, now_s: float) -> float | None:
        """Return the seconds that a running job still takes, None if that cannot be known.

        Args:
            usual_s: what jobs of its kind take, if known.
            now_s: the time.
        """
        done, total = self.status.done, self.status.total
        elapsed_s = now_s - self.running_s if self.running_s else 0.0
        if self.status.phase == "analysis" and done >= SURE_SHARE * total > 0:
            return elapsed_s * max(total - done, 0) / done
        return None if usual_s is None else max(usual_s - elapsed_s, 0.0)


class WorkerQueue:
    """What waits for one worker, and what it runs.

    Short jobs go before clips, but no more than ``MAX_OVERTAKEN`` of them in a row while a clip waits. In each lane the clients take turns,
    and the jobs of one client keep their order: whoever has nothing in a lane waits for one job of each other client there at most.

    Attributes:
        running: what the worker does now.
    """

    def __init__(self) -> None:
        self.running: Job | None = None
        self._turns: dict[Lane, dict[str, deque[Job]]] = {lane: {} for lane in LANES}  # clients in the order of their turns
        self._overtaken = 0

    def __len__(self) -> int:
        """Return the number of jobs that wait."""
        return sum(len(jobs) for turns in self._turns.values() for jobs in turns.values())

    def add(self, job: Job) -> None:
        """Let a job wait."""
        self._turns[job.request.lane].setdefault(job.client, deque()).append(job)

    def remove(self, job: Job) -> None:
        """Take a job out, whether it waits, runs or neither."""
        turns = self._turns[job.request.lane]
        if job in turns.get(job.client, ()):
            turns[job.client].remove(job)
            if not turns[job.client]:
                del turns[job.client]
        if self.running is job:
            self.running = None

    def take(self) -> Job | None:
        """Let the next job run; None if nothing waits."""
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

    def present(self) -> list[Job]:
        """Return the job that runs, then those that wait, in their order."""
        return [*([self.running] if self.running is not None else []), *self.waiting()]

    def schedule(self, durations: Durations, now_s: float) -> dict[Job, tuple[float | None, float | None]]:
        """Return for each of :meth:`present` the seconds until it begins and until it ends, None from where on that cannot be known."""
        times: dict[Job, tuple[float | None, float | None]] = {}
        begins_s: float | None = 0.0
        for job in self.present():
            usual_s = durations.usual_s(job.request.kind)
            lasts_s = job.remaining_s(usual_s, now_s) if job is self.running else usual_s
            ends_s = None if begins_s is None or lasts_s is None else begins_s + lasts_s
            times[job] = begins_s, ends_s
            begins_s = ends_s
        return times


def _in_turn(turns: dict[str, deque[Job]]) -> list[Job]:
    """Return jobs round by round: in each, one of every client that still has one."""
    return [job for turn in zip_longest(*turns.values()) for job in turn if job is not None]


def rounded_s(seconds: float) -> int:
    """Return seconds as people are told them: rounded up to 5 s, beyond 30 s to 10 s, beyond 2 minutes to 30 s; 5 at least."""
    step = 5 if seconds <= 30 else 10 if seconds <= 120 else 30
    return max(math.ceil(seconds / step) * step, step)
