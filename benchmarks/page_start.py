"""Time from starting the process to the first answer of the page, beside an empty Gradio app, in turn.

python benchmarks/page_start.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EMPTY = (
    "import gradio as gr, os\nwith gr.Blocks() as demo:"
    " pass\ndemo.launch(server_port=int(os.environ['HSEMOTION_PORT']), quiet=True)"
)


def first_answer(command: list[str]) -> float:
    """Return the seconds until the page answers with 200."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {**os.environ, "HSEMOTION_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - start < 120:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30):
                    return time.perf_counter() - start
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        raise TimeoutError(command)
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.NamedTemporaryFile("w", suffix=".py") as empty:
        empty.write(EMPTY)
        empty.flush()
        commands = {"empty Gradio app": [sys.executable, empty.name], "this page": [sys.executable, "app.py"]}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                taken = first_answer(command)
                if number:  # the first round fills the file cache
                    seconds[name].append(taken)
    base = seconds["empty Gradio app"]
    print("| app | median s | ratio, median of rounds |\n|---|---|---|")
    for name, taken in seconds.items():
        ratio = statistics.median(mine / other for mine, other in zip(taken, base, strict=True))
        print(f"| {name} | {statistics.median(taken):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
