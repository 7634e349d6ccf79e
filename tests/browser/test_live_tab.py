"""The live tab in a real browser with a camera that shows a clip: starting, numbers, every way to stop, and that nothing stays."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from browser_makers import CHROMIUM, FLAGS, PATIENCE_MS, needs_chromium, playwright
from page_makers import ROOT, _wait_until_it_answers, free_port
from PIL import Image

from hsemotion_space.ui.live.component import FOLDER

pytestmark = needs_chromium
SPAN_S = 10
LONG_S, SHORT_S = 40, 4  # after which the camera of the two pages stops
CAMERA = ["--use-fake-device-for-media-stream"]
ALLOWED = ["--use-fake-ui-for-media-stream"]
ELSEWHERE = "camera.test"  # a name under which a browser does not take this machine for itself

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


def write_camera(file: Path) -> Path:
    """Write what the camera shows: a person a little to the left, who sways slowly to and fro."""
    with Image.open(ROOT / "examples" / "astronaut.jpg") as picture:
        person = picture.convert("RGB").resize((400, 400))
    frames = []
    for step in [*range(20), *range(20, 0, -1)]:
        scene, held = Image.new("RGB", (640, 480), (40, 44, 52)), io.BytesIO()
        scene.paste(person, (step, 40))
        scene.save(held, "JPEG", quality=92)
        frames.append(held.getvalue())
    file.write_bytes(b"".join(frames))
    return file


@contextmanager
def serve_live(folder: Path, seconds: float) -> Iterator[str]:
    """Yield the address of the page with the starter, whose camera stops after so many seconds; its files lie in ``folder``."""
    port = free_port()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HSEMOTION_PORT": str(port), "HSEMOTION_THREADS": "1", "TMPDIR": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"), "HSEMOTION_FEEDBACK_DATA": str(folder / "feedback"),
        "HSEMOTION_HOSTS": ELSEWHERE.partition(":")[0],
    }  # fmt: skip
    command = [sys.executable, "tests/live_page.py", str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serve_live(folder, LONG_S) as address:
        yield address


Open = Callable[..., playwright.Page]


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., playwright.Browser]]:
    """Yield a function that starts a browser with some flags, once for each set of them."""
    camera = write_camera(tmp_path_factory.mktemp("camera") / "camera.mjpeg")
    started: dict[tuple[str, ...], playwright.Browser] = {}
    with ExitStack() as stack:
        driver = stack.enter_context(playwright.sync_playwright())

        def start(*flags: str) -> playwright.Browser:
            if flags not in started:
                shown = [f"--use-file-for-fake-video-capture={camera}"] if set(CAMERA) <= set(flags) else []
                started[flags] = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags, *shown])
                stack.callback(started[flags].close)
            return started[flags]

        yield start


@pytest.fixture
def show(browsers: Callable[..., playwright.Browser], url: str) -> Iterator[Open]:
    """Yield a function that opens the live tab; afterwards no error and no foreign request may have occurred."""
    pages, errors, requested = [], [], []

    def opened(*flags: str, address: str = url, agreed: bool = True, width: int = 1280, **options: object) -> playwright.Page:
        page = browsers(*(flags or (*CAMERA, *ALLOWED))).new_page(viewport={"width": width, "height": 900}, **options)
        pages.append(page)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.add_init_script(WATCH_CAMERA)
        page.goto(address)
        page.locator("#agreed input").wait_for()
        if agreed:
            page.locator("#agreed input").check()
        page.locator("[role=tab]").nth(2).click()
        page.locator(".live .start").wait_for()
        return page

    yield opened
    for page in pages:
        page.unroute_all(behavior="ignoreErrors")
        page.close()
    assert errors == []
    hosts = (url, f"http://{ELSEWHERE}", "data:", "blob:", "http://127.0.0.1")
    assert not [address for address in requested if not address.startswith(hosts)], "nothing may come from elsewhere"


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


def left_by_visitors(folder: Path) -> list[Path]:
    """Return the files that the server holds for visitors."""
    return [file for file in folder.glob("hsemotion-space-*/**/*") if file.is_file() and file.name != "lock"]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_face_has_a_box_numbers_and_timelines_of_ten_seconds(show: Open, folder: Path, theme: str, width: int) -> None:
    page = show(width=width, color_scheme=theme)
    assert page.evaluate("streams.length") == 0, "the camera waits for a click"
    frames = sent(page)
    start(page)
    assert page.evaluate("wanted.audio") is False
    page.wait_for_function(f"({BOXES}) !== null")
    assert page.evaluate(BOXES) > 0.5, "a person at the left is at the right in a mirror"
    assert number(page, "Happiness") > 0.5 > number(page, "Anger")
    assert 0 < number(page, "Valence") <= 1
    assert page.get_by_role("heading", name="Action units").locator("xpath=..").get_by_text("trained", exact=True).count() == 1
    assert not left_by_visitors(folder), "frames are not written"
    early = page.wait_for_function(EARLIEST_SHADE).json_value()  # one frame alone is too narrow to be found
    page.wait_for_timeout(3000)
    later = page.evaluate(EARLIEST_SHADE)
    assert AXIS_PX - 1 <= later < early, "the timelines grow to the left"
    page.wait_for_timeout(1000 * SPAN_S)
    assert AXIS_PX - 1 <= page.evaluate(EARLIEST_SHADE) < later, "but not beyond ten seconds"
    assert "frames per second" in page.locator(".live .pace").inner_text()
    assert page.locator(".live .faces button").count() == 0, "it is one face all the time"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"
    page.get_by_role("button", name="Stop", exact=True).click()
    assert is_off(page)
    assert [frame["sequence"] for frame in frames] == list(range(1, len(frames) + 1))
    assert len(frames) <= 8 * (SPAN_S + 3 + 30)
    count = len(frames)
    page.wait_for_timeout(1500)
    assert len(frames) == count, "nothing is sent after that"
    assert max(len(str(frame["frame"])) for frame in frames) < 100_000
    assert number(page, "Happiness") > 0.5, "what was seen last stays until the tab is left"
    assert not left_by_visitors(folder)


def test_only_one_frame_is_on_its_way(show: Open) -> None:
    page = show()
    waiting, most = [], []
    page.on("request", lambda request: waiting.append(request) if "sequence" in (request.post_data or "") else None)
    page.on("request", lambda _: most.append(len(waiting)))
    for name in ("requestfinished", "requestfailed"):
        page.on(name, lambda request: waiting.remove(request) if request in waiting else None)
    start(page)
    page.wait_for_timeout(3000)
    assert max(most) == 1


def test_it_stops_by_itself(show: Open, tmp_path: Path) -> None:
    with serve_live(tmp_path, SHORT_S) as address:
        page = show(address=address)
        page.locator(".live .start").click()  # numbers may come later than this: the worker is still warming up
        page.get_by_text("It stops in").wait_for()
        assert page.evaluate(LIT)
        page.get_by_text(f"Stopped by itself after {SHORT_S} seconds.").first.wait_for()
        assert is_off(page)
        assert not left_by_visitors(tmp_path)


@pytest.mark.parametrize("way", ["tab", "hidden", "tick"])
def test_leaving_switches_the_camera_off_and_forgets_the_numbers(show: Open, way: str) -> None:
    page = show()
    start(page)
    if way == "tab":
        page.get_by_role("tab", name="Picture").click()
    elif way == "hidden":
        page.evaluate("Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new Event('visibilitychange'))")
    else:
        page.locator("#agreed input").uncheck()
    wait_until_off(page)
    assert page.locator(".live .sections section").count() == 0
    if way == "tick":
        page.get_by_text("You took the tick away").first.wait_for()


def test_a_second_start_is_like_the_first(show: Open) -> None:
    page = show()
    frames = sent(page)
    start(page)
    page.get_by_role("button", name="Stop", exact=True).click()
    assert is_off(page)
    count = len(frames)
    start(page)
    page.wait_for_timeout(500)
    assert page.evaluate(LIT)
    assert int(str(frames[count]["sequence"])) == count + 1
    page.keyboard.press("Enter")  # the button has the focus
    assert is_off(page)


def test_without_the_tick_the_camera_stays_off_and_nothing_is_sent(show: Open) -> None:
    page = show(agreed=False)
    frames = sent(page)
    page.locator(".live .start").click()
    page.get_by_role("alert").get_by_text("Please tick “Analyze what I add” above first.").wait_for()
    page.wait_for_timeout(1000)
    assert page.evaluate("streams.length") == 0 and page.evaluate("window.wanted") is None
    assert frames == []


def test_in_japanese(show: Open) -> None:
    page = show(agreed=False, locale="ja")
    page.get_by_role("button", name="カメラを開始").click()
    page.get_by_role("alert").get_by_text("先に上の「追加したものの解析に同意する」").wait_for()
    page.locator("#agreed input").check()
    start(page)
    assert page.get_by_role("rowheader", name="喜び", exact=True).count() == 1
    assert "毎秒" in page.locator(".live .pace").inner_text()


@pytest.mark.parametrize(
    ("flags", "address", "words"),
    [
        (CAMERA, "", "The browser does not let this page use the camera."),
        (ALLOWED, "", "No camera was found."),
        (
            [*CAMERA, *ALLOWED, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"],
            ELSEWHERE,
            "only to pages whose address begins with https",
        ),
    ],
    ids=["refused", "none", "insecure"],
)
def test_what_keeps_the_camera_away_is_said(show: Open, url: str, flags: list[str], address: str, words: str) -> None:
    page = show(*flags, address=url.replace("127.0.0.1", address) if address else url)
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
    wait_until_off(page)


def test_a_reason_not_to_go_on_stops_the_camera_at_once(show: Open) -> None:
    page = show()
    frames = sent(page)
    answer_with(page, lambda told: {"sequence": told["sequence"], "stop": "The weights could not be had. <img src=x>"})
    page.locator(".live .start").click()
    page.get_by_role("alert").get_by_text("The weights could not be had. <img src=x>").wait_for()
    wait_until_off(page)
    assert len(frames) == 1


def test_an_answer_to_another_frame_is_not_shown(show: Open) -> None:
    page = show()
    late = [True]

    def change(told: dict[str, object]) -> dict[str, object]:
        return {**told, "sequence": int(str(told["sequence"])) - 1} if late else told

    answer_with(page, change)
    page.locator(".live .start").click()
    page.locator(".live .pace").get_by_text("The server does not answer.").wait_for()
    assert page.locator(".live td", has_text=".").count() == 0
    late.clear()
    page.locator(".live td", has_text=".").first.wait_for()


FOLLOW = f"""(() => {{ {(FOLDER / "follow.js").read_text("utf-8")}
  return {{ follow, remember, faceToShow, facesIn, paceOf, overlapOf }}; }})()"""


def test_faces_keep_their_numbers_and_what_is_old_is_dropped(browsers: Callable[..., playwright.Browser]) -> None:
    page = browsers(*CAMERA, *ALLOWED).new_page()
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
    assert numbers[:5] == [[1, 2], [2, 1], [1], [2, 1], [2, 1]], "without a frame in between nobody was out of sight"
    assert numbers[5:] == [[3], [4, 3], [3], [5, 6, 3]], "but for a while, or missing for more than a second, makes a new number"
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
    page.close()
