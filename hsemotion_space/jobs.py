"""A bounded queue of analyses in one warm worker process: progress, cancel, time limit, recovery from crashes."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal

from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis

State = Literal["queued", "running", "done", "failed", "cancelled"]
Phase = Literal["download", "analysis"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")
MAX_WAITING = 16
PROGRESS_EVERY_S = 0.1
DOWNLOAD_LIMIT_S = 1800.0  # what fetching weights may take on top of the analysis
MEMORY_BYTES = 4 * 2**30  # what one analysis may take on top of the loaded networks
CANCEL_GRACE_S = 5.0  # a worker that does not stop by itself in this time is killed
SECRETS = ("HSEMOTION_FEEDBACK_SECRET", "HSEMOTION_REVIEW_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

log = logging.getLogger(__name__)


class JobError(RuntimeError):
    """A job cannot be accepted or is not known; the message can be shown."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is: ``done`` of ``total`` frames while running, ``message`` when it failed, ``analysis`` when it is done.

    In the phase ``download`` the weights are being fetched, and ``done`` and ``total`` are bytes.
    """

    id: str
    state: State
    phase: Phase = "analysis"
    done: int = 0
    total: int = 0
    message: str = ""
    analysis: Analysis | None = None

    @property
    def finished(self) -> bool:
        """Whether the status is final."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class _Request:
    id: str
    path: Path
    config: PipelineConfig


@dataclass(slots=True)
class _Job:
    request: _Request
    status: JobStatus
    cancel: bool = False
    asked_s: float = 0.0  # when the worker got it
    running_s: float = 0.0  # when it got the weights, as far as known
    changed_s: float = field(default_factory=time.monotonic)


def _limit_worker() -> None:
    """Keep a runaway worker from filling the disk."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))


def _limit_memory() -> None:
    """Let a hostile file run into a MemoryError instead of taking the machine's memory (Linux; elsewhere no limit)."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        status = Path("/proc/self/status").read_text("ascii")
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def work(connection: Connection, settings: Settings) -> None:
    """Body of the worker process: one request at a time until the connection closes."""
    _limit_worker()
    from hsemotion_space.engine import EngineError  # noqa: PLC0415  torch and its users live in the worker alone
    from hsemotion_space.hub.manifest import CheckpointError  # noqa: PLC0415
    from hsemotion_space.media import MediaError  # noqa: PLC0415
    from hsemotion_space.pipeline import Cancelled, Pipeline  # noqa: PLC0415

    pipeline = Pipeline(settings)
    with contextlib.suppress(CheckpointError, EngineError):  # the first job will tell
        pipeline.network("")
        pipeline.detector(PipelineConfig())
    _limit_memory()
    connection.send(("ready",))
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        if not isinstance(request, _Request):
            continue  # a cancel that arrived after its job had finished
        reporter = _Reporter(connection, Cancelled)
        try:
            pipeline.network(request.config.checkpoint, reporter.downloading)
            answer: tuple[object, ...] = ("done", pipeline.analyze(request.path, request.config, reporter.analyzing))
        except Cancelled:
            connection.recv()
            answer = ("cancelled",)
        except CheckpointError as error:
            answer = ("unavailable", str(error))
        except (MediaError, EngineError) as error:
            answer = ("failed", str(error))
        except Exception:  # the job fails, the worker lives
            reference = uuid.uuid4().hex[:8]
            log.exception("job %s failed (%s)", request.id, reference)
            answer = ("failed", f"The analysis failed for an unexpected reason. Please report it with the code {reference}.")
        connection.send(answer)


class _Reporter:
    """Sends progress of one job, not too often; a message from the other side means that the job is to stop."""

    def __init__(self, connection: Connection, stop: type[Exception]) -> None:
        self.connection, self.stop, self.last = connection, stop, 0.0

    def downloading(self, done: int, total: int) -> None:
        """Report bytes."""
        self._send("download", done, total)

    def analyzing(self, done: int, total: int) -> None:
        """Report frames."""
        self._send("analysis", done, total)

    def _send(self, phase: Phase, done: int, total: int) -> None:
        if self.connection.poll():
            raise self.stop
        if time.monotonic() - self.last >= PROGRESS_EVERY_S:
            self.last = time.monotonic()
            self.connection.send(("progress", phase, done, total))


