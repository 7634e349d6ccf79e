"""Every tab, empty and filled, is checked by axe-core: no violation that is serious or critical, and no
scrolling sideways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser_makers import (
    REVIEW_TOKEN,
    Open,
    add,
    choose,
    correct,
    open_tab,
    playwright,
    press,
    write_picture,
)
from feedback_makers import make_crop, make_record

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

GRAVE = ("serious", "critical")

Scene = Callable[[playwright.Page, Path], Iterator[str]]


def unfold(page: playwright.Page) -> None:
    """Open everything on the page that is folded, also what lies within."""
    folded = page.locator("button.label-wrap:not(.open):visible, details:not([open]) > summary:visible")
    for _ in range(20):
        if folded.count():
            folded.first.click()
    assert not folded.count()


def tab_names(page: playwright.Page) -> list[str]:
    """Return the names of the page's tabs, also of those that a narrow page has in a menu."""
    texts = page.locator("[role=tab], .overflow-dropdown button").all_text_contents()
    return list(dict.fromkeys(filter(None, map(str.strip, texts))))


def every_tab(page: playwright.Page, _: Path) -> Iterator[str]:
    """Each tab as a visitor first meets it."""
    names = tab_names(page)
    assert {"Analyze", "Live", "Annotate", "My data", "Review", "About"} <= set(names)
    for name in names:
        open_tab(page, name)
        page.wait_for_function("document.getAnimations().every(one => one.playState !== 'running')")
        yield name


def example_picture(page: playwright.Page, _: Path) -> Iterator[str]:
    """The result of the example, then with everything that folds open."""
    page.locator(".examples").get_by_role("button", name="Picture").click()
    page.locator(".chip:visible").wait_for()
    yield "result"
    unfold(page)
    press(page, "Show the map")
    page.locator(".explained .title:visible").wait_for()
    yield "where the network looks"


def correction(page: playwright.Page, folder: Path) -> Iterator[str]:
    """The open correction form of a picture, what is missing in it, and the receipt."""
    add(page, write_picture(folder))
    correct(page)
    page.get_by_label("Expression", exact=True).locator("visible=true").wait_for()
    yield "form"
    press(page, "Send")
    page.locator(".problem:visible").first.wait_for()
    yield "what is missing"


def compared_clip(page: playwright.Page, _: Path) -> Iterator[str]:
    """The example clip, seen by two backbones."""
    press(page, "Options", exact=False)
    choose(page, "Compare with", "Test second")
    page.keyboard.press("Escape")
    page.locator(".examples").get_by_role("button", name="Clip").click()
    page.get_by_role("table", name="Moments with the largest differences").wait_for()
    page.locator(".linked-viewer:visible .js-plotly-plot").first.wait_for()
    # the one of the comparison; until then Gradio shows nothing
    page.locator(".js-plotly-plot:visible:not(.linked-viewer *)").first.wait_for()
    yield "result and comparison"
    unfold(page)
    yield "unfolded"


def queue(page: playwright.Page, _: Path) -> Iterator[str]:
    """The queue on the examples, before and after an answer."""
    open_tab(page, "Annotate")
    page.get_by_role("checkbox", name="My analyzed files").locator("visible=true").uncheck()
    press(page, "Start")
    page.locator(".annotate .labels button").first.wait_for()
    yield "question"
    page.keyboard.press("5")
    page.locator(".annotate .last").wait_for()
    yield "answered"


def reviewing(page: playwright.Page, _: Path) -> Iterator[str]:
    """What waits for a review, and how much people agree."""
    open_tab(page, "Review")
    page.get_by_label("Review token").fill(REVIEW_TOKEN)
    press(page, "Show pending corrections")
    page.get_by_text("Number 1, image, face 1: wrong").wait_for()
    page.get_by_role("img", name="Submitted picture").wait_for()
    press(page, "Agreement and publishing")
    page.get_by_text("Tiers: ").wait_for()
    yield "a correction"


def grave_violations(page: playwright.Page) -> list[str]:
    """Return what axe finds serious or critical: rule, selector, HTML and reason."""
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 10, "axe has not looked at the page"
    return [
        json.dumps([rule["id"], node["target"], node["html"], node.get("failureSummary", "")])
        for rule in found["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]


LIGHT, DARK = ("light", 1280), ("dark", 390)
SCENES = [
    (every_tab, *LIGHT),
    (every_tab, *DARK),
    (example_picture, *DARK),
    (correction, *LIGHT),
    (compared_clip, *DARK),
    (queue, *DARK),
    (reviewing, *LIGHT),
]
LONG = [
    (example_picture, *LIGHT),
    (correction, *DARK),
    (compared_clip, *LIGHT),
    (queue, *LIGHT),
    (reviewing, *DARK),
]


@pytest.mark.parametrize(
    ("scene", "theme", "width"), [*SCENES, *(pytest.param(*one, marks=pytest.mark.long) for one in LONG)]
)
def test_axe_finds_nothing_grave(
    visit: Open, add_feedback: Callable[..., list[str]], tmp_path: Path, scene: Scene, theme: str, width: int
) -> None:
    add_feedback(replace(make_record(1, comment="It looks sad to me."), crop=make_crop(1)))
    page = visit(theme=theme, width=width)
    found = []
    for state in scene(page, tmp_path):
        found += [f"{state}: {violation}" for violation in grave_violations(page)]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{state}: it scrolls sideways")
    assert not found, "\n".join(found)
