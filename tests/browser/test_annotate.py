"""Annotating in a real browser: ten items by keyboard, one undone, one skipped, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from browser_makers import Open, open_tab, playwright, press, tick
from face_makers import picture_with
from page_makers import Page, read_feedback
from PIL import Image

from hsemotion_space.tasks import EXPRESSION

PLACES = [(10, 20), (170, 60), (310, 30)]


def add_pictures(page: playwright.Page, folder: Path, count: int) -> None:
    """Open the tab and let it ask about nothing but pictures of three faces each."""
    files = []
    for number in range(count):
        files.append(folder / f"three{number}.png")
        moved = [(x + 3 * number, y) for x, y in PLACES]
        Image.fromarray(picture_with(moved, (240, 460))).save(files[-1])
    open_tab(page, "Annotate")
    for source in ("My analyzed files", "Examples"):
        page.get_by_role("checkbox", name=source).locator("visible=true").uncheck()
    page.locator("input[type=file]").last.set_input_files(files)
    page.get_by_text(files[-1].stem).locator("visible=true").first.wait_for()


def start(page: playwright.Page) -> None:
    press(page, "Start")
    page.locator(".annotate .labels button").first.wait_for()


def place(page: playwright.Page) -> str:
    return page.locator(".annotate .head .place").inner_text()


def answer(page: playwright.Page, *keys: str) -> None:
    """Press keys in the queue and wait after each until the server has answered."""
    turn = (
        "['announce', 'place'].map(name => document.querySelector('.annotate .' + name).textContent).join()"
    )
    for key in keys:
        before = page.evaluate(turn)
        page.keyboard.press(key)
        page.wait_for_function(f"before => {turn} !== before", arg=before)


def find_texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from find_texts(item)


def test_ten_items_are_answered_by_keyboard_and_stored(visit: Open, served: Page, tmp_path: Path) -> None:
    page = visit()
    answers: list[str] = []
    page.on("response", lambda one: answers.append(one.text()) if "/run/predict" in one.url else None)
    add_pictures(page, tmp_path, 4)
    tick(page, "Save my correction", "I am 18 or older. I am the person")
    start(page)
    assert place(page) == "Face 1 of 12"
    assert page.evaluate("document.activeElement.className") == "annotate", "keys work at once"
    assert "trained" not in page.locator(".annotate").inner_text()
    [queue] = [one for one in answers if "data:image/png" in one]
    shown = json.loads(next(value for value in find_texts(json.loads(queue)) if value.startswith('{"turn"')))
    assert shown["item"]["shown"] == [] == shown["last"]

    answer(page, "3")
    assert place(page) == "Face 2 of 12"
    reveal = page.locator(".annotate .last").inner_text()
    assert "Disgust" in reveal and "trained" in reveal and "Saved on this server." in reveal
    answer(page, "u")
    assert place(page) == "Face 1 of 12"
    answer(page, "s", *"123456780x")
    assert place(page) == "Face 12 of 12"
    assert "Answered: 10, skipped: 1, left: 1" in page.locator(".annotate .totals").inner_text()
    code = page.locator(".receipt:visible code").inner_text()
    answer(page, "s")
    assert "Thank you" in page.locator(".annotate .done").inner_text()

    kept = read_feedback(served.folder)
    assert len(code) > 20 and len({record.contributor for record in kept}) == 1
    assert len(kept) == len({record.item for record in kept}) == 10, "what was undone is not kept"
    assert all(record.blind for record in kept)
    assert [record.verdict for record in kept[-2:]] == ["cannot_tell", "not_a_face"]
    for record, label in zip(kept[:8], EXPRESSION.label_names, strict=True):
        predicted = record.predicted["expression"]
        top = max(predicted, key=lambda name: predicted[name])
        assert record.verdict == ("correct" if label == top else "wrong")
        assert label == top or record.corrected == {"expression": {label: 1.0}}


def test_practice_stores_nothing_and_the_plane_is_reached_by_keys(
    visit: Open, served: Page, tmp_path: Path
) -> None:
    page = visit(theme="dark", width=390)
    add_pictures(page, tmp_path, 1)
    page.get_by_label("Also ask for valence and arousal").check()
    start(page)
    page.keyboard.press("Enter")
    page.get_by_text("Select an expression first.").wait_for()
    for key in ("7", "ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert page.locator(".annotate .point").inner_text() == "Valence -0.05, arousal -0.25"
    answer(page, "Enter")
    reveal = page.locator(".annotate .last").inner_text()
    assert "Sadness, -0.05, -0.25" in reveal and "Nothing; this is practice." in reveal
    page.locator(".annotate .pad").click(position={"x": 5, "y": 5})
    valence, arousal = (
        float(page.locator(f".annotate .{name}").input_value()) for name in ("valence", "arousal")
    )
    assert valence < -0.8 and arousal > 0.8
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not read_feedback(served.folder)


def test_examples_have_a_known_answer(visit: Open) -> None:
    page = visit("Annotate")
    page.get_by_role("checkbox", name="My analyzed files").locator("visible=true").uncheck()
    start(page)
    while "known answers: 1 of 1" not in page.locator(".annotate .totals").inner_text():
        assert page.locator(".annotate .done").is_hidden(), "the portrait was not asked about"
        answer(page, "5")
    assert "Known answer" in page.locator(".annotate .last").inner_text()
