"""Load on the page: many users at once, from different addresses of this machine, each with a session.

    python benchmarks/load.py [--users 30] [--minutes 3] [--clip-seconds 60] [--json FILE] [--picture FILE]

The script starts the page with the default checkpoint and engine and its data in a temporary folder, and
stops it. Each user uploads a picture, presses Analyze and asks for the result until it is there; every tenth
time it is a clip, and every twentieth time the user leaves in the middle of the upload or of the analysis. In
the end it is measured how long a picture takes alone and behind a clip. Memory, descriptors and threads are
read from ``/proc`` (Linux); descriptors are counted only if the user may see them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from common import make_clip
from visitors import PATIENCE_S, PICTURE, Record, User

ROOT: Final = Path(__file__).resolve().parent.parent
MOST_USERS, MOST_MINUTES = 200, 30
LOOK_EVERY_S = 2.0
FPS, SIZE = 25, (1280, 720)


def children(pid: int) -> list[int]:
    """Return the processes below one."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(below for child in found for below in children(child))]


def usage(pid: int, folder: Path) -> dict[str, float]:
    """Return what the page and its workers use: MiB, threads, open descriptors, MiB of uploads."""

    def status(one: int, name: str) -> float:
        with suppress(OSError):
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            return next(
                (float(line.split()[1]) for line in lines if line.startswith(f"{name}:")), float("nan")
            )
        return float("nan")

    try:
        descriptors = float(len(list(Path(f"/proc/{pid}/fd").iterdir())))
    except OSError:
        descriptors = float("nan")
    size = 0
    for place, _, names in os.walk(folder):  # unlike a glob, it passes over folders that disappear
        for name in names if "hsemotion-space-" in place else ():
            with suppress(OSError):
                size += Path(place, name).lstat().st_size
    workers = sum(status(child, "VmRSS") for child in children(pid))
    return {
        "page MiB": status(pid, "VmRSS") / 1024, "workers MiB": workers / 1024,
        "threads": status(pid, "Threads"),
        "descriptors": descriptors, "added MiB": size / 2**20,
    }  # fmt: skip


async def sample_usage(pid: int, folder: Path, looks: list[dict[str, float]]) -> None:
    """Measure every few seconds, until canceled."""
    start_s = time.monotonic()
    while True:
        looks.append({"time_s": time.monotonic() - start_s, **await asyncio.to_thread(usage, pid, folder)})
        await asyncio.sleep(LOOK_EVERY_S)


async def run_users(
    url: str, given: argparse.Namespace, pid: int, folder: Path
) -> tuple[Record, list[dict[str, float]]]:
    """Let all users use the page at once."""
    record, looks = Record(), list[dict[str, float]]()
    users = [User(url, number, record) for number in range(given.users)]
    sampling = asyncio.create_task(sample_usage(pid, folder, looks))
    until_s = time.monotonic() + 60 * given.minutes
    try:
        async with asyncio.timeout(60 * given.minutes + PATIENCE_S):
            await asyncio.gather(*(user.visit(until_s) for user in users))
    finally:
        sampling.cancel()
        for user in users:
            await user.close()
        with suppress(asyncio.CancelledError):
            await sampling  # an error in it must not go unnoticed
    return record, looks


