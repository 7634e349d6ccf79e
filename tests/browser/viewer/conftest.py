"""A small page with nothing but the viewer, in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from browser_makers import playwright, start_browser
from page_makers import ROOT, free_port
from viewer_makers import HELPERS, Open, put


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("viewer"), free_port()
    process = subprocess.Popen(
        [sys.executable, "tests/viewer_page.py", str(port), str(folder)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (process.stdout.read() if process.stdout else b"").decode()
            try:
                if httpx.get(address, timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output.decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


@pytest.fixture
def show(browser: playwright.Browser, url: str) -> Iterator[Open]:
    """Yield a function that opens the page with a value; afterwards no error and no foreign request may have occurred."""
    pages, errors, requested = [], [], []

    def opened(name: str, width: int = 1280, theme: str = "light", motion: str = "no-preference") -> playwright.Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion=motion)
        pages.append(page)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{url}/?__theme={theme}")
        page.evaluate(HELPERS)
        put(page, name)
        return page

    yield opened
    for page in pages:
        page.close()
    assert [error for error in errors if "404" not in error] == []
    assert not [address for address in requested if not address.startswith((url, "data:", "blob:"))], "nothing may come from elsewhere"
