"""Serve the real page in a process of its own, as a visitor meets it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from checkpoint_makers import make_checkpoint

from hsemotion_space.feedback.records import StoredRecord
from hsemotion_space.feedback.store import FeedbackStore

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Page:
    """A running page.

    Attributes:
        url: its address.
        pid: of the process that serves it.
        folder: with its data; what visitors add lies below it too.
    """

    url: str
    pid: int
    folder: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def added(self) -> Path:
        """Folder with what visitors added."""
        [found] = self.folder.glob("hsemotion-space-*")
        return found


@contextmanager
def serve_page(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the address of :func:`start_page`."""
    with start_page(folder, environ) as page:
        yield page.url


@contextmanager
def start_page(
    folder: Path, environ: Mapping[str, str] | None = None, unsaid: Sequence[str] = (), script: str = "app.py"
) -> Iterator[Page]:
    """Yield a page with a random checkpoint on the torch engine; check that it leaves nothing behind.

    Args:
        folder: for its data.
        environ: added to its environment.
        unsaid: what it must never print, besides tracebacks.
        script: that serves the page.
    """
    if not (folder / "checkpoints").exists():  # served again with the same data
        make_checkpoint(folder / "checkpoints" / "random")
    port = free_port()
    environment = {
        **os.environ, "HSEMOTION_CHECKPOINTS": str(folder / "checkpoints"), "HSEMOTION_PORT": str(port), "HSEMOTION_ENGINE": "torch",
        "HSEMOTION_THREADS": "1", "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"),
        "HSEMOTION_FEEDBACK_DATA": str(folder / "feedback"), "PYTHONPATH": str(ROOT), **(environ or {}),
    }  # fmt: skip
    with serve([script], port, folder, environment, unsaid) as page:
        yield page
    assert not list(folder.glob("hsemotion-space-*")), "what visitors added must be gone"


@contextmanager
def serve(command: Sequence[str], port: int, folder: Path, environ: Mapping[str, str], unsaid: Sequence[str] = ()) -> Iterator[Page]:
    """Yield what a script of Python serves; it must print no traceback, and end by itself when it is told to."""
    printed = folder / "printed.txt"  # a pipe that nobody reads would stop a page that prints much
    with printed.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=dict(environ), stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url, process)
        yield Page(url, process.pid, folder)
    finally:
        process.terminate()
        process.wait(timeout=60)
    text = printed.read_text(errors="replace")
    for words in ("Traceback (most recent call last)", *unsaid):
        assert words not in text, text[-20_000:]
    assert process.returncode == 0


def read_feedback(folder: Path) -> list[StoredRecord]:
    """Return the records that a page has stored."""
    with FeedbackStore(f"sqlite:///{folder / 'feedback' / 'feedback.sqlite'}", read_only=True) as store:
        return list(store.records())


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(900):
        assert process.poll() is None, "the page stopped at once"
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the page did not start")