async def behind_a_clip(url: str, clip: Path) -> dict[str, float]:
    """Return seconds of a picture alone and while a clip is analyzed, and their ratio."""
    record = Record()
    one, other = User(url, 301, record), User(url, 302, record)
    await one.open()
    await other.open()
    for _ in range(4):  # the first one warms up
        await one.analyze(PICTURE, "image")
    running = asyncio.create_task(other.analyze(clip, "video"))
    await asyncio.sleep(3)
    met = not running.done()
    await one.analyze(PICTURE, "image")
    await running
    await one.close()
    await other.close()
    *alone, behind = [stay.end_s - stay.start_s for stay in record.stays if stay.kind == "image"][1:]
    usual = float(np.median(alone))
    return {"alone s": usual, "behind s": behind, "ratio": behind / usual, "clip was running": float(met)}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return how many there are, with their p50, p95 and p99."""
    found = {
        f"p{share}": float(np.percentile(seconds, share)) if seconds else float("nan")
        for share in (50, 95, 99)
    }
    return {"count": float(len(seconds)), **found}


def summary(record: Record, looks: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return what was measured, in a form that JSON takes."""
    clips = [stay for stay in record.stays if stay.kind == "video"]
    pictures = [stay for stay in record.stays if stay.kind == "image"]
    beside = [
        one
        for one in pictures
        if any(clip.start_s < one.end_s and one.start_s < clip.end_s for clip in clips)
    ]
    start_s = min((stay.start_s for stay in record.stays), default=0.0)
    half = looks[len(looks) // 2 :]
    minutes = [one["time_s"] / 60 for one in half]
    slopes = {
        name: float(np.polyfit(minutes, [one[name] for one in half], 1)[0])
        for name in looks[0]
        if len(half) > 2 and name != "time_s"
    }
    seconds = {"pictures": pictures, "pictures while a clip runs": beside, "clips": clips}
    return {
        "answers": {str(status): count for status, count in sorted(record.answers.items())},
        "5xx": sum(count for status, count in record.answers.items() if status >= 500),
        "left": record.left,
        "refusals": dict(record.refusals.most_common()),
        "seconds": {
            name: percentiles([stay.end_s - stay.start_s for stay in stays])
            for name, stays in seconds.items()
        },
        "per minute in the second half": slopes,
        "stays": [
            {"kind": stay.kind, "end_s": stay.end_s - start_s, "seconds": stay.end_s - stay.start_s}
            for stay in record.stays
        ],
        "looks": list(looks),
    }


def show(found: Mapping[str, Any]) -> None:
    """Print Markdown tables."""
    print(f"answers {found['answers']}, 5xx {found['5xx']}, left early {found['left']}\n")
    print("| upload to result, s | count | p50 | p95 | p99 |\n|---|---|---|---|---|")
    for name, one in found["seconds"].items():
        print(f"| {name} | {one['count']:.0f} | {one['p50']:.2f} | {one['p95']:.2f} | {one['p99']:.2f} |")
    looks = found["looks"]
    print("\n| | start | most | end | change per minute in the second half |\n|---|---|---|---|---|")
    for name, slope in found["per minute in the second half"].items():
        values = [one[name] for one in looks]
        print(f"| {name} | {values[0]:.1f} | {max(values):.1f} | {values[-1]:.1f} | {slope:+.2f} |")
    for words, count in found["refusals"].items():
        print(f"\nrefused {count} times: {words}")
    if "picture behind a clip" in found:
        print(
            "\n" + ", ".join(f"{name} {value:.2f}" for name, value in found["picture behind a clip"].items())
        )


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Write a figure over time: seconds to each result, memory, descriptors and temporary bytes."""
    from plotly.subplots import make_subplots

    looks, minutes = found["looks"], [one["time_s"] / 60 for one in found["looks"]]
    rows = {
        "upload to result, s": [], "memory, MiB": ["page MiB", "workers MiB"],
        "descriptors and threads": ["descriptors", "threads"], "temporary files, MiB": ["added MiB"],
    }  # fmt: skip
    figure = make_subplots(
        len(rows), 1, shared_xaxes=True, subplot_titles=list(rows), vertical_spacing=0.07, x_title="minutes"
    )
    for kind, name in (("image", "picture"), ("video", "clip")):
        stays = [stay for stay in found["stays"] if stay["kind"] == kind]
        ends, seconds = [stay["end_s"] / 60 for stay in stays], [stay["seconds"] for stay in stays]
        figure.add_scatter(x=ends, y=seconds, mode="markers", name=name, row=1, col=1)
    for row, names in enumerate(rows.values(), 1):
        for name in names:
            figure.add_scatter(x=minutes, y=[one[name] for one in looks], name=name, row=row, col=1)
    figure.update_layout(template="plotly_white", width=900, height=900, margin={"t": 40})
    page = figure.to_html(include_plotlyjs=True)
    if file.suffix != ".png":
        file.write_text(page, "utf-8")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 900, "height": 900})
        tab.set_content(page)
        tab.locator(".main-svg").first.wait_for()
        tab.locator(".plotly-graph-div").screenshot(path=file)
        browser.close()


def start_page(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the page with its data in a folder, and wait until it answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        **os.environ, "HSEMOTION_PORT": str(port), "TMPDIR": str(folder),
        "HSEMOTION_FEEDBACK_DATA": str(folder / "feedback"),
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200:
                return process, f"http://127.0.0.1:{port}"
        time.sleep(0.2)
    process.terminate()
    raise TimeoutError("the page did not start")


async def measure(
    given: argparse.Namespace, folder: Path, process: subprocess.Popen[bytes], url: str
) -> dict[str, Any]:
    """Return all that is measured."""
    warm = User(url, 300, Record())
    await warm.open()
    await warm.analyze(PICTURE, "image")
    await warm.close()
    found = summary(*await run_users(url, given, process.pid, folder))
    if given.clip_seconds:
        clip = folder / "long.mp4"
        await asyncio.to_thread(make_clip, PICTURE, clip, given.clip_seconds * FPS, FPS, SIZE)
        found["picture behind a clip"] = await behind_a_clip(url, clip)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument(
        "--clip-seconds", type=int, default=60, help="of the clip that a picture waits behind; 0 for none"
    )
    parser.add_argument("--json", type=Path, help="where everything goes too")
    parser.add_argument("--picture", type=Path, help="figure over time, as .html or .png (needs Chromium)")
    given = parser.parse_args()
    if not (
        0 < given.users <= MOST_USERS and 0 < given.minutes <= MOST_MINUTES and 0 <= given.clip_seconds <= 60
    ):
        parser.error(f"at most {MOST_USERS} users, {MOST_MINUTES} minutes and a clip of 60 seconds")
    with tempfile.TemporaryDirectory() as folder:
        process, url = start_page(Path(folder))
        try:
            found = asyncio.run(measure(given, Path(folder), process, url))
        finally:
            process.terminate()
            process.wait(60)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), "utf-8")
    if given.picture:
        draw(found, given.picture)


if __name__ == "__main__":
    main()
