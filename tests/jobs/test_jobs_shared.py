"""Jobs with several checkpoints, and many who ask for them at once."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from jobs_makers import MAX_WAITING, PATIENCE_S, SLOW, code_of, wait, wait_running, worker_pid

from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.jobs import JobError, JobRunner, JobStatus
from hsemotion_space.jobs.requests import AnalysisRequest
from hsemotion_space.jobs.runner import MAX_CHECKPOINTS
from hsemotion_space.settings import PipelineConfig, Settings


def test_submit_several_checkpoints(runner: JobRunner, settings: Settings, folder: Path) -> None:
    config = PipelineConfig(smoothing=0.5)
    status = wait(runner, runner.submit(folder / "face.png", config, ["twin", "small", "twin"]))
    assert (status.state, status.checkpoints, status.config) == ("done", ("twin", "small"), config)
    assert [analysis.checkpoint.id for analysis in status.analyses] == ["twin", "small"]
    assert status.analysis is status.analyses[0]
    first, second = status.analyses
    assert first.preview is second.preview, "what they share crosses to this process once"
    expected = Pipeline(settings).analyze_all(folder / "face.png", ["twin", "small"], config)
    for ours, theirs in zip(status.analyses, expected, strict=True):
        np.testing.assert_array_equal(ours.faces[0].track.boxes_xyxy, theirs.faces[0].track.boxes_xyxy)
        np.testing.assert_allclose(ours.faces[0].track.scores, theirs.faces[0].track.scores, rtol=1e-3)
    single = wait(runner, runner.submit(folder / "face.png", PipelineConfig("twin")))
    assert (single.checkpoints, len(single.analyses)) == (("twin",), 1)
    assert runner.status(single.id).analysis is single.analysis


def test_submit_checkpoint_that_cannot_be_loaded(runner: JobRunner, folder: Path) -> None:
    runner.problems.clear()
    status = wait(runner, runner.submit(folder / "face.png", PipelineConfig(), ["small", "zero", "twin"]))
    assert (status.state, status.analyses, status.analysis) == ("failed", (), None)
    assert "Test zero" in status.message
    assert runner.problems == {"zero": status.message}


def test_submit_too_many_checkpoints(runner: JobRunner, folder: Path) -> None:
    names = [f"c{number}" for number in range(MAX_CHECKPOINTS + 1)]
    with raises_code(JobError, "too_many_checkpoints"):
        runner.submit(folder / "face.png", PipelineConfig(), names)


def test_watch_by_many_and_by_a_late_one(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", PipelineConfig(sample_fps=2))

    def follow(number: int) -> list[JobStatus]:
        if number == 0:  # looks away in the middle, as a page that is loaded again
            next(iter(runner.watch(job_id)))
        return list(runner.watch(job_id, 30.0))  # wakes up by news alone

    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(follow, range(6)))
    for statuses in seen:
        assert [status.finished for status in statuses] == [False] * (len(statuses) - 1) + [True]
        assert statuses[-1].state == "done"
        assert [status.done for status in statuses] == sorted(status.done for status in statuses)
        assert statuses[-1].analysis is seen[0][-1].analysis
    assert [status.state for status in runner.watch(job_id)] == ["done"]


def test_status_counts_the_jobs_ahead(runner: JobRunner, folder: Path) -> None:
    first = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, first, lambda status: status.state == "running")
    second, third, fourth = (runner.submit(folder / "face.png", PipelineConfig()) for _ in range(3))
    assert [runner.status(job_id).ahead for job_id in (first, second, third, fourth)] == [0, 1, 2, 3]
    watched = runner.watch(fourth, PATIENCE_S)
    assert next(watched).ahead == 3
    runner.cancel(second)
    assert next(watched).ahead == 2
    assert [runner.status(job_id).ahead for job_id in (first, second, third)] == [0, 0, 1]


def test_submit_by_many_at_once_is_bounded(runner: JobRunner, folder: Path) -> None:
    wait_running(runner, runner.submit(folder / "long.mp4", SLOW))

    def submit(number: int) -> bool:
        try:
            runner.submit(folder / "face.png", PipelineConfig(), client=str(number))
        except JobError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(3 * MAX_WAITING))) == MAX_WAITING


def test_cancel_while_the_worker_dies(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, job_id)
    os.kill(worker_pid(runner), signal.SIGSTOP)  # it cannot obey
    runner.cancel(job_id)
    os.kill(worker_pid(runner), signal.SIGKILL)
    assert (wait(runner, job_id).state, runner.status(job_id).message) == ("cancelled", "")


def test_cancel_that_the_worker_ignores(
    runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.lane.CANCEL_GRACE_S", 0.3)
    job_id = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, job_id)
    ignoring = worker_pid(runner)
    os.kill(ignoring, signal.SIGSTOP)
    runner.cancel(job_id)
    assert wait(runner, job_id).state == "cancelled"
    assert not Path(f"/proc/{ignoring}").exists(), "another one takes its place"


def test_a_job_that_nobody_asks_for_is_cancelled_waiting_or_running(
    runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.lane.TIDY_EVERY_S", 0.05)
    running = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, running)
    waiting, wanted = (runner.submit(folder / "face.png", PipelineConfig()) for _ in range(2))
    for job_id in (running, waiting):
        runner._table.jobs[job_id].asked_s -= AnalysisRequest.PATIENCE_S
    assert wait(runner, wanted).state == "done"
    for job_id in (running, waiting):
        status = runner.status(job_id)
        assert (status.state, code_of(status), status.message.values) == (
            "cancelled",
            "abandoned",
            {"count": 2},
        )  # type: ignore[attr-defined]


def test_status_and_watch_keep_a_job_alive(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW)
    job = runner._table.jobs[job_id]
    for ask in (runner.status, lambda job_id: next(runner.watch(job_id))):
        job.asked_s -= AnalysisRequest.PATIENCE_S - 5
        ask(job_id)
        assert time.monotonic() - job.asked_s < 5


@pytest.mark.parametrize("checkpoints", [["small"], ["small", "twin"]])
def test_time_limit_stops_the_worker(runner: JobRunner, folder: Path, checkpoints: list[str]) -> None:
    runner._table.settings = replace(runner.settings, job_time_limit_s=0.5)
    status = wait(runner, runner.submit(folder / "long.mp4", SLOW, checkpoints))
    assert (status.state, code_of(status)) == ("failed", "timed_out")
    assert ("fewer checkpoints" in status.message) == (len(checkpoints) > 1)
    assert runner.workers()[0].state == "restarting"


def test_cancels_that_race_with_each_other_and_the_end(runner: JobRunner, folder: Path) -> None:
    process = runner._lanes[0].worker.process
    outcomes = []
    with ThreadPoolExecutor(9) as pool:
        for done in (0, 0, 1, 1, 2, 2, 3, 3):
            job_id = runner.submit(folder / "long.mp4", PipelineConfig(sample_fps=0.2), ["small", "twin"])
            watchers = [
                pool.submit(lambda job_id=job_id: list(runner.watch(job_id, 0.01))[-1]) for _ in range(4)
            ]
            wait(runner, job_id, lambda status, done=done: status.done >= done)
            for cancel in [pool.submit(runner.cancel, job_id) for _ in range(4)]:
                cancel.result()
            final = {watcher.result(PATIENCE_S).state for watcher in watchers}
            assert len(final) == 1
            assert final <= {"done", "cancelled"}
            assert {runner.status(job_id).state} == final
            assert (runner.status(job_id).analysis is None) == (final == {"cancelled"})
            outcomes += final
    assert "cancelled" in outcomes
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"
    assert process is None or runner._lanes[0].worker.process is process, (
        "no late cancel reached another job or killed the worker"
    )


def test_killed_worker_fails_one_job_for_all_who_watch(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW, ["small", "twin"])
    waiting = runner.submit(folder / "face.png", PipelineConfig())
    wait_running(runner, job_id)
    with ThreadPoolExecutor(4) as pool:
        watchers = [pool.submit(lambda: list(runner.watch(job_id, 30.0))[-1]) for _ in range(4)]
        os.kill(worker_pid(runner), signal.SIGKILL)
        assert {
            (status.state, code_of(status)) for status in (one.result(PATIENCE_S) for one in watchers)
        } == {("failed", "worker_died")}
    assert wait(runner, waiting).state == "done"
