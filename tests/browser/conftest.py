"""One browser and one page for all tests here; each test is a visitor of its own who finds nothing that
others left."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from browser_makers import (
    CHROMIUM,
    ELSEWHERE,
    FLAGS,
    PATIENCE_MS,
    REVIEW_TOKEN,
    Open,
    open_tab,
    playwright,
    write_camera,
)
from checkpoint_makers import make_checkpoint
from page_makers import ROOT, Page, start_page

from hsemotion_space.feedback.record import FeedbackRecord
from hsemotion_space.feedback.store import FeedbackStore

STARTERS = ("mobilefacenet-starter", "efficientnet-lite0-starter")
OURS = ("http://127.0.0.1:", f"http://{ELSEWHERE}:", "about:", "data:", "blob:")
TABLES = (
    "feedback_crops", "feedback_copies", "feedback_reviews", "feedback_records", "feedback_batches", "feedback_erasures",
    "feedback_tombstones",
)  # fmt: skip
NETWORKS = (f"10.0.{number // 250}.{number % 250 + 1}" for number in itertools.count())


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[playwright.Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    camera = write_camera(tmp_path_factory.mktemp("camera") / "camera.mjpeg")
    with playwright.sync_playwright() as driver:
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={camera}"]
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page with two starters and two networks of random weights."""
    folder = tmp_path_factory.mktemp("page")
    for name in STARTERS:
        shutil.copytree(ROOT / "checkpoints" / name, folder / "checkpoints" / name)
    for seed, name in enumerate(("random", "second")):
        make_checkpoint(folder / "checkpoints" / name, seed=seed, settled=True)
    (folder / "checkpoints" / "second" / "README.md").write_text(
        "---\nlicense: x\n---\n# The second card\n", "utf-8"
    )
    environ = {"HSEMOTION_REVIEW_TOKEN": REVIEW_TOKEN, "HSEMOTION_HOSTS": ELSEWHERE}
    with start_page(folder, environ, script="tests/visited_page.py") as page:
        yield page


@pytest.fixture
def new_page(browser: playwright.Browser) -> Iterator[Open]:
    """A function that opens an address for a visitor from a network of their own, with a script or a clock
    that can be set.

    Afterwards no script may have failed, and nothing may have been asked for elsewhere.
    """
    pages: list[playwright.Page] = []
    errors: list[str] = []
    requested: list[str] = []

    def open_new(
        address: str,
        theme: str = "light",
        width: int = 1280,
        script: str = "",
        clock: bool = False,
        **options: object,
    ) -> playwright.Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme,
            extra_http_headers={"X-Forwarded-For": next(NETWORKS)}, **options,
        )  # fmt: skip
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        if clock:
            page.clock.install()
        if script:
            page.add_init_script(script)
        page.goto(address)
        return page

    yield open_new
    for page in pages:
        if not page.is_closed():
            page.unroute_all(behavior="ignoreErrors")
            page.context.close()
    assert errors == []
    assert not [address for address in requested if not address.startswith(OURS)]


@pytest.fixture
def visit(new_page: Open, served: Page) -> Open:
    """A function that opens the page, on which nobody has given anything yet, at one of its tabs."""
    replace_feedback(served.folder)

    def open_at(
        tab: str = "", *, url: str = served.url, theme: str = "light", agreed: bool = True, **options: object
    ) -> playwright.Page:
        page = new_page(f"{url}/?__theme={theme}", theme=theme, **options)
        page.get_by_role("heading", name="HSEmotion Space").wait_for()
        if agreed:
            page.locator("#agreed input").check()
        if tab:
            open_tab(page, tab)
        return page

    return open_at


@pytest.fixture
def add_feedback(visit: Open, served: Page, tmp_path: Path) -> Callable[..., list[str]]:
    """A function that puts records on the page, and returns their ids."""

    def add(*records: FeedbackRecord) -> list[str]:
        with FeedbackStore(f"sqlite:///{tmp_path / 'added.sqlite'}", reserve_bytes=0) as store:
            ids = [store.add(record).id for record in records]
        replace_feedback(served.folder, tmp_path / "added.sqlite")
        return ids

    return add


def replace_feedback(folder: Path, other: Path | None = None) -> None:
    """Put the records of another database, or none, in the place of those of a running page."""
    with closing(sqlite3.connect(folder / "feedback" / "feedback.sqlite", timeout=60)) as database:
        if other is not None:
            database.execute("ATTACH ? AS other", [str(other)])
        with database:
            for table in TABLES:
                database.execute(f"DELETE FROM main.{table}")
                if other is not None:
                    database.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table}")
