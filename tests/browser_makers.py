"""Find things on a page that is open in the browser."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from face_makers import picture_with
from page_makers import ROOT
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ELSEWHERE = "camera.test"  # a name under which a browser does not take this machine for itself
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
]  # fmt: skip
PATIENCE_MS = 300_000
REVIEW_TOKEN = "a token that reviewers know"

Open = Callable[..., playwright.Page]


def open_tab(page: playwright.Page, name: str) -> None:
    """Open a tab, which a narrow page has in the menu behind its dots."""
    tab = page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    if not tab.count():
        page.locator(".overflow-menu:visible button").first.click()
        tab = page.locator(".overflow-dropdown:visible").get_by_text(name, exact=True)
    tab.click()


def press(page: playwright.Page, name: str, *, exact: bool = True) -> None:
    page.get_by_role("button", name=name, exact=exact).locator("visible=true").click()


def tick(page: playwright.Page, *labels: object) -> None:
    for label in labels:
        page.get_by_label(label).locator("visible=true").check()


def choose(page: playwright.Page, label: str, option: str, *, exact: bool = True) -> None:
    """Take an entry of a drop-down list; where the page moved away under the open list, it is opened again."""
    field = page.get_by_label(label, exact=exact).locator("visible=true")
    for _ in range(6):
        field.evaluate("field => field.scrollIntoView({ block: 'center' })")
        field.click()
        try:
            found = page.get_by_role("option", name=option, exact=exact).locator("visible=true")
            found.first.click(timeout=PATIENCE_MS / 12)
        except playwright.TimeoutError:
            field.blur()
        else:
            return
    raise AssertionError(f"{option} cannot be chosen")


def wait_until_quiet(page: playwright.Page, quiet_ms: int = 700) -> None:
    """Wait until no answer of the server has come for a while."""
    page.evaluate("window.answers = -1")
    page.wait_for_function(
        """quiet => {
          const count = performance.getEntriesByType('resource').length;
          if (count !== window.answers) [window.answers, window.since] = [count, Date.now()];
          return Date.now() - window.since > quiet;
        }""",
        arg=quiet_ms,
    )


def write_picture(folder: Path, *places: tuple[int, int]) -> Path:
    """Write a picture of faces, of two if no places are given."""
    file = folder / f"faces{len(list(folder.iterdir()))}.png"
    Image.fromarray(picture_with(list(places or [(10, 20), (170, 60)]), (240, 320))).save(file)
    return file


def write_group(file: Path, count: int, blurred: int = -1) -> Path:
    """Write a picture of several people side by side, one of them blurred."""
    with Image.open(ROOT / "examples" / "astronaut.jpg") as example:
        person = example.convert("RGB").crop((50, 0, 380, 410))
    group = Image.new("RGB", (330 * count, 410))
    for number in range(count):
        turned = person if number % 2 else person.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        group.paste(
            turned.resize((50, 62)).resize(turned.size) if number == blurred else turned, (330 * number, 0)
        )
    group.save(file)
    return file


def add_file(page: playwright.Page, file: Path) -> None:
    """Put a picture or a clip into the workspace."""
    page.locator(".media input[type=file]").set_input_files(file)
    page.locator(".source .name:visible", has_text=file.name).wait_for()


def add(page: playwright.Page, file: Path) -> None:
    """Put a picture or a clip into the workspace and wait for the result."""
    add_file(page, file)
    page.locator(".chip:visible").first.wait_for()


def correct(page: playwright.Page, task: str = "Expression") -> None:
    """Open the correction form at a task."""
    press(page, f"Not right? {task}")
    page.get_by_role("dialog", name="Correction").wait_for()


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
