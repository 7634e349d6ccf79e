"""What a page leaves behind when it is stopped or killed: nothing, at the latest after the next start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from checkpoint_makers import make_checkpoint
from page_makers import ROOT, free_port, serve_page

from hsemotion_space.ui.temporary import PREFIX


def test_next_start_after_a_kill_deletes_what_visitors_added(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    environment = {
        **os.environ, "HSEMOTION_CHECKPOINTS": str(tmp_path / "checkpoints"), "HSEMOTION_PORT": str(free_port()), "TMPDIR": str(tmp_path),
        "HF_TOKEN": "hf_canary",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    assert b"running" in process.stdout.readline()
    [left] = tmp_path.glob(f"{PREFIX}*")
    process.kill()
    process.communicate(timeout=30)
    assert left.exists()
    with serve_page(tmp_path):
        assert not left.exists()


def test_stop_while_starting_leaves_nothing_behind(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    environment = {
        **os.environ,
        "HSEMOTION_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "HSEMOTION_PORT": str(free_port()),
        "TMPDIR": str(tmp_path),
    }
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    while not list(tmp_path.glob("hsemotion-space-*")) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 0
    assert not list(tmp_path.glob("hsemotion-space-*"))
