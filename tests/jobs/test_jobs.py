"""One job after the other: results, failures, limits, cancelling, and workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from error_codes import raises_code
from jobs_makers import SLOW, code_of, wait, wait_running, worker_pid

from hsemotion_space.environment import PAGE_SECRETS
from hsemotion_space.inference import pipeline
from hsemotion_space.jobs import JobError, JobRunner, worker
from hsemotion_space.jobs.lane import CANCEL_GRACE_S
from hsemotion_space.jobs.requests import AnalysisRequest
from hsemotion_space.settings import PipelineConfig, Settings


def test_submit_picture(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "face.png", PipelineConfig())
    status = wait(runner, job_id)
    assert (status.state, status.message) == ("done", "")
    assert status.analysis is not None
    assert (len(status.analysis.faces), status.analysis.checkpoint.id) == (1, "small")
    runner.cancel(job_id)
    assert runner.status(job_id).state == "done"  # too late to cancel


def test_status_of_failed_jobs_has_the_message(runner: JobRunner, folder: Path) -> None:
    broken = wait(runner, runner.submit(folder / "broken.png", PipelineConfig()))
    assert (broken.state, code_of(broken)) == ("failed", "damaged")
    unknown = wait(runner, runner.submit(folder / "face.png", PipelineConfig(checkpoint="huge")))
    assert unknown.state == "failed" and "huge" in unknown.message


def test_cancel_running_job(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW)
    status = wait_running(runner, job_id)
    assert (status.state, status.total) == ("running", 300)
    process = runner._lanes[0].worker.process
    runner.cancel(job_id)
    assert wait(runner, job_id).state == "cancelled"
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"
    assert runner._lanes[0].worker.process is process  # it stopped by itself and works on


def test_cancel_queued_job(runner: JobRunner, folder: Path) -> None:
    first = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, first, lambda status: status.state == "running")
    second = runner.submit(folder / "face.png", PipelineConfig())
    assert runner.status(second).state == "queued"
    runner.cancel(second)
    assert runner.status(second).state == "cancelled"
    assert not runner.status(first).finished


def test_submit_after_the_idle_worker_died(runner: JobRunner, folder: Path) -> None:
    wait(runner, runner.submit(folder / "face.png", PipelineConfig()))
    process = runner._lanes[0].worker.process
    os.kill(worker_pid(runner), signal.SIGKILL)
    assert process is not None
    process.join(10)
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"


def test_cancel_before_the_worker_is_ready(settings: Settings, folder: Path) -> None:
    runner = JobRunner(settings, warm=False)
    job_id = runner.submit(folder / "face.png", PipelineConfig())
    wait(runner, job_id, lambda status: status.state == "running")
    runner.cancel(job_id)
    started = time.monotonic()
    assert wait(runner, job_id).state == "cancelled"
    assert time.monotonic() - started < CANCEL_GRACE_S / 2
    assert runner._lanes[0].worker.process is not None
    assert runner._lanes[0].worker.process.is_alive()
    runner.close()


def test_close_ends_jobs_worker_and_thread(settings: Settings, folder: Path) -> None:
    runner = JobRunner(settings, warm=False)
    ids = [runner.submit(folder / "face.png", PipelineConfig()) for _ in range(3)]
    wait(runner, ids[0], lambda status: status.state == "running")
    runner.close()
    assert [runner.status(job_id).state for job_id in ids] == ["cancelled"] * 3
    assert runner._lanes[0].worker.process is None
    assert not runner._lanes[0].thread.is_alive()


def test_status_and_cancel_of_unknown_job(runner: JobRunner) -> None:
    for call in (runner.status, runner.cancel):
        with raises_code(JobError, "unknown_job"):
            call("0" * 32)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_worker_is_started_without_secrets(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*PAGE_SECRETS, "ANY_API_KEY", "KEPT"):
        monkeypatch.setenv(name, "hf_secret")
    runner = JobRunner(settings)
    try:
        job_id = runner.submit(folder / "face.png", PipelineConfig())
        wait(runner, job_id)  # then it has been started
        environ = Path(f"/proc/{worker_pid(runner)}/environ").read_bytes()
    finally:
        runner.close()
    assert environ.count(b"hf_secret") == 1
    assert b"KEPT=hf_secret" in environ
    assert all(os.environ[name] == "hf_secret" for name in PAGE_SECRETS)


def test_finish_lets_a_running_job_end_and_refuses_others(settings: Settings, folder: Path) -> None:
    runner = JobRunner(settings, root=folder)
    try:
        running = runner.submit(folder / "face.png", PipelineConfig())
        wait(runner, running, lambda status: status.state == "running")
        waiting = runner.submit(folder / "face.png", PipelineConfig())
        assert not runner.stopping and runner.finish(120.0) and runner.stopping
        assert runner.status(running).state == "done"
        assert (runner.status(waiting).state, code_of(runner.status(waiting))) == ("cancelled", "closed")
        with raises_code(JobError, "closed"):
            runner.submit(folder / "face.png", PipelineConfig())
        assert not runner.finish(120.0), "nothing is left to wait for"
    finally:
        runner.close()


def test_an_idle_worker_that_dies_is_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.lane.IDLE_S", 0.1)
    runner = JobRunner(settings)

    def wait_for(state: str, restarts: int) -> None:
        until_s = time.monotonic() + 120
        while [(one.state, one.restarts) for one in runner.workers()] != [(state, restarts)]:
            assert time.monotonic() < until_s, runner.workers()
            time.sleep(0.02)

    try:
        wait_for("ready", 0)
        assert os.getpgid(worker_pid(runner)) == worker_pid(runner), "Ctrl-C is for the server alone"
        os.kill(worker_pid(runner), signal.SIGKILL)
        wait_for("restarting", 1)
        wait_for("ready", 1)
    finally:
        runner.close()
    assert runner.workers()[0].state == "stopped"


def test_work_after_an_unexpected_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        def __init__(self, settings: Settings) -> None:
            pass

        def network(self, *_args: object) -> None:
            pass

        def detector(self, config: PipelineConfig) -> None:
            pass

        def analyze_all(self, path: Path, *_rest: object) -> None:
            raise KeyError(f"secret of {path}")

    monkeypatch.setattr(pipeline, "Pipeline", Odd)
    monkeypatch.setattr(worker, "_set_up_process", lambda _niceness: None)
    here, there = multiprocessing.Pipe()
    thread = threading.Thread(target=worker.work, args=(there, settings), daemon=True)
    thread.start()
    assert here.recv() == ("ready", {})
    for number in range(2):
        here.send("cancel")  # late, for a job that is over
        here.send(AnalysisRequest(str(number), Path("/private/face.png"), PipelineConfig(), ("",)))
        state, message = here.recv()
        assert state == "failed"
        assert "private" not in message
        assert any(message.values["reference"] in record.getMessage() for record in caplog.records)
    here.close()
    thread.join(10)
    assert not thread.is_alive()
