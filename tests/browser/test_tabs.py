"""The tabs beside the analyses: review by token, and what everything means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from browser_makers import REVIEW_TOKEN, Open, choose, open_tab, press
from feedback_makers import BEN, CARL, make_crop, make_record
from page_makers import Page, read_feedback

from hsemotion_space.tasks import TASKS
from hsemotion_space.types import PROVENANCE_LABELS


def test_review_tab_asks_about_one_correction_after_the_other(
    visit: Open, served: Page, add_feedback: Callable[..., list[str]]
) -> None:
    first, second, third, fourth = add_feedback(
        replace(make_record(1, comment="<img src=x onerror=alert(1)>"), crop=make_crop(1)),
        make_record(1, contributor=BEN, corrected={"expression": {"Anger": 1.0}}),
        make_record(2, contributor=CARL, verdict="cannot_tell"),
        make_record(3, contributor=CARL),
    )
    page = visit("Review")
    page.get_by_label("Review token").fill("another")
    press(page, "Show pending corrections")
    page.locator(".problem:visible", has_text="The review token is not valid").wait_for()
    assert page.get_by_role("button", name="Approve", exact=True).count() == 0
    page.get_by_label("Review token").fill(REVIEW_TOKEN)
    press(page, "Show pending corrections")
    page.get_by_text("Number 1, image, face 1: wrong").wait_for()
    page.get_by_text("Comment: <img src=x onerror=alert(1)>").wait_for()
    cells = page.get_by_role("row", name="Expression").locator("visible=true").first.inner_text().split()
    assert cells == ["Expression", "Happiness", "0.80", "trained", "Sadness"]
    press(page, "Approve as known answer")
    page.get_by_text("Correction 1 is approved, as a known answer.").wait_for()
    page.get_by_text("Number 2, image, face 1: wrong").wait_for()
    press(page, "Reject")
    page.get_by_text("Number 3, image, face 1: cannot tell").wait_for()
    press(page, "Skip")
    page.get_by_text("Number 4, image, face 1: wrong").wait_for()
    page.get_by_role("button", name="Set aside all corrections").click()
    page.get_by_text("No corrections are pending.").wait_for()
    press(page, "Agreement and publishing")
    page.get_by_text("Tiers: 3 raw, 0 agreed, 1 reviewed.").wait_for()
    stored = {one.id: (one.review, one.gold, one.reverted) for one in read_feedback(served.folder)}
    assert stored == {
        first: ("approved", True, False), second: ("rejected", False, False), third: ("", False, True),
        fourth: ("", False, True),
    }  # fmt: skip


def test_review_token_cannot_be_guessed_by_trying(visit: Open) -> None:
    page = visit("Review")

    def show(token: str) -> None:
        page.get_by_label("Review token").fill(token)
        with page.expect_response(lambda response: "/gradio_api/" in response.url):
            press(page, "Show pending corrections")

    for number in range(11):
        show(f"try {number}")
    page.locator(".problem:visible", has_text="Try again in").wait_for()
    show(REVIEW_TOKEN)
    assert page.get_by_text("Try again in").count(), "the right token is not told from wrong ones for now"


def test_about_tab_explains_tasks_and_shows_cards_on_a_phone(visit: Open) -> None:
    page = visit(theme="dark", width=390)
    open_tab(page, "About")
    page.get_by_role("heading", name="What it must not be used for").wait_for()
    rows = (
        page.get_by_role("table", name="Tasks")
        .locator("tbody tr th, tbody tr td:first-child")
        .all_inner_texts()
    )
    assert rows == [task.title for task in TASKS]
    for words in PROVENANCE_LABELS:
        assert page.locator("strong:visible", has_text=words).count()
    choose(page, "Card of", "Test second")
    page.get_by_role("heading", name="The second card").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
