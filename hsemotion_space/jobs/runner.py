"""The queue: takes jobs, runs them one after the other in the worker, tells whoever asks."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from hsemotion_space.jobs.book import Answer, Book, Job, abandoned
from hsemotion_space.jobs.keep import Kept
from hsemotion_space.jobs.process import WorkerProcess
from hsemotion_space.jobs.requests import AnalysisRequest, ExplainRequest, FileRequest, LookRequest, Place, Request
from hsemotion_space.jobs.status import Explained, JobError, JobStatus, Phase, State
from hsemotion_space.settings import PipelineConfig, Settings

MAX_WAITING: Final = 16
MAX_BEFORE_LIVE: Final = 3  # jobs that may wait when the picture of a camera comes, which is worth nothing later
LIVE_BYTES: Final = 200_000  # of such a picture
MAX_CHECKPOINTS: Final = 6  # of one job; figures have as many dashes
DOWNLOAD_LIMIT_S: Final = 1800.0  # what fetching weights may take on top of the analysis
CANCEL_GRACE_S: Final = 5.0  # a worker that does not stop by itself in this time is killed
TIDY_EVERY_S: Final = 1.0
IDLE_S: Final = 30.0  # between two tidyings without anything to do
DIED: Final = "The analysis process stopped unexpectedly, perhaps for lack of memory. Try a shorter clip or a smaller picture."


class JobRunner:
    """Runs jobs one after the other. Safe to use from several threads; imports no torch.

    A job does not belong to whoever submitted it: anybody with its id can ask for it, watch it or cancel it, at once and repeatedly. It
    is cancelled when nobody has asked for it for the ``PATIENCE_S`` of its kind. An analysis can be asked for until ``results_ttl_s``
    after its end, unless ``MAX_KEPT`` later ones, or ``MAX_KEPT_BYTES`` of them, take its place; other answers for seconds (``KEPT_S``).

    Args:
        settings: of the deployment.
        warm: start the worker at once, so that the first analysis does not wait for it.
        keep: folder for the files of jobs that have not ended, of this runner alone, outside of what is swept; see :class:`Kept`. If left
            out, a job fails when its file is deleted before it is read.

    Raises:
        OSError: if that folder cannot be made.
    """

    def __init__(self, settings: Settings, warm: bool = True, keep: Path | None = None) -> None:
        self.settings = settings
        self.problems: dict[str, str] = {}  # why a checkpoint could not be had the last time, by its id
        self._book = Book()
        self._kept = Kept(keep)
        self._worker = WorkerProcess(settings)
        self._wake = threading.Condition()
        self._closed = False
        self._tidied_s = 0.0
        self._warm = warm
        self._thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, path: Path, config: PipelineConfig, checkpoints: Sequence[str] = ()) -> str:
        """Queue an analysis and return its id.

        Args:
            path: of a picture or a clip.
            config: what the user chose.
            checkpoints: ids that the file is analyzed with in one pass, in this order; the one of ``config`` if there are none.

        Raises:
            JobError: if too many are waiting, too many checkpoints are asked for, or the file is gone.
        """
        asked = tuple(dict.fromkeys(checkpoints)) or (config.checkpoint,)
        if len(asked) > MAX_CHECKPOINTS:
            raise JobError(f"At most {MAX_CHECKPOINTS} checkpoints can be run together, not {len(asked)}.")
        return self._queue_file(AnalysisRequest(uuid.uuid4().hex, path, config, asked))

    def explain(self, path: Path, checkpoint: str, place: Place, what: tuple[str, str]) -> str:
        """Queue the question which part of a face makes a value, and return the id of the job; its status will have ``explained``.

        Args:
            path: of the picture or clip that was analyzed.
            checkpoint: id of the one that gives the value.
            place: of the face; in a clip, the frame at this time or else the nearest is taken.
            what: name of a task and name of one of its labels.

        Raises:
            JobError: if too many are waiting, or the file is gone.
        """
        return self._queue_file(ExplainRequest(uuid.uuid4().hex, path, checkpoint, place, what))

    def look(self, frame: bytes, checkpoint: str) -> str:
        """Queue the picture of a camera and return the id of the job; its status will have one analysis, for a few seconds.

        Nothing of it is written to a disk, and the picture itself is let go of as soon as it was looked at.

        Args:
            frame: an image file of at most LIVE_BYTES; unchecked.
            checkpoint: id of the one to run.

        Raises:
            JobError: if more than MAX_BEFORE_LIVE jobs are waiting, or the picture is too large.
        """
        if len(frame) > LIVE_BYTES:
            raise JobError(f"The picture of the camera is too large; the limit is {LIVE_BYTES // 1000} kB.")
        with self._wake:
            self._check_room()
            if len(self._book.waiting) > MAX_BEFORE_LIVE:
                raise JobError("The server is busy with other analyses. Please try again in a moment.")
            return self._add(LookRequest(uuid.uuid4().hex, frame, checkpoint))

    def _queue_file(self, request: FileRequest) -> str:
        """Queue a request about a file, which is kept until the job has ended."""
        with self._wake:
            self._check_room()
        media = self._kept.take(request.path, request.id)  # a copy may take a while
        try:
            with self._wake:
                self._check_room()
                return self._add(replace(request, path=media))
        except JobError:
            self._kept.drop(request.id)
            raise

    def _add(self, request: Request) -> str:
        self._book.add(request, time.monotonic())
        self._wake.notify_all()
        return request.id

    def _check_room(self) -> None:
        if self._closed:
            raise JobError("The server is being stopped. Please try again in a minute.")
        self._tidy()
        if len(self._book.waiting) >= MAX_WAITING:
            raise JobError(f"{MAX_WAITING} analyses are waiting already. Please try again in a minute.")

    def status(self, job_id: str) -> JobStatus:
        """Return where a job is; whoever asks keeps a job that has not ended from being cancelled as abandoned.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        with self._wake:
            return self._look(job_id)

    def _look(self, job_id: str) -> JobStatus:
        job = self._book.jobs.get(job_id)
        if job is None:
            minutes = round(self.settings.results_ttl_s / 60)
            raise JobError(f"This analysis is not here any more; results are kept for {minutes} minutes at most. Please start it again.")
        job.asked_s = time.monotonic()
        return self._book.look(job)

    def watch(self, job_id: str, interval_s: float = 0.3) -> Iterator[JobStatus]:
        """Yield the status at once, then whenever it changes and at least every ``interval_s``, until it is final.

        Any number of threads may watch one job, from whenever on; each sees its final status.

        Raises:
            JobError: if the id is unknown or its result was deleted.
        """
        status = self.status(job_id)
        yield status
        while not status.finished:
            with self._wake:
                self._wake.wait_for(partial(self._changed, job_id, status.mark), interval_s)
                status = self._look(job_id)
            yield status

    def _changed(self, job_id: str, mark: tuple[object, ...]) -> bool:
        return self._look(job_id).mark != mark

    def cancel(self, job_id: str) -> None:
        """Stop a job; one that has finished stays as it is.

        Raises:
            JobError: if the id is unknown.
        """
        with self._wake:
            self._look(job_id)
            self._stop(self._book.jobs[job_id], "")

    def close(self) -> None:
        """Stop the worker and the queue."""
        with self._wake:
            self._closed = True
            for job_id in list(self._book.waiting):
                self._end(self._book.jobs[job_id], "cancelled")
            self._wake.notify_all()
        self._thread.join(timeout=10)
        self._worker.stop()

    def _stop(self, job: Job, reason: str) -> None:
        """Let a job end as soon as possible."""
        if not job.status.finished and not job.cancel:
            job.cancel, job.reason = True, reason
            if job.status.state == "queued":
                self._end(job, "cancelled", reason)
            self._wake.notify_all()

    def _end(self, job: Job, state: State, message: str = "", answer: Answer = ()) -> None:
        """Note the end of a job, unless it has ended already, and let go of its file."""
        if job.status.finished:
            return
        now_s = time.monotonic()
        self._book.end(job, state, now_s, message, answer)
        self._book.forget(now_s, self.settings.results_ttl_s)
        self._kept.drop(job.request.id)
        self._wake.notify_all()

    def _tidy(self) -> None:
        """Forget old results and cancel what nobody asks for any more."""
        self._tidied_s = time.monotonic()
        self._book.forget(self._tidied_s, self.settings.results_ttl_s)
        for job in self._book.abandoned(self._tidied_s):
            self._stop(job, abandoned(job.request))

    def _serve(self) -> None:
        """Thread: take the next job, run it in the worker, record what comes back."""
        if self._warm:
            with contextlib.suppress(OSError):  # the first job tries again
                self._worker.start()
        while True:
            with self._wake:
                pause_s = TIDY_EVERY_S if self._book.passing else IDLE_S
                self._wake.wait_for(lambda: self._closed or self._book.waiting, timeout=pause_s)
                if self._closed:
                    return
                self._tidy()
                job = self._book.take()
                self._wake.notify_all()
            if job is not None:
                self._run(job)
            del job  # or it would keep an answer until the next job comes

    def _run(self, job: Job) -> None:
        try:
            if not self._worker.alive:
                self._worker.start()
            self._converse(job)
        except (EOFError, OSError):
            self._worker.stop()
            with self._wake:
                self._end(job, "cancelled" if job.cancel else "failed", job.reason if job.cancel else DIED)

    def _converse(self, job: Job) -> None:
        """Send one request and follow its answers; kill the worker when time is up or a cancel is not obeyed."""
        sent, told_s = False, 0.0
        job.sent_s = job.running_s = time.monotonic()
        while not job.status.finished:
            if job.cancel and not sent:
                with self._wake:
                    self._end(job, "cancelled", job.reason)
                return
            if self._worker.ready and not sent:
                self._worker.send(job.request)
                sent, job.sent_s, job.running_s = True, time.monotonic(), time.monotonic()
            answer = self._worker.receive()
            now_s = time.monotonic()
            with self._wake:
                if now_s - self._tidied_s > TIDY_EVERY_S:
                    self._tidy()
                if answer is not None:
                    self._record(job, answer)
            if job.cancel and sent and not told_s and not job.status.finished:
                told_s = now_s
                self._worker.send("cancel")
            if not job.status.finished and self._is_due(job, told_s, now_s):
                self._worker.stop()
                with self._wake:
                    unwanted = self._closed or job.cancel
                    self._end(job, "cancelled" if unwanted else "failed", job.reason if unwanted else self._late(job))

    def _is_due(self, job: Job, told_s: float, now_s: float) -> bool:
        """Return whether the worker must be killed: at the end of the runner, of the time of the job, or of the patience after a cancel."""
        overdue = now_s - job.running_s > self.settings.job_time_limit_s
        return self._closed or overdue or (told_s > 0 and now_s - told_s > CANCEL_GRACE_S)

    def _late(self, job: Job) -> str:
        fewer = " or fewer checkpoints" if len(job.request.checkpoints) > 1 else ""
        advice = "Please try again later." if job.passing else f"Try a shorter clip{fewer}."
        return f"The analysis took longer than {self.settings.job_time_limit_s:g} s and was stopped. {advice}"

    def _record(self, job: Job, answer: tuple[object, ...]) -> None:
        """Note an answer of the worker."""
        kind, *rest = answer
        if kind == "progress":
            phase: Phase = "download" if rest[0] == "download" else "analysis"
            job.status = replace(job.status, phase=phase, done=int(str(rest[1])), total=int(str(rest[2])))
            now_s = time.monotonic()
            if phase == "download" and now_s - job.sent_s < DOWNLOAD_LIMIT_S:
                job.running_s = now_s
            self._wake.notify_all()
        elif kind == "done" and isinstance(rest[0], tuple):
            for analysis in rest[0]:
                self.problems.pop(analysis.checkpoint.id, None)
            self._end(job, "done", answer=rest[0])
        elif kind == "done" and isinstance(rest[0], Explained):
            self._end(job, "done", answer=rest[0])
        elif kind == "cancelled":
            self._end(job, "cancelled", job.reason)
        else:
            if kind == "unavailable":
                self.problems[str(rest[1])] = str(rest[0])
            self._end(job, "failed", str(rest[0]))
