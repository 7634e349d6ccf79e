"""Corrections in a real browser: from a flag on the page to the dataset, and until nothing of it is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
from browser_makers import (
    Open,
    add,
    choose,
    correct,
    open_tab,
    playwright,
    press,
    tick,
    wait_until_quiet,
    write_picture,
)
from face_makers import picture_with
from fake_hub import FakeHub, environment
from feedback_makers import hash_of, make_crop, make_record
from feedback_publishing import REPO, TOKEN, everything_in, everything_on
from media_makers import write_clip
from page_makers import ROOT, serve_page

from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of
from hsemotion_space.tasks import EXPRESSION

SECRET = "a secret of forty characters, more or less"
OTHERS = 39


def analyze(page: playwright.Page, picture: Path) -> None:
    add(page, picture)
    correct(page)


def flag(page: playwright.Page, answer: str = "Fear", ticks: tuple[str, ...] = ()) -> str:
    """Say that face 2 shows another expression and return the receipt code."""
    # another face empties the form
    with page.expect_response(lambda response: "/run/predict" in response.url):
        choose(page, "Face", "Face 2")
    wait_until_quiet(page)
    tick(page, "Wrong")
    choose(page, "Expression", answer)
    tick(page, "Save my correction", *ticks, "I am 18 or older")
    press(page, "Send")
    return page.locator(".receipt:visible code").inner_text()


def my_data(page: playwright.Page, button: str) -> None:
    open_tab(page, "My data")
    press(page, button)


def wait_until_published(page: playwright.Page) -> list[str]:
    """List again and again until the correction is published, and return its row."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        my_data(page, "List")
        page.get_by_role("table").locator("visible=true", has_text="Fear").wait_for()
        try:
            page.get_by_role("cell", name="published").wait_for(timeout=1000)
        except playwright.TimeoutError:
            continue
        return [
            cell.strip() for cell in page.get_by_role("row", name="image, face 2").inner_text().split("\t")
        ]
    raise AssertionError("the correction is not published")


def test_correction_is_published_and_erased(visit: Open, tmp_path: Path) -> None:
    with FakeHub(token=TOKEN) as hub:
        variables = environment(hub, tmp_path / "hf")
        variables |= {"HF_TOKEN": TOKEN, "HSEMOTION_FEEDBACK_REPO": REPO, "HSEMOTION_FEEDBACK_SECRET": SECRET}
        with serve_page(tmp_path, variables) as url:
            page = visit(url=url)
            analyze(page, write_picture(tmp_path))
            code = flag(page, ticks=("Also save the picture", "Also publish it"))
            kept = page.locator("img:visible").evaluate_all(
                "images => images.map(image => image.naturalWidth)"
            )
            row = wait_until_published(page)
            page.close()
        assert row == ["image, face 2", "wrong", "Expression: Fear", "yes", "published"]
        assert any(width for width in kept)
        database = tmp_path / "feedback" / "feedback.sqlite"
        add_others_and_push(database, variables)
        contributor = Keys(SECRET.encode()).contributor(code)
        with FeedbackStore(f"sqlite:///{database}", read_only=True) as store:
            [mine] = store.records(contributor=contributor)
        needles = [contributor, mine.id]
        traces = [*(needle.encode() for needle in needles), mine.crop]
        blobs = [*everything_in(tmp_path / "feedback"), *everything_on(hub)]
        assert all(any(trace in blob for blob in blobs) for trace in traces)
        with serve_page(tmp_path, variables) as url:
            page = visit("", url=url, theme="dark", width=390)
            open_tab(page, "My data")
            page.get_by_label("Receipt code").fill(code.lower().replace("-", " "))
            my_data(page, "Erase")
            page.get_by_text("Select the checkbox to confirm the erasure.").wait_for()
            page.get_by_label("Erase everything saved").check()
            my_data(page, "Erase")
            words = (
                "1 correction and 1 image were erased from this server. The published rows were also erased"
            )
            page.get_by_text(words).wait_for()
            my_data(page, "List")
            page.get_by_text("Nothing is saved under this code.").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.close()
        left = [*everything_in(tmp_path / "feedback"), *everything_on(hub)]
        assert not [trace for trace in traces if any(trace in blob for blob in left)]
        assert len(hub.commits(REPO, kind="dataset")) == 1
        files = hub.files(REPO, kind="dataset")
        rows = [row for path, body in files.items() if path.endswith(".parquet") for row in decode(body)]
        assert len(rows) == OTHERS
        assert files["erased.txt"].decode().split() == [tombstone_of(mine.id)]


def add_others_and_push(database: Path, variables: dict[str, str]) -> None:
    """Let others judge too, and publish that by the command."""
    with FeedbackStore(f"sqlite:///{database}", reserve_bytes=0) as store:
        for number in range(OTHERS):
            corrected = {"expression": {EXPRESSION.label_names[number % 8]: 1.0}}
            store.add(
                replace(
                    make_record(number, contributor=hash_of(f"person {number}"), corrected=corrected),
                    crop=make_crop(number, 24),
                )
            )
    push = subprocess.run(
        [sys.executable, "-m", "hsemotion_space", "feedback", "push"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **variables, "HSEMOTION_FEEDBACK_DATA": str(database.parent)},
    )  # fmt: skip
    assert push.returncode == 0, push.stderr
    assert f"{OTHERS + 1} published" in push.stdout


