"""Make the pictures in ``docs/pictures`` from the running page.

    .venv/bin/python docs/make_pictures.py [NAME ...]

It serves the page with the bundled checkpoints, whose files all lie in a folder that is deleted afterwards,
opens it in the system's Chromium, adds what is in ``examples``, and saves what is to be seen. Without names
it makes all pictures, which takes about two minutes on two CPU cores. It stops at the first step that fails
and says which. It needs ``requirements-dev.txt``, Chromium, and a font with Japanese letters (of Debian:
``fonts-noto-cjk``), without which the Japanese page is made of boxes.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLES: Final = ROOT / "examples"
FOLDER: Final = ROOT / "docs" / "pictures"
MOST_BYTES: Final = 150_000
PATIENCE_MS: Final = 120_000
# so long what is drawn by itself may take after the last thing that can be waited for
SETTLE_MS: Final = 1_500
LIVE_MS: Final = 6_000
CAMERA_S: Final = 2.4  # of the example clip, in which the face is to be seen
GAP_PX: Final = 16
QUALITY: Final = 80
FLAGS: Final = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture.

    Attributes:
        name: of its file.
        act: brings a page that was just opened to what is to be seen, and returns what is to be at the top,
            or None for the page itself.
        width, height: of the window in CSS px.
        scale: px of the picture per CSS px.
        theme: ``light`` or ``dark``.
        locale: that the browser asks for.
    """

    name: str
    act: Callable[[Page], Locator | None]
    height: int
    width: int = 1280
    scale: int = 1
    theme: str = "light"
    locale: str = "en-US"

    @property
    def file(self) -> Path:
        """Where it is saved."""
        return FOLDER / f"{self.name}.webp"


# --- steps: from an open page to what is to be seen
# ------------------------------------------------------------------------------------


def visible(page: Page, selector: str) -> Locator:
    """Return the first visible element for a selector."""
    return page.locator(f"{selector} >> visible=true").first


def add(page: Page, file: Path) -> None:
    """Agree to the analysis, add a file and wait for its result."""
    page.locator("#agreed input").check()
    page.locator(".media input[type=file]").set_input_files(file)
    visible(page, ".chip").wait_for()


def start(page: Page) -> Locator | None:
    """The page as it opens."""
    page.locator(".card").first.wait_for()
    return None


def picture(page: Page) -> Locator | None:
    """A picture with its result."""
    add(page, EXAMPLES / "astronaut.jpg")
    return page.get_by_role("tab").first


def clip(page: Page) -> Locator | None:
    """A clip with its timelines: the cursor on a frame with a face, a part selected."""
    analyze_clip(page)
    plot = visible(page, ".linked-viewer .plot-box")
    plot.scroll_into_view_if_needed()
    place = plot.bounding_box()
    assert place is not None
    along = [place["x"] + 52 + share * (place["width"] - 64) for share in (0.62, 0.8, 0.3)]
    down = place["y"] + 40
    page.mouse.move(along[0], down)
    page.mouse.down()
    page.mouse.move(along[1], down + 2, steps=6)
    page.mouse.up()
    page.mouse.click(along[2], down)
    page.mouse.move(4, 4)
    return visible(page, ".linked-viewer")


def analyze_clip(page: Page) -> None:
    """Analyze the example clip."""
    add(page, EXAMPLES / "astronaut.mp4")
    visible(page, ".linked-viewer .js-plotly-plot").wait_for()


def compare(page: Page) -> Locator | None:
    """Three backbones on the same faces."""
    page.get_by_role("button", name="Options").click()
    for title in ("DDAMFN (starter)", "EfficientNet-Lite0 (starter)"):
        field = page.get_by_label("Compare with").locator("visible=true")
        field.blur()  # only a field that gets the focus opens its list
        field.click()
        page.get_by_role("option", name=title).locator("visible=true").click()
        page.keyboard.press("Escape")
    analyze_clip(page)
    page.get_by_role("table", name="Moments with the largest differences").wait_for()
    return page.get_by_role("button", name="Comparison of backbones")


