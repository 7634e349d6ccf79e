from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from media_makers import write_clip
from PIL import Image

from hsemotion_space.jobs import JobError, JobRunner, JobStatus, answers, book, keep, process, worker
from hsemotion_space.jobs.book import MAX_KEPT, Book, abandoned, weigh
from hsemotion_space.jobs.keep import Kept
from hsemotion_space.jobs.requests import AnalysisRequest
from hsemotion_space.jobs.runner import CANCEL_GRACE_S, MAX_CHECKPOINTS, MAX_WAITING
from hsemotion_space.pipeline import Pipeline
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis

PATIENCE_S = 120.0
SLOW = PipelineConfig(sample_fps=0, detect_every=1, min_face=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    make_checkpoint(folder / "checkpoints" / "small", size=32)
    make_checkpoint(folder / "checkpoints" / "twin", size=32, seed=1)
    make_checkpoint(folder / "checkpoints" / "zero", size=32)
    (folder / "checkpoints" / "zero" / "model.safetensors").unlink()
    Image.fromarray(picture_with([(20, 60)])).save(folder / "face.png")
    (folder / "broken.png").write_bytes((folder / "face.png").read_bytes()[:500])
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    write_clip(folder / "long.mp4", [np.roll(noise, 5 * number, 1) for number in range(300)], codec="mpeg4")
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return Settings(checkpoints=folder / "checkpoints", cache=folder / "cache", engine="torch", threads=1)


@pytest.fixture(scope="module")
def keep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private") / "new" / "keep"


@pytest.fixture(scope="module")
def warm_runner(settings: Settings, keep_folder: Path) -> Iterator[JobRunner]:
    runner = JobRunner(settings, keep=keep_folder)
    yield runner
    runner.close()


@pytest.fixture
def runner(warm_runner: JobRunner, settings: Settings) -> Iterator[JobRunner]:
    """The one runner, with nothing to do and its usual settings."""
    yield warm_runner
    warm_runner.settings = settings
    for job_id in list(warm_runner._book.jobs):
        warm_runner.cancel(job_id)
        wait(warm_runner, job_id)


def wait(runner: JobRunner, job_id: str, until: Callable[[JobStatus], bool] = lambda status: status.finished) -> JobStatus:
    deadline = time.monotonic() + PATIENCE_S
    for status in runner.watch(job_id, 0.02):
        if until(status) or status.finished:
            return status
        assert time.monotonic() < deadline, status
    raise AssertionError("unreachable")


def wait_running(runner: JobRunner, job_id: str) -> JobStatus:
    return wait(runner, job_id, lambda status: status.done > 0)


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
    process = runner._worker.process
    runner.cancel(job_id)
    assert wait(runner, job_id).state == "cancelled"
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"
    assert runner._worker.process is process  # it stopped by itself and works on


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
    assert runner._worker.process is not None
    os.kill(runner._worker.process.pid or 0, signal.SIGKILL)
    killed = wait(runner, first)
    assert (killed.state, killed.message[:47]) == ("failed", "The analysis process stopped unexpectedly, perh")
    assert wait(runner, second).state == "done"


def test_a_worker_that_died_while_idle_costs_nothing(runner: JobRunner, folder: Path) -> None:
    wait(runner, runner.submit(folder / "face.png", PipelineConfig()))
    assert runner._worker.process is not None
    os.kill(runner._worker.process.pid or 0, signal.SIGKILL)
    runner._worker.process.join(10)
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig())).state == "done"


def test_the_queue_is_bounded(runner: JobRunner, folder: Path) -> None:
    first = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, first, lambda status: status.state == "running")
    for _ in range(MAX_WAITING):
        runner.submit(folder / "face.png", PipelineConfig())
    with pytest.raises(JobError, match=f"{MAX_WAITING} analyses are waiting"):
        runner.submit(folder / "face.png", PipelineConfig())


