"""The worker process: from the outside started, talked to and killed; from the inside its limits and its loop over requests."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

from hsemotion_space.environment import is_secret
from hsemotion_space.settings import Settings

POLL_S: Final = 0.05
MEMORY_BYTES: Final = 4 * 2**30  # what one analysis may take on top of the loaded networks
FILE_BYTES: Final = 2**30  # the largest file that the worker may write

_environment: Final = threading.Lock()  # held while secrets are out of it


class WorkerProcess:
    """One warm worker, which is used by one thread. Every method may raise an OSError or EOFError when the process has died.

    Args:
        settings: of the deployment; its secrets stay here.
        niceness: added to that of this process; others get the CPU first.

    Attributes:
        ready: whether it has said that it takes requests.
    """

    def __init__(self, settings: Settings, niceness: int = 0) -> None:
        self.settings = settings.without_secrets()
        self.niceness = niceness
        self.ready = False
        self.process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs, ready or not."""
        return self.process is not None and self.process.is_alive()

    def start(self) -> None:
        """Start the process in place of one that may be there, without the secrets of this one."""
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self.process = context.Process(target=work, args=(remote, self.settings, self.niceness), name="analysis", daemon=True)
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
        """Send a request, or ``cancel`` for the one that runs."""
        self._open.send(message)

    def receive(self) -> tuple[object, ...] | None:
        """Return the next answer about a job, None if there is none within POLL_S."""
        if not self._open.poll(POLL_S):
            return None
        answer = self._open.recv()
        if answer[0] == "ready":
            self.ready = True
            return None
        return tuple(answer)

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise OSError("There is no worker.")
        return self._connection


def work(connection: Connection, settings: Settings, niceness: int = 0) -> None:
    """Body of the worker process: one request at a time until the connection closes."""
    _limit_worker(niceness)
    from hsemotion_space.jobs.answers import respond, warm_pipeline  # noqa: PLC0415  torch lives in the worker alone

    pipeline = warm_pipeline(settings)
    _limit_memory()
    with contextlib.suppress(EOFError, OSError):
        connection.send(("ready",))
        while True:
            respond(pipeline, connection)


def _limit_worker(niceness: int) -> None:
    """Let others go first, before any thread is there, end with the server even if that is killed, and fill no disk."""
    with contextlib.suppress(ImportError, OSError, AttributeError):  # Linux; elsewhere a worker ends when it next listens
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
    """Let a hostile file run into a MemoryError instead of taking the machine's memory (Linux; elsewhere no limit)."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        status = Path("/proc/self/status").read_text("ascii")
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