def correct(page: Page) -> Locator | None:
    """The form with a correction and the ladder of consent."""
    with tempfile.TemporaryDirectory() as folder:
        # encoded anew, since the examples as they are take no corrections
        portrait = Path(folder) / "portrait.png"
        Image.open(EXAMPLES / "astronaut.jpg").save(portrait)
        add(page, portrait)
    page.get_by_role("button", name="Not right? Expression").click()
    page.get_by_role("dialog").wait_for()
    page.get_by_label("Expression", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="Surprise", exact=True).click()
    for tick in ("Save my correction", "Also save the picture", "I am 18 or older"):
        page.get_by_label(tick).locator("visible=true").check()
    visible(page, ".drawer img").wait_for()
    return None


def my_data(page: Page) -> Locator | None:
    """What a contributor gave, found by the receipt code."""
    correct(page)
    page.get_by_role("button", name="Send").locator("visible=true").click()
    visible(page, ".receipt").wait_for()
    page.get_by_role("button", name="Close").click()
    data = page.get_by_role("tab", name="My data")
    data.click()
    page.get_by_role("button", name="List").click()
    page.get_by_role("cell", name="saved here").wait_for()
    return page.get_by_role("tab").first


def erased(page: Page) -> Locator | None:
    """The same, erased."""
    top = my_data(page)
    page.get_by_label("Erase everything saved").check()
    page.get_by_role("button", name="Erase").click()
    page.get_by_text("erased from this server").wait_for()
    return top


def explain(page: Page) -> Locator | None:
    """Which part of the face carries a value."""
    page.locator(".examples").get_by_role("button", name="Picture").click()
    visible(page, ".chip").wait_for()
    where = page.get_by_role("button", name="Where does the network look?").locator("visible=true")
    where.click()
    page.get_by_label("Explained value").locator("visible=true").click()
    page.locator("li[role=option]:visible", has_text="Action units: AU6").first.click()
    page.get_by_role("button", name="Show the map").locator("visible=true").click()
    visible(page, ".explained img").wait_for()
    return where


def live(page: Page) -> Locator | None:
    """The camera, for some seconds."""
    page.locator("#agreed input").check()
    page.get_by_role("tab", name="Live").click()
    visible(page, "[role=tabpanel] button.start").click()
    visible(page, "[role=tabpanel] tbody tr").wait_for()
    page.wait_for_timeout(LIVE_MS)
    return page.get_by_role("tab").first


def annotate(page: Page) -> Locator | None:
    """A question about a face, and what is told about the answer before."""
    page.get_by_role("tab", name="Annotate").click()
    page.get_by_role("checkbox", name="My analyzed files").locator("visible=true").uncheck()
    page.get_by_role("button", name="Start", exact=True).click()
    visible(page, ".annotate .labels button").wait_for()
    page.keyboard.press("5")
    visible(page, ".annotate .last").wait_for()
    return visible(page, ".annotate")


def about(page: Page) -> Locator | None:
    """What the numbers mean, and the checkpoints."""
    page.get_by_role("tab", name="About").click()
    page.get_by_role("heading", name="What the numbers mean").wait_for()
    return page.get_by_role("tab").first


SHOTS: Final = (
    Shot("start", start, 860),
    Shot("picture", picture, 900),
    Shot("clip", clip, 1400),
    Shot("compare", compare, 1180),
    Shot("explain", explain, 760),
    Shot("live", live, 1000),
    Shot("annotate", annotate, 760),
    Shot("correct", correct, 900),
    Shot("my-data", my_data, 560),
    Shot("erased", erased, 560),
    Shot("about", about, 900),
    Shot("dark", clip, 1300, theme="dark"),
    Shot("phone", clip, 1040, width=390, scale=2),
    Shot("japanese", clip, 1300, locale="ja-JP"),
)


