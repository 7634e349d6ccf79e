"""Serve the real page in a process of its own, as a visitor meets it."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from checkpoint_makers import make_checkpoint
from PIL import Image

from hsemotion_space.feedback.record import FeedbackRecord
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
        "HSEMOTION_FEEDBACK_DATA": str(folder / "feedback"), "PYTHONPATH": str(ROOT),
        "HSEMOTION_JOB_TIME_LIMIT_S": "900", **(environ or {}),
    }  # fmt: skip
    with serve([script], port, folder, environment, unsaid) as page:
        yield page
    assert not list(folder.glob("hsemotion-space-*")), "what visitors added must be gone"


@contextmanager
def serve(
    command: Sequence[str],
    port: int,
    folder: Path,
    environ: Mapping[str, str],
    unsaid: Sequence[str] = (),
    **options: Any,
) -> Iterator[Page]:
    """Yield what a script of Python serves; it must print no traceback, and end by itself when it is told to."""
    printed = folder / "printed.txt"  # a pipe that nobody reads would stop a page that prints much
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], env=dict(environ), stdout=output, stderr=subprocess.STDOUT,
            **{"cwd": ROOT, **options},
        )  # fmt: skip
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


def read_feedback(folder: Path) -> list[FeedbackRecord]:
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


def upload(page: str, name: str, content: bytes) -> str:
    answer = httpx.post(f"{page}/gradio_api/upload", files={"files": (name, content)}, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def function_index(page: str, event: str, **properties: object) -> int:
    """Return the number of what the first component with some properties does at an event."""
    config = httpx.get(f"{page}/config").json()
    wanted = next(
        item["id"]
        for item in config["components"]
        if properties.items() <= {"type": item["type"], **item["props"]}.items()
    )
    return next(
        number for number, item in enumerate(config["dependencies"]) if [wanted, event] in item["targets"]
    )


def call(page: str, number: int, session: str, data: list[object]) -> str:
    body = {"data": data, "fn_index": number, "session_hash": session, "event_data": None, "trigger_id": None}
    return httpx.post(f"{page}/gradio_api/run/predict", json=body, timeout=60).text


def file_data(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def analyze_picture(page: str, data: list[object]) -> str:
    """Add a picture as the page does, ask until there is a result, and return that."""
    session = f"test{time.monotonic_ns()}"
    answer = call(
        page,
        function_index(page, "upload", file_count="multiple"),
        session,
        [None, None, [data[0]], *data[1:], [], 10, 1],
    )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if "role='progressbar'" not in answer:
            return answer
        answer = call(page, function_index(page, "tick", type="timer"), session, [None, None, "random", None])
    raise AssertionError(answer)