def test_form_says_what_is_missing(visit: Open, tmp_path: Path) -> None:
    page = visit()
    analyze(page, write_picture(tmp_path))
    for action, complaint in [
        (lambda: None, "Correct at least one task"),
        (lambda: choose(page, "Expression", "Anger"), "To send a correction"),
        (lambda: tick(page, "Save my correction"), "Confirm that you are 18 or older"),
    ]:
        action()
        press(page, "Send")
        page.locator(".problem:visible", has_text=complaint).wait_for()


def test_form_is_reached_and_filled_by_keyboard_alone(visit: Open, tmp_path: Path) -> None:
    page = visit()
    add(page, write_picture(tmp_path))
    page.locator(".viewer:visible").focus()

    def go_to(name: str, role: str) -> None:
        for _ in range(150):
            page.keyboard.press("Tab")
            if page.get_by_role(role, name=name).and_(page.locator(":focus")).count():
                return
        raise AssertionError(f"{name} is not reached")

    go_to("Not right? Valence and arousal", "button")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").and_(page.locator(":focus")).wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.locator(":focus").get_attribute("aria-label") == "Not right? Valence and arousal"
    page.keyboard.press("Enter")
    page.get_by_label("Correct: Valence and arousal").locator("visible=true").wait_for()
    for name in ("Correct: Valence and arousal", "Save my correction", "I am 18 or older"):
        go_to(name, "checkbox")
        page.keyboard.press("Space")
    go_to("Send", "button")
    page.keyboard.press("Enter")
    page.locator(".receipt:visible, .problem:visible").wait_for()
    assert page.locator(".problem:visible").all_inner_texts() == []


def test_part_of_a_clip_is_corrected_under_one_code_with_the_rest(visit: Open, tmp_path: Path) -> None:
    clip = tmp_path / "face.mp4"
    pictures = [picture_with([(60 + step, 40)], (240, 320)) for step in range(24)]
    write_clip(clip, pictures, [step / 12 for step in range(24)])
    page = visit()
    analyze(page, write_picture(tmp_path))
    code = flag(page)
    add(page, clip)
    page.locator(".viewer video:visible").wait_for()
    correct(page)
    page.get_by_label("Start in seconds").locator("visible=true").fill("0.5")
    page.get_by_label("End in seconds").locator("visible=true").fill("1")
    tick(page, "I cannot tell", "Save my correction", "I am 18 or older")
    press(page, "Send")
    assert page.locator(".receipt:visible code").inner_text() == code
    my_data(page, "List")
    page.get_by_role("cell", name="clip, face 1, 0.5 to 1 s").wait_for()
    page.get_by_role("cell", name="image, face 2").wait_for()
    with page.expect_download() as started:
        name = "Download everything"
        page.get_by_role("button", name=name).or_(page.get_by_role("link", name=name)).first.click()
    given = json.loads(Path(started.value.path()).read_text("utf-8"))
    assert {record["record"]["verdict"] for record in given["records"]} == {"wrong", "cannot_tell"}


def test_corrections_are_taken_while_the_queue_of_analyses_is_full(visit: Open, tmp_path: Path) -> None:
    clip = tmp_path / "long.mp4"
    pictures = [picture_with([(40 + step % 80, 40)], (480, 640)) for step in range(240)]
    write_clip(clip, pictures, [step / 24 for step in range(240)])
    with serve_page(tmp_path) as url:  # of its own, as nothing else could be analyzed after this
        page = visit(url=url)
        analyze(page, write_picture(tmp_path))
        files = {"files": ("long.mp4", clip.read_bytes())}
        path = httpx.post(f"{url}/gradio_api/upload", files=files, timeout=30).json()[0]
        body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, True, "random", 10.0, 1.0]}

        def join(count: int) -> list[int]:
            address = f"{url}/gradio_api/call/analyze_clip"
            return [httpx.post(address, json=body, timeout=30).status_code for _ in range(count)]

        assert join(60).count(503) >= 10
        flag(page)
        assert 503 in join(32), "the queue was full only before"
        page.close()


def test_form_of_the_next_picture_is_empty(visit: Open, tmp_path: Path) -> None:
    page = visit()
    analyze(page, write_picture(tmp_path))
    flag(page, ticks=("Also save the picture", "Also publish it"))
    page.get_by_label("Comment").locator("visible=true").fill("about the first")
    first = page.locator(".drawer img:visible").get_attribute("src")
    press(page, "Close")
    press(page, "Remove")
    page.locator(".media:visible").wait_for()
    analyze(page, write_picture(tmp_path, (60, 60)))
    assert page.locator(".drawer input[type=checkbox]:visible:checked").count() == 0
    assert page.get_by_label("Comment").locator("visible=true").input_value() == ""
    assert page.get_by_label("Expression", exact=True).locator("visible=true").input_value() == "no answer"
    assert page.locator(".drawer img:visible").count() == 0
    press(page, "Send")
    page.locator(".problem:visible").wait_for()
    choose(page, "Expression", "Anger")
    tick(page, "Save my correction", "Also save the picture", "I am 18 or older")
    page.locator(".drawer img:visible").wait_for()
    assert page.locator(".drawer img:visible").get_attribute("src") != first
    press(page, "Send")
    page.locator(".receipt:visible").wait_for()