# --- the page and the browser
# ----------------------------------------------------------------------------------------------------------


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Yield the address of the page, which keeps everything in a folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HSEMOTION_", "GRADIO_"))
    }
    environment |= {
        "HSEMOTION_PORT": str(port),
        "HSEMOTION_CACHE": str(folder / "cache"),
        "HSEMOTION_FEEDBACK_DATA": str(folder / "feedback"),
    }
    log = folder / "page.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env={**environment, "TMPDIR": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    except Exception as error:
        error.add_note(f"The page said:\n{log.read_text('utf-8')[-4000:]}")
        raise
    finally:
        process.terminate()
        process.wait(60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the page answers.

    Raises:
        RuntimeError: if it stops or takes too long.
    """
    for _ in range(PATIENCE_MS // 100):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=30):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError("The page did not start.")


@contextmanager
def browse(folder: Path) -> Iterator[Browser]:
    """Yield Chromium, whose camera shows the beginning of the example clip over and over."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("There is no Chromium on this machine.")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium,
            args=[*FLAGS, f"--use-file-for-fake-video-capture={write_camera(folder)}"],
        )
        yield browser
        browser.close()


def write_camera(folder: Path) -> Path:
    """Write the start of the example clip, forward and backward, as a camera file for Chromium."""
    file, pictures = folder / "camera.y4m", []
    with av.open(str(EXAMPLES / "astronaut.mp4")) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            if frame.time is None or frame.time > CAMERA_S:
                break
            pictures.append(b"FRAME\n" + frame.reformat(format="yuv420p").to_ndarray().tobytes())
        head = f"YUV4MPEG2 W{stream.width} H{stream.height} F15:1 Ip A1:1 C420\n".encode()
    file.write_bytes(b"".join([head, *pictures, *reversed(pictures)]))
    return file


def take(browser: Browser, url: str, shot: Shot) -> int:
    """Make one picture and return its size in bytes.

    Raises:
        RuntimeError: if it does not come about, or is too large.
    """
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height}, device_scale_factor=shot.scale,
        locale=shot.locale,
        color_scheme="dark" if shot.theme == "dark" else "light", reduced_motion="reduce",
        permissions=["camera"],
    )  # fmt: skip
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{url}/?__theme={shot.theme}")
        page.get_by_role("tab").first.wait_for()
        top = shot.act(page)
        page.wait_for_timeout(SETTLE_MS)
        offset = f"element.getBoundingClientRect().top + scrollY - {GAP_PX}"
        page.evaluate("scrollTo(0, 0)") if top is None else top.evaluate(f"element => scrollTo(0, {offset})")
        page.wait_for_timeout(SETTLE_MS)
        save(page.screenshot(), shot)
    except Exception as error:
        raise RuntimeError(f"Step {shot.name!r} failed.") from error
    finally:
        context.close()
    return shot.file.stat().st_size


def save(screenshot: bytes, shot: Shot) -> None:
    """Save a screenshot as WebP.

    Raises:
        ValueError: if it is too large.
    """
    packed = io.BytesIO()
    Image.open(io.BytesIO(screenshot)).convert("RGB").save(packed, "WEBP", quality=QUALITY, method=6)
    if packed.tell() > MOST_BYTES:
        raise ValueError(f"{packed.tell()} bytes are more than {MOST_BYTES}; make the window smaller.")
    shot.file.write_bytes(packed.getvalue())


def main(names: list[str]) -> None:
    """Make the pictures of these names, or all.

    Raises:
        SystemExit: if there is no picture of a name.
    """
    unknown = set(names) - {shot.name for shot in SHOTS}
    if unknown:
        raise SystemExit(
            f"There is no picture {', '.join(sorted(unknown))}; there are"
            f" {', '.join(shot.name for shot in SHOTS)}."
        )
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as folder,
        serve(Path(folder)) as url,
        browse(Path(folder)) as browser,
    ):
        for shot in SHOTS:
            if not names or shot.name in names:
                start = time.perf_counter()
                print(
                    f"{shot.name}: {take(browser, url, shot) / 1000:.0f} kB in"
                    f" {time.perf_counter() - start:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
