"""A small page with nothing but the viewer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from browser_makers import Open, playwright
from page_makers import ROOT, free_port, serve
from viewer_makers import HELPERS, put


@pytest.fixture(scope="session")
def viewer_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("viewer"), free_port()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with serve(["tests/viewer_page.py", str(port), str(folder)], port, folder, environ) as page:
        yield page.url


@pytest.fixture
def show(new_page: Open, viewer_url: str) -> Iterator[Open]:
    """A function that opens the page with a value; afterwards no error may have been printed."""
    errors: list[str] = []

    def opened(name: str, *, theme: str = "light", **options: object) -> playwright.Page:
        page = new_page(f"{viewer_url}/?__theme={theme}", theme=theme, **options)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.evaluate(HELPERS)
        put(page, name)
        return page

    yield opened
    assert [error for error in errors if "404" not in error] == []
