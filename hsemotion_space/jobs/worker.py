"""The worker process, from its inside: one request at a time, with progress and cancel."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from hsemotion_space.jobs.status import Phase
from hsemotion_space.settings import PipelineConfig, Settings

PROGRESS_EVERY_S: Final = 0.1
MEMORY_BYTES: Final = 4 * 2**30  # what one analysis may take on top of the loaded networks
FILE_BYTES: Final = 2**30  # the largest file that the worker may write

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What the worker is asked for: one file, one or several checkpoints."""

    id: str
    path: Path
    config: PipelineConfig
    checkpoints: tuple[str, ...]


def _limit_worker() -> None:
    """Keep a runaway worker from filling the disk."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


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
        if not isinstance(request, Request):
            continue  # a cancel that arrived after its job had finished
        reporter, loading = _Reporter(connection, Cancelled), ""
        try:
            for loading in request.checkpoints:
                pipeline.network(loading, reporter.downloading)
            analyses = pipeline.analyze_all(request.path, request.checkpoints, request.config, reporter.analyzing)
            answer: tuple[object, ...] = ("done", analyses)
        except Cancelled:
            connection.recv()
            answer = ("cancelled",)
        except CheckpointError as error:
            answer = ("unavailable", str(error), loading)
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