def test_results_expire(runner: JobRunner, folder: Path) -> None:
    old = runner.submit(folder / "broken.png", PipelineConfig())
    assert wait(runner, old).state == "failed"
    runner.settings = replace(runner.settings, results_ttl_s=0.0)
    new = runner.submit(folder / "broken.png", PipelineConfig())
    with pytest.raises(JobError, match="not here any more; results are kept for 0 minutes at most"):
        runner.status(old)
    runner.settings = replace(runner.settings, results_ttl_s=900.0)
    assert wait(runner, new).state == "failed"


def test_time_is_limited(runner: JobRunner, folder: Path) -> None:
    runner.settings = replace(runner.settings, job_time_limit_s=0.5)
    status = wait(runner, runner.submit(folder / "long.mp4", SLOW))
    assert (status.state, status.message) == ("failed", "The analysis took longer than 0.5 s and was stopped. Try a shorter clip.")
    assert runner._worker.process is None


def test_cancel_before_the_worker_is_ready_is_quick(settings: Settings, folder: Path) -> None:
    runner = JobRunner(settings, warm=False)
    job_id = runner.submit(folder / "face.png", PipelineConfig())
    wait(runner, job_id, lambda status: status.state == "running")
    runner.cancel(job_id)
    started = time.monotonic()
    assert wait(runner, job_id).state == "cancelled"
    assert time.monotonic() - started < CANCEL_GRACE_S / 2
    assert runner._worker.process is not None
    assert runner._worker.process.is_alive()
    runner.close()


def test_closing_leaves_nothing_behind(settings: Settings, folder: Path) -> None:
    runner = JobRunner(settings, warm=False)
    ids = [runner.submit(folder / "face.png", PipelineConfig()) for _ in range(3)]
    wait(runner, ids[0], lambda status: status.state == "running")
    runner.close()
    assert [runner.status(job_id).state for job_id in ids] == ["cancelled"] * 3
    assert runner._worker.process is None
    assert not runner._thread.is_alive()


def test_unknown_ids(runner: JobRunner) -> None:
    for call in (runner.status, runner.cancel):
        with pytest.raises(JobError, match="not here any more"):
            call("0" * 32)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_worker_is_started_without_secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*process.SECRETS, "KEPT"):
        monkeypatch.setenv(name, "hf_secret")
    runner = JobRunner(settings)
    try:
        environ, deadline = b"", time.monotonic() + PATIENCE_S
        while b"KEPT" not in environ and time.monotonic() < deadline:
            time.sleep(0.02)
            if runner._worker.process is not None and runner._worker.process.pid is not None:
                environ = Path(f"/proc/{runner._worker.process.pid}/environ").read_bytes()
    finally:
        runner.close()
    assert environ.count(b"hf_secret") == 1
    assert b"KEPT=hf_secret" in environ
    assert all(os.environ[name] == "hf_secret" for name in process.SECRETS)


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
    monkeypatch.setattr(worker, "_limit_worker", lambda: None)
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


# Several checkpoints


def test_a_job_with_several_checkpoints_gives_one_analysis_each(runner: JobRunner, settings: Settings, folder: Path) -> None:
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


def test_one_checkpoint_that_cannot_be_loaded_fails_the_job_by_name(runner: JobRunner, folder: Path) -> None:
    runner.problems.clear()
    status = wait(runner, runner.submit(folder / "face.png", PipelineConfig(), ["small", "zero", "twin"]))
    assert (status.state, status.analyses, status.analysis) == ("failed", (), None)
    assert status.message.startswith("Test zero: the weights file is missing.")
    assert runner.problems == {"zero": status.message}


def test_a_job_has_a_readable_number_of_checkpoints(runner: JobRunner, folder: Path) -> None:
    names = [f"c{number}" for number in range(MAX_CHECKPOINTS + 1)]
    with pytest.raises(JobError, match=f"At most {MAX_CHECKPOINTS} checkpoints"):
        runner.submit(folder / "face.png", PipelineConfig(), names)


