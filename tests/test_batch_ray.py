"""The same study on Ray with two workers, some of which die."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MORTAL = """
import os, sys
from pathlib import Path
from hsemotion_space.batch import cluster
from hsemotion_space.cli import main

class Mortal(cluster._Worker):
    def __call__(self, batch):
        name, been = self._inputs[int(batch["id"][0])].source, Path(os.environ["BEEN"])
        if name == "deadly.png" or (name == "once.png" and not been.exists()):
            been.touch() if name == "once.png" else None
            os._exit(1)
        return super().__call__(batch)

cluster._Worker = Mortal
sys.exit(main(sys.argv[1:]))
"""

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="needs the extra [ray], which is not installed"
)


def analyze(place: Path, *arguments: object, program: str = "") -> str:
    command = [sys.executable, *(["-c", program] if program else ["-m", "hsemotion_space"]), "analyze"]
    environment = os.environ | {
        "HSEMOTION_CHECKPOINTS": str(place / "checkpoints"), "HSEMOTION_ENGINE": "torch", "HSEMOTION_THREADS": "1",
        "PYTHONPATH": str(ROOT), "BEEN": str(place / "been"), "RAY_worker_niceness": "0",
    }  # fmt: skip
    result = subprocess.run(
        [*command, str(place / "in"), "--embeddings", *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    return result.stdout


def test_ray_and_one_process_write_the_same_files_also_when_workers_die(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    (tmp_path / "in").mkdir()
    for number, name in enumerate(["once", "deadly", *"abcdef"]):
        Image.fromarray(picture_with([(5 * number, 20)], (160, 240))).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"bad")
    cluster, local = tmp_path / "ray", tmp_path / "local"
    printed = analyze(tmp_path, "--out", cluster, "--engine", "ray", "--workers", 2, program=MORTAL)
    assert (tmp_path / "been").exists() and "7 analyzed, 2 failed" in printed
    assert "8 analyzed, 1 failed (bad.jpg)" in analyze(tmp_path, "--out", local)
    tables = []
    for place in (cluster, local):
        rows = {row["source"]: row for row in pq.read_table(place / "manifest.parquet").to_pylist()}
        deadly = rows.pop("deadly.png")
        if place == cluster:
            assert deadly["error_code"] == "worker_died"
        tables.append({name: row | {"seconds": 0, "updated": 0} for name, row in rows.items()})
    assert tables[0] == tables[1]
    for row in tables[0].values():
        for folder in ("faces", "embeddings") if row["file"] else ():
            assert (cluster / folder / row["file"]).read_bytes() == (
                local / folder / row["file"]
            ).read_bytes()
