"""The linked viewer in a real browser, on a small page of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from browser_makers import needs_chromium, playwright, start_browser
from page_makers import ROOT, free_port
from viewer_page import FRAMES, HEIGHT, MANY, RATE, STRIDE, WIDTH, level

from hsemotion_space.figures import face_color
from hsemotion_space.ui.viewer.component import FOLDER

pytestmark = needs_chromium
FRAME_S = 1 / RATE
REDRAW_MS = 250.0

HELPERS = """
window.viewerHelp = (() => {
  const find = (selector) => document.querySelector('.viewer ' + selector);
  const small = Object.assign(document.createElement('canvas'), {width: 8, height: 8}).getContext('2d', {willReadFrequently: true});
  const shade = () => { small.drawImage(find('video'), 0, 0, 8, 8); return small.getImageData(6, 1, 1, 1).data[0]; };
  const boxLeft = (y = 105) => {
    const canvas = find('.stage canvas'), row = Math.round(canvas.height * y / HEIGHT);
    const pixels = canvas.getContext('2d').getImageData(0, row, canvas.width, 1).data;
    for (let x = 0; x < canvas.width; x++) if (pixels[4 * x + 3] > 128) return (x + 2.5) / canvas.width;
    return null;
  };
  const share = (mark) => {
    const box = mark.parentElement.getBoundingClientRect(), place = mark.getBoundingClientRect();
    return (place.left + (mark.className === 'cursor' ? 1 : 0) - box.left - 52) / (box.width - 64);
  };
  return {
    shade, boxLeft,
    cursor: () => share(find('.cursor')),
    plots: () => [...document.querySelectorAll('.viewer .task .js-plotly-plot')],
    record(log) {
      const video = find('video');
      const next = () => {
        requestAnimationFrame(() => log.push([shade(), boxLeft(), share(find('.cursor'))]));
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
    },
  };
})();
""".replace("HEIGHT", str(HEIGHT))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("viewer"), free_port()
    process = subprocess.Popen(
        [sys.executable, "tests/viewer_page.py", str(port), str(folder)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (process.stdout.read() if process.stdout else b"").decode()
            try:
                if httpx.get(address, timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output.decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with start_browser() as chromium:
        yield chromium


Open = Callable[..., playwright.Page]


@pytest.fixture
def show(browser: playwright.Browser, url: str) -> Iterator[Open]:
    """Yield a function that opens the page with a value; afterwards no error and no foreign request may have occurred."""
    pages, errors, requested = [], [], []

    def opened(name: str, width: int = 1280, theme: str = "light", motion: str = "no-preference") -> playwright.Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion=motion)
        pages.append(page)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{url}/?__theme={theme}")
        page.evaluate(HELPERS)
        put(page, name)
        return page

    yield opened
    for page in pages:
        page.close()
    assert [error for error in errors if "404" not in error] == []
    assert not [address for address in requested if not address.startswith((url, "data:", "blob:"))], "nothing may come from elsewhere"


def put(page: playwright.Page, name: str) -> None:
    """Give the viewer another value and wait until it is drawn."""
    page.locator(".viewer").wait_for()
    page.evaluate(
        "(() => { const root = document.querySelector('.viewer');"
        " window.drawn = new Promise((done) => root.addEventListener('drawn', () => done(1), {once: true})); })()"
    )
    page.get_by_role("button", name=name, exact=True).click()
    page.evaluate("window.drawn")
    if name not in ("broken", "nobody", "nothing", "picture"):
        page.wait_for_function("document.querySelector('.viewer video').readyState >= 2 && window.viewerHelp.boxLeft() !== null")


def number_of(shade: float) -> int:
    """Return the number of the frame whose brightness was read."""
    return round((shade - level(0)) / (level(1) - level(0)))


def number_at(left: float) -> int:
    """Return the number of the frame whose box starts at this share of the width."""
    return round((left * WIDTH - 20) / STRIDE)


def state_of(page: playwright.Page) -> tuple[int, int]:
    """Return the frame on screen and the frame that the overlay was drawn for."""
    shade, left = page.evaluate("[viewerHelp.shade(), viewerHelp.boxLeft()]")
    return number_of(shade), number_at(left)


def settled(page: playwright.Page, number: int) -> None:
    """Wait until both picture and overlay are at a frame."""
    deadline = time.monotonic() + 20
    while state_of(page) != (number, number):
        assert time.monotonic() < deadline, (state_of(page), number)
        page.wait_for_timeout(30)


def heard(page: playwright.Page, kind: str) -> dict[str, object]:
    """Return what the last event of a kind brought to Python; wait for the first one."""
    page.wait_for_function(f"document.querySelector('#heard-{kind} textarea').value !== ''")
    return json.loads(page.locator(f"#heard-{kind} textarea").input_value())


def point(page: playwright.Page, share: float, task: str = "Expression") -> tuple[float, float]:
    """Return where a share of the width of a timeline is on the page."""
    box = page.locator(f"section[aria-label='{task}'] .plot-box")
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    return place["x"] + 52 + share * (place["width"] - 64), place["y"] + 60


def press(page: playwright.Page, *keys: str) -> None:
    page.locator(".viewer").focus()
    for key in keys:
        page.keyboard.press(key)


LAST_S = (FRAMES - 1) / RATE


def test_each_frame_on_screen_has_the_box_of_its_own_time(show: Open) -> None:
    page = show("clip")
    page.evaluate("window.log = []; viewerHelp.record(window.log)")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("document.querySelector('.viewer video').ended")
    pairs = [(number_of(shade), number_at(left)) for shade, left, _ in page.evaluate("log") if left is not None]
    assert len({picture for picture, _ in pairs}) > FRAMES // 2, "too few frames were seen to say anything"
    late = [pair for pair in pairs if pair[0] != pair[1]]
    assert not late, late


def test_steps_show_exactly_the_next_frame_with_its_box(show: Open) -> None:
    page = show("clip")
    settled(page, 0)
    for number in range(1, 8):
        press(page, "ArrowRight")
        settled(page, number)
    press(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    settled(page, 4)
    press(page, "Shift+ArrowRight")
    settled(page, 14)
    press(page, "Shift+ArrowLeft")
    settled(page, 4)
    assert abs(float(heard(page, "seek")["time"]) - 4 * FRAME_S) < FRAME_S
    assert page.locator(".viewer .announce").text_content().startswith("0.4")


def test_a_click_in_any_timeline_goes_there(show: Open) -> None:
    page = show("clip")
    for task, share in (("Expression", 0.62), ("Action units", 0.21), ("Compound expression", 0.9)):
        page.mouse.click(*point(page, share, task))
        settled(page, int(share * LAST_S * RATE))
        assert abs(page.evaluate("document.querySelector('.viewer video').currentTime") - share * LAST_S) <= FRAME_S
        assert abs(page.evaluate("viewerHelp.cursor()") - share) * LAST_S <= FRAME_S


def test_the_cursor_follows_playback(show: Open) -> None:
    page = show("clip")
    page.evaluate("window.log = []; viewerHelp.record(window.log)")
    press(page, " ")
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    page.wait_for_function("log.length > 15")
    press(page, " ")
    page.get_by_role("button", name="Play", exact=True).wait_for()
    seen = [(number_of(shade), share * LAST_S) for shade, _, share in page.evaluate("log")]
    assert len({number for number, _ in seen}) > 10
    for number, cursor_s in seen:
        assert abs(number * FRAME_S - cursor_s) < 0.02, (number, cursor_s)


def test_a_drag_selects_a_range_in_every_timeline_and_tells_python(show: Open) -> None:
    page = show("clip")
    start, end = point(page, 0.7), point(page, 0.3)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, start[1], steps=4)
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    first, last, face = heard(page, "range")["selection"]
    assert face == 1
    assert (first, last) == (pytest.approx(0.3 * LAST_S, abs=0.05), pytest.approx(0.7 * LAST_S, abs=0.05))
    assert page.locator(".selected:visible").count() == page.locator(".plot-box").count() == 4
    assert state_of(page) == (0, 0), "a drag is not a click"
    page.get_by_role("button", name="Zoom to range").click()
    page.wait_for_function(f"Math.abs(viewerHelp.plots()[0].layout.xaxis.range[0] - {0.3 * LAST_S}) < 0.06")
    press(page, "Escape")
    page.wait_for_function("document.querySelector('#heard-range textarea').value.includes('\"selection\": null')")
    assert page.locator(".selected:visible").count() == 0


def test_keys_mark_a_range_and_name_a_label(show: Open) -> None:
    page = show("clip")
    page.get_by_role("button", name="Face 2", exact=True).click()
    page.mouse.click(*point(page, 0.25))
    settled(page, int(0.25 * LAST_S * RATE))
    press(page, "[")
    assert "starts at 0.90 s" in page.locator(".chosen-range").text_content()
    press(page, "Shift+ArrowRight", "Shift+ArrowRight")
    page.wait_for_function("Math.abs(document.querySelector('.viewer video').currentTime - 2.9) < 0.05")
    press(page, "]")
    assert heard(page, "range")["selection"] == [pytest.approx(0.9, abs=0.01), pytest.approx(2.9, abs=0.01), 2]
    press(page, "3")
    told = heard(page, "label_key")
    assert (told["key"], told["selection"][2]) == (3, 2)
    page.locator(".viewer select.speed").focus()
    page.keyboard.press("5")
    page.wait_for_timeout(500)
    assert heard(page, "label_key")["key"] == 3, "a key in a field is not a label"


def test_everything_can_be_reached_by_tab_with_a_visible_focus(show: Open) -> None:
    page = show("clip")
    page.locator(".viewer").focus()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline, inside = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e); return [e.getAttribute('aria-label') || e.textContent,"
            " s.outlineStyle, Boolean(e.closest('.viewer'))]; })()"
        )
        if not inside:
            break
        assert outline != "none", name
        reached.append(name)
    for wanted in ("Play", "Position in the clip", "Face 2", "Action units", "Zoom in", "Happiness"):
        assert any(wanted in name for name in reached), (wanted, reached)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('.viewer button')].filter(b => !b.textContent.trim() && !b.getAttribute('aria-label')).length"
    )
    assert unnamed == 0


def test_new_values_of_the_same_media_keep_zoom_labels_and_place(show: Open) -> None:
    page = show("clip")
    page.mouse.click(*point(page, 0.5))
    settled(page, 19)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("group", name="Timelines shown").get_by_role("button", name="Action units").click()
    page.get_by_role("group", name="Labels of Expression").get_by_role("button", name="Fear").click()
    reading = (
        "[viewerHelp.plots().map(p => p.layout.xaxis.range), [...document.querySelectorAll('.viewer [aria-pressed=true]')]"
        ".map(b => b.textContent), document.querySelector('.viewer video').currentTime]"
    )
    page.wait_for_timeout(300)
    before, values = page.evaluate(reading), page.evaluate("JSON.stringify(viewerHelp.plots()[0].data.map(t => t.y))")
    assert before[0][0][1] - before[0][0][0] == pytest.approx(LAST_S / 2, abs=0.01)
    put(page, "again")
    assert page.evaluate("JSON.stringify(viewerHelp.plots()[0].data.map(t => t.y))") != values, "the values are new"
    assert page.evaluate(reading) == before
    assert page.locator(".note", has_text="unsmoothed").count() > 0
    put(page, "one")
    assert page.evaluate("viewerHelp.plots()[0].layout.xaxis.range") == [0, LAST_S], "another media starts afresh"


def test_lines_break_and_shade_where_the_chosen_face_is_missing(show: Open) -> None:
    page = show("clip")
    shapes = "viewerHelp.plots()[0].layout.shapes.map(s => [s.x0, s.x1])"
    assert page.evaluate(shapes) == []
    page.get_by_role("button", name="Face 2", exact=True).click()
    page.wait_for_function(f"{shapes.replace('.map(s => [s.x0, s.x1])', '.length')} === 1")
    first, last = FRAMES // 3 - 1, 2 * FRAMES // 3
    assert page.evaluate(shapes) == [[pytest.approx(first / RATE), pytest.approx(last / RATE)]]
    face_2 = "viewerHelp.plots()[0].data.filter(t => t.hovertemplate?.includes('Face 2'))[0].y"
    assert page.evaluate(f"{face_2}.filter(v => v === null).length") == last - first - 1
    page.mouse.click(*point(page, 0.5))
    settled(page, 19)
    assert "not found" in page.locator(".now").text_content()


def test_one_face_has_label_colors_and_several_have_face_colors(show: Open) -> None:
    page = show("clip")
    colors = "[...new Set(viewerHelp.plots()[0].data.filter(t => t.hovertemplate).map(t => t.line.color))]"
    dashes = "[...new Set(viewerHelp.plots()[0].data.filter(t => t.hovertemplate).map(t => t.line.dash))]"
    assert page.evaluate(colors) == [face_color(1), face_color(2)]
    assert len(page.evaluate(dashes)) == 2, "each label has its own dash"
    page.get_by_role("button", name="All faces together").click()
    page.wait_for_function(f"{colors}.length === 8")


def test_the_trail_in_the_plane_follows_unless_motion_is_unwanted(show: Open) -> None:
    colored = (
        "(() => { const c = document.querySelector('.viewer .plane'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 16 && d[i + 2] > d[i] + 40) n++; return n; })()"
    )
    counts = {}
    for motion in ("no-preference", "reduce"):
        page = show("clip", motion=motion)
        start = page.evaluate(colored)
        page.mouse.click(*point(page, 0.5))
        settled(page, 19)
        counts[motion] = page.evaluate(colored) - start
    assert counts["no-preference"] > 100
    assert abs(counts["reduce"]) < 60


def test_thirty_thousand_points_stay_smooth(show: Open, record_property: Callable[[str, object], None]) -> None:
    page = show("many")
    assert page.evaluate("Math.max(...viewerHelp.plots().flatMap(p => p.data.map(t => t.x.length)))") < 3000
    took = page.evaluate(
        "async () => { const root = document.querySelector('.viewer'), times = [];"
        " for (let turn = 0; turn < 15; turn++) {"
        "  const from = 100 + 60 * turn, to = from + 1500, start = performance.now();"
        "  const drawn = new Promise((done) => root.addEventListener('drawn', done, {once: true}));"
        "  await Plotly.relayout(viewerHelp.plots()[0], {'xaxis.range[0]': from, 'xaxis.range[1]': to}); await drawn;"
        "  await new Promise(requestAnimationFrame); times.push(performance.now() - start);"
        "  if (Math.abs(viewerHelp.plots()[3].layout.xaxis.range[0] - from) > 1e-6) throw new Error('not linked'); }"
        " return times; }"
    )
    best, median = statistics.median(sorted(took)[:5]), statistics.median(took)
    record_property("redraw_ms", round(median))
    print(f"4 timelines of {MANY} frames, 2 faces: median {median:.0f} ms, fastest third {best:.0f} ms")  # noqa: T201  a measured figure
    assert best < REDRAW_MS, "the fastest third, since other programs slow the rest down"


def test_thinning_keeps_peaks_gaps_and_ends(browser: playwright.Browser) -> None:
    page = browser.new_page()
    script = (FOLDER / "data.js").read_text("utf-8")
    kept = page.evaluate(
        f"(() => {{ {script}\n"
        "const n = 30000, times = Float64Array.from({length: n}, (_, i) => i / 10), values = Float32Array.from(times, () => 0.5);"
        "values[12345] = 1; values[23456] = 0; for (let i = 20000; i < 20003; i++) values[i] = NaN;"
        "const rows = thin(times, values, [0, 2999.9], 300), part = thin(times, values, [1234, 1235], 300);"
        "const band = thinBand(times, values, Float32Array.from(times, () => 0.1), [0, 2999.9], 300, [0, 1]);"
        "const heat = thinHeat(times, [values], [0, 2999.9], 300);"
        "return {rows, part, top: Math.max(...band.y.filter((v) => v !== null)), peak: Math.max(...heat.z[0]), columns: heat.x.length,"
        " few: thin(times.slice(0, 9), values.slice(0, 9), [0, 1], 300)}; })()"
    )
    assert len(kept["rows"]) <= 900
    assert {12345, 23456} <= set(kept["rows"])
    assert {20000, 20001, 20002} & set(kept["rows"])
    assert kept["rows"] == sorted(set(kept["rows"]))
    assert kept["part"] == list(range(12340, 12352)), "a zoomed range shows every frame and one more at each side"
    assert (kept["top"], kept["peak"], kept["few"]) == (1, 1, list(range(9)))
    assert kept["columns"] <= 300
    page.close()


@pytest.mark.parametrize("name", ["clip", "picture", "broken", "nobody"])
def test_a_phone_in_the_dark_never_scrolls_sideways(show: Open, name: str) -> None:
    page = show(name, width=390, theme="dark")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = page.evaluate(
        "(() => { const rgb = getComputedStyle(document.querySelector('.viewer')).color.match(/[0-9.]+/g).slice(0, 3);"
        " return Math.min(...rgb.map(Number)); })()"
    )
    assert light > 150, "letters are light on a dark page"
    ticks = page.evaluate("[...document.querySelectorAll('.viewer .xtick text')].map(t => getComputedStyle(t).fill)")
    assert all(fill == page.evaluate("getComputedStyle(document.querySelector('.viewer')).color") for fill in ticks)
    assert bool(ticks) == (name in ("clip", "broken"))


def test_a_picture_has_its_faces_above_it_and_as_cards(show: Open) -> None:
    page = show("picture")
    page.locator(".face-card .portrait").first.wait_for()
    assert page.locator(".face-card").count() == 2
    assert page.locator(".face-card").first.locator("tbody tr").count() == 8 + 2 + 12 + 7 + 6
    assert page.locator(".plot-box, .viewer video:visible, .controls:visible").count() == 0
    left = page.evaluate("viewerHelp.boxLeft(120)")
    assert left * 640 == pytest.approx(60, abs=6)
    press(page, "2")
    assert heard(page, "label_key")["key"] == 2


def test_a_clip_that_cannot_be_played_still_has_its_timelines(show: Open) -> None:
    page = show("broken")
    page.get_by_role("alert").filter(has_text="cannot play this clip").wait_for()
    assert page.get_by_role("button", name="Play", exact=True).is_disabled()
    page.mouse.click(*point(page, 0.5))
    page.wait_for_function("Math.abs(viewerHelp.cursor() - 0.5) < 0.02")
    assert number_at(page.evaluate("viewerHelp.boxLeft()")) in (19, 20)


def test_a_value_can_be_taken_away(show: Open) -> None:
    page = show("clip")
    page.get_by_role("button", name="nothing", exact=True).click()
    page.get_by_text("Nothing to show yet.").wait_for()
    assert page.locator(".viewer video:visible").count() == 0
    put(page, "clip")
    settled(page, 0)


def test_texts_of_a_value_are_only_texts(show: Open) -> None:
    page = show("hostile")
    page.wait_for_timeout(300)
    assert "<img src=x" in page.locator(".viewer .chips").first.text_content()
    assert page.evaluate("[document.querySelectorAll('.viewer [src=x]').length, window.hit ?? null]") == [0, None]
