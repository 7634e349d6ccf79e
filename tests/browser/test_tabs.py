"""The tabs beside the analyses: review by token, and what everything means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser_makers import choose, needs_chromium, open_page, open_tab, playwright, start_browser
from checkpoint_makers import make_checkpoint
from feedback_makers import BEN, CARL, make_crop, make_record
from page_makers import serve_page

from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.tasks import TASKS
from hsemotion_space.types import PROVENANCE_WORDS

pytestmark = needs_chromium
TOKEN = "a token that reviewers know"


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


def stored(folder: Path) -> dict[str, tuple[str, bool, bool]]:
    with FeedbackStore(f"sqlite:///{folder / 'feedback' / 'feedback.sqlite'}", read_only=True) as store:
        return {one.id: (one.review, one.gold, one.reverted) for one in store.records()}


def test_what_waits_is_reviewed_one_by_one(browser: playwright.Browser, tmp_path: Path) -> None:
    (tmp_path / "feedback").mkdir()
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback' / 'feedback.sqlite'}", reserve_bytes=0) as store:
        first = store.add(replace(make_record(1, comment="<img src=x onerror=alert(1)>"), crop=make_crop(1))).id
        second = store.add(make_record(1, contributor=BEN, corrected={"expression": {"Anger": 1.0}})).id
        third = store.add(make_record(2, contributor=CARL, verdict="cannot_tell")).id
        fourth = store.add(make_record(3, contributor=CARL)).id
    with serve_page(tmp_path, {"HSEMOTION_REVIEW_TOKEN": TOKEN}) as url:
        page, _ = open_page(browser, url, "light", 1280)
        page.get_by_role("tab", name="Review").click()
        page.get_by_label("Review token").fill("another")
        page.get_by_role("button", name="Show what waits").click()
        page.locator(".problem:visible", has_text="This is not the review token").wait_for()
        assert page.get_by_role("button", name="Approve", exact=True).count() == 0
        page.get_by_label("Review token").fill(TOKEN)
        page.get_by_role("button", name="Show what waits").click()
        page.get_by_text("Number 1, image, face 1: wrong").wait_for()
        page.get_by_text("Comment: <img src=x onerror=alert(1)>").wait_for()
        assert page.get_by_role("row", name="Expression").locator("visible=true").first.inner_text().split() == [
            "Expression", "Happiness", "0.80", "trained", "Sadness"
        ]  # fmt: skip
        page.get_by_role("button", name="Approve as known answer").click()
        page.get_by_text("Correction 1 is approved, as a known answer.").wait_for()
        page.get_by_text("Number 2, image, face 1: wrong").wait_for()
        page.get_by_role("button", name="Reject").click()
        page.get_by_text("Number 3, image, face 1: cannot tell").wait_for()
        page.get_by_role("button", name="Skip").click()
        page.get_by_text("Number 4, image, face 1: wrong").wait_for()
        page.get_by_role("button", name="Set aside everything").click()
        page.get_by_text("Nothing more waits for a review.").wait_for()
        page.get_by_role("button", name="Agreement and publishing").click()
        page.get_by_text("Tiers: 3 raw, 0 agreed, 1 reviewed.").wait_for()
        assert stored(tmp_path) == {
            first: ("approved", True, False), second: ("rejected", False, False), third: ("", False, True), fourth: ("", False, True),
        }  # fmt: skip
        page.close()


def test_a_token_cannot_be_guessed_by_trying(browser: playwright.Browser, tmp_path: Path) -> None:
    with serve_page(tmp_path, {"HSEMOTION_REVIEW_TOKEN": TOKEN}) as url:
        page, _ = open_page(browser, url, "light", 1280)
        page.get_by_role("tab", name="Review").click()
        for number in range(11):
            page.get_by_label("Review token").fill(f"try {number}")
            page.get_by_role("button", name="Show what waits").click()
            page.wait_for_timeout(150)
        page.locator(".problem:visible", has_text="Please try again in").wait_for()
        page.get_by_label("Review token").fill(TOKEN)
        page.get_by_role("button", name="Show what waits").click()
        page.wait_for_timeout(500)
        assert page.get_by_text("Please try again in").count(), "the right token is not told from wrong ones while trying is refused"
        page.close()


def test_without_a_token_in_the_settings_there_is_no_review(browser: playwright.Browser, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    make_checkpoint(tmp_path / "checkpoints" / "second")
    (tmp_path / "checkpoints" / "second" / "README.md").write_text("---\nlicense: x\n---\n# The second card\n", "utf-8")
    with serve_page(tmp_path) as url:
        page, requested = open_page(browser, url, "dark", 390)
        assert page.get_by_role("tab", name="Review").count() == 0
        open_tab(page, "About")
        page.get_by_role("heading", name="What it must not be used for").wait_for()
        rows = page.get_by_role("table", name="Tasks").locator("tbody tr th, tbody tr td:first-child").all_inner_texts()
        assert rows == [task.title for task in TASKS]
        for words in PROVENANCE_WORDS:
            assert page.locator("strong:visible", has_text=words).count()
        choose(page, "Card of", "Test second")
        page.get_by_role("heading", name="The second card").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert not [address for address in requested if not address.startswith((url, "data:", "blob:"))]
        page.close()
