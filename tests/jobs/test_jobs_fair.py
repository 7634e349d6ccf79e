"""Whose turn it is: for any sequence of jobs of several clients, nobody waits for long, limits hold, and
every job ends."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from jobs_makers import make_table

from hsemotion_space.jobs import JobError, table
from hsemotion_space.jobs.requests import AnalysisRequest, FrameRequest, Request
from hsemotion_space.jobs.table import (
    MAX_OF_CLIENT,
    MAX_OVERTAKEN,
    MAX_WAITING,
    Job,
    JobTable,
    WorkerQueue,
    rounded_s,
)
from hsemotion_space.settings import PipelineConfig

SMALL_WAITING, SMALL_OF_CLIENT = {"short": 6, "clip": 4}, {"short": 3, "clip": 2}
SUBMIT = st.tuples(st.just("submit"), st.integers(0, 4), st.sampled_from(["image", "clip", "frame"]))
SERVE = st.tuples(st.just("serve"), st.integers(0, 1), st.just(""))
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 40), st.just(""))


def make_request(number: int, kind: str) -> Request:
    if kind == "frame":
        return FrameRequest(f"{number:032x}", b"frame", "")
    return AnalysisRequest(f"{number:032x}", Path("file"), PipelineConfig(), ("",), kind)  # type: ignore[arg-type]


class Server:
    """A table whose workers do what they are told, and notes of who went before whom."""

    def __init__(self, workers: int) -> None:
        self.jobs = make_table(workers)
        self.accepted: list[Job] = []
        # of a first job in a lane: jobs of each other client that went before it
        self.before: dict[Job, Counter[str]] = {}
        # short jobs since a clip began to wait or one was taken
        self.in_a_row: dict[WorkerQueue, int] = defaultdict(int)

    def submit(self, client: str, kind: str) -> None:
        request = make_request(len(self.accepted), kind)
        lane = request.lane
        waiting = [job for job in self.accepted if job.status.state == "queued" and job.request.lane == lane]
        mine = [
            job
            for job in self.accepted
            if not job.status.finished and job.request.lane == lane and job.client == client
        ]
        has_room = len(mine) < SMALL_OF_CLIENT[lane] and len(waiting) < SMALL_WAITING[lane]
        try:
            self.jobs.check_room(lane, client, 0.0)
        except JobError:
            assert not has_room
            return
        assert has_room
        job = self.jobs.add(request, client, 0.0)
        self.accepted.append(job)
        if not any(other.status.state == "queued" for other in mine):
            self.before[job] = Counter()

    def serve(self, number: int) -> None:
        """Let a worker end its job, or take the next one."""
        queue = self.jobs.queues[number % len(self.jobs.queues)]
        if queue.running is not None:
            self.jobs.end(queue.running, "done", 0.0)
            return
        order = queue.waiting()
        clip_waits = any(job.request.lane == "clip" for job in order)
        job = self.jobs.take(queue)
        assert job is (order[0] if order else None)
        if job is None:
            return
        lane = job.request.lane
        for other, counts in self.before.items():
            if other.status.state == "queued" and other.request.lane == lane and other.client != job.client:
                counts[job.client] += 1
        self.in_a_row[queue] = self.in_a_row[queue] + 1 if lane == "short" and clip_waits else 0
        assert self.in_a_row[queue] <= MAX_OVERTAKEN

    def cancel(self, number: int) -> None:
        for job in self.accepted[number : number + 1]:
            self.jobs.stop(job, "", 0.0)
            if job.cancel and job.status.state == "running":
                self.jobs.end(job, "cancelled", 0.0)


@given(st.integers(1, 2), st.lists(st.one_of(SUBMIT, SUBMIT, SERVE, CANCEL), max_size=60))
def test_clients_take_turns_limits_hold_and_every_job_ends(
    workers: int, events: Sequence[tuple[str, int, str]]
) -> None:
    with patch.dict(table.MAX_WAITING, SMALL_WAITING), patch.dict(table.MAX_OF_CLIENT, SMALL_OF_CLIENT):
        play(Server(workers), events)


def play(server: Server, events: Sequence[tuple[str, int, str]]) -> None:
    for action, number, kind in events:
        if action == "submit":
            server.submit(str(number), kind)
        elif action == "serve":
            server.serve(number)
        else:
            server.cancel(number)
        for queue in server.jobs.queues:
            assert len(queue) == len(queue.waiting()) == len(set(queue.waiting()))
    for _ in range(2 * len(server.accepted) + 2):
        for number in range(len(server.jobs.queues)):
            server.serve(number)
    assert all(job.status.finished for job in server.accepted)
    for counts in server.before.values():
        assert all(count <= 1 for count in counts.values()), (
            "who has nothing waiting waits for one job of each other client at most"
        )


def add(jobs: JobTable, client: str, kind: str) -> Job:
    return jobs.add(make_request(len(jobs.jobs), kind), client, 0.0)


def test_a_client_that_fills_its_share_leaves_room_for_others() -> None:
    jobs = make_table(2)
    refused = 0
    for _ in range(17):
        try:
            jobs.check_room("clip", "one", 0.0)
            add(jobs, "one", "clip")
        except JobError as error:
            refused += 1
            assert (error.code, error.message.values["count"]) == ("client_full", 4)
    assert refused == 17 - MAX_OF_CLIENT["clip"]
    jobs.take(jobs.queues[1])
    jobs.check_room("clip", "two", 0.0)
    other = add(jobs, "two", "clip")
    assert jobs.status(other.request.id, 0.0).ahead == 2, "what runs, and one of the other client"
    jobs.check_room("short", "one", 0.0)
    assert all(4 * MAX_OF_CLIENT[lane] == MAX_WAITING[lane] for lane in MAX_WAITING)


def test_waiting_pictures_go_before_clips_but_not_forever() -> None:
    jobs = make_table(1)
    clips = [add(jobs, "one", "clip") for _ in range(2)]
    pictures = [add(jobs, "two", "image") for _ in range(MAX_OVERTAKEN + 1)]
    assert jobs.queues[0].waiting() == [*pictures[:-1], clips[0], pictures[-1], clips[1]]


def test_status_estimates_the_wait() -> None:
    jobs = make_table(2)
    first, second, third = (add(jobs, client, "clip") for client in ("one", "two", "one"))
    jobs.take(jobs.queues[1])
    assert [(jobs.status(job.request.id, 0.0).ahead, jobs.status(job.request.id, 0.0).wait_s) for job in (first, second, third)] == [
        (0, None), (1, None), (2, None),
    ]  # fmt: skip
    first.running_s = 1.0
    jobs.end(first, "done", 41.0)
    jobs.take(jobs.queues[1])
    second.running_s = 42.0
    assert jobs.status(third.request.id, 42.0).wait_s == 40
    assert jobs.status(third.request.id, 59.0).wait_s == 25, "17 of 40 s are over"
    second.status = replace(second.status, done=50, total=100)
    assert jobs.status(third.request.id, 52.0).wait_s == 10, "its own progress tells better"
    for client in ("two", "two", "two"):
        add(jobs, client, "clip")
    with raises_code(JobError, "client_full") as caught:
        jobs.check_room("clip", "two", 52.0)
    assert caught.value.message.values["again"].values == {"seconds": 10}
    for number in range(12):
        add(jobs, str(number), "clip")
    with raises_code(JobError, "queue_full") as caught:
        jobs.check_room("clip", "nobody", 52.0)
    assert caught.value.message.values["count"] == 16 and caught.value.message.values["again"].values == {
        "seconds": 10
    }
    jobs.check_room("short", "nobody", 52.0)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, 5), (0.1, 5), (5.1, 10), (30, 30), (31, 40), (119, 120), (121, 150), (601, 630)]
)
def test_rounded_s_rounds_up(seconds: float, told: int) -> None:
    assert rounded_s(seconds) == told >= seconds
