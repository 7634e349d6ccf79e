"""One thread with one worker: it takes the jobs of a queue one after the other and notes what comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import Final

from hsemotion_space.jobs.queue import Job, WorkerQueue
from hsemotion_space.jobs.status import Explained, Phase
from hsemotion_space.jobs.table import JobTable
from hsemotion_space.jobs.worker import WorkerProcess

DOWNLOAD_LIMIT_S: Final = 1800.0  # what fetching weights may take on top of the analysis
CANCEL_GRACE_S: Final = 5.0  # a worker that does not stop by itself in this time is killed
TIDY_EVERY_S: Final = 1.0
IDLE_S: Final = 30.0  # between two tidyings without anything to do
DIED: Final = "The analysis process stopped unexpectedly, perhaps for lack of memory. Try a shorter clip or a smaller picture."


class WorkerLane:
    """Serves one queue until the table is closed. Nothing that happens to its worker reaches another lane.

    Args:
        table: of all jobs.
        queue: one of its queues.
        warm: start the worker at once, so that the first job does not wait for it.
        niceness: of the worker.
    """

    def __init__(self, table: JobTable, queue: WorkerQueue, warm: bool, niceness: int = 0) -> None:
        self.worker = WorkerProcess(table.settings, niceness)
        self.thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
        self._table, self._queue, self._warm = table, queue, warm
        self.thread.start()

    def close(self) -> None:
        """Wait for the thread, which ends when the table is closed, and stop the worker."""
        self.thread.join(timeout=10)
        self.worker.stop()

    def _serve(self) -> None:
        """Thread: take the next job, run it in the worker, record what comes back."""
        table = self._table
        if self._warm:
            with contextlib.suppress(OSError):  # the first job tries again
                self.worker.start()
        while True:
            with table.changed:
                pause_s = TIDY_EVERY_S if table.passing else IDLE_S
                table.changed.wait_for(lambda: table.closed or len(self._queue), timeout=pause_s)
                if table.closed:
                    return
                table.tidy(time.monotonic())
                job = table.take(self._queue)
            if job is not None:
                self._run(job)
            del job  # or it would keep an answer until the next job comes

    def _run(self, job: Job) -> None:
        try:
            if not self.worker.alive:
                self.worker.start()
            self._converse(job)
        except (EOFError, OSError):
            self.worker.stop()
            self._end(job, DIED)

    def _converse(self, job: Job) -> None:
        """Send one request and follow its answers; kill the worker when time is up or a cancel is not obeyed."""
        table, sent, told_s = self._table, False, 0.0
        began_s = time.monotonic()
        while not job.status.finished:
            if job.cancel and not sent:
                return self._end(job)
            if self.worker.ready and not sent:
                self.worker.send(job.request)
                sent, job.sent_s = True, time.monotonic()
                job.running_s = job.sent_s
            answer = self.worker.receive()
            now_s = time.monotonic()
            with table.changed:
                if now_s - table.tidied_s > TIDY_EVERY_S:
                    table.tidy(now_s)
                if answer is not None:
                    self._record(job, answer, now_s)
            if job.cancel and sent and not told_s and not job.status.finished:
                told_s = now_s
                self.worker.send("cancel")
            if not job.status.finished and self._is_due(job.running_s or began_s, told_s, now_s):
                self.worker.stop()
                self._end(job, self._late(job))
        return None

    def _is_due(self, running_s: float, told_s: float, now_s: float) -> bool:
        """Return whether the worker must be killed: at the end of the runner, of the time of the job, or of the patience after a cancel."""
        overdue = now_s - running_s > self._table.settings.job_time_limit_s
        return self._table.closed or overdue or (told_s > 0 and now_s - told_s > CANCEL_GRACE_S)

    def _end(self, job: Job, problem: str = "") -> None:
        """Note that a job failed, or was cancelled, if that was wanted."""
        with self._table.changed:
            unwanted = self._table.closed or job.cancel
            self._table.end(job, "cancelled" if unwanted else "failed", time.monotonic(), job.reason if unwanted else problem)

    def _late(self, job: Job) -> str:
        fewer = " or fewer checkpoints" if len(job.request.checkpoints) > 1 else ""
        advice = "Please try again later." if job.passing else f"Try a shorter clip{fewer}."
        return f"The analysis took longer than {self._table.settings.job_time_limit_s:g} s and was stopped. {advice}"

    def _record(self, job: Job, answer: tuple[object, ...], now_s: float) -> None:
        """Note an answer of the worker."""
        table, (kind, *rest) = self._table, answer
        if kind == "progress":
            phase: Phase = "download" if rest[0] == "download" else "analysis"
            job.status = replace(job.status, phase=phase, done=int(str(rest[1])), total=int(str(rest[2])))
            if phase == "download" and now_s - job.sent_s < DOWNLOAD_LIMIT_S:
                job.running_s = now_s
            table.changed.notify_all()
        elif kind == "done" and isinstance(rest[0], tuple):
            for analysis in rest[0]:
                table.problems.pop(analysis.checkpoint.id, None)
            table.end(job, "done", now_s, answer=rest[0])
        elif kind == "done" and isinstance(rest[0], Explained):
            table.end(job, "done", now_s, answer=rest[0])
        elif kind == "cancelled":
            table.end(job, "cancelled", now_s, job.reason)
        else:
            if kind == "unavailable":
                table.problems[str(rest[1])] = str(rest[0])
            table.end(job, "failed", now_s, str(rest[0]))
