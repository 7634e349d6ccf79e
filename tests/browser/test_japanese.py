"""The page in the language that the browser asks for: everything that is read is Japanese, or English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser_makers import PATIENCE_MS, needs_chromium, playwright, start_browser
from face_makers import picture_with
from page_makers import serve_page
from PIL import Image

pytestmark = needs_chromium
OF_GRADIO = re.compile("Capture from camera|Paste from clipboard|Reset to default value|(number input|range slider) for [^A-Za-z]+")
"""Titles and labels that Gradio itself has in English only."""
NAMES = ("HSEmotion Space", "Hugging Face Hub", "Ekman and Friesen", "et al", "Test random")
ENGLISH = re.compile(r"[A-Za-z][a-z]+(?:[ ,]+[A-Za-z][a-z]*){2,}")  # three words in a row
UNITS = re.compile("判定する.アクションユニット")
REVIEWERS = "a token that reviewers know"


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_page(tmp_path_factory.mktemp("japanese"), {"HSEMOTION_REVIEW_TOKEN": REVIEWERS}) as address:
        yield address


@contextmanager
def opened(browser: playwright.Browser, url: str, locale: str, width: int = 1280) -> Iterator[playwright.Page]:
    context = browser.new_context(locale=locale, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.get_by_role("heading", name="HSEmotion Space").wait_for()
    yield page
    context.close()


def english_in(page: playwright.Page) -> list[str]:
    """Return what is still English of everything that is read on the page, by eye or by ear."""
    read = page.evaluate(
        """() => [document.body.innerText, ...[...document.querySelectorAll('[aria-label], [placeholder], [title], img[alt]')]
          .filter(node => node.checkVisibility())
          .flatMap(node => ['aria-label', 'placeholder', 'title', 'alt'].map(name => node.getAttribute(name) ?? ''))].join('\\n')"""
    )
    for name in NAMES:
        read = read.replace(name, "")
    return [line for line in read.split("\n") if ENGLISH.search(line) and not OF_GRADIO.fullmatch(line)]


def picture(folder: Path) -> Path:
    file = folder / "two.png"
    Image.fromarray(picture_with([(10, 20), (170, 60)], (240, 320))).save(file)
    return file


def press(page: playwright.Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def test_example_and_its_viewer(browser: playwright.Browser, url: str) -> None:
    with opened(browser, url, "ja-JP") as page:
        assert page.locator("html").get_attribute("lang") == "ja"
        page.get_by_text("画像を追加すると").wait_for()
        press(page, "画像の例を表示")
        page.locator(".face-table:visible", has_text="感情価").wait_for()
        page.locator(".linked-viewer:visible").get_by_text("喜び").first.wait_for()
        assert not english_in(page)
        page.get_by_role("tab", name="動画").click()
        press(page, "動画の例を表示")
        page.locator(".linked-viewer:visible .plot svg").first.wait_for()
        page.locator(".linked-viewer:visible").get_by_text("再生", exact=True).first.wait_for()
        assert page.locator(".viewer:visible").get_attribute("aria-label").startswith("ビューアー")
        assert not english_in(page)


def test_form_errors_and_what_was_given(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    with opened(browser, url, "ja-JP") as page:
        press(page, "解析する")
        page.locator(".notices:visible", has_text="先に画像を追加してください。").wait_for()
        page.locator("input[type=file]").first.set_input_files(picture(tmp_path))
        page.locator(".notices:visible", has_text="先に「追加したものの解析に同意する」にチェックを入れてください。").wait_for()
        page.get_by_label("追加したものの解析に同意する").check()
        page.locator(".face-table:visible").wait_for()
        page.get_by_role("button", name="この結果は正しいですか").locator("visible=true").click()
        page.get_by_label("誤り").locator("visible=true").check()
        page.get_by_label("表情", exact=True).locator("visible=true").click()
        page.get_by_role("option", name="恐れ", exact=True).click()
        for tick in (UNITS, re.compile("判定する.感情価"), "訂正を保存する", "顔の画像も保存する"):
            page.get_by_label(tick).locator("visible=true").check()
        page.get_by_text("保存される画像").locator("visible=true").wait_for()
        assert not english_in(page)
        page.get_by_label(UNITS).locator("visible=true").uncheck()
        press(page, "送信")
        page.locator(".problem:visible", has_text="保存されませんでした。あなたが18歳以上であること").wait_for()
        page.get_by_label("私は18歳以上です").locator("visible=true").check()
        press(page, "送信")
        page.locator(".receipt:visible", has_text="受領コード").wait_for()
        page.get_by_role("tab", name="マイデータ").click()
        press(page, "一覧を表示")
        row = page.get_by_role("row", name="画像、顔1").inner_text()
        assert "表情: 恐れ; 感情価と覚醒度" in row and "このサーバーに保存済み" in row
        assert not english_in(page)


def test_tabs_to_read_and_to_review(browser: playwright.Browser, url: str) -> None:
    with opened(browser, url, "ja-JP") as page:
        page.get_by_role("tab", name="説明").click()
        page.get_by_role("heading", name="使用してはならない用途").wait_for()
        page.get_by_role("table", name="タスク").get_by_text("複合表情").wait_for()
        page.get_by_role("button", name="提供者が同意する文章").click()
        page.get_by_text("バージョン 2").first.wait_for()
        assert not english_in(page)
        page.get_by_role("tab", name="審査").click()
        page.get_by_label("審査用トークン").fill("another")
        press(page, "審査待ちを表示")
        page.locator(".problem:visible", has_text="このサーバーの審査用トークンではありません。").wait_for()
        page.get_by_label("審査用トークン").fill(REVIEWERS)
        press(page, "一致度と公開状況")
        page.get_by_text(re.compile("段階.未検証")).wait_for()
        assert not english_in(page)


def test_the_page_fits_a_phone(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    with opened(browser, url, "ja-JP", 390) as page:
        page.get_by_label("追加したものの解析に同意する").check()
        page.locator("input[type=file]").first.set_input_files(picture(tmp_path))
        page.locator(".linked-viewer:visible .face-card").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("locale", ["en-US", "de-DE"])
def test_all_others_get_english(browser: playwright.Browser, url: str, locale: str) -> None:
    with opened(browser, url, locale) as page:
        page.get_by_role("button", name="Analyze").locator("visible=true").click()
        page.locator(".notices:visible", has_text="Please add a picture first.").wait_for()
        page.get_by_text("Add a picture to see").wait_for(state="hidden")
        press(page, "Show an example picture")
        page.locator(".face-table:visible", has_text="Valence").wait_for()
        assert not re.search("[\u3040-\u30ff\u4e00-\u9fff]", page.evaluate("document.body.innerText"))
