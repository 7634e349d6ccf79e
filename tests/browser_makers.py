"""Start the system's Chromium and open the page in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 120_000
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@contextmanager
def start_browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def open_page(browser: playwright.Browser, url: str, theme: str, width: int, *, agreed: bool = True) -> tuple[playwright.Page, list[str]]:
    """Return the open page, whose analyses are agreed to, and the growing list of what it asked for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.set_default_timeout(PATIENCE_MS)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{url}/?__theme={theme}")
    page.get_by_role("heading", name="HSEmotion Space").wait_for()
    if agreed:
        page.get_by_label("Analyze what I add").check()
    return page, requested


def open_tab(page: playwright.Page, name: str) -> None:
    """Open a tab, which a narrow page has in the menu behind its dots."""
    tab = page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    if not tab.count():
        page.locator(".overflow-menu:visible button").first.click()
        tab = page.locator(".overflow-dropdown:visible").get_by_text(name, exact=True)
    tab.click()


def choose(page: playwright.Page, label: str, option: str, *, exact: bool = True) -> None:
    """Take an entry of a drop-down list; where the page moved away under the open list, it is opened again."""
    field = page.get_by_label(label, exact=exact).locator("visible=true")
    for _ in range(6):
        field.evaluate("field => field.scrollIntoView({ block: 'center' })")
        field.click()
        try:
            page.get_by_role("option", name=option, exact=exact).locator("visible=true").first.click(timeout=PATIENCE_MS / 12)
        except playwright.TimeoutError:
            field.blur()
        else:
            return
    raise AssertionError(f"{option} cannot be chosen")


def add_clip(page: playwright.Page, clip: Path) -> None:
    """Open the clip tab and put a clip into it."""
    page.get_by_role("tab", name="Clip").click()
    page.get_by_role("button", name="Show an example clip").wait_for()  # the tab is built when it is first opened
    page.locator("input[type=file]").last.set_input_files(clip)
    page.locator("video:visible").first.wait_for()
