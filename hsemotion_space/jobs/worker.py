"""The worker process, from its inside: its limits, and its loop over requests."""

from __future__ import annotations

import contextlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from hsemotion_space.settings import Settings

MEMORY_BYTES: Final = 4 * 2**30  # what one analysis may take on top of the loaded networks
FILE_BYTES: Final = 2**30  # the largest file that the worker may write


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
    from hsemotion_space.jobs.answers import respond, warm_pipeline  # noqa: PLC0415  torch lives in the worker alone

    pipeline = warm_pipeline(settings)
    _limit_memory()
    connection.send(("ready",))
    with contextlib.suppress(EOFError, OSError):
        while True:
            respond(pipeline, connection)
