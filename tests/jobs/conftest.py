"""One runner for all tests of a file, and files to analyze."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from jobs_makers import wait
from media_makers import write_clip
from PIL import Image

from hsemotion_space.jobs import JobRunner
from hsemotion_space.jobs.files import MEDIA
from hsemotion_space.settings import Settings


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
    """One worker, so that a picture waits behind a clip; two are tested by themselves."""
    return Settings(
        checkpoints=folder / "checkpoints", cache=folder / "cache", engine="torch", threads=1, workers=1
    )


@pytest.fixture(scope="module")
def media_folder(folder: Path) -> Path:
    return folder / MEDIA


@pytest.fixture(scope="module")
def warm_runner(settings: Settings, folder: Path) -> Iterator[JobRunner]:
    runner = JobRunner(settings, root=folder)
    yield runner
    runner.close()


@pytest.fixture
def runner(warm_runner: JobRunner, settings: Settings) -> Iterator[JobRunner]:
    """The one runner, with nothing to do and its usual settings."""
    yield warm_runner
    warm_runner._table.settings = settings
    for job_id in list(warm_runner._table.jobs):
        warm_runner.cancel(job_id)
        wait(warm_runner, job_id)
    with warm_runner._table.changed:
        for job in list(warm_runner._table.jobs.values()):
            warm_runner._table.forget(job)
