"""Accepts jobs, runs them in worker processes, and reports how they are."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from hsemotion_space.jobs.gpu import Gpu, Loan
from hsemotion_space.jobs.requests import (
    AnalysisRequest,
    Explained,
    ExplainRequest,
    FileRequest,
    FrameRequest,
    JobError,
    JobStatus,
    Phase,
    Place,
)
from hsemotion_space.jobs.table import Job, JobFiles, JobTable, WorkerQueue
from hsemotion_space.jobs.worker import WorkerProcess
from hsemotion_space.media.images import MediaError, sniff
from hsemotion_space.messages import Message
from hsemotion_space.settings import PipelineConfig, Settings

MAX_BEFORE_FRAME: Final = 3  # jobs that may wait before a camera frame, which is worth nothing later
FRAME_BYTES: Final = 200_000
MAX_CHECKPOINTS: Final = 6  # of one job; figures have as many dashes
CLIP_NICENESS: Final = 5  # of the worker for clips, so that pictures get the CPU first
DOWNLOAD_LIMIT_S: Final = 1800.0  # what the download of weights may take on top of the analysis
CANCEL_GRACE_S: Final = 5.0  # a worker that does not stop by itself in this time is killed
TIDY_EVERY_S: Final = 1.0
IDLE_S: Final = 30.0  # between two tidyings without anything to do
DIED: Final = Message(
    "The analysis process stopped unexpectedly, perhaps for lack of memory. Try a shorter clip or a smaller"
    " picture.",
    code="worker_died",
)


class JobRunner:
    """Runs jobs in worker processes. Safe to use from several threads; imports no torch.

    With two workers, clips have one to themselves, so that nothing short waits for them; with one, short jobs
    go before clips that wait. Clients take turns (:class:`WorkerQueue`), and each has a bounded number of
    jobs.

    A job does not belong to whoever submitted it: anybody with its id can watch or cancel it. It is cancelled
    when nobody has requested its status for the ``PATIENCE_S`` of its kind. An analysis and its file are kept
    until ``results_ttl_s`` after its end, unless ``MAX_KEPT`` later ones, or ``MAX_KEPT_BYTES`` of them,
    replace it; other results for seconds (``KEPT_S``).

    Args:
        settings: of the deployment.
        warm: start the workers at once, so that the first analysis does not wait for them.
        root: folder of the server, see :class:`JobFiles`. If left out, a job fails when its file is deleted
            before it is read.
        gpu: runs the networks of large jobs; None where workers run everything.

    Raises:
        OSError: if the folder cannot be used.
    """

    def __init__(
        self, settings: Settings, warm: bool = True, root: Path | None = None, gpu: Gpu | None = None
    ) -> None:
        self._table, self._gpu = JobTable(settings, JobFiles(root)), gpu
        short, *clips = self._table.queues
        self._lanes = [
            WorkerLane(self._table, short, warm, gpu=gpu),
            *(WorkerLane(self._table, queue, warm, CLIP_NICENESS, gpu) for queue in clips),
        ]

    @property
    def settings(self) -> Settings:
        """Return what the operator chose."""
        return self._table.settings

    @property
    def problems(self) -> dict[str, str]:
        """Return why a checkpoint could not be loaded the last time, by its id."""
        return self._table.problems

    def submit(
        self, path: Path, config: PipelineConfig, checkpoints: Sequence[str] = (), client: str = ""
    ) -> str:
        """Queue an analysis and return its id.

        Args:
            path: of a picture or a clip.
            config: what the user chose.
            checkpoints: ids to analyze the file with in one pass, in this order; by default the one of
                ``config``.
            client: the network of the request; programs of this machine are one client, the empty one.

        Raises:
            JobError: if too many jobs wait, there are too many checkpoints, or the file is gone.
        """
        asked = tuple(dict.fromkeys(checkpoints)) or (config.checkpoint,)
        if len(asked) > MAX_CHECKPOINTS:
            text = "At most {limit} checkpoints can run together, got {count}."
            raise JobError(text, code="too_many_checkpoints", limit=MAX_CHECKPOINTS, count=len(asked))
        try:
            kind = sniff(path)
        except MediaError:  # the worker reports it
            kind = "image"
        request = AnalysisRequest(uuid.uuid4().hex, path, config, asked, kind, self._gpu is not None)
        return self._queue_file(request, client)

    def explain(
        self, path: Path, checkpoint: str, place: Place, what: tuple[str, str], client: str = ""
    ) -> str:
        """Queue an explanation of a value and return the id of the job, whose status will have ``explained``.

        Args:
            path: of the picture or clip that was analyzed.
            checkpoint: id of the one that predicts the value.
            place: of the face; in a clip, the nearest frame is used.
            what: name of a task and of one of its labels.
            client: as for :meth:`submit`.

        Raises:
            JobError: if too many jobs wait, or the file is gone.
        """
        return self._queue_file(ExplainRequest(uuid.uuid4().hex, path, checkpoint, place, what), client)

    def look(self, frame: bytes, checkpoint: str, client: str = "") -> str:
        """Queue a camera frame and return the job id; its result stays available for a few seconds.

        Nothing of it is written to a disk, and the frame is released as soon as it is analyzed.

        Args:
            frame: an image file of at most FRAME_BYTES; unchecked.
            checkpoint: id of the one to run.
            client: as for :meth:`submit`.

        Raises:
            JobError: if more than MAX_BEFORE_FRAME jobs would go before it, or the frame is too large.
        """
        if len(frame) > FRAME_BYTES:
            raise JobError(
                "The camera frame is too large; the limit is {limit} kB.",
                code="frame_too_large",
                limit=FRAME_BYTES // 1000,
            )
        table = self._table
        with table.changed:
            now_s = time.monotonic()
            table.check_room("short", client, now_s)
            job = table.add(FrameRequest(uuid.uuid4().hex, frame, checkpoint), client, now_s)
            if table.queue_of("short").waiting().index(job) > MAX_BEFORE_FRAME:
                table.forget(job)
                raise JobError("The server is busy with other analyses. Try again in a moment.", code="busy")
            return job.request.id

    def _queue_file(self, request: FileRequest, client: str) -> str:
        """Queue a request about a file, which is kept as long as the job."""
        table = self._table
        with table.changed:
            table.check_room(request.lane, client, time.monotonic())
        media = table.files.add(request.path, request.id)  # a copy may take a while
        try:
            with table.changed:
                table.check_room(request.lane, client, time.monotonic())
                job = table.add(replace(request, path=media), client, time.monotonic())
                job.visitor = copy_context() if self._gpu is not None else None
                return request.id
        except JobError:
            table.files.remove(request.id)
            raise

    def media_of(self, job_id: str) -> Path | None:
        """Return the file of a job, None if it is not kept; the id may be any text."""
        return self._table.files.find(job_id)

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        with self._table.changed:
            return self._table.status(job_id, time.monotonic())

    def watch(self, job_id: str, interval_s: float = 0.3) -> Iterator[JobStatus]:
        """Yield the status at once, on every change and at least every ``interval_s``, until it is final.

        Any number of threads may watch one job; each sees its final status.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        status = self.status(job_id)
        yield status
        while not status.finished:
            with self._table.changed:
                self._table.changed.wait_for(partial(self._changed, job_id, status.mark), interval_s)
                status = self._table.status(job_id, time.monotonic())
            yield status

    def _changed(self, job_id: str, mark: tuple[object, ...]) -> bool:
        return self._table.status(job_id, time.monotonic()).mark != mark

    def cancel(self, job_id: str) -> None:
        """Stop a job; one that has finished stays as it is.

        Raises:
            JobError: if the id is unknown.
        """
        with self._table.changed:
            self._table.status(job_id, time.monotonic())
            self._table.stop(self._table.jobs[job_id], "", time.monotonic())

    def close(self) -> None:
        """Stop the workers and the queues."""
        with self._table.changed:
            self._table.close()
        for lane in self._lanes:
            lane.close()


