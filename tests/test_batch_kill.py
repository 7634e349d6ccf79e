"""A study in processes that are killed, stopped, or write to a reader that leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from media_makers import write_clip
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    return os.environ | {
        "HSEMOTION_CHECKPOINTS": str(tmp_path / "checkpoints"), "HSEMOTION_ENGINE": "torch",
        "HSEMOTION_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii",
    }  # fmt: skip


def start(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    """Start the command; SIGINT ends it even where the shell that started the tests ignores that signal."""
    command = [sys.executable, "-m", "hsemotion_space", "analyze", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip


def fill(folder: Path, count: int) -> set[str]:
    """Write pictures and clips, every tenth a clip, and five inputs that are broken; return all names."""
    folder.mkdir()
    for number in range(count - 5):
        picture = picture_with([(10 + number % 60, 20)], (160, 240))
        picture[0, 0] = (*divmod(number, 256), 0)
        if number % 10:
            Image.fromarray(picture).save(folder / f"{number}.png")
        else:
            write_clip(folder / f"{number}.mp4", [picture] * 4, rate=10)
    whole = (folder / "1.png").read_bytes()
    for name, data in {
        "empty.mp4": b"", "half.png": whole[: len(whole) // 2], "text.jpg": b"text",
        "page.webm": b"<html>", "zeros.mov": bytes(1000),
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    return {file.name for file in folder.iterdir()}


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.parametrize("count", [15, pytest.param(300, marks=pytest.mark.long)])
def test_a_study_that_is_killed_twice_is_complete_after_two_resumes(
    tmp_path: Path, environment: dict[str, str], count: int
) -> None:
    names = fill(tmp_path / "in", count)
    out, journal, dice = tmp_path / "out", tmp_path / "out" / "journal" / "all.jsonl", random.Random(count)
    for share in (0.3, 0.7):  # of the lines: two per input
        process = start(environment, tmp_path / "in", "--out", out, "--resume", "--embeddings")
        while lines(journal) < share * 2 * count:
            assert process.poll() is None, process.communicate()
            time.sleep(dice.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finished = start(environment, tmp_path / "in", "--out", out, "--resume", "--embeddings")
    printed, errors = finished.communicate()
    assert finished.returncode == 1, errors
    assert "5 failed" in printed and "already done" in printed
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    assert sorted(row["source"] for row in rows) == sorted(names)
    broken = {row["source"]: row["error_code"] for row in rows if row["status"] == "failed"}
    assert broken == {
        "empty.mp4": "empty", "half.png": "damaged", "text.jpg": "unsupported", "page.webm": "unsupported",
        "zeros.mov": "unsupported",
    }  # fmt: skip
    done = {row["file"]: row for row in rows if row["status"] == "done"}
    assert len(done) == count - 5
    for folder in ("faces", "embeddings"):
        files = {file.name: pq.read_table(file) for file in (out / folder).iterdir()}
        assert files.keys() == {name for name, row in done.items() if folder == "faces" or row["faces"]}
        for name, table in files.items():
            assert set(table["source"].to_pylist()) == (
                {done[name]["source"]} if done[name]["faces"] else set()
            )
    summary = pq.read_table(out / "summary.parquet").to_pylist()
    assert len(summary) == sum(row["faces"] for row in done.values()) > 0


def test_ctrl_c_leaves_the_tables_of_what_is_done(tmp_path: Path, environment: dict[str, str]) -> None:
    fill(tmp_path / "in", 40)
    process = start(environment, tmp_path / "in", "--out", tmp_path / "out")
    while lines(tmp_path / "out" / "journal" / "all.jsonl") < 12:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "--resume" in printed and "Traceback" not in errors
    assert pq.read_table(tmp_path / "out" / "manifest.parquet").num_rows >= 5


def test_names_that_cannot_be_shown_and_a_reader_that_leaves_end_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    face, folder = picture_with([(10, 20)], (160, 240)), tmp_path / "in"
    folder.mkdir()
    for name in (b"\xff\x1b[2J.png", "写真.png".encode()):
        Image.fromarray(face).save(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)), "PNG")
    process = start(environment, folder, "--out", tmp_path / "out.csv")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "\x1b" not in printed and "1 face" in printed
    assert (tmp_path / "out.csv").read_bytes().count(b"\r\n") == 3
    process = start(environment, folder)
    process.stdout.close()  # type: ignore[union-attr]
    assert (process.wait(), process.stderr.read()) == (141, "")  # type: ignore[union-attr]
    process.stderr.close()  # type: ignore[union-attr]
