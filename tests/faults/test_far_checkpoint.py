"""A checkpoint whose weights and heads lie on the Hub alone: on its way into an analysis, by job and by
command."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from face_makers import picture_with
from fake_hub import FakeHub, Fault, environment, use
from PIL import Image
from safetensors.numpy import load, save

from hsemotion_space.hub.manifest import read_manifest
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.jobs import JobRunner, JobStatus
from hsemotion_space.settings import PipelineConfig, Settings

PATIENCE_S = 120.0
REPO = "faces/far"
WEIGHTS, HEADS = "model.safetensors", "heads.safetensors"
FAR = PipelineConfig(checkpoint="far")
UNITS = '[[heads]]\ntask = "action_units"\nkind = "linear"\nprovenance = "trained"\n'
DOWN = Fault("status", path="resolve", count=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a picture and a checkpoint that is bundled."""
    make_checkpoint(tmp_path / "checkpoints" / "near", size=32)
    Image.fromarray(picture_with([(20, 60)])).save(tmp_path / "face.png")
    return tmp_path


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Return a Hub with the other checkpoint, of which only the manifest is here; its file is larger than
    what the client reads at once."""
    made = make_checkpoint(folder / "checkpoints" / "far", size=32, seed=1).folder
    weights = save(load((made / WEIGHTS).read_bytes()), {"about": "x" * 12_000_000})
    draw = np.random.default_rng(0).normal(0, 0.01, (12, 512)).astype(np.float32)
    heads = save({"action_units.0.weight": draw, "action_units.0.bias": np.zeros(12, np.float32)})
    with FakeHub() as hub, use(hub, monkeypatch, folder / "hf"):
        revision = hub.add_repo(REPO, {WEIGHTS: weights, HEADS: heads})
        digests = [
            f'{name}sha256 = "{hashlib.sha256(content).hexdigest()}"'
            for name, content in (("", weights), ("heads_", heads))
        ]
        sizes = [f"bytes = {len(weights)}", f"heads_bytes = {len(heads)}"]
        change_manifest(
            made,
            (
                'bundled = "model.safetensors"\n',
                f'hub = {{ repo = "{REPO}", revision = "{revision}", filename = "{WEIGHTS}" }}\n',
            ),
            (f'sha256 = "{read_manifest(made).sha256}"', "\n".join(digests + sizes)),
            ('[[heads]]\ntask = "compound', f'{UNITS}[[heads]]\ntask = "compound'),
        )
        (made / WEIGHTS).unlink()
        yield hub


@pytest.fixture
def settings(folder: Path) -> Settings:
    return Settings(checkpoints=folder / "checkpoints", cache=folder / "cache", engine="torch", threads=1)


@pytest.fixture
def runner(hub: FakeHub, settings: Settings) -> Iterator[JobRunner]:
    runner = JobRunner(settings)
    yield runner
    runner.close()


def follow(
    runner: JobRunner, job_id: str, until: Callable[[JobStatus], bool] = lambda _: False
) -> list[JobStatus]:
    """Return what is seen of a job until something is so or it is over."""
    deadline, seen = time.monotonic() + PATIENCE_S, []
    for status in runner.watch(job_id, 0.02):
        seen.append(status)
        if until(status):
            break
        assert time.monotonic() < deadline, status
    return seen


def test_a_job_downloads_with_progress_and_recovers_when_the_hub_does(
    runner: JobRunner, hub: FakeHub, folder: Path
) -> None:
    picture = folder / "face.png"
    hub.fail(DOWN)
    failed = follow(runner, runner.submit(picture, FAR))[-1]
    sentence = (
        f"Test far: {WEIGHTS} of {REPO} on the Hugging Face Hub could not be downloaded: the server answers"
        " 503. "
    )
    assert (failed.state, failed.message) == (
        "failed",
        sentence + "Try again in a few minutes, or select another checkpoint.",
    )
    assert runner.problems == {"far": failed.message}
    assert follow(runner, runner.submit(picture, PipelineConfig("near")))[-1].state == "done"
    assert runner.problems == {"far": failed.message}

    hub.clear_faults()
    # gives time to look; the client pauses for a second
    hub.fail(Fault("cut", path=WEIGHTS, method="GET", at=11_000_000))
    seen = follow(runner, runner.submit(picture, FAR))
    loading = [status for status in seen if status.phase == "download"]
    total = len(hub.files(REPO)[WEIGHTS])
    amounts = [status.done for status in loading if status.total == total]
    assert amounts == sorted(amounts)
    assert amounts[0] < total  # how many steps are seen depends on how busy the machine is
    assert seen[-1].analysis is not None
    assert {prediction.task.name for face in seen[-1].analysis.faces for prediction in face.predictions} >= {
        "expression",
        "action_units",
    }
    assert runner.problems == {}

    hub.requests.clear()
    assert follow(runner, runner.submit(picture, FAR))[-1].state == "done"
    assert hub.requests == []


def test_a_download_that_hangs_is_cancelled_soon_and_can_be_had_later(
    runner: JobRunner, hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.lane.CANCEL_GRACE_S", 0.5)
    hang = hub.fail(Fault("hang", path=WEIGHTS, method="GET", count=None))
    job_id = runner.submit(folder / "face.png", FAR)
    follow(runner, job_id, lambda status: hang.hits > 0)
    started_s = time.monotonic()
    runner.cancel(job_id)
    assert follow(runner, job_id)[-1].state == "cancelled"
    assert time.monotonic() - started_s < 3
    assert runner.problems == {}
    hub.clear_faults()
    assert follow(runner, runner.submit(folder / "face.png", FAR))[-1].state == "done"


def test_a_pipeline_loads_from_an_empty_cache_and_then_without_a_request(
    hub: FakeHub, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("CHECKPOINTS", settings.checkpoints),
        ("CACHE", settings.cache),
        ("ENGINE", "torch"),
        ("THREADS", 1),
    ):
        monkeypatch.setenv(f"HSEMOTION_{name}", str(value))
    assert Pipeline.from_pretrained("far").standard == "far"
    assert [request.path.rpartition("/")[2] for request in hub.seen("GET")] == [WEIGHTS, HEADS]
    hub.requests.clear()
    first, second = (
        Pipeline.from_pretrained("far").analyze(folder / "face.png", PipelineConfig()) for _ in range(2)
    )
    assert hub.requests == []
    values = [
        [prediction.values for prediction in analysis.faces[0].predictions] for analysis in (first, second)
    ]
    assert all(np.array_equal(*pair) for pair in zip(*values, strict=True))


def command(folder: Path, hub: FakeHub, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    places = {
        "HSEMOTION_CHECKPOINTS": str(folder / "checkpoints"),
        "HSEMOTION_CACHE": str(folder / "cache"),
        "HSEMOTION_ENGINE": "torch",
    }
    env = os.environ | environment(hub, folder / "new") | places | {"HF_TOKEN": "hf_canary"} | variables
    return subprocess.run(
        [sys.executable, "-m", "hsemotion_space", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_the_command_fetched_serves_without_a_network_and_no_token_leaves(
    hub: FakeHub, folder: Path
) -> None:
    offline = {"HF_HUB_OFFLINE": "1"}
    (folder / "new").mkdir()
    (folder / "new" / "token").write_text("hf_canary")
    analyze = ["analyze", str(folder / "face.png"), "--checkpoint", "far"]

    refused = command(folder, hub, "checkpoints", "fetch", "far", **offline)
    words = (
        "Test far is not on this machine, and HF_HUB_OFFLINE=1 forbids downloads. Unset it, or select another"
        " checkpoint."
    )
    assert (refused.returncode, refused.stderr) == (2, f"hsemotion-space: {words}\n")
    assert hub.requests == []

    fetched = command(folder, hub, "checkpoints", "fetch", "far")
    megabytes = sum(map(len, hub.files(REPO).values())) / 1e6
    assert (fetched.returncode, fetched.stdout) == (0, f"far: {megabytes:.1f} MB, verified\n"), fetched.stderr
    assert len(hub.seen("GET")) == 2
    assert not [
        request for request in hub.requests if "authorization" in request.headers or "canary" in str(request)
    ]

    hub.requests.clear()
    analyzed = command(folder, hub, *analyze, **offline)
    assert analyzed.returncode == 0, analyzed.stderr
    assert "Action units (trained)" in analyzed.stdout
    assert hub.requests == []
