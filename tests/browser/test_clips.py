"""Clips in the workspace: the linked viewer with the form, several backbones, and jobs that outlive a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser_makers import (
    PATIENCE_MS,
    Open,
    add,
    add_file,
    choose,
    open_tab,
    playwright,
    press,
    tick,
    wait_until_quiet,
    write_group,
)
from face_makers import draw_face, picture_with
from media_makers import write_clip
from PIL import Image


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of four seconds with one face that moves a little."""
    file = tmp_path_factory.mktemp("media") / "face.mp4"
    pictures = [picture_with([(60 + step // 4, 40)], (240, 320)) for step in range(48)]
    write_clip(file, pictures, [step / 12 for step in range(48)])
    return file


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("media") / "long.mp4"
    pictures = [picture_with([(40 + step % 80, 40)], (480, 640)) for step in range(480)]
    write_clip(file, pictures, [step / 24 for step in range(480)])
    return file


def test_a_range_dragged_in_the_viewer_and_a_key_fill_the_form(visit: Open, clip: Path) -> None:
    page = visit()
    add(page, clip)
    plot = page.locator(".linked-viewer:visible .js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 22, steps=6)
    page.mouse.up()
    press(page, "Correct range")
    page.get_by_role("dialog", name="Correction").wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('input[type=number]')].some(one => +one.value > 0.8 && +one.value <"
        " 1.2)"
    )
    page.keyboard.press("Escape")
    assert page.locator(":focus").inner_text() == "Correct range", "the focus is back where it was"
    page.keyboard.press("3")
    page.get_by_label("Wrong").locator("visible=true").wait_for()
    page.wait_for_function("[...document.querySelectorAll('input')].some(one => one.value === 'Disgust')")
    tick(page, "Save my correction", "I am 18 or older")
    press(page, "Send")
    page.locator(".receipt:visible").wait_for()
    open_tab(page, "My data")
    press(page, "List")
    cell = page.get_by_role("row", name="clip, face 1").inner_text()
    start, end = (float(word) for word in cell.split("face 1, ")[1].split(" s")[0].split(" to "))
    assert (start, end) == (pytest.approx(1.0, abs=0.15), pytest.approx(2.0, abs=0.15))
    assert "Expression: Disgust" in cell


def downloaded(page: playwright.Page, before: str = "") -> str:
    """Return the table that can be downloaded, once it is not what it was before."""
    for _ in range(100):
        with page.expect_download() as found:
            page.get_by_text("Download CSV").locator("visible=true").click()
        table = Path(found.value.path()).read_text("utf-8")
        if table != before:
            return table
    raise AssertionError("the numbers stay as they were")


def test_smoothing_changes_the_numbers_at_once(visit: Open, clip: Path) -> None:
    page = visit()
    add(page, clip)
    field = page.get_by_label("number input for Smoothing")

    def enter(value: str) -> None:
        field.fill(value)
        field.press("Tab")

    usual = downloaded(page)
    enter("2")
    smooth = downloaded(page, before=usual)
    enter("")  # an emptied field shows its lowest value when it is left
    raw = downloaded(page, before=smooth)
    assert field.input_value() == "0"
    enter("2")
    assert downloaded(page, before=raw) == smooth
    assert not page.locator(".toast-wrap:visible").get_by_text("Error").count()


def test_a_face_that_returns_after_a_cut_is_merged_by_hand(visit: Open, tmp_path: Path) -> None:
    pictures = []
    for seed, place in ((1, (20, 30)), (2, (180, 110))):
        coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
        shot = np.asarray(Image.fromarray(coarse).resize((320, 240))).copy()
        shot[place[1] : place[1] + 120, place[0] : place[0] + 120] = draw_face(120)
        pictures += [shot] * 18
    write_clip(tmp_path / "cut.mp4", pictures, [step / 12 for step in range(36)])
    page = visit()
    add(page, tmp_path / "cut.mp4")
    chips = page.locator(".chip:visible")
    assert chips.count() == 2
    assert page.locator(".note:visible", has_text="dotted: cuts").count() > 0
    page.get_by_text("Name, neutral, same person").click()
    page.get_by_label("Same person as").select_option(label="Face 2")
    page.get_by_role("button", name="Undo the merge").wait_for()
    assert chips.count() == 1
    page.get_by_role("button", name="Find the calmest second").click()
    page.locator(".source:visible", has_text="relative to your neutral").first.wait_for()
    page.get_by_role("button", name="Undo the merge").click()
    chips.nth(1).wait_for()


def test_a_session_is_saved_and_opens_again_with_its_name_and_media(
    visit: Open, clip: Path, tmp_path: Path
) -> None:
    page = visit()
    add(page, clip)
    page.get_by_text("Name, neutral, same person").click()
    page.get_by_label("Name", exact=True).fill("Anna")
    page.keyboard.press("Tab")
    page.get_by_role("radio", name="Face 1, Anna").wait_for()
    with page.expect_download() as found:
        press(page, "Save session")
    session = tmp_path / found.value.suggested_filename
    found.value.save_as(session)
    other = visit(agreed=False)
    other.locator(".media input[type=file]").set_input_files(session)
    other.get_by_role("radio", name="Face 1, Anna").wait_for()
    other.get_by_text("This session has no media.").wait_for()
    assert not other.get_by_role("button", name="Not right? Expression").count(), "it takes no corrections"
    other.locator(".media input[type=file]").set_input_files(clip)
    other.wait_for_function("document.querySelector('.viewer video').readyState >= 2")
    assert other.get_by_role("radio", name="Face 1, Anna").count() == 1


def test_several_backbones_are_compared_on_the_same_faces(visit: Open, clip: Path) -> None:
    page = visit(theme="dark", width=390)
    press(page, "Options", exact=False)
    choose(page, "Compare with", "Test second")
    page.keyboard.press("Escape")
    add(page, clip)
    moments = page.get_by_role("table", name="Moments with the largest differences")
    moments.wait_for()
    titles = moments.get_by_role("columnheader").all_inner_texts()
    assert titles == ["Time", "Difference", "MobileFaceNet (starter)", "Test second"]
    differences = [float(cell) for cell in moments.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert differences == sorted(differences, reverse=True)
    assert 0 < differences[0] <= 1
    first = moments.get_by_role("button").first
    time_s = float(str(first.get_attribute("data-time")))
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "time => Math.abs(document.querySelector('.viewer video').currentTime - time) < 1 / 24", arg=time_s
    )
    assert page.evaluate("document.activeElement.className") == "viewer"
    choose(page, "Compared task", "Valence and arousal")
    page.wait_for_function(
        "document.body.innerText.includes('Valence +') || document.body.innerText.includes('Valence -')"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_job_is_found_again_after_a_reload_and_in_a_second_tab(visit: Open, long_clip: Path) -> None:
    first = visit()
    add_file(first, long_clip)
    first.locator(".progress:visible").wait_for()
    first.wait_for_function("localStorage.length > 0")
    first.reload()
    second = first.context.new_page()
    second.set_default_timeout(PATIENCE_MS)
    second.goto(first.url)
    for page in (first, second):
        page.locator(".progress:visible, .chip:visible").first.wait_for()
    for page in (first, second):
        page.locator(".chip:visible").first.wait_for()
        page.locator(".linked-viewer:visible video").wait_for()


def test_a_job_that_is_cancelled_says_so_and_shows_nothing(visit: Open, long_clip: Path) -> None:
    page = visit()
    add_file(page, long_clip)
    page.locator(".progress:visible").wait_for()
    press(page, "Cancel")
    page.locator(".notices:visible", has_text="The analysis was canceled.").wait_for()
    wait_until_quiet(page)
    assert page.locator(".chip:visible").count() == 0


def test_warnings_stand_above_the_card_and_lead_to_their_faces(visit: Open, tmp_path: Path) -> None:
    page = visit()
    add(page, write_group(tmp_path / "two.png", 2, blurred=1))
    warnings = page.locator(".warnings:visible")
    assert warnings.bounding_box()["y"] < page.locator(".face-card:visible").bounding_box()["y"]
    line = warnings.locator(".kinds li", has_text="Blurred")
    assert line.get_by_role("button").all_inner_texts() == ["2"]
    line.get_by_role("button", name="Face 2").click()
    assert page.get_by_role("radio", checked=True).get_attribute("aria-label").startswith("Face 2")
    warnings.get_by_text("Details").click()
    warnings.get_by_text("Face 2: The face is blurred").wait_for()
    assert "at once" not in warnings.inner_text()
