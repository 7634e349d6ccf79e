"""Accepts jobs, runs them in worker processes, and reports how they are."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from hsemotion_space.edits import Edits
from hsemotion_space.jobs.files import JobFiles
from hsemotion_space.jobs.gpu import Gpu
from hsemotion_space.jobs.lane import WorkerLane
from hsemotion_space.jobs.requests import (
    AnalysisRequest,
    ExplainRequest,
    FileRequest,
    FrameRequest,
    JobError,
    JobStatus,
    Place,
    WorkerStatus,
)
from hsemotion_space.jobs.table import JobTable
from hsemotion_space.logs import log_event
from hsemotion_space.media.formats import MediaError, sniff
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis

MAX_BEFORE_FRAME: Final = 3  # jobs that may wait before a camera frame, which is worth nothing later
FRAME_BYTES: Final = 200_000
MAX_CHECKPOINTS: Final = 6  # of one job; figures have as many dashes
CLIP_NICENESS: Final = 5  # of the worker for clips, so that pictures get the CPU first


@contextlib.contextmanager
def _log_refusals(kind: str, level: int = logging.INFO) -> Iterator[None]:
    try:
        yield
    except JobError as error:
        log_event("refusal", level, where="queue", kind=kind, code=error.code)
        raise


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

    @_log_refusals("analysis")
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

    @_log_refusals("explanation")
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

    @_log_refusals("frame", logging.DEBUG)
    def analyze_frame(self, frame: bytes, checkpoint: str, client: str = "") -> str:
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

    def add_finished(
        self, analyses: tuple[Analysis, ...], config: PipelineConfig, edits: Edits, client: str = ""
    ) -> str:
        """Keep analyses that were read from a session file as a job that is done, and return its id.

        Args:
            analyses: of one media file.
            config: that they were made with.
            edits: that belong to them.
            client: as for :meth:`submit`.
        """
        checkpoints = tuple(one.checkpoint.id for one in analyses)
        request = AnalysisRequest(uuid.uuid4().hex, Path(), config, checkpoints, analyses[0].media.kind)
        table = self._table
        with table.changed:
            job = table.add(request, client, time.monotonic())
            job.status = replace(job.status, edits=edits)
            table.end(job, "done", time.monotonic(), answer=analyses)
        return request.id

    def edit(self, job_id: str, edits: Edits) -> None:
        """Replace the changes made by hand in the result of a job.

        Raises:
            JobError: if the id is unknown.
        """
        with self._table.changed:
            self._table.status(job_id, time.monotonic())
            job = self._table.jobs[job_id]
            job.status = replace(job.status, edits=edits)

    def attach(self, job_id: str, path: Path) -> None:
        """Keep a media file as that of a job that has none.

        Raises:
            JobError: if there is no such job or no room for the file.
        """
        self.status(job_id)
        self._table.files.add(path, job_id)

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

    @property
    def stopping(self) -> bool:
        """Return whether new jobs are refused because the server is shutting down."""
        return self._table.stopping

    def workers(self) -> list[WorkerStatus]:
        """Return how each worker and its queue are."""
        with self._table.changed:
            return [lane.status() for lane in self._lanes]

    def finish(self, grace_s: float) -> bool:
        """Refuse new jobs, cancel those that wait, and give those that run some time.

        Returns:
            Whether any ran.
        """
        table = self._table
        with table.changed:
            table.stop_taking()
            ran = any(queue.running for queue in table.queues)
            table.changed.wait_for(lambda: not any(queue.running for queue in table.queues), grace_s)
        return ran

    def close(self) -> None:
        """Stop the workers and the queues."""
        with self._table.changed:
            self._table.stop_taking()
            self._table.closed = True
            self._table.changed.notify_all()
        for lane in self._lanes:
            lane.close()
