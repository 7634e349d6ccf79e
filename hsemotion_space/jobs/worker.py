"""The worker process: the handle by which the runner starts and kills it, and what it does with requests.

What is imported at the top is imported by the process of the page too; torch and libav are imported in the
worker alone.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hsemotion_space.analysis.saliency import ExplainError, explain
from hsemotion_space.environment import is_secret, is_zero_gpu
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs.requests import (
    AnalysisRequest,
    Answer,
    Explained,
    ExplainRequest,
    FrameRequest,
    Phase,
    Request,
)
from hsemotion_space.logs import install_logs
from hsemotion_space.media.formats import sniff
from hsemotion_space.media.images import read_image
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import ByteArray, FloatArray

if TYPE_CHECKING:
    from hsemotion_space.inference.pipeline import Pipeline

POLL_S: Final = 0.05
PROGRESS_EVERY_S: Final = 0.1
MEMORY_BYTES: Final = 4 * 2**30  # what one analysis may take on top of the loaded networks
FILE_BYTES: Final = 2**30  # the largest file that the worker may write

_environment: Final = threading.Lock()  # held while secrets are out of it
log = logging.getLogger(__name__)


class WorkerProcess:
    """One warm worker, used by one thread; methods raise OSError or EOFError if the process has died.

    Args:
        settings: of the deployment; its secrets stay here.
        niceness: added to that of this process.

    Attributes:
        ready: whether it takes requests.
        served: whether it or an earlier one ever took requests.
        starts: how often it was started.
    """

    def __init__(self, settings: Settings, niceness: int = 0) -> None:
        self.settings, self.niceness = settings.without_secrets(), niceness
        self.ready = self.served = False
        self.starts = 0
        self.process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def alive(self) -> bool:
        """Return whether the process runs, ready or not."""
        return self.process is not None and self.process.is_alive()

    def start(self) -> None:
        """Start the process in place of an earlier one, without the secrets of this one."""
        self.stop()
        self.starts += 1
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self.process = context.Process(
            target=work, args=(remote, self.settings, self.niceness), name="analysis", daemon=True
        )
        with _environment:
            hidden = {name: os.environ.pop(name) for name in list(os.environ) if is_secret(name)}
            try:
                self.process.start()
            finally:
                os.environ.update(hidden)
        remote.close()

    def stop(self) -> None:
        """Kill the process; nothing happens if there is none."""
        if self.process is not None and self.process.pid is not None:
            self.process.kill()
            self.process.join(5)
        if self._connection is not None:
            self._connection.close()
        self.process = self._connection = None
        self.ready = False

    def send(self, message: object) -> None:
        """Send a request, ``cancel`` for the one that runs, or what the GPU gave for its faces."""
        self._open.send(message)

    def receive(self) -> tuple[object, ...] | None:
        """Return the next answer, None if there is none within POLL_S."""
        if not self._open.poll(POLL_S):
            return None
        answer = tuple(self._open.recv())
        if answer[0] == "ready":
            self.ready = self.served = True
        return answer

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise OSError("There is no worker.")
        return self._connection


def work(connection: Connection, settings: Settings, niceness: int = 0) -> None:
    """Body of the worker process: one request at a time until the connection closes."""
    _set_up_process(niceness)
    pipeline, problems = warm_pipeline(settings)
    _limit_memory()
    with contextlib.suppress(EOFError, OSError):
        connection.send(("ready", problems))
        while True:
            request = connection.recv()
            if not isinstance(request, str):  # a cancel that arrived after its job had finished
                connection.send(_answer(pipeline, request, connection))
            del request  # nothing of it stays while the next one is awaited


def warm_pipeline(settings: Settings) -> tuple[Pipeline, dict[str, str]]:
    """Return a pipeline with the default networks loaded, and why a checkpoint could not be, by its id."""
    # torch lives in the worker alone
    from hsemotion_space.inference.pipeline import LIVE, Pipeline  # noqa: PLC0415

    pipeline = Pipeline(settings)
    try:
        pipeline.network("")
        for config in (PipelineConfig(), LIVE):
            pipeline.detector(config)
    except CheckpointError as error:
        with contextlib.suppress(CheckpointError):  # none can be used
            return pipeline, {find_checkpoint(settings.checkpoint_roots, "").id: error.message}
    except MessageError:  # the first job reports it
        pass
    except Exception:  # a worker that is not warm still answers
        log.exception("the worker could not be warmed up")
    return pipeline, {}


class _Cancelled(Exception):  # noqa: N818  not an error
    """The job was cancelled while it ran."""


def _answer(pipeline: Pipeline, request: Request, connection: Connection) -> tuple[object, ...]:
    """Return ``done`` with result, ``failed`` with message, ``unavailable`` (both) or ``cancelled``."""
    reporter, loading = _Reporter(connection), ""
    try:
        for loading in request.checkpoints:
            pipeline.network(loading, reporter.downloading)
        return "done", _result(pipeline, request, reporter)
    except _Cancelled:
        return ("cancelled",)
    except CheckpointError as error:
        return "unavailable", error.message, loading
    except MessageError as error:
        return "failed", error.message
    except Exception:  # the job fails, the worker lives
        reference = uuid.uuid4().hex[:8]
        log.exception("a job failed (%s)", reference)
        text = "The analysis failed for an unexpected reason. Report the error code {reference}."
        return "failed", Message(text, code="unexpected", reference=reference)


def _result(pipeline: Pipeline, request: Request, reporter: _Reporter) -> Answer:
    match request:
        case AnalysisRequest():
            remote = reporter.run_on_gpu if request.gpu else None
            return pipeline.analyze_all(
                request.path, request.checkpoints, request.config, reporter.analyzing, remote
            )
        case ExplainRequest():
            return _explain(pipeline, request, reporter)
        case FrameRequest():
            return (pipeline.analyze_frame(request.frame, request.checkpoint),)


def _explain(pipeline: Pipeline, request: ExplainRequest, reporter: _Reporter) -> Explained:
    """Cut the face out of its frame, as the analysis did, and explain the value.

    Raises:
        MessageError: if the file, the face, the value or the checkpoint cannot be used.
    """
    from hsemotion_space.media.clips import read_frame  # noqa: PLC0415  libav lives in the worker alone
    from hsemotion_space.vision.alignment import align_face  # noqa: PLC0415

    network, limits, place = pipeline.network(request.checkpoint), pipeline.settings.limits, request.place
    is_image = sniff(request.path) == "image"
    frame = (
        read_image(request.path, limits)[1] if is_image else read_frame(request.path, limits, place.time_s)
    )
    try:
        face = align_face(frame.rgb, np.array(place.box_xyxy), network.checkpoint.input)
    except ValueError as error:
        raise ExplainError("The face lies outside the picture.", code="outside_picture") from error

    def run(faces: FloatArray) -> tuple[FloatArray, ...]:
        reporter.analyzing(0, 0)  # this is where it hears of a cancel
        return network.run(faces)

    return Explained(explain(run, network.checkpoint, face, request.what), face)


class _Reporter:
    """Sends progress of one job at intervals; a reply that was not asked for means that it is to stop."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._sent_s = connection, 0.0

    def downloading(self, done: int, total: int) -> None:
        """Report bytes."""
        self._send("download", done, total)

    def analyzing(self, done: int, total: int) -> None:
        """Report frames."""
        self._send("analysis", done, total)

    def run_on_gpu(
        self, faces: Mapping[str, ByteArray]
    ) -> tuple[Mapping[str, tuple[FloatArray, ...]] | None, Message]:
        """Ask the page to run networks; see ``Remote`` of the pipeline."""
        self._connection.send(("faces", faces))
        answer = self._connection.recv()
        if isinstance(answer, str):
            raise _Cancelled
        outputs, notice = answer
        return outputs, notice

    def _send(self, phase: Phase, done: int, total: int) -> None:
        if self._connection.poll():
            self._connection.recv()
            raise _Cancelled
        if time.monotonic() - self._sent_s >= PROGRESS_EVERY_S:
            self._sent_s = time.monotonic()
            self._connection.send(("progress", phase, done, total))


def _set_up_process(niceness: int) -> None:
    """Log as the server does; lower the priority before torch starts threads, die with it, fill no disk.

    On ZeroGPU, touch no GPU: only a process to which the platform lends one may use it.
    """
    install_logs()
    if is_zero_gpu():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with contextlib.suppress(AttributeError, OSError):  # not on every platform
        os.setpgrp()  # Ctrl-C is for the server, which ends jobs in order
    # Linux; elsewhere a worker ends when it next listens
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415

        end_with_parent = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(end_with_parent, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(AttributeError, OSError):  # not on every platform
        os.nice(niceness)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


def _limit_memory() -> None:
    """Turn a hostile file's memory demand into a MemoryError (Linux; elsewhere there is no limit)."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        status = Path("/proc/self/status").read_text("ascii")
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        resource.setrlimit(
            resource.RLIMIT_DATA, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
