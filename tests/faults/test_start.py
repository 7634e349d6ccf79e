"""Starting the page where something is wrong: it starts with what can be used, or refuses in one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from page_makers import free_port

from hsemotion_space.cli import main

ROOT = Path(__file__).resolve().parents[2]
APP, COMMAND = ["app.py"], ["-m", "hsemotion_space", "serve"]
PATIENCE_S = 180.0
BAD = ("size = 64\ncrop", "size = 8\ncrop")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a good checkpoint and a bad one."""
    make_checkpoint(tmp_path / "checkpoints" / "good")
    make_checkpoint(tmp_path / "checkpoints" / "bad")
    change_manifest(tmp_path / "checkpoints" / "bad", BAD)
    return tmp_path


def start(place: Path, command: Sequence[str], port: int, **environ: str) -> tuple[int, list[str]]:
    """Start the page and stop it as soon as it runs; return its exit status and the lines that it wrote."""
    environment = os.environ | {
        "HSEMOTION_CHECKPOINTS": str(place / "checkpoints"), "HSEMOTION_PORT": str(port), "HSEMOTION_ENGINE": "torch",
        "HSEMOTION_FEEDBACK_DATA": str(place / "data"), "TMPDIR": str(place), "HSEMOTION_CACHE": str(place / "cache"), **environ,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    late, lines = threading.Timer(PATIENCE_S, process.kill), []
    late.start()
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "is running on" in line:
                process.terminate()
    late.cancel()
    return process.returncode, lines


@pytest.mark.parametrize("command", [APP, COMMAND], ids=["app", "serve"])
def test_a_bad_manifest_and_a_data_folder_that_cannot_be_leave_the_page_running(
    command: Sequence[str], place: Path
) -> None:
    (place / "data").write_text("in the way")
    status, lines = start(place, command, free_port())
    text = "\n".join(lines)
    assert status == 0, text
    assert "Traceback" not in text
    assert (
        f"{place / 'checkpoints' / 'bad'} is left out: Checkpoint bad: [input] size must be from 16 to"
        " 1024 px" in text
    )
    assert [
        line
        for line in lines
        if '"Corrections are not taken: The secret of this server cannot be read or written: ' in line
    ]
    assert len([line for line in lines if line.startswith("HSEmotion Space is running on")]) == 1, (
        text
    )  # other processes may write after it


@pytest.mark.parametrize("command", [APP, COMMAND], ids=["app", "serve"])
def test_without_a_checkpoint_that_can_be_used_it_refuses(command: Sequence[str], place: Path) -> None:
    change_manifest(place / "checkpoints" / "good", BAD)
    status, lines = start(place, command, free_port())
    assert status == 2
    assert lines[-1].startswith(
        "hsemotion-space: No checkpoint can be used. Checkpoint bad: [input] size must be from 16 to 1024 px"
    )
    assert "Checkpoint good: " in lines[-1]
    assert not [line for line in lines if "Traceback" in line]
    assert not list(place.glob("hsemotion-space-*"))


@pytest.mark.parametrize("command", [APP, COMMAND], ids=["app", "serve"])
def test_a_port_that_is_taken_is_named(command: Sequence[str], place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, lines = start(place, command, port)
    sentence = (
        f"hsemotion-space: The page cannot be served at 127.0.0.1, port {port} (Address already in use). Set"
        " HSEMOTION_PORT to a"
    )
    assert status == 2
    assert [line.startswith(sentence) for line in lines] == [True], lines
    assert not list(place.glob("hsemotion-space-*"))


def test_a_host_that_is_not_this_machine_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hsemotion_space.cli.install_logs", lambda: None)  # of this process
    for host in ("198.51.100.1", "no such host"):
        monkeypatch.setenv("HSEMOTION_HOST", host)
        assert main(["serve"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"hsemotion-space: The page cannot be served at {host}, port 7860 (")
        assert line.endswith("or HSEMOTION_HOST to an address of this machine.")


def test_the_list_has_the_reason_beside_what_is_broken(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HSEMOTION_CHECKPOINTS", str(place / "checkpoints"))
    assert main(["checkpoints", "list"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("good  ")
    assert "\nbad  cannot be used: Checkpoint bad: [input] size must be from 16 to 1024 px" in printed
