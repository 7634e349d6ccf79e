"""A user whose home and cache cannot be written: the command line and the jobs of the page go on with what is
bundled."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from jobs_makers import wait
from PIL import Image

from hsemotion_space.hub import download
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.hub.source import Digest, UpstreamSource
from hsemotion_space.hub.weights import locate
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.jobs import JobRunner, worker
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.vision.engine import EngineError

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = UpstreamSource("net.pt", "https://example.invalid/net.pt", "", Digest("0" * 64, size_bytes=10))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a checkpoint, a picture, and a file where a folder should be."""
    make_checkpoint(tmp_path / "checkpoints" / "small", size=32)
    Image.fromarray(picture_with([(20, 60)])).save(tmp_path / "face.png")
    (tmp_path / "file").write_text("in the way")
    return tmp_path


@pytest.mark.parametrize("home", ["/dev/null", "file", "/proc/1/nothing"])
def test_the_command_line_needs_no_home(home: str, place: Path) -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("XDG_", "HSEMOTION_"))}
    environment = kept | {
        "HOME": str(place / home),
        "HSEMOTION_CHECKPOINTS": str(place / "checkpoints"),
        "HSEMOTION_ENGINE": "openvino",
    }
    command = [sys.executable, "-m", "hsemotion_space", "analyze", str(place / "face.png")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "face 1" in done.stdout
    assert done.stderr.count("Converted networks cannot be kept in") == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_the_jobs_of_the_page_need_no_cache(place: Path) -> None:
    settings = Settings(
        checkpoints=place / "checkpoints", cache=place / "file" / "cache", engine="openvino", threads=1
    )
    runner = JobRunner(settings)
    try:
        status = wait(runner, runner.submit(place / "face.png", PipelineConfig()))
    finally:
        runner.close()
    assert (status.state, status.message) == ("done", "")


def test_a_worker_that_cannot_warm_up_answers_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Pipeline, "network", fail)
    assert worker.warm_pipeline(Settings(checkpoints=place / "checkpoints", engine="torch")) is not None
    assert "Input/output error" in caplog.text
    monkeypatch.setattr(
        Pipeline, "network", lambda *_: (_ for _ in ()).throw(EngineError("told by the first job"))
    )
    caplog.clear()
    worker.warm_pipeline(Settings(checkpoints=place / "checkpoints", engine="torch"))
    assert not caplog.messages


def test_checkpoints_are_found_without_a_cache(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for cache in (place / "file", Path("/dev/null/cache"), place / "nowhere"):
        assert [one.id for one in list_checkpoints((place / "checkpoints", cache / "checkpoints"))] == [
            "small"
        ]

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise OSError(errno.EACCES, "Permission denied", str(path))

    caplog.clear()
    stat = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda path, **how: refuse(path) if "locked" in path.parts else stat(path, **how)
    )
    locked = place / "locked"
    [checkpoint] = list_checkpoints((place / "checkpoints", locked / "checkpoints"))
    assert "Permission denied" in caplog.text
    assert locate(checkpoint, locked).place == "here"
    assert not download.file_exists(locked / "upstream" / "net.pt")


def test_a_download_that_cannot_be_kept_names_the_variable_and_the_log_names_the_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "is_offline", lambda: False)
    for folder in (place / "file" / "upstream", Path("/dev/null/upstream")):
        caplog.clear()
        with pytest.raises(CheckpointError) as caught:
            download.from_upstream("Net", UPSTREAM, folder)
        assert (caught.value.code, caught.value.message.values["reason"]) == ("disk", "Not a directory")
        assert str(folder) not in str(caught.value), "visitors read it"
        assert [(record.levelno, str(folder) in record.getMessage()) for record in caplog.records] == [
            (logging.ERROR, True)
        ]
