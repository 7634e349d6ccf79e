"""What is kept of jobs and their files, and for how long."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs_makers import MAX_WAITING, SLOW, fill, make_table, wait, wait_running

from hsemotion_space.jobs import JobError, JobRunner, keep, table
from hsemotion_space.jobs.keep import Kept
from hsemotion_space.jobs.requests import AnalysisRequest
from hsemotion_space.jobs.table import MAX_KEPT, weigh
from hsemotion_space.pipeline import Pipeline
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis


def make_request(number: int) -> AnalysisRequest:
    return AnalysisRequest(f"{number:032x}", Path("face.png"), PipelineConfig(), ("",))


def test_results_live_from_their_end_whether_asked_for_or_not() -> None:
    jobs = make_table()
    job = jobs.add(make_request(1), "", 0.0)
    jobs.take(jobs.queues[0])
    jobs.forget(5000.0)
    assert job.request.id in jobs.jobs, "it has not ended"
    jobs.end(job, "done", 5000.0)
    job.asked_s = 5800.0
    jobs.forget(5900.0)
    assert job.request.id in jobs.jobs
    jobs.forget(5900.1)
    assert jobs.jobs == {}


def test_finished_results_are_bounded_and_the_oldest_go_first(analyses: tuple[Analysis, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = make_table()
    made = [jobs.add(make_request(number), "", 0.0) for number in range(MAX_KEPT + 4)]
    for number, job in enumerate(made[:-1]):
        jobs.end(job, "done", 1000.0 - number)  # the later one came to its end earlier
    jobs.forget(1000.0)
    assert list(jobs.jobs) == [job.request.id for job in (*made[:MAX_KEPT], made[-1])], "and what waits stays"
    monkeypatch.setattr(table, "MAX_KEPT_BYTES", 2 * weigh(analyses))
    jobs = make_table()
    made = [jobs.add(make_request(number), "", 0.0) for number in range(4)]
    for number, job in enumerate(made):
        jobs.end(job, "done", float(number), answer=analyses)
        jobs.forget(float(number))
    assert list(jobs.jobs) == [job.request.id for job in made[2:]]
    monkeypatch.setattr(table, "MAX_KEPT_BYTES", 1)
    jobs.forget(3.0)
    assert list(jobs.jobs) == [made[3].request.id], "the latest one can be shown whatever its size"


@pytest.fixture(scope="module")
def analyses(settings: Settings, folder: Path) -> tuple[Analysis, ...]:
    return Pipeline(settings).analyze_all(folder / "face.png", ["small", "twin"])


def test_the_size_of_results_counts_shared_arrays_once(analyses: tuple[Analysis, ...]) -> None:
    one, both = weigh(analyses[:1]), weigh(analyses)
    assert one > analyses[0].preview.nbytes + analyses[0].faces[0].track.thumbnail.nbytes
    own = sum(getattr(analyses[1].faces[0].track, name).nbytes for name in ("embeddings", "scores"))
    lines = sum(line.values.nbytes + line.support.nbytes for line in analyses[1].faces[0].timelines)
    summaries = sum(2 * prediction.values.nbytes + prediction.support.nbytes for prediction in analyses[1].faces[0].predictions)
    times = sum(line.times_s.nbytes for line in analyses[1].faces[0].timelines)
    assert both - one in (own + lines + summaries, own + lines + summaries + times)


@pytest.fixture
def upload(folder: Path, tmp_path: Path) -> Path:
    (folder / tmp_path.name).mkdir()
    return Path(shutil.copy(folder / "face.png", folder / tmp_path.name / "a face.png"))


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
    assert runner._lanes[0].worker.process is not None
    os.kill(runner._lanes[0].worker.process.pid or 0, signal.SIGKILL)
    assert wait(runner, killed).state == "failed"
    assert names(keep_folder) == []


def test_no_file_is_left_of_what_was_not_taken_or_was_closed(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = JobRunner(settings, warm=False, keep=folder / "closed")
    wait(runner, runner.submit(folder / "face.png", PipelineConfig()), lambda status: status.state == "running")
    waiting = fill(runner, folder / "face.png")
    with monkeypatch.context() as patch, pytest.raises(JobError, match="are waiting"):  # others come while the file is copied
        patch.setattr(runner._table, "check_room", _full_at_second_look(runner._table.check_room))
        runner.submit(folder / "face.png", PipelineConfig())
    assert set(waiting) <= set(names(folder / "closed"))
    assert len(names(folder / "closed")) == MAX_WAITING + 1
    runner.close()
    with pytest.raises(JobError, match="being stopped"):
        runner.submit(folder / "face.png", PipelineConfig())
    assert names(folder / "closed") == []


def _full_at_second_look(check: Callable[..., None]) -> Callable[..., None]:
    looks = []

    def look(*given: object) -> None:
        looks.append(1)
        if len(looks) > 1:
            check(*given)

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
    assert not [job for job in runner._table.jobs.values() if not job.status.finished]


def test_what_an_earlier_runner_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("0" * 32, "notes.txt"):
        (tmp_path / name).write_text("x")
    tmp_path.chmod(0o755)
    Kept(tmp_path)
    assert names(tmp_path) == ["notes.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
