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
from error_codes import raises_code
from jobs_makers import MAX_WAITING, SLOW, fill, make_table, wait, wait_running, worker_pid

from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.jobs import JobError, JobRunner, table
from hsemotion_space.jobs.files import MEDIA
from hsemotion_space.jobs.requests import AnalysisRequest
from hsemotion_space.jobs.table import MAX_KEPT, array_bytes
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis


def make_request(number: int) -> AnalysisRequest:
    return AnalysisRequest(f"{number:032x}", Path("face.png"), PipelineConfig(), ("",))


def test_results_live_from_their_end_whether_asked_for_or_not() -> None:
    jobs = make_table()
    job = jobs.add(make_request(1), "", 0.0)
    jobs.take(jobs.queues[0])
    jobs.expire(5000.0)
    assert job.request.id in jobs.jobs, "it has not ended"
    jobs.end(job, "done", 5000.0)
    job.asked_s = 5800.0
    jobs.expire(5900.0)
    assert job.request.id in jobs.jobs
    jobs.expire(5900.1)
    assert jobs.jobs == {}


def test_finished_results_are_bounded_and_the_oldest_go_first(
    analyses: tuple[Analysis, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_table()
    made = [jobs.add(make_request(number), "", 0.0) for number in range(MAX_KEPT + 4)]
    for number, job in enumerate(made[:-1]):
        jobs.end(job, "done", 1000.0 - number)  # the later one came to its end earlier
    jobs.expire(1000.0)
    assert list(jobs.jobs) == [job.request.id for job in (*made[:MAX_KEPT], made[-1])], "and what waits stays"
    monkeypatch.setattr(table, "MAX_KEPT_BYTES", 2 * array_bytes(analyses))
    jobs = make_table()
    made = [jobs.add(make_request(number), "", 0.0) for number in range(4)]
    for number, job in enumerate(made):
        jobs.end(job, "done", float(number), answer=analyses)
        jobs.expire(float(number))
    assert list(jobs.jobs) == [job.request.id for job in made[2:]]
    monkeypatch.setattr(table, "MAX_KEPT_BYTES", 1)
    jobs.expire(3.0)
    assert list(jobs.jobs) == [made[3].request.id], "the latest one can be shown whatever its size"


@pytest.fixture(scope="module")
def analyses(settings: Settings, folder: Path) -> tuple[Analysis, ...]:
    return Pipeline(settings).analyze_all(folder / "face.png", ["small", "twin"])


def test_the_size_of_results_counts_shared_arrays_once(analyses: tuple[Analysis, ...]) -> None:
    one, both = array_bytes(analyses[:1]), array_bytes(analyses)
    assert one > analyses[0].preview.nbytes + analyses[0].faces[0].track.thumbnail.nbytes
    own = sum(getattr(analyses[1].faces[0].track, name).nbytes for name in ("embeddings", "scores"))
    lines = sum(line.values.nbytes + line.support.nbytes for line in analyses[1].faces[0].timelines)
    summaries = sum(
        2 * prediction.values.nbytes + prediction.support.nbytes
        for prediction in analyses[1].faces[0].predictions
    )
    times = sum(line.times_s.nbytes for line in analyses[1].faces[0].timelines)
    assert both - one in (own + lines + summaries, own + lines + summaries + times)


@pytest.fixture
def upload(folder: Path, tmp_path: Path) -> Path:
    (folder / tmp_path.name).mkdir()
    return Path(shutil.copy(folder / "face.png", folder / tmp_path.name / "a face.png"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("copies", [False, True])
def test_file_of_a_job_outlives_its_upload(
    runner: JobRunner,
    media_folder: Path,
    folder: Path,
    upload: Path,
    monkeypatch: pytest.MonkeyPatch,
    copies: bool,
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    if copies:
        monkeypatch.setattr(os, "link", refuse)
    first = runner.submit(folder / "long.mp4", SLOW)
    link = upload.with_name("link.png")
    link.symlink_to(upload)
    ids = [runner.submit(upload, PipelineConfig()), runner.submit(link, PipelineConfig())]
    assert stat.S_IMODE(media_folder.stat().st_mode) == 0o700
    assert {first, *ids} <= set(names(media_folder))
    assert (upload.stat().st_nlink == 1) == copies
    shutil.rmtree(upload.parent)
    runner.cancel(first)
    assert [len(wait(runner, job_id).analyses[0].faces) for job_id in ids] == [1, 1]
    assert runner.media_of(ids[0]) == media_folder / ids[0] / "media.png"
    assert runner.media_of("../claims") is None is runner.media_of("0" * 32)


@pytest.mark.parametrize("end", ["done", "failed", "cancelled", "killed"])
def test_expire_deletes_the_file_however_its_job_ended(
    runner: JobRunner, media_folder: Path, folder: Path, end: str
) -> None:
    name = {"done": "face.png", "failed": "broken.png"}.get(end, "long.mp4")
    job_id = runner.submit(folder / name, SLOW)
    if end in ("cancelled", "killed"):
        wait_running(runner, job_id)
        runner.cancel(job_id) if end == "cancelled" else os.kill(worker_pid(runner), signal.SIGKILL)
    assert wait(runner, job_id).state == {"killed": "failed"}.get(end, end)
    assert job_id in names(media_folder)
    with runner._table.changed:
        runner._table.expire(runner._table.jobs[job_id].ended_s + runner.settings.results_ttl_s + 1)
    assert names(media_folder) == []
    assert (folder / name).exists(), "only the link is deleted"


def test_submit_that_is_refused_leaves_no_file(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed").mkdir()
    shutil.copy(folder / "face.png", folder / "closed")
    runner = JobRunner(settings, warm=False, root=folder / "closed")
    picture, media = folder / "closed" / "face.png", folder / "closed" / MEDIA
    wait(runner, runner.submit(picture, PipelineConfig()), lambda status: status.state == "running")
    fill(runner, picture)
    before = names(media)
    # others come while the file is copied
    with monkeypatch.context() as patch, raises_code(JobError, "queue_full"):
        patch.setattr(runner._table, "check_room", _full_at_second_look(runner._table.check_room))
        runner.submit(picture, PipelineConfig())
    runner.close()
    with raises_code(JobError, "closed"):
        runner.submit(picture, PipelineConfig())
    assert names(media) == before and len(before) == MAX_WAITING + 1


def _full_at_second_look(check: Callable[..., None]) -> Callable[..., None]:
    looks = []

    def analyze_frame(*given: object) -> None:
        looks.append(1)
        if len(looks) > 1:
            check(*given)

    return analyze_frame


def test_submit_file_that_is_gone_or_has_no_room(
    runner: JobRunner, media_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(media_folder)
    with raises_code(JobError, "file_gone"):
        runner.submit(folder / "none.png", PipelineConfig())

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"half of")
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with raises_code(JobError, "no_room"):
        runner.submit(folder / "face.png", PipelineConfig())
    assert names(media_folder) == before
    assert not [job for job in runner._table.jobs.values() if not job.status.finished]
