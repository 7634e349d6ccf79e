"""Corrections in a real browser: from a flag on the page to a training step, and until nothing of it is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from browser_makers import add_clip, choose, needs_chromium, open_page, open_tab, playwright, start_browser
from face_makers import picture_with
from fake_hub import FakeHub, environment
from feedback_makers import hash_of, make_crop, make_record
from feedback_publishing import REPO, TOKEN, everything_in, everything_on
from media_makers import write_clip
from page_makers import ROOT, serve_page
from PIL import Image

from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of
from hsemotion_space.learn.run import train
from hsemotion_space.tasks import EXPRESSION

pytestmark = needs_chromium
SECRET = "a secret of forty characters, more or less"
OTHERS = 39
RECIPE = """
arch = "test_byobnet"
size = 32
steps = 2
steps_per_epoch = 1
batch = 8
compile = false
bfloat16 = false
[[sources]]
name = "feedback"
format = "feedback"
files = ["published"]
share = 1.0
tuning = 0.3
tiers = ["raw"]
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_page(tmp_path_factory.mktemp("feedback")) as address:
        yield address


def write_picture(folder: Path) -> Path:
    picture = folder / "two.png"
    Image.fromarray(picture_with([(10, 20), (170, 60)], (240, 320))).save(picture)
    return picture


