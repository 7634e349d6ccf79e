"""The workspace in a real browser: add, read, replace, at several widths and in both themes."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from browser_makers import (
    Open,
    add,
    add_file,
    open_tab,
    playwright,
    press,
    wait_until_quiet,
    write_group,
    write_picture,
)
from media_makers import write_clip
from PIL import Image

HAND_OVER = """([name, content, event]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, { type: 'image/png' }));
  const made = event === 'drop' ? new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true })
    : new ClipboardEvent('paste', { clipboardData: files, bubbles: true, cancelable: true });
  document.querySelector('h1').dispatchEvent(made);
}"""


def hand_over(page: playwright.Page, file: Path, event: str) -> None:
    """Drop or paste a file at the heading of the page."""
    page.evaluate(HAND_OVER, [file.name, base64.b64encode(file.read_bytes()).decode(), event])


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_picture_becomes_chips_a_card_and_a_folded_table(
    visit: Open, tmp_path: Path, theme: str, width: int
) -> None:
    page = visit(theme=theme, width=width)
    add(page, write_picture(tmp_path))
    assert page.get_by_role("radio", name="Face").count() == 2
    assert not page.locator(".media:visible").count(), "the drop zone is a line with buttons now"
    places = [
        page.locator(f".viewer {name}").bounding_box()["y"] for name in (".stage", ".chips", ".face-card")
    ]
    assert (places == sorted(places)) == (width < 600)
    table = page.locator(".face-table")
    assert not table.is_visible()
    page.get_by_text("Values as a table").click()
    assert table.get_by_role("row").count() == 3
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth"), (
        "all of it is seen at once, on a telephone too"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"
    press(page, "Remove")
    page.locator(".media:visible").wait_for()
    assert not page.locator(".viewer:visible").count()
    press(page, "Analyze")
    page.get_by_text("Add a picture or a clip first.").wait_for()


def test_five_faces_need_no_scrolling_and_are_walked_through_by_keys(visit: Open, tmp_path: Path) -> None:
    page = visit(width=1440)
    add(page, write_group(tmp_path / "five.png", 5))
    assert page.get_by_role("radio").count() == 5
    assert (
        page.evaluate("document.querySelector('.viewer .face-card').getBoundingClientRect().bottom + scrollY")
        <= 900
    )
    page.get_by_role("radio", name="Face 1").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", checked=True).get_attribute("aria-label").startswith("Face 3")
    assert page.locator(":focus").get_attribute("aria-checked") == "true"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("radio", checked=True).get_attribute("aria-label").startswith("Face 5"), (
        "the last one is before the first"
    )
    place = page.locator(".viewer .stage").bounding_box()
    page.mouse.click(place["x"] + place["width"] * 0.1, place["y"] + place["height"] * 0.3)
    assert page.get_by_role("radio", checked=True).get_attribute("aria-label").startswith("Face 1"), (
        "a click on a face selects it"
    )


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_file_is_dropped_or_pasted_anywhere(visit: Open, tmp_path: Path, event: str) -> None:
    page = visit()
    open_tab(page, "About")
    hand_over(page, write_picture(tmp_path, (60, 60)), event)
    page.locator(".chip:visible").wait_for()
    hand_over(page, write_picture(tmp_path), event)
    page.get_by_role("radio", name="Face 2").wait_for()


def test_a_clip_is_known_by_its_content_and_one_without_a_face_says_so(visit: Open, tmp_path: Path) -> None:
    clip = tmp_path / "gray.png"
    write_clip(tmp_path / "gray.mp4", [np.full((96, 128, 3), 120, np.uint8)] * 12)
    (tmp_path / "gray.mp4").rename(clip)
    page = visit()
    add_file(page, clip)
    page.locator(".notices:visible", has_text="No face was found").wait_for()
    page.locator(".source .name", has_text="s, 128 x 96 px").wait_for()


def test_a_new_picture_takes_the_place_of_a_running_one(visit: Open, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    Image.new("RGB", (200, 200), "gray").save(new)
    page = visit()
    add_file(page, write_picture(tmp_path))
    add_file(page, new)
    page.locator(".notices:visible", has_text="No face was found").wait_for()
    wait_until_quiet(page)
    assert page.locator(".chip:visible").count() == 0


def test_another_backbone_runs_on_the_same_file(visit: Open, tmp_path: Path) -> None:
    page = visit()
    add(page, write_picture(tmp_path))
    page.reload()  # after which the server knows the file by its job alone
    page.locator("#agreed input").check()
    page.locator(".chip:visible").first.wait_for()
    before = page.get_by_role("radio", name="Face 1").get_attribute("aria-label")
    page.get_by_label("Backbone").click()
    page.get_by_role("option", name="Test second").click()
    press(page, "Analyze")
    page.wait_for_function("before => document.querySelector('.chip')?.ariaLabel.startsWith('Face 1') && "
                           "document.querySelector('.chip').ariaLabel !== before", arg=before)  # fmt: skip


def test_an_example_is_one_click_away_and_is_nobody_s_to_correct(visit: Open) -> None:
    page = visit(agreed=False)
    page.locator(".examples").get_by_role("button", name="Picture").click()
    page.locator(".chip:visible").wait_for()
    assert page.get_by_role("radio").count() == 1
    assert page.get_by_role("button", name="Not right?").count() == 0
    press(page, "Analyze")  # which needs no consent either
    wait_until_quiet(page)
    page.locator(".chip:visible").wait_for()
