"""The same study on Ray with two workers, of which one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="needs the extra [ray], which is not installed"
)


def analyze(place: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hsemotion_space", "analyze", place / "in", "--embeddings", *arguments]
    environment = os.environ | {
        "HSEMOTION_CHECKPOINTS": str(place / "checkpoints"), "HSEMOTION_ENGINE": "torch",
        "HSEMOTION_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return subprocess.Popen(
        [*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            found += [child] if "_Worker" in " ".join(child.cmdline()) else []
        except psutil.Error:
            continue
    return found


def test_ray_and_one_process_write_the_same_files_also_when_a_worker_is_killed(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    (tmp_path / "in").mkdir()
    for number in range(12):
        Image.fromarray(picture_with([(5 * number, 20)], (160, 240))).save(
            tmp_path / "in" / f"{number:02}.png"
        )
    (tmp_path / "in" / "bad.jpg").write_bytes(b"bad")
    cluster, local = tmp_path / "ray", tmp_path / "local"
    process = analyze(tmp_path, "--out", cluster, "--engine", "ray", "--workers", "2")
    journal, killed = cluster / "journal" / "all.jsonl", 0
    while process.poll() is None:
        if not killed and journal.exists() and journal.read_bytes().count(b'"done"') >= 2:
            for worker in workers(process)[:1]:
                worker.kill()
                killed = worker.pid
        time.sleep(0.02)
    printed, _ = process.communicate()
    assert process.returncode == 1, printed
    assert killed and "1 failed (bad.jpg)" in printed
    alone = analyze(tmp_path, "--out", local)
    assert alone.communicate() and alone.returncode == 1
    for folder in ("faces", "embeddings"):
        files = [sorted((place / folder).iterdir()) for place in (cluster, local)]
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
        assert len(files[0]) == 12
        assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*files, strict=True))
    tables = [pq.read_table(place / "manifest.parquet").to_pylist() for place in (cluster, local)]
    for row in [*tables[0], *tables[1]]:
        row["seconds"] = row["updated"] = 0
    assert tables[0] == tables[1]
    again = analyze(tmp_path, "--out", cluster, "--engine", "ray", "--resume")
    assert "12 already done, 1 failed" in again.communicate()[0]
