"""Drive the viewer on a page of its own, and read which frame it shows."""

from __future__ import annotations

import json

from browser_makers import playwright
from viewer_page import FRAMES, HEIGHT, RATE, STRIDE, WIDTH, level

FRAME_S = 1 / RATE


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


def put(page: playwright.Page, name: str) -> None:
    """Give the viewer another value and wait until it is drawn."""
    page.locator(".viewer").wait_for()
    page.evaluate(
        "(() => { const root = document.querySelector('.viewer'); window.drawn = new Promise((done) =>"
        " root.addEventListener('drawn', () => done(1), {once: true})); })()"
    )
    page.get_by_role("button", name=name, exact=True).click()
    page.evaluate("window.drawn")
    if name not in ("broken", "nobody", "nothing", "picture"):
        page.wait_for_function(
            "document.querySelector('.viewer video').readyState >= 2 && window.viewerHelp.boxLeft() !== null"
        )


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
    page.wait_for_function(
        "([shade, half, left, reach]) => Math.abs(viewerHelp.shade() - shade) < half"
        " && viewerHelp.boxLeft() !== null && Math.abs(viewerHelp.boxLeft() - left) < reach",
        arg=[level(number), (level(1) - level(0)) / 2, (20 + STRIDE * number) / WIDTH, STRIDE / 2 / WIDTH],
    )


def heard(page: playwright.Page, kind: str) -> dict[str, object]:
    """Return what the last event of a kind brought to Python; wait for the first one."""
    page.wait_for_function(f"document.querySelector('#heard-{kind} textarea').value !== ''")
    return json.loads(page.locator(f"#heard-{kind} textarea").input_value())


def point(page: playwright.Page, share: float, task: str = "Expression") -> tuple[float, float]:
    """Return where a share of the width of a timeline is on the page."""
    box = page.locator(f"section[aria-label='{task} over time'] .plot-box")
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    return place["x"] + 52 + share * (place["width"] - 64), place["y"] + 60


def press(page: playwright.Page, *keys: str) -> None:
    page.locator(".viewer").focus()
    for key in keys:
        page.keyboard.press(key)


LAST_S = (FRAMES - 1) / RATE
