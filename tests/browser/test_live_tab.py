"""The live tab in a real browser with a camera that shows a clip: starting, numbers, every way to stop, and
that nothing stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from browser_makers import ELSEWHERE, Open, playwright, press
from page_makers import Page

from hsemotion_space.ui.live.component import FOLDER, LIMIT_S

SPAN_MS = 10_000
ANSWER_MS = 6000  # after which the page gives an answer up

WATCH_CAMERA = """
window.streams = [];
if (navigator.mediaDevices) {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    window.wanted = wanted;
    const stream = await open(wanted);
    window.streams.push(stream);
    return stream;
  };
}
"""
NO_CAMERA = """
if (navigator.mediaDevices) {
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); };
}
"""
LIT = "streams.some((stream) => stream.getTracks().some((track) => track.readyState === 'live'))"
EARLIEST_SHADE = """
(() => {
  const canvas = document.querySelector(".live section[aria-label='Action units'] canvas"), scale = canvas.width / canvas.clientWidth;
  const row = canvas.getContext('2d').getImageData(0, Math.round(9 * scale), canvas.width, 1).data;
  for (let x = 0; x < canvas.width - 3; x++) {
    if ([0, 1, 2, 3].every((step) => row[4 * (x + step) + 3] === 255 && row[4 * (x + step) + 2] > 40)) return x / scale;
  }
  return null;
})()
"""
"""Where the row of shades of the first unit begins, in px from the left of its timeline."""
AXIS_PX = 30
BOXES = """
(() => {
  const canvas = document.querySelector('.live .faces-drawn');
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width || 1, canvas.height || 1);
  let count = 0, left = 0;
  for (let place = 3; place < data.length; place += 4) if (data[place]) { count += 1; left += (place >> 2) % canvas.width / canvas.width; }
  return count ? left / count : null;
})()
"""
"""The mean place of what is drawn above the faces, in shares of the width; null if nothing is."""


@pytest.fixture
def show(visit: Open) -> Open:
    """A function that opens the live tab of a visitor who lets the page use the camera."""

    def opened(
        *, script: str = "", permissions: tuple[str, ...] = ("camera",), **options: object
    ) -> playwright.Page:
        page = visit(script=script + WATCH_CAMERA, permissions=permissions, clock=True, **options)
        page.locator("[role=tab]").nth(1).click()
        page.locator(".live .start").wait_for()
        return page

    return opened


def start(page: playwright.Page) -> None:
    """Press the button and wait for the first numbers."""
    page.locator(".live .start").click()
    page.locator(".live td", has_text=".").first.wait_for()


def number(page: playwright.Page, label: str) -> float:
    row = page.locator(".live tr", has=page.get_by_role("rowheader", name=label, exact=True))
    return float(row.locator("td").inner_text().replace("\u2212", "-"))


def sent(page: playwright.Page) -> list[dict[str, object]]:
    """Return the growing list of what the page sends as frames from now on."""
    frames: list[dict[str, object]] = []

    def note(request: playwright.Request) -> None:
        if request.method == "POST" and "/run/" in request.url and "sequence" in (request.post_data or ""):
            frames.append(json.loads(request.post_data)["event_data"])

    page.on("request", note)
    return frames


def is_off(page: playwright.Page) -> bool:
    """Return whether the camera is off for good: no live track, no stream in the video, nothing above it."""
    held = page.evaluate("document.querySelector('.live video').srcObject")
    return held is None and not page.evaluate(LIT) and page.evaluate(BOXES) is None


def wait_until_off(page: playwright.Page) -> None:
    page.wait_for_function(f"streams.length && !({LIT})")
    assert is_off(page)


def left_by_visitors(page: Page) -> set[Path]:
    """Return the files that the server holds for visitors."""
    return {file for file in page.added.rglob("*") if file.is_file() and file.name != "lock"}


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_face_has_a_box_numbers_and_timelines_of_ten_seconds(
    show: Open, served: Page, theme: str, width: int
) -> None:
    left = left_by_visitors(served)
    page = show(theme=theme, width=width)
    assert page.evaluate("streams.length") == 0, "the camera waits for a click"
    frames, started_s = sent(page), time.monotonic()
    start(page)
    assert page.evaluate("wanted.audio") is False
    page.wait_for_function(f"({BOXES}) !== null")
    assert page.evaluate(BOXES) > 0.5, "a person at the left is at the right in a mirror"
    assert number(page, "Happiness") > 0.5 > number(page, "Anger")
    assert 0 < number(page, "Valence") <= 1
    units = page.get_by_role("heading", name="Action units").locator("xpath=..")
    assert units.get_by_text("trained", exact=True).count() == 1
    early = page.wait_for_function(EARLIEST_SHADE).json_value()  # one frame alone is too narrow to be found
    grown = (
        f"early => {{ const left = {EARLIEST_SHADE.strip()}; return left !== null && left < early - 40 &&"
        " left; }"
    )
    before = page.wait_for_function(grown, arg=early).json_value()
    assert before >= AXIS_PX - 1
    assert len(frames) <= 8 * (time.monotonic() - started_s) + 1
    page.clock.fast_forward(SPAN_MS)
    page.wait_for_function(f"before => ({EARLIEST_SHADE}) > before", arg=before)  # what is older is not shown
    assert "frames per second" in page.locator(".live .pace").inner_text()
    assert page.locator(".live .faces button").count() == 0, "it is one face all the time"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"
    press(page, "Stop")
    assert is_off(page)
    assert [frame["sequence"] for frame in frames] == list(range(1, len(frames) + 1))
    count = len(frames)
    page.clock.fast_forward(SPAN_MS)
    assert len(frames) == count, "nothing is sent after that"
    assert max(len(str(frame["frame"])) for frame in frames) < 100_000
    assert number(page, "Happiness") > 0.5, "what was seen last stays until the tab is left"
    assert left_by_visitors(served) <= left, "frames are not written"


def test_only_one_frame_is_on_its_way(show: Open) -> None:
    page = show()
    waiting, most = [], []

    def is_frame(request: playwright.Request) -> bool:
        return "sequence" in (request.post_data or "")

    page.on("request", lambda request: waiting.append(request) if is_frame(request) else None)
    page.on("request", lambda _: most.append(len(waiting)))
    for name in ("requestfinished", "requestfailed"):
        page.on(name, lambda request: waiting.remove(request) if request in waiting else None)
    start(page)
    for _ in range(8):
        page.wait_for_event("requestfinished", is_frame)
    assert max(most) == 1


def test_the_camera_stops_by_itself(show: Open) -> None:
    page = show()
    page.locator(".live .start").click()
    page.get_by_text("It stops in").wait_for()
    assert page.evaluate(LIT)
    page.clock.fast_forward(int(1000 * LIMIT_S))
    page.get_by_text(f"Stopped automatically after {LIMIT_S:g} seconds.").first.wait_for()
    assert is_off(page)


@pytest.mark.parametrize("way", ["tab", "hidden", "tick"])
def test_leaving_switches_the_camera_off_and_forgets_the_numbers(show: Open, way: str) -> None:
    page = show()
    start(page)
    if way == "tab":
        page.get_by_role("tab", name="About").click()
    elif way == "hidden":
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new"
            " Event('visibilitychange'))"
        )
    else:
        page.locator("#agreed input").uncheck()
    page.wait_for_function(f"streams.length && !({LIT})")
    assert is_off(page)
    assert page.locator(".live .sections section").count() == 0
    if way == "tick":
        page.get_by_text("You withdrew your consent").first.wait_for()


def test_a_second_start_is_like_the_first(show: Open) -> None:
    page = show()
    frames = sent(page)
    start(page)
    press(page, "Stop")
    assert is_off(page)
    count = len(frames)
    with page.expect_request(lambda request: "sequence" in (request.post_data or "")):
        page.locator(".live .start").click()
    assert page.evaluate(LIT)
    assert int(str(frames[count]["sequence"])) == count + 1
    page.keyboard.press("Enter")  # the button has the focus
    assert is_off(page)


def test_without_the_tick_the_camera_stays_off_and_nothing_is_sent(show: Open) -> None:
    page = show(agreed=False)
    frames = sent(page)
    page.locator(".live .start").click()
    page.get_by_role("alert").get_by_text("Select “Analyze my files” above first.").wait_for()
    page.clock.fast_forward(ANSWER_MS)
    assert page.evaluate("streams.length") == 0 and page.evaluate("window.wanted") is None
    assert frames == []


def test_live_tab_is_japanese(show: Open) -> None:
    page = show(agreed=False, locale="ja")
    page.get_by_role("button", name="カメラを開始").click()
    page.get_by_role("alert").get_by_text("先に上の「追加したものの解析に同意する」").wait_for()
    page.locator("#agreed input").check()
    start(page)
    assert page.get_by_role("rowheader", name="喜び", exact=True).count() == 1
    assert "毎秒" in page.locator(".live .pace").inner_text()


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("refused", "The browser blocks the camera for this page."),
        ("none", "No camera was found."),
        ("insecure", "only on pages whose address begins with https"),
    ],
)
def test_what_keeps_the_camera_away_is_said(show: Open, served: Page, why: str, words: str) -> None:
    url = served.url.replace("127.0.0.1", ELSEWHERE) if why == "insecure" else served.url
    page = show(
        url=url,
        permissions=() if why == "refused" else ("camera",),
        script=NO_CAMERA if why == "none" else "",
    )
    frames = sent(page)
    page.locator(".live .start").click()
    page.get_by_role("alert").get_by_text(words).wait_for()
    assert page.get_by_role("button", name="Start the camera").count() == 1
    assert frames == []


def answer_with(page: playwright.Page, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    """Let the page get changed answers to its frames."""

    def fulfil(route: playwright.Route) -> None:
        if "sequence" not in (route.request.post_data or ""):
            route.continue_()
            return
        response = route.fetch()
        body = response.json()
        body["data"] = [json.dumps(change(json.loads(body["data"][0])))]
        route.fulfill(response=response, json=body)

    page.route("**/run/**", fulfil)


def test_a_server_that_stays_busy_stops_the_camera(show: Open) -> None:
    page = show()
    answer_with(page, lambda told: {"sequence": told["sequence"], "wait": "The server is busy."})
    page.locator(".live .start").click()
    page.locator(".live .pace").get_by_text("The server is busy.").wait_for()
    page.get_by_role("alert").get_by_text("The server is busy. The camera was stopped.").wait_for()
    page.wait_for_function(f"streams.length && !({LIT})")
    assert is_off(page)


def test_a_reason_not_to_go_on_stops_the_camera_at_once(show: Open) -> None:
    page = show()
    frames = sent(page)
    answer_with(
        page,
        lambda told: {
            "sequence": told["sequence"],
            "stop": "The weights could not be downloaded. <img src=x>",
        },
    )
    page.locator(".live .start").click()
    page.get_by_role("alert").get_by_text("The weights could not be downloaded. <img src=x>").wait_for()
    page.wait_for_function(f"streams.length && !({LIT})")
    assert is_off(page)
    assert len(frames) == 1


def test_an_answer_to_another_frame_is_not_shown(show: Open) -> None:
    page = show()
    late = [True]

    def change(told: dict[str, object]) -> dict[str, object]:
        return {**told, "sequence": int(str(told["sequence"])) - 1} if late else told

    answer_with(page, change)
    page.locator(".live .start").click()
    page.get_by_text("It stops in").wait_for()
    page.clock.fast_forward(ANSWER_MS)
    page.locator(".live .pace").get_by_text("The server does not respond.").wait_for()
    assert page.locator(".live td", has_text=".").count() == 0
    late.clear()
    page.locator(".live td", has_text=".").first.wait_for()


FOLLOW = f"""(() => {{ {(FOLDER / "follow.js").read_text("utf-8")}
  return {{ follow, remember, faceToShow, facesIn, paceOf, overlapOf }}; }})()"""


def test_faces_keep_their_numbers_and_what_is_old_is_dropped(new_page: Open) -> None:
    page = new_page("about:blank")
    page.evaluate(f"window.rules = {FOLLOW}")
    assert page.evaluate("rules.overlapOf([0, 0, 2, 2], [1, 0, 3, 2])") == pytest.approx(1 / 3)
    numbers = page.evaluate("""
      (() => {
        let known = {open: [], next: 1};
        const at = (...lefts) => lefts.map((left) => [left, 0, left + 1, 1]);
        const early = [[0, at(0, 4)], [100, at(4.2, 0.2)], [200, at(0.4)], [900, at(4.4, 0.4)]];
        const seen = [...early, [4000, at(4.4, 0.5)], [9500, at(4.4)], [9600, at(0.6, 4.4)], [10_700, at(4.4)], [12_000, at(0.6, 9, 4.4)]];
        return seen.map(([time, boxes]) => {
          const found = rules.follow(known, boxes, time);
          known = found.known;
          return found.numbers;
        });
      })()
    """)
    assert numbers[:5] == [[1, 2], [2, 1], [1], [2, 1], [2, 1]], (
        "without a frame in between nobody was out of sight"
    )
    assert numbers[5:] == [[3], [4, 3], [3], [5, 6, 3]], (
        "but for a while, or missing for more than a second, makes a new number"
    )
    history = page.evaluate("""
      (() => {
        let history = [];
        for (let time = 0; time <= 25_000; time += 125) history = rules.remember(history, time, new Map([[1, {box: [0, 0, 1, 1]}]]));
        return {times: history.map((item) => item.time), pace: rules.paceOf(history)};
      })()
    """)
    assert (history["times"][0], history["times"][-1], len(history["times"])) == (15_000, 25_000, 81)
    assert history["pace"] == pytest.approx(8)
    shown = page.evaluate("""
      (() => {
        const frame = (time, ...faces) => ({time, faces: new Map(faces.map(([number, size]) => [number, {box: [0, 0, size, size]}]))});
        const history = [frame(0, [1, 1], [2, 2]), frame(500, [2, 2]), frame(3000, [2, 1], [3, 3])];
        return [[null, null], [null, 2], [null, 1], [1, 2], [7, 8]].map(([chosen, before]) => rules.faceToShow(history, chosen, before));
      })()
    """)
    assert shown == [3, 2, 3, 1, 3]
    assert page.evaluate("rules.faceToShow([], null, null)") is None
