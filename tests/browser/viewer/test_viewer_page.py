"""What the viewer draws, and for whom: keyboard, phone, dark, many points, odd values."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from browser_makers import Open
from viewer_makers import LAST_S, heard, number_at, point, press, put, settled
from viewer_page import FRAMES, MANY, RATE

from hsemotion_space.figures import face_color
from hsemotion_space.tasks import TASKS
from hsemotion_space.ui.viewer.component import FOLDER

REDRAW_MS = 250.0


def test_everything_can_be_reached_by_tab_with_a_visible_focus(show: Open) -> None:
    page = show("clip")
    page.locator(".viewer").focus()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline, inside = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e); return"
            " [e.getAttribute('aria-label') || e.textContent, s.outlineStyle, Boolean(e.closest('.viewer'))];"
            " })()"
        )
        if not inside:
            break
        assert outline != "none", name
        reached.append(name)
    for wanted in ("Play", "Position in the clip", "Face 1", "Action units", "Zoom in", "Happiness"):
        assert any(wanted in name for name in reached), (wanted, reached)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('.viewer button')].filter(b => !b.textContent.trim() &&"
        " !b.getAttribute('aria-label')).length"
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
        "[viewerHelp.plots().map(p => p.layout.xaxis.range), [...document.querySelectorAll('.viewer"
        " [aria-pressed=true]')].map(b => b.textContent), document.querySelector('.viewer"
        " video').currentTime]"
    )
    page.wait_for_function(
        "viewerHelp.plots().every(({layout: {xaxis: {range: [a, b]}}}) => Math.abs(b - a -"
        f" {LAST_S / 2}) < 0.01)"
    )
    before, values = (
        page.evaluate(reading),
        page.evaluate("JSON.stringify(viewerHelp.plots()[0].data.map(t => t.y))"),
    )
    put(page, "again")
    assert page.evaluate("JSON.stringify(viewerHelp.plots()[0].data.map(t => t.y))") != values, (
        "the values are new"
    )
    assert page.evaluate(reading) == before
    assert page.locator(".note", has_text="unsmoothed").count() > 0
    put(page, "one")
    assert page.evaluate("viewerHelp.plots()[0].layout.xaxis.range") == [0, LAST_S], (
        "another media starts afresh"
    )


def test_lines_break_and_shade_where_the_chosen_face_is_missing(show: Open) -> None:
    page = show("clip")
    shapes = "viewerHelp.plots()[0].layout.shapes.map(s => [s.x0, s.x1])"
    assert page.evaluate(shapes) == []
    page.get_by_role("radio", name="Face 2").click()
    page.wait_for_function(f"{shapes.replace('.map(s => [s.x0, s.x1])', '.length')} === 1")
    first, last = FRAMES // 3 - 1, 2 * FRAMES // 3
    assert page.evaluate(shapes) == [[pytest.approx(first / RATE), pytest.approx(last / RATE)]]
    face_2 = "viewerHelp.plots()[0].data.filter(t => t.hovertemplate?.includes('Face 2'))[0].y"
    assert page.evaluate(f"{face_2}.filter(v => v === null).length") == last - first - 1
    page.mouse.click(*point(page, 0.5))
    settled(page, 19)
    assert "not found" in page.locator(".face-card").text_content()


def test_one_face_has_label_colors_and_several_have_face_colors(show: Open) -> None:
    page = show("clip")
    colors = "[...new Set(viewerHelp.plots()[0].data.filter(t => t.hovertemplate).map(t => t.line.color))]"
    dashes = "[...new Set(viewerHelp.plots()[0].data.filter(t => t.hovertemplate).map(t => t.line.dash))]"
    assert page.evaluate(colors) == [face_color(1), face_color(2)]
    assert len(page.evaluate(dashes)) == 2, "each label has its own dash"
    page.get_by_role("button", name="All faces together").click()
    page.wait_for_function(f"{colors}.length === 8")


def test_thirty_thousand_points_stay_smooth(
    show: Open, record_property: Callable[[str, object], None]
) -> None:
    page = show("many")
    assert page.evaluate("Math.max(...viewerHelp.plots().flatMap(p => p.data.map(t => t.x.length)))") < 3000
    took = page.evaluate(
        "async () => { const root = document.querySelector('.viewer'), times = []; for (let turn = 0; turn <"
        " 15; turn++) {  const from = 100 + 60 * turn, to = from + 1500, start = performance.now();  const"
        " drawn = new Promise((done) => root.addEventListener('drawn', done, {once: true}));  await"
        " Plotly.relayout(viewerHelp.plots()[0], {'xaxis.range[0]': from, 'xaxis.range[1]': to}); await"
        " drawn;  await new Promise(requestAnimationFrame); times.push(performance.now() - start);  if"
        " (Math.abs(viewerHelp.plots()[3].layout.xaxis.range[0] - from) > 1e-6) throw new Error('not"
        " linked'); } return times; }"
    )
    best, median = statistics.median(sorted(took)[:5]), statistics.median(took)
    record_property("redraw_ms", round(median))
    # a measured figure
    print(f"4 timelines of {MANY} frames, 2 faces: median {median:.0f} ms, fastest third {best:.0f} ms")  # noqa: T201
    assert best < REDRAW_MS, "the fastest third, since other programs slow the rest down"


def test_thinning_keeps_peaks_gaps_and_ends(new_page: Open) -> None:
    page = new_page("about:blank")
    script = (FOLDER / "data.js").read_text("utf-8")
    kept = page.evaluate(
        f"(() => {{ {script}\nconst n = 30000, times = Float64Array.from({{length: n}}, (_, i) => i / 10),"
        " values = Float32Array.from(times, () => 0.5);values[12345] = 1; values[23456] = 0; for (let i ="
        " 20000; i < 20003; i++) values[i] = NaN;const rows = thin(times, values, [0, 2999.9], 300), part ="
        " thin(times, values, [1234, 1235], 300);const band = thinBand(times, values,"
        " Float32Array.from(times, () => 0.1), [0, 2999.9], 300, [0, 1]);const heat = thinHeat(times,"
        " [values], [0, 2999.9], 300);return {rows, part, top: Math.max(...band.y.filter((v) => v !=="
        " null)), peak: Math.max(...heat.z[0]), columns: heat.x.length, few: thin(times.slice(0, 9),"
        " values.slice(0, 9), [0, 1], 300)}; })()"
    )
    assert len(kept["rows"]) <= 900
    assert {12345, 23456} <= set(kept["rows"])
    assert {20000, 20001, 20002} & set(kept["rows"])
    assert kept["rows"] == sorted(set(kept["rows"]))
    assert kept["part"] == list(range(12340, 12352)), (
        "a zoomed range shows every frame and one more at each side"
    )
    assert (kept["top"], kept["peak"], kept["few"]) == (1, 1, list(range(9)))
    assert kept["columns"] <= 300


@pytest.mark.parametrize("name", ["clip", "picture"])
def test_a_phone_in_the_dark_never_scrolls_sideways(show: Open, name: str) -> None:
    page = show(name, width=390, theme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = page.evaluate(
        "(() => { const rgb ="
        " getComputedStyle(document.querySelector('.viewer')).color.match(/[0-9.]+/g).slice(0, 3); return"
        " Math.min(...rgb.map(Number)); })()"
    )
    assert light > 150, "letters are light on a dark page"
    ticks = page.evaluate(
        "[...document.querySelectorAll('.viewer .xtick text')].map(t => getComputedStyle(t).fill)"
    )
    assert all(
        fill == page.evaluate("getComputedStyle(document.querySelector('.viewer')).color") for fill in ticks
    )
    assert bool(ticks) == (name == "clip")


def test_a_picture_has_a_chip_for_each_face_and_a_card_of_one(show: Open) -> None:
    page = show("picture")
    assert page.locator(".chip img").evaluate_all("all => all.map(one => one.naturalWidth)") == [72, 72]
    titles = page.locator(".face-card .reading h3").all_text_contents()
    assert titles == [task.title for task in TASKS]
    assert page.locator(".face-card .bars li").count() == 8 + 2 + 12 + 6
    listed = page.locator("[data-task=action_units] li:visible .number").all_text_contents()
    assert listed == sorted(listed, reverse=True) and len(listed) == 4
    assert not page.locator(".correct").count(), "nothing takes corrections here"
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
    assert "<img src=x" in page.locator(".viewer .chips").first.text_content()
    assert page.evaluate("[document.querySelectorAll('.viewer [src=x]').length, window.hit ?? null]") == [
        0,
        None,
    ]
