"""The page in the language that the browser asks for: everything that is read is Japanese, or English."""

from __future__ import annotations

import re
from pathlib import Path

from browser_makers import REVIEW_TOKEN, Open, add, add_file, choose, playwright, press, tick, write_picture

OF_GRADIO = re.compile(
    "Click to upload or drop files|Capture from camera|Paste from clipboard|Reset to default value|"
    "(number input|range slider) for [^A-Za-z]+"
)
"""Titles and labels that Gradio itself has in English only."""
NAMES = ("HSEmotion Space", "Hugging Face Hub", "Ekman and Friesen", "et al", "Test random", "Test second")
ENGLISH = re.compile(r"[A-Za-z][a-z]+(?:[ ,]+[A-Za-z][a-z]*){2,}")  # three words in a row
UNITS = re.compile("判定する.アクションユニット")


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


def test_example_and_its_viewer_are_japanese(visit: Open) -> None:
    page = visit(locale="ja-JP", agreed=False)
    assert page.locator("html").get_attribute("lang") == "ja"
    page.get_by_text("例で試す").wait_for()
    assert not english_in(page)
    page.locator(".examples").get_by_role("button", name="画像").click()
    page.locator(".linked-viewer:visible").get_by_text("喜び").first.wait_for()
    page.get_by_text("数値を表で見る").click()
    page.locator(".face-table:visible", has_text="感情価").wait_for()
    assert not english_in(page)
    press(page, "取り除く")
    page.locator(".examples").get_by_role("button", name="動画").click()
    page.locator(".linked-viewer:visible .plot").first.wait_for()
    page.locator(".linked-viewer:visible").get_by_text("再生", exact=True).first.wait_for()
    assert page.locator(".viewer:visible").get_attribute("aria-label").startswith("ビューアー")
    assert not english_in(page)


def test_form_errors_and_records_are_japanese(visit: Open, tmp_path: Path) -> None:
    page = visit(locale="ja-JP", agreed=False)
    press(page, "解析する")
    page.locator(".notices:visible", has_text="先に画像または動画を追加してください。").wait_for()
    add_file(page, write_picture(tmp_path))
    page.locator(
        ".notices:visible", has_text="先に「追加したものの解析に同意する」にチェックを入れてください。"
    ).wait_for()
    tick(page, "追加したものの解析に同意する")
    page.get_by_role("button", name=re.compile("違いますか. 表情")).click()
    page.get_by_role("dialog", name="訂正").wait_for()
    choose(page, "表情", "恐れ")
    tick(page, UNITS, re.compile("判定する.感情価"), "訂正を保存する", "顔の画像も保存する")
    page.get_by_text("保存される画像").locator("visible=true").wait_for()
    assert not english_in(page)
    page.get_by_label(UNITS).locator("visible=true").uncheck()
    press(page, "送信")
    page.locator(".problem:visible", has_text="保存されませんでした。18歳以上であること").wait_for()
    tick(page, "私は18歳以上です")
    press(page, "送信")
    page.locator(".receipt:visible", has_text="受領コード").wait_for()
    page.get_by_role("tab", name="マイデータ").click()
    press(page, "一覧を表示")
    row = page.get_by_role("row", name="画像、顔1").inner_text()
    assert "表情: 恐れ; 感情価と覚醒度" in row and "このサーバーに保存済み" in row
    assert not english_in(page)


def test_tabs_to_read_and_to_review_are_japanese(visit: Open) -> None:
    page = visit(locale="ja-JP", agreed=False)
    page.get_by_role("tab", name="説明").click()
    page.get_by_role("heading", name="使用してはならない用途").wait_for()
    page.get_by_role("table", name="タスク").get_by_text("複合表情").wait_for()
    choose(page, "モデルカード", "Test random")  # cards of the starters are English texts
    page.get_by_role("heading", name="Test random").wait_for()
    page.get_by_role("button", name="提供者が同意する文章").click()
    page.get_by_text("バージョン 2").first.wait_for()
    assert not english_in(page)
    page.get_by_role("tab", name="審査").click()
    page.get_by_label("審査用トークン").fill("another")
    press(page, "審査待ちを表示")
    page.locator(".problem:visible", has_text="審査用トークンが正しくありません。").wait_for()
    page.get_by_label("審査用トークン").fill(REVIEW_TOKEN)
    press(page, "一致度と公開状況")
    page.get_by_text(re.compile("段階.未検証")).wait_for()
    assert not english_in(page)


def test_japanese_page_fits_a_phone(visit: Open, tmp_path: Path) -> None:
    page = visit(locale="ja-JP", width=390)
    add(page, write_picture(tmp_path))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_all_other_languages_get_english(visit: Open) -> None:
    page = visit(locale="de-DE", agreed=False)
    press(page, "Analyze")
    page.locator(".notices:visible", has_text="Add a picture or a clip first.").wait_for()
    page.locator(".examples").get_by_role("button", name="Picture").click()
    page.locator(".face-card:visible", has_text="Valence").wait_for()
    assert not re.search("[\u3040-\u30ff\u4e00-\u9fff]", page.evaluate("document.body.innerText"))
