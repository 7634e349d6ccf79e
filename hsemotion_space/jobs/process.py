"""The worker process, from the outside: start it, talk to it, kill it."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Final

from hsemotion_space.environment import is_secret
from hsemotion_space.jobs.worker import work
from hsemotion_space.settings import Settings

POLL_S: Final = 0.05


class WorkerProcess:
    """One warm worker, which is used by one thread. Every method may raise an OSError or EOFError when the process has died.

    Attributes:
        ready: whether it has said that it takes requests.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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
        self.process = context.Process(target=work, args=(remote, self.settings), name="analysis", daemon=True)
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
