"""The page in a real browser: upload, read, switch, at several widths and in both themes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser_makers import (
    Open,
    add_clip,
    add_picture,
    press,
    remove_picture,
    wait_until_quiet,
    write_picture,
)
from media_makers import write_clip
from PIL import Image


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_picture_tab_shows_table_and_viewer_of_an_upload(visit: Open, tmp_path: Path, theme: str, width: int) -> None:
    page = visit(theme=theme, width=width)
    add_picture(page, write_picture(tmp_path))
    table = page.locator(".face-table:visible")
    assert table.get_by_role("row").count() == 3
    assert table.get_by_role("columnheader", name="Face", exact=True).count() == 1
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth"), "all of it is seen at once, on a telephone too"
    viewer = page.locator(".linked-viewer:visible")
    for face in ("Face 1", "Face 2"):
        viewer.get_by_text(face, exact=True).first.wait_for()
    assert viewer.get_by_text("trained", exact=True).count()
    remove_picture(page)
    page.get_by_text("Add a picture to see").wait_for()
    press(page, "Analyze")
    page.get_by_text("Please add a picture first.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"


def test_clip_tab_says_that_a_clip_or_a_face_is_missing(visit: Open, tmp_path: Path) -> None:
    clip = tmp_path / "gray.mp4"
    write_clip(clip, [np.full((96, 128, 3), 120, np.uint8)] * 12)
    page = visit("Clip")
    press(page, "Analyze")
    page.get_by_text("Please add a clip first.").wait_for()
    add_clip(page, clip)
    press(page, "Analyze")
    page.locator(".notices:visible", has_text="No face was found").wait_for()


def test_a_new_picture_takes_the_place_of_a_running_one(visit: Open, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    Image.new("RGB", (200, 200), "gray").save(new)
    page = visit()
    page.locator("input[type=file]").first.set_input_files(write_picture(tmp_path))
    remove_picture(page)
    page.locator("input[type=file]").first.set_input_files(new)
    page.locator(".notices:visible", has_text="No face was found").wait_for()
    wait_until_quiet(page)
    assert page.locator(".face-table:visible").count() == 0


def test_an_example_is_one_click_away_and_is_nobody_s_to_correct(visit: Open) -> None:
    page = visit(agreed=False)
    press(page, "Show an example picture")
    page.locator(".face-table:visible").wait_for()
    assert page.locator(".face-table:visible").get_by_role("row").count() == 2
    assert page.get_by_role("button", name="Is this right?").locator("visible=true").count() == 0
