"""The viewer and time: frames, cursor, seeks, ranges and the trail."""

from __future__ import annotations

import pytest
from browser_makers import Open, playwright
from viewer_makers import FRAME_S, LAST_S, heard, number_at, number_of, point, press, settled, state_of
from viewer_page import FRAMES, RATE


def test_playback_moves_box_and_cursor_with_each_frame(show: Open) -> None:
    page = show("clip")
    page.evaluate("window.log = []; viewerHelp.record(window.log)")
    press(page, " ")
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    page.wait_for_function("document.querySelector('.viewer video').ended")
    seen = [
        (number_of(shade), number_at(left), share)
        for shade, left, share in page.evaluate("log")
        if left is not None
    ]
    assert len({picture for picture, *_ in seen}) > FRAMES // 2, "too few frames were seen to say anything"
    late = [one for one in seen if one[0] != one[1] or abs(one[0] * FRAME_S - one[2] * LAST_S) >= 0.02]
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
        assert (
            abs(page.evaluate("document.querySelector('.viewer video').currentTime") - share * LAST_S)
            <= FRAME_S
        )
        assert abs(page.evaluate("viewerHelp.cursor()") - share) * LAST_S <= FRAME_S


def test_a_drag_selects_a_range_in_every_timeline(show: Open) -> None:
    page = show("clip")
    start, end = point(page, 0.7), point(page, 0.3)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, start[1], steps=4)
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    first, last = selected(page)
    assert (first, last) == (pytest.approx(0.3 * LAST_S, abs=0.05), pytest.approx(0.7 * LAST_S, abs=0.05))
    assert page.locator(".selected:visible").count() == page.locator(".plot-box").count() == 4
    assert state_of(page) == (0, 0), "a drag is not a click"
    page.get_by_role("button", name="Zoom to range").click()
    page.wait_for_function(f"Math.abs(viewerHelp.plots()[0].layout.xaxis.range[0] - {0.3 * LAST_S}) < 0.06")
    press(page, "Escape")
    assert page.locator(".selected:visible").count() == 0


def selected(page: playwright.Page) -> list[float]:
    """Return start and end of the selected range."""
    return [float(word) for word in page.locator(".chosen-range").inner_text().split() if word[0].isdigit()]


def test_marks_by_key_ask_for_a_label_and_go_to_python(show: Open) -> None:
    page = show("clip")
    page.mouse.click(*point(page, 0.5))
    settled(page, 19)
    press(page, "x")
    assert "Select a range first" in page.locator(".chosen-range").inner_text()
    press(page, "m")
    assert heard(page, "edit") == {"action": "markers", "markers": [["event", 1.9, 1.9, ""]]}
    press(page, "n")
    page.wait_for_function("document.querySelector('#heard-edit textarea').value.includes('neutral')")
    assert heard(page, "edit") == {"action": "neutral", "face": 1, "time": 1.9}


def test_events_marks_and_cuts_are_shown_and_lead_to_their_time(show: Open) -> None:
    page = show("edited")
    marks = page.get_by_role("list", name="Markers").get_by_role("listitem")
    assert [mark.locator("input").input_value() for mark in marks.all()] == ["smile", ""]
    marks.nth(1).get_by_role("button", name="3.00 to 3.50 s", exact=True).click()
    settled(page, 30)
    marks.nth(1).get_by_role("button", name="Delete: Excluded, 3.00 to 3.50 s").click()
    assert heard(page, "edit") == {"action": "markers", "markers": [["event", 0.5, 0.5, "smile"]]}
    assert page.locator(".note", has_text="dotted: cuts").count() == 4
    card = page.locator(".face-card")
    assert "relative to your neutral" in card.locator("[data-task=valence_arousal] .source").inner_text()
    assert card.locator("[data-task=valence_arousal] .number").first.inner_text().count("(") == 1
    assert page.get_by_role("radio", name="Face 1, Anna").count() == 1
    event = card.locator("[data-task=expression] .events button").last
    start = float(event.inner_text().split(" to ")[0].split()[-1])
    event.click()
    page.wait_for_function(
        "start => Math.abs(document.querySelector('.viewer video').currentTime - start) < 0.2", arg=start
    )


def test_keys_mark_a_range_and_name_a_label(show: Open) -> None:
    page = show("clip")
    page.get_by_role("radio", name="Face 2").click()
    page.mouse.click(*point(page, 0.25))
    settled(page, int(0.25 * LAST_S * RATE))
    press(page, "[")
    assert "starts at 0.90 s" in page.locator(".chosen-range").text_content()
    press(page, "Shift+ArrowRight", "Shift+ArrowRight")
    # in the frame at 2.9 s
    page.wait_for_function("Math.abs(document.querySelector('.viewer video').currentTime - 2.95) < 0.06")
    press(page, "]")
    assert selected(page) == [pytest.approx(0.9, abs=0.01), pytest.approx(2.9, abs=0.01)]
    press(page, "3")
    told = heard(page, "label_key")
    assert (told["key"], told["selection"][2]) == (3, 2)
    sent: list[str] = []
    page.on(
        "request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None
    )
    page.locator(".viewer select.speed").focus()
    page.keyboard.press("5")
    press(page, "4")
    page.wait_for_function("JSON.parse(document.querySelector('#heard-label_key textarea').value).key === 4")
    assert len([body for body in sent if '"number"' in body]) == 1, "a key in a field is not a label"


def test_the_trail_in_the_plane_follows_unless_motion_is_unwanted(show: Open) -> None:
    colored = (
        "(() => { const c = document.querySelector('.viewer .plane'), d = c.getContext('2d').getImageData(0,"
        " 0, c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 16 &&"
        " d[i + 2] > d[i] + 40) n++; return n; })()"
    )
    counts = {}
    for motion in ("no-preference", "reduce"):
        page = show("clip", reduced_motion=motion)
        start = page.evaluate(colored)
        page.mouse.click(*point(page, 0.5))
        settled(page, 19)
        counts[motion] = page.evaluate(colored) - start
    assert counts["no-preference"] > 100
    assert abs(counts["reduce"]) < 60