def test_time_is_limited_for_several_checkpoints_too(runner: JobRunner, folder: Path) -> None:
    runner.settings = replace(runner.settings, job_time_limit_s=0.5)
    status = wait(runner, runner.submit(folder / "long.mp4", SLOW, ["small", "twin"]))
    assert status.message.endswith("Try a shorter clip or fewer checkpoints.")


# Many who ask


def test_many_watch_one_job_and_a_late_one_sees_the_end(runner: JobRunner, folder: Path) -> None:
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


def test_a_job_knows_how_many_are_before_it(runner: JobRunner, folder: Path) -> None:
    first = runner.submit(folder / "long.mp4", SLOW)
    wait(runner, first, lambda status: status.state == "running")
    second, third, fourth = (runner.submit(folder / "face.png", PipelineConfig()) for _ in range(3))
    assert [runner.status(job_id).ahead for job_id in (first, second, third, fourth)] == [0, 1, 2, 3]
    watched = runner.watch(fourth, PATIENCE_S)
    assert next(watched).ahead == 3
    runner.cancel(second)
    assert next(watched).ahead == 2
    assert [runner.status(job_id).ahead for job_id in (first, second, third)] == [0, 0, 1]


def test_cancels_that_race_with_each_other_and_with_the_end_leave_one_final_state(runner: JobRunner, folder: Path) -> None:
    process = runner._worker.process
    rng = np.random.default_rng(0)
    outcomes = []
    with ThreadPoolExecutor(9) as pool:
        for pause_s in [0, *rng.uniform(0, 0.5, 14)]:
            job_id = runner.submit(folder / "long.mp4", PipelineConfig(sample_fps=0.2), ["small", "twin"])
            watchers = [pool.submit(lambda job_id=job_id: list(runner.watch(job_id, 0.01))[-1]) for _ in range(4)]
            time.sleep(pause_s)
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
    assert process is None or runner._worker.process is process, "no late cancel reached another job or killed the worker"


def test_the_queue_is_bounded_for_all_who_submit_at_once(runner: JobRunner, folder: Path) -> None:
    wait_running(runner, runner.submit(folder / "long.mp4", SLOW))

    def submit(_number: int) -> bool:
        try:
            runner.submit(folder / "face.png", PipelineConfig())
        except JobError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(3 * MAX_WAITING))) == MAX_WAITING


def test_a_killed_worker_is_told_to_all_who_watch(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW, ["small", "twin"])
    wait_running(runner, job_id)
    with ThreadPoolExecutor(4) as pool:
        watchers = [pool.submit(lambda: list(runner.watch(job_id, 30.0))[-1]) for _ in range(4)]
        assert runner._worker.process is not None
        os.kill(runner._worker.process.pid or 0, signal.SIGKILL)
        assert {watcher.result(PATIENCE_S).state for watcher in watchers} == {"failed"}
    assert wait(runner, runner.submit(folder / "face.png", PipelineConfig(), ["small", "twin"])).state == "done"


def test_a_worker_that_dies_while_a_job_is_cancelled_leaves_it_cancelled(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, job_id)
    assert runner._worker.process is not None
    os.kill(runner._worker.process.pid or 0, signal.SIGSTOP)  # it cannot obey
    runner.cancel(job_id)
    os.kill(runner._worker.process.pid or 0, signal.SIGKILL)
    assert (wait(runner, job_id).state, runner.status(job_id).message) == ("cancelled", "")


def test_a_worker_that_does_not_obey_is_killed(runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.runner.CANCEL_GRACE_S", 0.3)
    job_id = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, job_id)
    assert runner._worker.process is not None
    os.kill(runner._worker.process.pid or 0, signal.SIGSTOP)
    runner.cancel(job_id)
    assert wait(runner, job_id).state == "cancelled"
    assert runner._worker.process is None