def analyze(page: playwright.Page, picture: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(picture)
    page.locator(".face-table:visible").wait_for()
    page.get_by_role("button", name="Is this right?").locator("visible=true").click()


def send(page: playwright.Page) -> None:
    page.get_by_role("button", name="Send").locator("visible=true").click()


def flag(page: playwright.Page, answer: str = "Fear", ticks: tuple[str, ...] = ()) -> str:
    """Say that face 2 shows another expression and return the receipt code."""
    with page.expect_response(lambda response: "/run/predict" in response.url):  # another face empties the form
        choose(page, "Face", "Face 2")
    page.wait_for_timeout(200)
    page.get_by_label("It is wrong").locator("visible=true").check()
    choose(page, "Expression", answer)
    for tick in ("Keep my correction", *ticks, "I am 18 or older"):
        page.get_by_label(tick).locator("visible=true").check()
    send(page)
    return page.locator(".receipt:visible code").inner_text()


def my_data(page: playwright.Page, button: str) -> None:
    open_tab(page, "My data")
    page.get_by_role("button", name=button).locator("visible=true").click()


def test_from_a_flag_to_a_training_step_and_until_nothing_is_left(browser: playwright.Browser, tmp_path: Path) -> None:
    picture = write_picture(tmp_path)
    with FakeHub(token=TOKEN) as hub:
        variables = environment(hub, tmp_path / "hf")
        variables |= {"HF_TOKEN": TOKEN, "HSEMOTION_FEEDBACK_REPO": REPO, "HSEMOTION_FEEDBACK_SECRET": SECRET}
        with serve_page(tmp_path, variables) as url:
            page, requested = open_page(browser, url, "light", 1280)
            analyze(page, picture)
            code = flag(page, ticks=("Also keep the picture", "Also publish it"))
            kept = page.locator("img:visible").evaluate_all("images => images.map(image => image.naturalWidth)")
            for _ in range(30):
                my_data(page, "List")
                page.get_by_role("table").locator("visible=true", has_text="Fear").wait_for()
                if page.get_by_role("cell", name="published").count():
                    break
                page.wait_for_timeout(500)
            row = page.get_by_role("row", name="image, face 2").inner_text().split("\t")
            assert [cell.strip() for cell in row] == ["image, face 2", "wrong", "Expression: Fear", "yes", "published"]
            assert not [address for address in requested if not address.startswith((url, "data:", "blob:"))]
            page.close()
        assert any(width for width in kept)
        database = tmp_path / "feedback" / "feedback.sqlite"
        published = add_others_and_push(database, variables, hub, tmp_path)
        check_training(published, tmp_path)
        contributor = Keys(SECRET.encode()).contributor(code)
        with FeedbackStore(f"sqlite:///{database}", read_only=True) as store:
            [mine] = store.records(contributor=contributor)
        needles = [contributor, mine.id]
        traces = [*(needle.encode() for needle in needles), mine.crop]
        assert all(any(trace in blob for blob in [*everything_in(tmp_path / "feedback"), *everything_on(hub)]) for trace in traces)
        with serve_page(tmp_path, variables) as url:
            page, _ = open_page(browser, url, "dark", 390)
            open_tab(page, "My data")
            page.get_by_label("Receipt code").fill(code.lower().replace("-", " "))
            my_data(page, "Erase")
            page.get_by_text("Please tick that everything is to be erased.").wait_for()
            page.get_by_label("Erase everything I gave").check()
            my_data(page, "Erase")
            page.get_by_text("1 statement and 1 picture were erased here. What was published of it is gone too").wait_for()
            my_data(page, "List")
            page.get_by_text("Nothing is kept under this code.").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.close()
        left = [*everything_in(tmp_path / "feedback"), *everything_on(hub)]
        assert not [trace for trace in traces if any(trace in blob for blob in left)]
        assert len(hub.commits(REPO, kind="dataset")) == 1
        rows = [row for path, body in hub.files(REPO, kind="dataset").items() if path.endswith(".parquet") for row in decode(body)]
        assert len(rows) == OTHERS
        assert hub.files(REPO, kind="dataset")["erased.txt"].decode().split() == [tombstone_of(mine.id)]


def add_others_and_push(database: Path, variables: dict[str, str], hub: FakeHub, folder: Path) -> Path:
    """Let others judge too, publish that by the command, and return a copy of what is published."""
    with FeedbackStore(f"sqlite:///{database}", reserve_bytes=0) as store:
        for number in range(OTHERS):
            corrected = {"expression": {EXPRESSION.label_names[number % 8]: 1.0}}
            store.add(
                replace(make_record(number, contributor=hash_of(f"person {number}"), corrected=corrected), crop=make_crop(number, 24))
            )
    push = subprocess.run(
        [sys.executable, "-m", "hsemotion_space", "feedback", "push"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **variables, "HSEMOTION_FEEDBACK_DATA": str(database.parent)},
    )  # fmt: skip
    assert push.returncode == 0, push.stderr
    assert f"{OTHERS + 1} published" in push.stdout
    for path, body in hub.files(REPO, kind="dataset").items():
        (folder / "published" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "published" / path).write_bytes(body)
    return folder / "published"


def check_training(published: Path, folder: Path) -> None:
    """Load what is published with the library and train on it."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset(str(published), split="train", cache_dir=str(folder / "cache"))
    assert len(rows) == OTHERS + 1
    assert sum(row["verdict"] == "wrong" and row["corrected_expression"] == "Fear" and row["face"] == 2 for row in rows) == 1
    assert all(row["image"].size[0] > 0 for row in rows)
    (folder / "recipe.toml").write_text(RECIPE)
    assert train(folder / "recipe.toml", folder, folder / "run", None)
    steps = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(np.isfinite(list(step["loss"].values())).all() for step in steps)


def test_nothing_is_analyzed_before_the_tick(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    page, _ = open_page(browser, url, "light", 1280, agreed=False)
    page.locator("input[type=file]").first.set_input_files(write_picture(tmp_path))
    page.locator(".notices:visible", has_text="Please tick “Analyze what I add” first").wait_for()
    assert page.locator(".face-table:visible").count() == 0
    page.get_by_label("Analyze what I add").check()
    page.locator(".face-table:visible").wait_for()
    page.close()


def test_what_is_missing_is_said_and_nothing_is_kept(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    page, _ = open_page(browser, url, "light", 1280)
    analyze(page, write_picture(tmp_path))
    for action, complaint in [
        (lambda: None, "Please say first whether"),
        (lambda: page.get_by_label("It is wrong").locator("visible=true").check(), "say what would be right"),
        (lambda: choose(page, "Expression", "Anger"), "Without the tick at “Keep my correction”"),
        (lambda: page.get_by_label("Keep my correction").locator("visible=true").check(), "confirm that you are 18 or older"),
    ]:
        action()
        send(page)
        page.locator(".problem:visible", has_text=complaint).wait_for()
    page.close()


def test_the_form_is_reached_and_filled_by_keyboard_alone(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    page, _ = open_page(browser, url, "light", 1280)
    page.locator("input[type=file]").first.set_input_files(write_picture(tmp_path))
    page.locator(".face-table:visible").focus()
    page.locator(".face-table:visible").wait_for()

    def go_to(name: str, role: str) -> None:
        for _ in range(150):
            page.keyboard.press("Tab")
            if page.get_by_role(role, name=name).and_(page.locator(":focus")).count():
                return
        raise AssertionError(f"{name} is not reached")

    go_to("Is this right?", "button")
    page.keyboard.press("Enter")
    page.get_by_label("It is right").locator("visible=true").wait_for()
    go_to("It is right", "radio")
    page.keyboard.press("Space")
    for name in ("Keep my correction", "I am 18 or older"):
        go_to(name, "checkbox")
        page.keyboard.press("Space")
    go_to("Send", "button")
    page.keyboard.press("Enter")
    page.locator(".receipt:visible, .problem:visible").wait_for()
    assert page.locator(".problem:visible").all_inner_texts() == []
    page.close()


def test_a_part_of_a_clip_is_corrected_under_one_code_with_the_rest(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    clip = tmp_path / "face.mp4"
    write_clip(clip, [picture_with([(60 + step, 40)], (240, 320)) for step in range(24)], [step / 12 for step in range(24)])
    page, _ = open_page(browser, url, "light", 1280)
    analyze(page, write_picture(tmp_path))
    code = flag(page)
    add_clip(page, clip)
    page.get_by_role("button", name="Analyze").locator("visible=true").click()
    page.get_by_role("button", name="Is this right?").locator("visible=true").click()
    page.get_by_label("From second").locator("visible=true").fill("0.5")
    page.get_by_label("To second").locator("visible=true").fill("1")
    page.get_by_label("I cannot tell").locator("visible=true").check()
    page.get_by_label("Keep my correction").locator("visible=true").check()
    page.get_by_label("I am 18 or older").locator("visible=true").check()
    send(page)
    assert page.locator(".receipt:visible code").inner_text() == code
    my_data(page, "List")
    page.get_by_role("cell", name="clip, face 1, 0.5 to 1 s").wait_for()
    page.get_by_role("cell", name="image, face 2").wait_for()
    with page.expect_download() as started:
        page.get_by_role("button", name="Download everything").or_(page.get_by_role("link", name="Download everything")).first.click()
    given = json.loads(Path(started.value.path()).read_text("utf-8"))
    assert {record["record"]["verdict"] for record in given["records"]} == {"wrong", "cannot_tell"}
    page.close()


def test_corrections_are_taken_while_the_queue_of_analyses_is_full(browser: playwright.Browser, url: str, tmp_path: Path) -> None:
    clip = tmp_path / "long.mp4"
    write_clip(clip, [picture_with([(40 + step % 80, 40)], (480, 640)) for step in range(240)], [step / 24 for step in range(240)])
    page, _ = open_page(browser, url, "light", 1280)
    analyze(page, write_picture(tmp_path))
    path = httpx.post(f"{url}/gradio_api/upload", files={"files": ("long.mp4", clip.read_bytes())}, timeout=30).json()[0]
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}

    def join(_: object) -> int:
        body = {"data": [file, True, "random", 10.0, 1.0]}
        return httpx.post(f"{url}/gradio_api/call/analyze_clip", json=body, timeout=30).status_code

    answers = [join(f"flood{count}") for count in range(60)]
    assert answers.count(503) >= 10
    flag(page)
    assert 503 in [join(f"after{count}") for count in range(32)], "the queue was full only before"
    page.close()


def test_nothing_that_was_ticked_or_said_about_one_picture_holds_for_the_next(browser: playwright.Browser, tmp_path: Path) -> None:
    with serve_page(tmp_path) as url:  # of its own, as one address may send five corrections a minute
        page, _ = open_page(browser, url, "light", 1280)
        analyze(page, write_picture(tmp_path))
        flag(page, ticks=("Also keep the picture", "Also publish it"))
        page.get_by_label("Comment").locator("visible=true").fill("about the first")
        first = page.locator(".feedback img:visible").get_attribute("src")
        other = tmp_path / "other.png"
        Image.fromarray(picture_with([(60, 60)], (240, 320))).save(other)
        page.get_by_role("button", name="Remove Image").or_(page.get_by_role("button", name="Clear")).first.click()
        page.get_by_text("Add a picture to see").wait_for()
        analyze(page, other)
        page.get_by_label("It is wrong").locator("visible=true").check()
        assert page.locator(".feedback input[type=checkbox]:visible:checked").count() == 0
        assert page.get_by_label("Comment").locator("visible=true").input_value() == ""
        assert page.get_by_label("Expression", exact=True).locator("visible=true").input_value() == "not said"
        assert page.locator(".feedback img:visible").count() == 0
        send(page)
        page.locator(".problem:visible").wait_for()
        choose(page, "Expression", "Anger")
        for tick in ("Keep my correction", "Also keep the picture", "I am 18 or older"):
            page.get_by_label(tick).locator("visible=true").check()
        page.locator(".feedback img:visible").wait_for()
        assert page.locator(".feedback img:visible").get_attribute("src") != first
        send(page)
        page.locator(".receipt:visible").wait_for()
        page.close()
