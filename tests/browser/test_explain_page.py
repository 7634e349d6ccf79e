"""Where the network looks: with bundled checkpoints, on the examples of the page."""

from __future__ import annotations

import re

from browser_makers import PATIENCE_MS, Open, choose, playwright, press, wait_until_quiet

from hsemotion_space.analysis.saliency import LIMITS
from hsemotion_space.ui.explained import NO_MAP


def add_example(page: playwright.Page, name: str) -> None:
    page.locator(".examples").get_by_role("button", name=name).click()
    page.locator(".chip:visible").first.wait_for()


def unfold(page: playwright.Page) -> None:
    page.get_by_role("button", name="Where does the network look?").locator("visible=true").click()


def show(page: playwright.Page, about: str) -> str:
    """Press the button and return what is told about a value."""
    press(page, "Show the map")
    page.locator(".explained .title:visible", has_text=about).wait_for()
    return str(page.locator(".explained:visible").inner_text())


def check_answer(page: playwright.Page, told: str) -> bool:
    """Check that an answer is whole, and return whether it has a map."""
    assert LIMITS in told
    [drop] = [float(word) for word in re.findall(r"lowers it by (\d+\.\d+)", told)] or [0.0]
    alternatives = [one.get_attribute("alt") for one in page.locator(".explained:visible img").all()]
    assert alternatives[0] == "Face 1, input of the network"
    has_map = len(alternatives) == 2
    assert has_map == (not any(words in told for words in NO_MAP.values()))
    if has_map:
        assert drop >= 0.1
        words = r"Map over face 1\. \w+ depends most on the [a-z ]+ of the face; left and right refer to .*"
        assert re.fullmatch(words, alternatives[1])
        assert "strongest: the " in told
    return has_map


def test_values_of_a_picture_are_explained_and_nothing_of_it_stays(visit: Open) -> None:
    page = visit(theme="dark", width=390)
    assert page.get_by_text("Where does the network look?").locator("visible=true").count() == 0
    add_example(page, "Picture")
    unfold(page)
    assert (
        page.get_by_label("Explained value").locator("visible=true").input_value() == "Expression: Happiness"
    )
    assert page.get_by_label("Time in seconds").locator("visible=true").count() == 0
    check_answer(page, show(page, "Face 1, MobileFaceNet (starter): Expression, Happiness (trained)"))
    choose(page, "Explained value", "Action units: AU25", exact=False)
    check_answer(page, show(page, "Action units, AU25 (trained)"))
    choose(page, "Explained face", "Face 1", exact=False)
    page.wait_for_function(
        "[...document.querySelectorAll('input')].some(one => one.value === 'Expression: Happiness')"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    press(page, "Show the map")
    press(page, "Remove")  # the answer comes when another result is shown
    page.locator(".explained:visible").wait_for(state="hidden")
    add_example(page, "Picture")
    wait_until_quiet(page, 2000)
    unfold(page)
    assert page.locator(".explained").count() == 0
    show(page, "Expression, Happiness")
    press(page, "Remove")
    page.locator(".media:visible").wait_for()
    assert page.locator(".explained").count() == 0
    assert page.get_by_text("Where does the network look?").locator("visible=true").count() == 0


def test_a_frame_of_a_clip_is_explained_where_the_visitor_went_to(visit: Open) -> None:
    page = visit()
    press(page, "Options", exact=False)
    choose(page, "Compare with", "EfficientNet-Lite0 (starter)", exact=False)
    page.keyboard.press("Escape")
    add_example(page, "Clip")
    page.wait_for_function(
        "[...document.querySelectorAll('.viewer video')].some(one => one.offsetWidth && one.readyState >= 2)"
    )
    unfold(page)
    page.locator(".viewer:visible").focus()
    page.keyboard.press("Shift+ArrowRight")
    second = page.get_by_label("Time in seconds").locator("visible=true")
    playwright.expect(second).to_have_value(re.compile(r"1|1\.0\d|0\.9\d"), timeout=PATIENCE_MS)
    choose(page, "Explained value", "Expression: Happiness", exact=False)
    choose(page, "Explained backbone", "EfficientNet-Lite0 (starter)", exact=False)
    told = show(page, "EfficientNet-Lite0 (starter): Expression, Happiness (trained)")
    assert re.match(r"Face 1 at (0\.9|1\.0)\d s, ", told)
    assert "The value belongs to this single frame, without smoothing." in told
    assert check_answer(page, told), "the mouth makes this smile"
    second.fill("30")  # after the end
    press(page, "Show the map")
    page.locator(".problem:visible", has_text="Enter a time from 0 to").wait_for()
    assert page.locator(".explained").count() == 0