def test_a_job_that_nobody_asks_for_is_cancelled_waiting_or_running(
    runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.runner.TIDY_EVERY_S", 0.05)
    running = runner.submit(folder / "long.mp4", SLOW)
    wait_running(runner, running)
    waiting, wanted = (runner.submit(folder / "face.png", PipelineConfig()) for _ in range(2))
    for job_id in (running, waiting):
        runner._book.jobs[job_id].asked_s -= AnalysisRequest.PATIENCE_S
    assert wait(runner, wanted).state == "done"
    for job_id in (running, waiting):
        status = runner.status(job_id)
        assert (status.state, status.message) == ("cancelled", abandoned(runner._book.jobs[job_id].request))
        assert status.message == "Nobody asked for this analysis for 10 minutes, so it was cancelled."


def test_whoever_asks_keeps_a_job_alive(runner: JobRunner, folder: Path) -> None:
    job_id = runner.submit(folder / "long.mp4", SLOW)
    job = runner._book.jobs[job_id]
    for ask in (runner.status, lambda job_id: next(runner.watch(job_id))):
        job.asked_s -= AnalysisRequest.PATIENCE_S - 5
        ask(job_id)
        assert time.monotonic() - job.asked_s < 5


# What is kept


def make_request(number: int) -> AnalysisRequest:
    return AnalysisRequest(f"{number:032x}", Path("face.png"), PipelineConfig(), ("",))


def test_results_live_from_their_end_whether_asked_for_or_not() -> None:
    jobs = Book()
    job = jobs.add(make_request(1), 0.0)
    jobs.take()
    jobs.forget(5000.0, 900.0)
    assert job.request.id in jobs.jobs, "it has not ended"
    jobs.end(job, "done", 5000.0)
    job.asked_s = 5800.0
    jobs.forget(5900.0, 900.0)
    assert job.request.id in jobs.jobs
    jobs.forget(5900.1, 900.0)
    assert jobs.jobs == {}


def test_finished_results_are_bounded_and_the_oldest_go_first(analyses: tuple[Analysis, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Book()
    made = [jobs.add(make_request(number), 0.0) for number in range(MAX_KEPT + 4)]
    for number, job in enumerate(made[:-1]):
        jobs.end(job, "done", 1000.0 - number)  # the later one came to its end earlier
    jobs.forget(1000.0, 900.0)
    assert list(jobs.jobs) == [job.request.id for job in (*made[:MAX_KEPT], made[-1])], "and what waits stays"
    monkeypatch.setattr(book, "MAX_KEPT_BYTES", 2 * weigh(analyses))
    jobs = Book()
    made = [jobs.add(make_request(number), 0.0) for number in range(4)]
    for number, job in enumerate(made):
        jobs.end(job, "done", float(number), answer=analyses)
        jobs.forget(float(number), 900.0)
    assert list(jobs.jobs) == [job.request.id for job in made[2:]]
    monkeypatch.setattr(book, "MAX_KEPT_BYTES", 1)
    jobs.forget(3.0, 900.0)
    assert list(jobs.jobs) == [made[3].request.id], "the latest one can be shown whatever its size"


@pytest.fixture(scope="module")
def analyses(settings: Settings, folder: Path) -> tuple[Analysis, ...]:
    return Pipeline(settings).analyze_all(folder / "face.png", ["small", "twin"])


def test_the_size_of_results_counts_shared_arrays_once(analyses: tuple[Analysis, ...]) -> None:
    one, both = weigh(analyses[:1]), weigh(analyses)
    assert one > analyses[0].preview.nbytes + analyses[0].faces[0].track.thumbnail.nbytes
    own = sum(getattr(analyses[1].faces[0].track, name).nbytes for name in ("embeddings", "scores"))
    lines = sum(line.values.nbytes for line in analyses[1].faces[0].timelines)
    summaries = sum(2 * prediction.values.nbytes for prediction in analyses[1].faces[0].predictions)
    times = sum(line.times_s.nbytes for line in analyses[1].faces[0].timelines)
    assert both - one in (own + lines + summaries, own + lines + summaries + times)


# Files of jobs


@pytest.fixture
def upload(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "upload").mkdir()
    return Path(shutil.copy(folder / "face.png", tmp_path / "upload" / "a face.png"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("copies", [False, True])
def test_a_file_outlives_its_upload_until_the_job_ends(
    runner: JobRunner, keep_folder: Path, folder: Path, upload: Path, monkeypatch: pytest.MonkeyPatch, copies: bool
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    if copies:
        monkeypatch.setattr(os, "link", refuse)
    first = runner.submit(folder / "long.mp4", SLOW)
    link = upload.with_name("link.png")
    link.symlink_to(upload)
    second, third = runner.submit(upload, PipelineConfig()), runner.submit(link, PipelineConfig())
    assert stat.S_IMODE(keep_folder.stat().st_mode) == 0o700
    assert names(keep_folder) == sorted([first, second, third])
    assert (upload.stat().st_nlink == 1) == copies
    shutil.rmtree(upload.parent)
    runner.cancel(first)
    assert wait(runner, first).state == "cancelled"
    for job_id in (second, third):
        status = wait(runner, job_id)
        assert status.analysis is not None
        assert len(status.analysis.faces) == 1
    assert names(keep_folder) == []
    assert (folder / "long.mp4").exists(), "only the link is deleted"


def test_no_file_is_left_however_a_job_ends(runner: JobRunner, keep_folder: Path, folder: Path) -> None:
    assert wait(runner, runner.submit(folder / "broken.png", PipelineConfig())).state == "failed"
    assert names(keep_folder) == []
    killed, waiting = runner.submit(folder / "long.mp4", SLOW), runner.submit(folder / "face.png", PipelineConfig())
    wait_running(runner, killed)
    runner.cancel(waiting)
    assert names(keep_folder) == [killed]
    assert runner._worker.process is not None
    os.kill(runner._worker.process.pid or 0, signal.SIGKILL)
    assert wait(runner, killed).state == "failed"
    assert names(keep_folder) == []


def test_no_file_is_left_of_what_was_not_taken_or_was_closed(
    settings: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = JobRunner(settings, warm=False, keep=tmp_path / "keep")
    wait(runner, runner.submit(folder / "face.png", PipelineConfig()), lambda status: status.state == "running")
    waiting = [runner.submit(folder / "face.png", PipelineConfig()) for _ in range(MAX_WAITING)]
    with monkeypatch.context() as patch, pytest.raises(JobError, match="are waiting"):  # others come while the file is copied
        patch.setattr(runner, "_check_room", _full_at_second_look(runner._check_room))
        runner.submit(folder / "face.png", PipelineConfig())
    assert set(waiting) <= set(names(tmp_path / "keep"))
    assert len(names(tmp_path / "keep")) == MAX_WAITING + 1
    runner.close()
    with pytest.raises(JobError, match="being stopped"):
        runner.submit(folder / "face.png", PipelineConfig())
    assert names(tmp_path / "keep") == []


def _full_at_second_look(check: Callable[[], None]) -> Callable[[], None]:
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) > 1:
            check()

    return look


def test_a_file_that_is_gone_or_has_no_room_is_told(
    runner: JobRunner, keep_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobError, match="This file is not here any more"):
        runner.submit(folder / "none.png", PipelineConfig())

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"half of")
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(keep.shutil, "copyfile", full)
    with pytest.raises(JobError, match="no room for this file"):
        runner.submit(folder / "face.png", PipelineConfig())
    assert names(keep_folder) == []
    assert not [job for job in runner._book.jobs.values() if not job.status.finished]


def test_what_an_earlier_runner_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("0" * 32, "notes.txt"):
        (tmp_path / name).write_text("x")
    tmp_path.chmod(0o755)
    Kept(tmp_path)
    assert names(tmp_path) == ["notes.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
