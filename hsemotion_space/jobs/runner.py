"""Takes jobs, tells whoever asks how they are, and cancels them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from hsemotion_space.images import MediaError, sniff
from hsemotion_space.jobs.keep import Kept
from hsemotion_space.jobs.lane import WorkerLane
from hsemotion_space.jobs.requests import AnalysisRequest, ExplainRequest, FileRequest, LookRequest, Place
from hsemotion_space.jobs.status import JobError, JobStatus
from hsemotion_space.jobs.table import JobTable
from hsemotion_space.settings import PipelineConfig, Settings

MAX_BEFORE_LIVE: Final = 3  # jobs that may wait before the picture of a camera, which is worth nothing later
LIVE_BYTES: Final = 200_000  # of such a picture
MAX_CHECKPOINTS: Final = 6  # of one job; figures have as many dashes
CLIP_NICENESS: Final = 5  # of the worker for clips, so that pictures get the CPU first


class JobRunner:
    """Runs jobs in worker processes. Safe to use from several threads; imports no torch.

    With two workers, clips have one to themselves, so that nothing short waits for them; with one, short jobs go before clips that wait.
    Clients take turns (:class:`WorkerQueue`), and each has a bounded number of jobs that wait or run.

    A job does not belong to whoever submitted it: anybody with its id can ask for it, watch it or cancel it, at once and repeatedly. It
    is cancelled when nobody has asked for it for the ``PATIENCE_S`` of its kind. An analysis can be asked for until ``results_ttl_s``
    after its end, unless ``MAX_KEPT`` later ones, or ``MAX_KEPT_BYTES`` of them, take its place; other answers for seconds (``KEPT_S``).

    Args:
        settings: of the deployment.
        warm: start the workers at once, so that the first analysis does not wait for them.
        keep: folder for the files of jobs that have not ended, of this runner alone, outside of what is swept; see :class:`Kept`. If left
            out, a job fails when its file is deleted before it is read.

    Raises:
        OSError: if that folder cannot be made.
    """

    def __init__(self, settings: Settings, warm: bool = True, keep: Path | None = None) -> None:
        self._table = JobTable(settings, Kept(keep))
        short, *clips = self._table.queues
        self._lanes = [WorkerLane(self._table, short, warm), *(WorkerLane(self._table, queue, warm, CLIP_NICENESS) for queue in clips)]

    @property
    def settings(self) -> Settings:
        """What the operator chose."""
        return self._table.settings

    @property
    def problems(self) -> dict[str, str]:
        """Why a checkpoint could not be had the last time, by its id."""
        return self._table.problems

    def submit(self, path: Path, config: PipelineConfig, checkpoints: Sequence[str] = (), client: str = "") -> str:
        """Queue an analysis and return its id.

        Args:
            path: of a picture or a clip.
            config: what the user chose.
            checkpoints: ids that the file is analyzed with in one pass, in this order; the one of ``config`` if there are none.
            client: the network that the request came from; all programs of this machine are one client, the empty one.

        Raises:
            JobError: if too many are waiting, too many checkpoints are asked for, or the file is gone.
        """
        asked = tuple(dict.fromkeys(checkpoints)) or (config.checkpoint,)
        if len(asked) > MAX_CHECKPOINTS:
            raise JobError(f"At most {MAX_CHECKPOINTS} checkpoints can be run together, not {len(asked)}.")
        try:
            kind = sniff(path)
        except MediaError:  # the worker tells it, at once
            kind = "image"
        return self._queue_file(AnalysisRequest(uuid.uuid4().hex, path, config, asked, kind), client)

    def explain(self, path: Path, checkpoint: str, place: Place, what: tuple[str, str], client: str = "") -> str:
        """Queue the question which part of a face makes a value, and return the id of the job; its status will have ``explained``.

        Args:
            path: of the picture or clip that was analyzed.
            checkpoint: id of the one that gives the value.
            place: of the face; in a clip, the frame at this time or else the nearest is taken.
            what: name of a task and name of one of its labels.
            client: as for :meth:`submit`.

        Raises:
            JobError: if too many are waiting, or the file is gone.
        """
        return self._queue_file(ExplainRequest(uuid.uuid4().hex, path, checkpoint, place, what), client)

    def look(self, frame: bytes, checkpoint: str, client: str = "") -> str:
        """Queue the picture of a camera and return the id of the job; its status will have one analysis, for a few seconds.

        Nothing of it is written to a disk, and the picture itself is let go of as soon as it was looked at.

        Args:
            frame: an image file of at most LIVE_BYTES; unchecked.
            checkpoint: id of the one to run.
            client: as for :meth:`submit`.

        Raises:
            JobError: if more than MAX_BEFORE_LIVE jobs would go before it, or the picture is too large.
        """
        if len(frame) > LIVE_BYTES:
            raise JobError(f"The picture of the camera is too large; the limit is {LIVE_BYTES // 1000} kB.")
        table = self._table
        with table.changed:
            now_s = time.monotonic()
            table.check_room("short", client, now_s)
            job = table.add(LookRequest(uuid.uuid4().hex, frame, checkpoint), client, now_s)
            if table.queue_of("short").waiting().index(job) > MAX_BEFORE_LIVE:
                table.withdraw(job)
                raise JobError("The server is busy with other analyses. Please try again in a moment.")
            return job.request.id

    def _queue_file(self, request: FileRequest, client: str) -> str:
        """Queue a request about a file, which is kept until the job has ended."""
        table = self._table
        with table.changed:
            table.check_room(request.lane, client, time.monotonic())
        media = table.kept.take(request.path, request.id)  # a copy may take a while
        try:
            with table.changed:
                table.check_room(request.lane, client, time.monotonic())
                return table.add(replace(request, path=media), client, time.monotonic()).request.id
        except JobError:
            table.kept.drop(request.id)
            raise

    def status(self, job_id: str) -> JobStatus:
        """Return where a job is; whoever asks keeps a job that has not ended from being cancelled as abandoned.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        with self._table.changed:
            return self._look(job_id)

    def _look(self, job_id: str) -> JobStatus:
        return self._table.look(job_id, time.monotonic())

    def watch(self, job_id: str, interval_s: float = 0.3) -> Iterator[JobStatus]:
        """Yield the status at once, then whenever it changes and at least every ``interval_s``, until it is final.

        Any number of threads may watch one job, from whenever on; each sees its final status.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        status = self.status(job_id)
        yield status
        while not status.finished:
            with self._table.changed:
                self._table.changed.wait_for(partial(self._changed, job_id, status.mark), interval_s)
                status = self._look(job_id)
            yield status

    def _changed(self, job_id: str, mark: tuple[object, ...]) -> bool:
        return self._look(job_id).mark != mark

    def cancel(self, job_id: str) -> None:
        """Stop a job; one that has finished stays as it is.

        Raises:
            JobError: if the id is unknown.
        """
        with self._table.changed:
            self._look(job_id)
            self._table.stop(self._table.jobs[job_id], "", time.monotonic())

    def close(self) -> None:
        """Stop the workers and the queues."""
        with self._table.changed:
            self._table.close()
        for lane in self._lanes:
            lane.close()
