"""The page in a real browser: upload, read, switch, at several widths and in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_makers import add_clip, needs_chromium, open_page, playwright, start_browser
from face_makers import picture_with
from media_makers import write_clip
from page_makers import serve_page
from PIL import Image

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_page(tmp_path_factory.mktemp("browser")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_picture_from_upload_to_charts(browser: playwright.Browser, url: str, tmp_path: Path, theme: str, width: int) -> None:
    picture = tmp_path / "two.png"
    Image.fromarray(picture_with([(10, 20), (170, 60)], (240, 320))).save(picture)
    page, requested = open_page(browser, url, theme, width)
    page.locator("input[type=file]").first.set_input_files(picture)
    table = page.locator(".face-table:visible")
    table.wait_for()
    assert table.get_by_role("row").count() == 3
    assert table.get_by_role("columnheader", name="Face", exact=True).count() == 1
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth"), "all of it is seen at once, on a telephone too"
    viewer = page.locator(".linked-viewer:visible")
    for face in ("Face 1", "Face 2"):
        viewer.get_by_text(face, exact=True).first.wait_for()
    assert viewer.get_by_text("rule, not trained").count()
    page.get_by_role("button", name="Clear").or_(page.get_by_role("button", name="Remove Image")).first.click()
    page.get_by_text("Add a picture to see").wait_for()
    page.get_by_role("button", name="Analyze").locator("visible=true").click()
    page.get_by_text("Please add a picture first.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"
    assert not [address for address in requested if not address.startswith((url, "data:", "blob:"))], "nothing may come from elsewhere"
    page.close()


def test_clip_without_a_face_says_so(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    clip = tmp_path / "gray.mp4"
    write_clip(clip, [np.full((96, 128, 3), 120, np.uint8)] * 12)
    page, _ = open_page(browser, url, "light", 1280)
    add_clip(page, clip)
    page.get_by_role("button", name="Analyze").locator("visible=true").click()
    page.locator(".notices:visible", has_text="No face was found").wait_for()
    page.close()


def test_clip_button_without_a_clip_explains(browser: playwright.Browser, url: str) -> None:
    page, _ = open_page(browser, url, "light", 1280)
    page.get_by_role("tab", name="Clip").click()
    page.get_by_role("button", name="Analyze").locator("visible=true").click()
    page.get_by_text("Please add a clip first.").wait_for()
    page.close()


def test_a_new_picture_takes_the_place_of_a_running_one(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    Image.fromarray(picture_with([(10, 20), (170, 60)], (240, 320))).save(old)
    Image.new("RGB", (200, 200), "gray").save(new)
    page, _ = open_page(browser, url, "light", 1280)
    page.locator("input[type=file]").first.set_input_files(old)
    page.get_by_role("button", name="Clear").or_(page.get_by_role("button", name="Remove Image")).first.click()
    page.locator("input[type=file]").first.set_input_files(new)
    page.locator(".notices:visible", has_text="No face was found").wait_for()
    page.wait_for_timeout(1500)
    assert page.locator(".face-table:visible").count() == 0
    page.close()


@pytest.mark.parametrize("kind", ["picture", "clip"])
def test_an_example_is_one_click_away_and_is_nobody_s_to_correct(browser: playwright.Browser, url: str, kind: str) -> None:
    page, _ = open_page(browser, url, "light", 1280, agreed=False)
    page.get_by_role("tab", name=kind.capitalize()).click()
    page.get_by_role("button", name=f"Show an example {kind}").click()
    page.locator(".face-table:visible").wait_for()
    assert page.locator(".face-table:visible").get_by_role("row").count() == 2
    assert page.get_by_role("button", name="Is this right?").locator("visible=true").count() == 0
    page.close()
