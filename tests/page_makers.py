"""Serve the real page in a process of its own, as a visitor meets it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from checkpoint_makers import make_checkpoint

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serve_page(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the address of a page with a random checkpoint on the torch engine; check that it leaves nothing behind.

    ``environ`` is added to its environment.
    """
    if not (folder / "checkpoints").exists():  # served again with the same data
        make_checkpoint(folder / "checkpoints" / "random")
    port = free_port()
    environment = {
        **os.environ, "HSEMOTION_CHECKPOINTS": str(folder / "checkpoints"), "HSEMOTION_PORT": str(port), "HSEMOTION_ENGINE": "torch",
        "HSEMOTION_THREADS": "1", "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"),
        "HSEMOTION_FEEDBACK_DATA": str(folder / "feedback"), **(environ or {}),
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    refusals = len(re.findall(rb"\ngradio\.exceptions\.(?:Error|InvalidPathError): ", output))  # Gradio prints what it refuses by itself
    assert output.count(b"Traceback (most recent call last)") == refusals, output.decode()
    assert process.returncode == 0
    assert not list(folder.glob("hsemotion-space-*")), "what visitors added must be gone"


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(900):
        assert process.poll() is None, "the page stopped at once"
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the page did not start")
