"""Tracing in a real browser: a pass by keys that is kept within a frame, and two passes by mouse that differ."""

from __future__ import annotations

import numpy as np
from browser_makers import Open, playwright, press, tick
from page_makers import ROOT, Page

from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.media.clips import open_clip
from hsemotion_space.settings import MediaLimits
from hsemotion_space.traces import RATE_HZ

WATCH = """() => {
  window.shown = [];
  const [video, slider] = ['video', '.slider'].map((name) => document.querySelector(`.trace ${name}`));
  const watch = (_, frame) => {
    window.shown.push([frame.mediaTime, Number(slider.ariaValueNow)]);
    video.requestVideoFrameCallback(watch);
  };
  video.requestVideoFrameCallback(watch);
}"""


def begin(page: playwright.Page, rating: str) -> None:
    """Queue the clips among the examples."""
    page.get_by_role("checkbox", name="My analyzed files").locator("visible=true").uncheck()
    tick(page, rating)
    press(page, "Start", exact=True)
    page.locator(".trace .controls button").first.wait_for()


def outcome(page: playwright.Page) -> str:
    """Wait until a pass has ended, and return what is said about it."""
    page.locator(".trace .start:text('Pause')").wait_for(state="detached")
    page.locator(".trace .notice:visible, .trace .problem:visible").first.wait_for()
    return page.locator(".trace .notice:visible, .trace .problem:visible").first.inner_text()


def test_a_pass_by_keys_is_kept_within_a_frame(visit: Open, served: Page) -> None:
    page = visit("Annotate")
    tick(page, "Save my correction", "I am 18 or older. I am the person")
    begin(page, "Valence over time")
    page.evaluate(WATCH)
    page.locator(".trace").focus()
    page.keyboard.press("Space")
    page.wait_for_function("window.shown.length > 5")
    for key, held_ms in (("ArrowUp", 700), ("ArrowDown", 1200)):
        page.keyboard.down(key)
        page.wait_for_timeout(held_ms)  # what is tested goes on in time
        page.keyboard.up(key)
    assert outcome(page) == "Saved on this server."

    with FeedbackStore(
        f"sqlite:///{served.folder / 'feedback' / 'feedback.sqlite'}", read_only=True
    ) as store:
        [kept] = [one for one in store.traces() if one.attempt == "first"]
    assert (kept.dimension, kept.device, kept.bounded, kept.blind) == ("Valence", "keys", True, True)
    assert not kept.crop and kept.consent_scopes == ("labels",)
    frames = open_frames()
    assert np.abs(np.subtract.outer(kept.times_s, frames)).min(1).max() < 0.002, "times are those of frames"
    slots = np.floor((np.array(kept.times_s) - kept.span_s[0]) * RATE_HZ + 0.01)
    assert (np.diff(slots) >= 1).all()
    shown, frame_s = np.array(page.evaluate("window.shown")), np.diff(frames).max()
    for time_s, value in zip(kept.times_s, kept.values, strict=True):
        near = shown[np.abs(shown[:, 0] - shown[0, 0] - time_s) <= frame_s + 0.002, 1]
        assert near.min() - 0.011 <= value <= near.max() + 0.011
    assert max(kept.values) > 0.3 and kept.values[-1] < max(kept.values) - 0.3


def open_frames() -> np.ndarray:
    """Return the presentation times of the clip of one face."""
    with open_clip(ROOT / "examples" / "astronaut.mp4", MediaLimits(), 0) as clip:
        return np.array([frame.time_s for frame in clip])


def test_two_passes_by_mouse_show_where_they_differ_and_a_part_is_repaired(visit: Open, served: Page) -> None:
    page = visit("Annotate", width=390)
    begin(page, "Arousal over time")
    slider = page.locator(".trace .slider")
    for height in (0.2, 0.8):
        page.locator(".trace .start").click()
        slider.hover(position={"x": 20, "y": slider.bounding_box()["height"] * height})
        assert outcome(page) == "This is practice; nothing is saved."
    assert "CCC" in page.locator(".trace .agreement").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".trace .repairs button").first.click()
    slider.hover(position={"x": 20, "y": slider.bounding_box()["height"] * 0.2})
    assert outcome(page) == "This is practice; nothing is saved."
    page.locator(".trace .repairs button").first.wait_for(state="detached")
