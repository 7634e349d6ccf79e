"""A thread that runs jobs in one worker process: progress, cancel, time limit, crash recovery."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from dataclasses import replace
from typing import Final

from hsemotion_space.jobs.gpu import Gpu, Loan
from hsemotion_space.jobs.requests import Explained, Phase, WorkerState, WorkerStatus
from hsemotion_space.jobs.table import Job, JobTable, WorkerQueue
from hsemotion_space.jobs.worker import WorkerProcess
from hsemotion_space.messages import Message

DOWNLOAD_LIMIT_S: Final = 1800.0  # what the download of weights may take on top of the analysis
CANCEL_GRACE_S: Final = 5.0  # a worker that does not stop by itself in this time is killed
TIDY_EVERY_S: Final = 1.0
IDLE_S: Final = 30.0  # between two tidyings without anything to do
DIED: Final = Message(
    "The analysis process stopped unexpectedly, perhaps for lack of memory. Try a shorter clip or a smaller"
    " picture.",
    code="worker_died",
)


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
        self._started_s = float("-inf")
        self.thread.start()

    def status(self) -> WorkerStatus:
        """Return how the worker and its queue are; to be called with ``JobTable.changed`` held."""
        worker, process = self.worker, self.worker.process
        state: WorkerState = "stopped"
        if self.thread.is_alive():
            state = "restarting" if worker.served else "starting"
            if worker.ready and process is not None and process.is_alive():
                state = "ready"
        return WorkerStatus(
            state,
            (process.pid or 0) if process is not None else 0,
            max(worker.starts - 1, 0),
            len(self._queue),
            self._queue.running is not None,
        )

    def close(self) -> None:
        """Wait for the thread, which ends when the table is closed, and stop the worker."""
        self.thread.join(timeout=10)
        self.worker.stop()

    def _serve(self) -> None:
        """Thread: run one job after the other."""
        table = self._table
        while True:
            if self._warm:
                self._keep_warm()
            with table.changed:
                waits = table.has_short_lived or (self._warm and not self.worker.ready)
                pause_s = TIDY_EVERY_S if waits else IDLE_S
                table.changed.wait_for(lambda: table.closed or len(self._queue), timeout=pause_s)
                if table.closed:
                    return
                table.tidy(time.monotonic())
                job = table.take(self._queue)
            if job is not None:
                self._run(job)
            del job  # or it would keep a result until the next job comes

    def _keep_warm(self) -> None:
        """Start the worker if there is none, but not again and again, and hear when it is ready."""
        try:
            if self.worker.alive:
                match None if self.worker.ready else self.worker.receive():
                    case "ready", dict(problems):
                        self._table.problems |= problems
            elif time.monotonic() - self._started_s > IDLE_S:
                self._started_s = time.monotonic()
                self.worker.start()
        except (EOFError, OSError):
            self.worker.stop()

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
            case "ready", dict(problems):
                table.problems |= problems
            case _:
                raise EOFError  # a message that is not known: it is replaced as if it had died
