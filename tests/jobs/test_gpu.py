"""Jobs whose networks run on a GPU that is borrowed; a stand-in for the library ``spaces`` lends it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from functools import wraps
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from face_makers import picture_with
from jobs_makers import wait, wait_running
from media_makers import write_clip

from hsemotion_space.inference.batcher import REMOTE_RUNS
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.jobs import JobRunner, gpu
from hsemotion_space.jobs.gpu import Gpu, open_gpu
from hsemotion_space.settings import PipelineConfig, Settings

EVERY_FRAME = PipelineConfig(sample_fps=0, detect_every=30, smoothing=0)
BOTH = ("small", "twin")
VISITOR: ContextVar[str] = ContextVar("VISITOR", default="")


class Refusal(Exception):
    """As ``spaces`` refuses: an error of Gradio, which has a title."""

    title = "ZeroGPU quota exceeded"


class Lender(ModuleType):
    """The library: what was declared, who asked, and what the next calls do instead of running."""

    def __init__(self) -> None:
        super().__init__("spaces")
        self.durations: list[int] = []
        self.visitors: list[str] = []
        self.instead: Callable[[], None] = lambda: None

    def GPU(self, *, duration: int) -> Callable[[Callable[..., object]], Callable[..., object]]:
        self.durations.append(duration)

        def decorate(function: Callable[..., object]) -> Callable[..., object]:
            @wraps(function)
            def call(*args: object) -> object:
                self.visitors.append(VISITOR.get())
                self.instead()
                return function(*args)

            return call

        return decorate


@pytest.fixture(scope="module")
def lender() -> Iterator[Lender]:
    lender = Lender()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "spaces", lender)
        patch.setenv("SPACES_ZERO_GPU", "true")
        yield lender


@pytest.fixture(scope="module")
def borrowed(lender: Lender, settings: Settings) -> Gpu:
    found = open_gpu(settings)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def gpu_runner(borrowed: Gpu, settings: Settings, folder: Path) -> Iterator[JobRunner]:
    runner = JobRunner(settings, root=folder, gpu=borrowed)
    yield runner
    runner.close()


@pytest.fixture
def frames(folder: Path) -> Path:
    """Enough faces for two networks to be worth a GPU."""
    one = picture_with([(20, 60)])
    return write_clip(folder / "faces.mp4", [one] * (REMOTE_RUNS // 2 + 1), codec="mpeg4")


@pytest.fixture
def instead(lender: Lender) -> Iterator[Callable[[Callable[[], None]], None]]:
    lender.visitors.clear()
    yield lambda action: setattr(lender, "instead", action)
    lender.instead = lambda: None


def refuse() -> None:
    raise Refusal


def abort() -> None:
    raise RuntimeError("GPU task aborted")


def test_elsewhere_there_is_no_gpu(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert open_gpu(settings) is None


def test_a_space_without_the_library_starts_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert open_gpu(settings) is None
    assert "package spaces" in capsys.readouterr().err


def test_the_function_is_registered_with_a_short_duration(borrowed: Gpu, lender: Lender) -> None:
    assert lender.durations == [gpu.SECONDS] and gpu.SECONDS <= 15
    assert set(borrowed._pipeline._networks) == set(BOTH), "what has weights is loaded before the page starts"
    assert borrowed._pipeline.settings == borrowed._pipeline.settings.without_secrets()


def test_outputs_are_those_of_the_worker(borrowed: Gpu, settings: Settings) -> None:
    pipeline, faces = (
        Pipeline(settings),
        np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8),
    )
    outputs, notice = borrowed.ask(copy_context(), dict.fromkeys(BOTH, faces)).result()
    assert outputs is not None and notice.code == "gpu_used"
    for name in BOTH:
        network = pipeline.network(name)
        spec = network.checkpoint.input
        batch = (faces / 255.0 - np.array(spec.mean)) / np.array(spec.std)
        wanted = network.run(batch.transpose(0, 3, 1, 2).astype(np.float32))
        for one, other in zip(outputs[name], wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("action", "code"), [(refuse, "gpu_quota"), (abort, "gpu_absent")])
def test_a_refusal_becomes_a_notice(borrowed: Gpu, instead: Callable, action: Callable, code: str) -> None:
    instead(action)
    outputs, notice = borrowed.ask(copy_context(), {"small": np.zeros((1, 32, 32, 3), np.uint8)}).result()
    assert outputs is None and notice.code == code


def test_only_faces_of_the_networks_of_the_job_are_accepted(borrowed: Gpu) -> None:
    faces = np.zeros((2, 32, 32, 3), np.uint8)
    assert borrowed.accepts({"small": faces}, ("",)), "the first checkpoint is the default"
    assert borrowed.accepts(dict.fromkeys(BOTH, faces), BOTH)
    for wrong in (
        None, [], {}, faces, {"twin": faces}, {"small": None}, {"small": faces[0]}, {"small": faces[:, :16]},
        {"small": faces.astype(np.float32)}, {"small": faces.astype(object)}, {1: faces}, {"../small": faces},
    ):  # fmt: skip
        assert not borrowed.accepts(wrong, ("small",))
    assert not borrowed.accepts({"small": faces}, ("gone",))


def test_a_large_job_uses_the_gpu_of_its_visitor(
    gpu_runner: JobRunner, lender: Lender, instead: Callable, frames: Path
) -> None:
    context = copy_context()
    context.run(VISITOR.set, "anna")
    status = wait(gpu_runner, context.run(gpu_runner.submit, frames, EVERY_FRAME, BOTH))
    assert status.state == "done"
    assert lender.visitors == ["anna"]
    assert [notice.code for notice in status.analyses[1].notices] == ["gpu_used"]
    small = wait(gpu_runner, gpu_runner.submit(frames.parent / "face.png", PipelineConfig()))
    assert small.state == "done" and lender.visitors == ["anna"], "a picture is done sooner without"
    assert gpu_runner._table.jobs[status.id].visitor is None


def test_without_quota_the_worker_runs_the_networks(
    gpu_runner: JobRunner, lender: Lender, instead: Callable, frames: Path
) -> None:
    instead(refuse)
    status = wait(gpu_runner, gpu_runner.submit(frames, EVERY_FRAME, BOTH))
    assert status.state == "done" and len(lender.visitors) == 1
    assert [notice.code for notice in status.analyses[0].notices] == ["gpu_quota"]


def test_a_gpu_that_never_answers_holds_up_nothing(
    gpu_runner: JobRunner, instead: Callable, frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, asked = threading.Event(), threading.Event()
    instead(lambda: (asked.set(), held.wait(60)))
    try:
        job = gpu_runner.submit(frames, EVERY_FRAME, BOTH)
        wait_running(gpu_runner, job)
        assert asked.wait(60)
        gpu_runner.cancel(job)
        assert wait(gpu_runner, job).state == "cancelled"
        monkeypatch.setattr(gpu, "PATIENCE_S", 0.2)
        late = wait(gpu_runner, gpu_runner.submit(frames, EVERY_FRAME, BOTH))
        assert late.state == "done"
        assert [notice.code for notice in late.analyses[0].notices] == ["gpu_absent"]
    finally:
        held.set()