class WorkerLane:
    """A thread that runs the jobs of one queue in one worker; lanes do not affect each other.

    Args:
        table: of all jobs.
        queue: one of its queues.
        warm: start the worker at once.
        niceness: of the worker.
        gpu: for jobs of this lane, None if there is none.
    """

    def __init__(
        self, table: JobTable, queue: WorkerQueue, warm: bool, niceness: int = 0, gpu: Gpu | None = None
    ) -> None:
        self.worker = WorkerProcess(table.settings, niceness)
        self._gpu, self._loan = gpu, Loan()
        self.thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
        self._table, self._queue, self._warm = table, queue, warm
        self.thread.start()

    def close(self) -> None:
        """Wait for the thread, which ends when the table is closed, and stop the worker."""
        self.thread.join(timeout=10)
        self.worker.stop()

    def _serve(self) -> None:
        """Thread: run one job after the other."""
        table = self._table
        if self._warm:
            with contextlib.suppress(OSError):  # the first job tries again
                self.worker.start()
        while True:
            with table.changed:
                pause_s = TIDY_EVERY_S if table.has_short_lived else IDLE_S
                table.changed.wait_for(lambda: table.closed or len(self._queue), timeout=pause_s)
                if table.closed:
                    return
                table.tidy(time.monotonic())
                job = table.take(self._queue)
            if job is not None:
                self._run(job)
            del job  # or it would keep a result until the next job comes

    def _run(self, job: Job) -> None:
        try:
            if not self.worker.alive:
                self.worker.start()
            self._converse(job)
        except (EOFError, OSError):
            self.worker.stop()
            self._end(job, DIED)

    def _converse(self, job: Job) -> None:
        """Send one request and follow its answers; kill the worker when time is up or it ignores a cancel."""
        table, began_s, cancelled_s = self._table, time.monotonic(), 0.0
        self._loan = Loan()
        while not job.status.finished:
            if job.cancel and not job.sent_s:
                return self._end(job)
            if self.worker.ready and not job.sent_s:
                self.worker.send(job.request)
                job.running_s = job.sent_s = time.monotonic()
            answer = self.worker.receive()
            now_s = time.monotonic()
            with table.changed:
                if now_s - table.tidied_s > TIDY_EVERY_S:
                    table.tidy(now_s)
                if answer is not None:
                    self._record(job, answer, now_s)
            if not cancelled_s and (given := self._loan.take(now_s)):
                self.worker.send(given)
            if job.cancel and job.sent_s and not cancelled_s and not job.status.finished:
                cancelled_s = now_s
                self.worker.send("cancel")
            overdue = now_s - (job.running_s or began_s) > table.settings.job_time_limit_s
            ignored = cancelled_s > 0 and now_s - cancelled_s > CANCEL_GRACE_S
            if (table.closed or overdue or ignored) and not job.status.finished:
                self.worker.stop()
                self._end(job, self._timed_out(job))
        return None

    def _end(self, job: Job, problem: str = "") -> None:
        """Note that a job failed, or was cancelled, if that was wanted."""
        with self._table.changed:
            unwanted = self._table.closed or job.cancel
            self._table.end(
                job,
                "cancelled" if unwanted else "failed",
                time.monotonic(),
                job.reason if unwanted else problem,
            )

    def _timed_out(self, job: Job) -> Message:
        advice = Message(
            "Try a shorter clip or fewer checkpoints."
            if len(job.request.checkpoints) > 1
            else "Try a shorter clip."
        )
        if job.request.KEPT_S is not None:
            advice = Message("Try again later.")
        limit = self._table.settings.job_time_limit_s
        return Message(
            "The analysis took longer than {limit:g} s and was stopped. {advice}",
            code="timed_out",
            limit=limit,
            advice=advice,
        )

    def _record(self, job: Job, answer: tuple[object, ...], now_s: float) -> None:
        """Note an answer of the worker."""
        table = self._table
        match answer:
            case "progress", phase, int(done), int(total):
                known: Phase = "download" if phase == "download" else "analysis"
                job.status = replace(job.status, phase=known, done=done, total=total)
                if known == "download" and now_s - job.sent_s < DOWNLOAD_LIMIT_S:
                    job.running_s = now_s
                table.changed.notify_all()
            case "done", (tuple() | Explained()) as result:
                for analysis in result if isinstance(result, tuple) else ():
                    table.problems.pop(analysis.checkpoint.id, None)
                table.end(job, "done", now_s, answer=result)
            case "unavailable" | "failed", str(message), *checkpoint:
                table.problems |= dict.fromkeys(map(str, checkpoint), message)
                table.end(job, "failed", now_s, message)
            case "faces", faces if self._gpu and self._gpu.accepts(faces, job.request.checkpoints):
                self._loan = Loan(self._gpu.ask(job.visitor or copy_context(), faces), now_s)
            case ("cancelled",):
                table.end(job, "cancelled", now_s, job.reason)
            case _:
                raise EOFError  # a message that is not known: it is replaced as if it had died
