"""Annotating in a real browser: ten items by keyboard, one undone, one skipped, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_makers import needs_chromium, open_page, open_tab, playwright, start_browser
from face_makers import picture_with
from page_makers import serve_page
from PIL import Image

from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.tasks import EXPRESSION

pytestmark = needs_chromium
PLACES = [(10, 20), (170, 60), (310, 30)]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


def add_pictures(page: playwright.Page, folder: Path, count: int) -> None:
    """Open the tab and let it ask about nothing but pictures of three faces each."""
    files = []
    for number in range(count):
        files.append(folder / f"three{number}.png")
        moved = [(x + 3 * number, y) for x, y in PLACES]
        Image.fromarray(picture_with(moved, (240, 460))).save(files[-1])
    open_tab(page, "Annotate")
    for source in ("My picture", "My clip", "Examples"):
        page.get_by_role("checkbox", name=source).locator("visible=true").uncheck()
    page.locator("input[type=file]").last.set_input_files(files)
    page.get_by_text(files[-1].stem).locator("visible=true").first.wait_for()


def start(page: playwright.Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".annotate .labels button").first.wait_for()


def place(page: playwright.Page) -> str:
    return page.locator(".annotate .head .place").inner_text()


def press(page: playwright.Page, key: str) -> None:
    """Press a key in the queue and wait until the server has answered."""
    turn = "() => document.querySelector('.annotate .announce').textContent + document.querySelector('.annotate .place').textContent"
    before = page.evaluate(turn)
    page.keyboard.press(key)
    page.wait_for_function(f"before => ({turn})() !== before", arg=before)


def test_ten_items_by_keyboard(browser: playwright.Browser, tmp_path: Path) -> None:
    with serve_page(tmp_path) as url:
        page, _ = open_page(browser, url, "light", 1280)
        answers: list[str] = []
        page.on("response", lambda response: answers.append(response.text()) if "/run/predict" in response.url else None)
        add_pictures(page, tmp_path, 4)
        page.get_by_label("Keep my correction").locator("visible=true").check()
        page.get_by_label("I am 18 or older. I am the person").locator("visible=true").check()
        start(page)
        assert place(page) == "Face 1 of 12"
        assert page.evaluate("document.activeElement.className") == "annotate", "keys work at once"
        assert "trained" not in page.locator(".annotate").inner_text()
        [queue] = [answer for answer in answers if "data:image/png" in answer]
        shown = json.loads(next(value for value in find_texts(json.loads(queue)) if value.startswith('{"turn"')))
        assert shown["item"]["shown"] == [] == shown["last"]

        press(page, "3")
        assert place(page) == "Face 2 of 12"
        reveal = page.locator(".annotate .last").inner_text()
        assert "Disgust" in reveal and "trained" in reveal and "Saved here." in reveal
        press(page, "u")
        assert place(page) == "Face 1 of 12"
        press(page, "s")
        for key in ("1", "2", "3", "4", "5", "6", "7", "8", "0", "x"):
            press(page, key)
        assert place(page) == "Face 12 of 12"
        assert "Answered: 10, skipped: 1, left: 1" in page.locator(".annotate .totals").inner_text()
        code = page.locator(".receipt:visible code").inner_text()
        press(page, "s")
        assert "Thank you" in page.locator(".annotate .done").inner_text()
        page.close()
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback' / 'feedback.sqlite'}", read_only=True) as store:
        kept = store.records()
    assert len(code) > 20 and len({record.contributor for record in kept}) == 1
    assert len(kept) == len({record.item for record in kept}) == 10, "what was undone is not kept"
    assert all(record.blind for record in kept)
    assert [record.verdict for record in kept[-2:]] == ["cannot_tell", "not_a_face"]
    for record, label in zip(kept[:8], EXPRESSION.label_names, strict=True):
        predicted = record.predicted["expression"]
        top = max(predicted, key=lambda name: predicted[name])
        assert record.verdict == ("correct" if label == top else "wrong")
        assert label == top or record.corrected == {"expression": {label: 1.0}}


def find_texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from find_texts(item)


def test_practice_keeps_nothing_and_the_plane_is_reached_by_keys(browser: playwright.Browser, tmp_path: Path) -> None:
    with serve_page(tmp_path) as url:
        page, _ = open_page(browser, url, "dark", 390)
        add_pictures(page, tmp_path, 1)
        page.get_by_label("Also ask valence and arousal").check()
        start(page)
        page.keyboard.press("Enter")
        page.get_by_text("Please choose an expression first.").wait_for()
        for key in ("7", "ArrowLeft", "Shift+ArrowDown"):
            page.keyboard.press(key)
        assert page.locator(".annotate .point").inner_text() == "Valence -0.05, arousal -0.25"
        press(page, "Enter")
        reveal = page.locator(".annotate .last").inner_text()
        assert "Sadness, -0.05, -0.25" in reveal and "Nothing, this is practice." in reveal
        page.locator(".annotate .pad").click(position={"x": 5, "y": 5})
        valence, arousal = (float(page.locator(f".annotate .{name}").input_value()) for name in ("valence", "arousal"))
        assert valence < -0.8 and arousal > 0.8
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback' / 'feedback.sqlite'}", read_only=True) as store:
        assert not store.records()


def test_the_examples_have_a_known_answer(browser: playwright.Browser, tmp_path: Path) -> None:
    with serve_page(tmp_path) as url:
        page, _ = open_page(browser, url, "light", 1280)
        open_tab(page, "Annotate")
        for source in ("My picture", "My clip"):
            page.get_by_role("checkbox", name=source).locator("visible=true").uncheck()
        start(page)
        while "known answers: 1 of 1" not in page.locator(".annotate .totals").inner_text():
            assert page.locator(".annotate .done").is_hidden(), "the portrait was not asked about"
            press(page, "5")
        assert "Known answer" in page.locator(".annotate .last").inner_text()
        page.close()
