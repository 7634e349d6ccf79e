"""The second start: converted networks replace torch, and only where nothing that they depend on changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from face_makers import picture_with
from PIL import Image

from hsemotion_space.hub.manifest import CheckpointError, read_manifest
from hsemotion_space.inference.network import load_network
from hsemotion_space.vision.engine import EngineOptions

ROOT = Path(__file__).resolve().parent.parent
ANALYZE = """
import sys
from hsemotion_space.cli import main
status = main(["analyze", sys.argv[1]])
print({"torch", "torchvision", "timm", "facenet_pytorch"} & sys.modules.keys() or "no torch")
sys.exit(status)
"""


def test_a_warm_start_imports_no_torch(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoints" / "small", size=32)
    Image.fromarray(picture_with([(20, 60)])).save(tmp_path / "faces.png")
    places = {"HSEMOTION_CHECKPOINTS": tmp_path / "checkpoints", "HSEMOTION_CACHE": tmp_path / "cache"}
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    environment["HSEMOTION_ENGINE"] = "openvino"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", ANALYZE, str(tmp_path / "faces.png")], cwd=ROOT, env=environment,
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]  # fmt: skip
    assert "1 face " in outputs[0][0]
    assert outputs[0][:-1] == outputs[1][:-1]
    assert "timm" in outputs[0][-1]
    assert outputs[1][-1] == "no torch"

    change_manifest(checkpoint.folder, ("outputs = 10", "outputs = 12"))
    with pytest.raises(CheckpointError):
        load_network(
            read_manifest(checkpoint.folder), EngineOptions("openvino", tmp_path / "cache" / "openvino")
        )