class JobRunner:
    """Runs analyses one after the other. Safe to use from several threads; imports no torch.

    Args:
        settings: of the deployment.
        warm: start the worker at once, so that the first analysis does not wait for it.
    """

    def __init__(self, settings: Settings, warm: bool = True) -> None:
        self.settings = settings
        self.problems: dict[str, str] = {}  # why a checkpoint could not be had the last time, by its id
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[str] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._ready = False
        self._warm = warm
        self._thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, path: Path, config: PipelineConfig) -> str:
        """Queue an analysis and return its id.

        Raises:
            JobError: if too many are waiting.
        """
        with self._wake:
            self._forget_old()
            if len(self._waiting) >= MAX_WAITING:
                raise JobError(f"{MAX_WAITING} analyses are waiting already. Please try again in a minute.")
            job_id = uuid.uuid4().hex
            self._jobs[job_id] = _Job(_Request(job_id, path, config), JobStatus(job_id, "queued"))
            self._waiting.append(job_id)
            self._wake.notify_all()
            return job_id

    def status(self, job_id: str) -> JobStatus:
        """Return where a job is.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        with self._wake:
            if job_id not in self._jobs:
                minutes = round(self.settings.results_ttl_s / 60)
                raise JobError(f"This analysis is not here any more; results are kept for {minutes} minutes. Please start it again.")
            return self._jobs[job_id].status

    def watch(self, job_id: str, interval_s: float = 0.3) -> Iterator[JobStatus]:
        """Yield the status whenever it changes, and at least every ``interval_s``, until it is final."""
        while True:
            status = self.status(job_id)
            yield status
            if status.finished:
                return
            with self._wake:
                self._wake.wait(interval_s)

    def cancel(self, job_id: str) -> None:
        """Stop a job; one that has finished stays as it is.

        Raises:
            JobError: if the id is unknown.
        """
        self.status(job_id)
        with self._wake:
            job = self._jobs[job_id]
            job.cancel = True
            if job_id in self._waiting:
                self._waiting.remove(job_id)
                self._set(job, "cancelled")
            self._wake.notify_all()

    def close(self) -> None:
        """Stop the worker and the queue."""
        with self._wake:
            self._closed = True
            while self._waiting:
                self._set(self._jobs[self._waiting.popleft()], "cancelled")
            self._wake.notify_all()
        self._thread.join(timeout=10)
        self._stop_worker()

    def _set(self, job: _Job, state: State, message: str = "", analysis: Analysis | None = None) -> None:
        job.status = replace(job.status, state=state, message=message, analysis=analysis)
        job.changed_s = time.monotonic()
        self._wake.notify_all()

    def _forget_old(self) -> None:
        limit = time.monotonic() - self.settings.results_ttl_s
        for job_id in [key for key, job in self._jobs.items() if job.status.finished and job.changed_s < limit]:
            del self._jobs[job_id]

    def _serve(self) -> None:
        """Thread: take the next job, run it in the worker, record what comes back."""
        if self._warm:
            with contextlib.suppress(OSError):  # the first job tries again
                self._start_worker()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._waiting, timeout=30)
                if self._closed:
                    return
                self._forget_old()
                if not self._waiting:
                    continue
                job = self._jobs[self._waiting.popleft()]
                self._set(job, "running")
            self._run(job)

    def _start_worker(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=work, args=(remote, self.settings), name="analysis", daemon=True)
        hidden = {name: os.environ.pop(name) for name in SECRETS if name in os.environ}
        try:
            self._process.start()
        finally:
            os.environ.update(hidden)
        remote.close()
        self._ready = False

    def _stop_worker(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _run(self, job: _Job) -> None:
        try:
            if self._process is None or not self._process.is_alive():
                self._stop_worker()
                self._start_worker()
            self._converse(job)
        except (EOFError, OSError):
            self._stop_worker()
            with self._wake:
                message = "The analysis process stopped unexpectedly, perhaps for lack of memory. Try a shorter clip or a smaller picture."
                self._set(job, "cancelled" if job.cancel else "failed", "" if job.cancel else message)

    def _converse(self, job: _Job) -> None:
        """Send one request and follow its answers; kill the worker when time is up or a cancel is not obeyed."""
        connection = self._connection
        if connection is None:
            raise OSError("no worker")
        sent, told = False, 0.0
        job.asked_s = job.running_s = time.monotonic()
        while True:
            if job.cancel and not sent:
                with self._wake:
                    self._set(job, "cancelled")
                return
            if self._ready and not sent:
                connection.send(job.request)
                sent = True
                job.asked_s = job.running_s = time.monotonic()
            if connection.poll(0.05):
                answer = connection.recv()
                if answer[0] == "ready":
                    self._ready = True
                elif self._record(job, answer):
                    return
            if job.cancel and not told:
                told = time.monotonic()
                connection.send("cancel")
            overdue = time.monotonic() - job.running_s > self.settings.job_time_limit_s
            if self._closed or overdue or (told and time.monotonic() - told > CANCEL_GRACE_S):
                self._stop_worker()
                with self._wake:
                    limit = f"The analysis took longer than {self.settings.job_time_limit_s:g} s and was stopped. Try a shorter clip."
                    unwanted = self._closed or told
                    self._set(job, "cancelled" if unwanted else "failed", "" if unwanted else limit)
                return

    def _record(self, job: _Job, answer: tuple[object, ...]) -> bool:
        """Note an answer of the worker; return whether it was the last one."""
        with self._wake:
            if answer[0] == "progress":
                phase: Phase = "download" if answer[1] == "download" else "analysis"
                job.status = replace(job.status, phase=phase, done=int(str(answer[2])), total=int(str(answer[3])))
                if phase == "download" and time.monotonic() - job.asked_s < DOWNLOAD_LIMIT_S:
                    job.running_s = time.monotonic()
                self._wake.notify_all()
                return False
            if answer[0] == "done" and isinstance(answer[1], Analysis):
                self.problems.pop(answer[1].checkpoint.id, None)
                self._set(job, "done", analysis=answer[1])
            elif answer[0] == "cancelled":
                self._set(job, "cancelled")
            else:
                if answer[0] == "unavailable":
                    self.problems[job.request.config.checkpoint] = str(answer[1])
                self._set(job, "failed", str(answer[1]))
            return True
