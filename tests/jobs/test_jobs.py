"""One job after the other: results, failures, limits, cancelling, and workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jobs_makers import MAX_WAITING, PATIENCE_S, SLOW, fill, wait, wait_running

from hsemotion_space.environment import OURS
from hsemotion_space.jobs import JobError, JobRunner, answers, worker
from hsemotion_space.jobs.lane import CANCEL_GRACE_S
from hsemotion_space.jobs.requests import AnalysisRequest
from hsemotion_space.settings import PipelineConfig, Settings


def test_a_picture_is_analyzed(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "face.png", PipelineConfig())
    status = wait(runner, job_id)
    assert (status.state, status.message) == ("done", "")
    assert status.analysis is not None
    assert (len(status.analysis.faces), status.analysis.checkpoint.id) == (1, "small")
    runner.cancel(job_id)
    assert runner.status(job_id).state == "done"  # too late to cancel


def test_a_failure_gives_the_sentence_for_the_user(runner: JobRunner, folder: Path) -> None:
    broken = wait(runner, runner.submit(folder / "broken.png", PipelineConfig()))
    assert (broken.state, broken.message) == ("failed", "The image is damaged or incomplete and could not be read.")
    unknown = wait(runner, runner.submit(folder / "face.png", PipelineConfig(checkpoint="huge")))
    assert (unknown.state, unknown.message) == ("failed", "There is no checkpoint 'huge'; there are small, twin, zero.")


def test_progress_then_cancel_while_running(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW)
    status = wait_running(runner, job_id)
    assert (status.state, status.total) == ("running", 300)
    process = runner._lanes[0].worker.process
    runner.cancel(job_id)
    assert wait(runner, job_id).state == "cancelled"
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"
    assert runner._lanes[0].worker.process is process  # it stopped by itself and works on


def test_a_queued_job_is_cancelled_at_once(runner: JobRunner, folder: Path) -> None:
    first = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, first, lambda status: status.state == "running")
    second = runner.submit(folder / "face.png", PipelineConfig())
    assert runner.status(second).state == "queued"
    runner.cancel(second)
    assert runner.status(second).state == "cancelled"
    assert not runner.status(first).finished


def test_a_killed_worker_costs_one_job(runner: JobRunner, folder: Path) -> None:
    first, second = runner.submit(folder / "long.mp4", SLOW), runner.submit(folder / "face.png", PipelineConfig())
    wait_running(runner, first)
    assert runner._lanes[0].worker.process is not None
    os.kill(runner._lanes[0].worker.process.pid or 0, signal.SIGKILL)
    killed = wait(runner, first)
    assert (killed.state, killed.message[:47]) == ("failed", "The analysis process stopped unexpectedly, perh")
    assert wait(runner, second).state == "done"


def test_a_worker_that_died_while_idle_costs_nothing(runner: JobRunner, folder: Path) -> None:
    wait(runner, runner.submit(folder / "face.png", PipelineConfig()))
    assert runner._lanes[0].worker.process is not None
    os.kill(runner._lanes[0].worker.process.pid or 0, signal.SIGKILL)
    runner._lanes[0].worker.process.join(10)
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"


def test_the_queue_is_bounded(runner: JobRunner, folder: Path) -> None:
    first = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, first, lambda status: status.state == "running")
    fill(runner, folder / "face.png")
    with pytest.raises(JobError, match=f"{MAX_WAITING} analyses are waiting"):
        runner.submit(folder / "face.png", PipelineConfig())


def test_results_expire(runner: JobRunner, folder: Path) -> None:
    old = runner.submit(folder / "broken.png", PipelineConfig())
    assert wait(runner, old).state == "failed"
    runner._table.settings = replace(runner.settings, results_ttl_s=0.0)
    new = runner.submit(folder / "broken.png", PipelineConfig())
    with pytest.raises(JobError, match="not here any more; results are kept for 0 minutes at most"):
        runner.status(old)
    runner._table.settings = replace(runner.settings, results_ttl_s=900.0)
    assert wait(runner, new).state == "failed"


def test_time_is_limited(runner: JobRunner, folder: Path) -> None:
    runner._table.settings = replace(runner.settings, job_time_limit_s=0.5)
    status = wait(runner, runner.submit(folder / "long.mp4", SLOW))
    assert (status.state, status.message) == ("failed", "The analysis took longer than 0.5 s and was stopped. Try a shorter clip.")
    assert runner._lanes[0].worker.process is None


def test_cancel_before_the_worker_is_ready_is_quick(settings: Settings, folder: Path) -> None:
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


def test_closing_leaves_nothing_behind(settings: Settings, folder: Path) -> None:
    runner = JobRunner(settings, warm=False)
    ids = [runner.submit(folder / "face.png", PipelineConfig()) for _ in range(3)]
    wait(runner, ids[0], lambda status: status.state == "running")
    runner.close()
    assert [runner.status(job_id).state for job_id in ids] == ["cancelled"] * 3
    assert runner._lanes[0].worker.process is None
    assert not runner._lanes[0].thread.is_alive()


def test_unknown_ids(runner: JobRunner) -> None:
    for call in (runner.status, runner.cancel):
        with pytest.raises(JobError, match="not here any more"):
            call("0" * 32)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_worker_is_started_without_secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OURS, "ANY_API_KEY", "KEPT"):
        monkeypatch.setenv(name, "hf_secret")
    runner = JobRunner(settings)
    try:
        environ, deadline = b"", time.monotonic() + PATIENCE_S
        while b"KEPT" not in environ and time.monotonic() < deadline:
            time.sleep(0.02)
            if runner._lanes[0].worker.process is not None and runner._lanes[0].worker.process.pid is not None:
                environ = Path(f"/proc/{runner._lanes[0].worker.process.pid}/environ").read_bytes()
    finally:
        runner.close()
    assert environ.count(b"hf_secret") == 1
    assert b"KEPT=hf_secret" in environ
    assert all(os.environ[name] == "hf_secret" for name in OURS)


def test_an_unexpected_error_is_told_by_a_code_and_the_worker_lives(
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

    monkeypatch.setattr(answers, "Pipeline", Odd)
    monkeypatch.setattr(worker, "_limit_worker", lambda _niceness: None)
    here, there = multiprocessing.Pipe()
    thread = threading.Thread(target=worker.work, args=(there, settings), daemon=True)
    thread.start()
    assert here.recv() == ("ready",)
    for number in range(2):
        here.send("cancel")  # late, for a job that is over
        here.send(AnalysisRequest(str(number), Path("/private/face.png"), PipelineConfig(), ("",)))
        state, message = here.recv()
        assert state == "failed"
        assert "private" not in message
        code = message.split()[-1].strip(".")
        assert any(code in record.getMessage() for record in caplog.records)
    here.close()
    thread.join(10)
    assert not thread.is_alive()
