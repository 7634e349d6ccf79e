"""Shared by the benchmarks: a clip of a photograph, a checkpoint with random weights, box agreement."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from hsemotion_space.types import Analysis
from hsemotion_space.vision.backbones import create_model
from hsemotion_space.vision.tracking import overlap

MANIFEST = """
id = "{name}"
title = "{arch} with random weights"
family = "EfficientNet"
license = "none"
[source]
bundled = "model.safetensors"
sha256 = "{sha256}"
[backbone]
arch = "{arch}"
dim = {dim}
outputs = 10
[input]
size = {size}
crop = "box"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[[heads]]
task = "expression"
kind = "scores"
columns = [0, 1, 2, 3, 4, 5, 6, 7]
provenance = "prior"
"""


@dataclass(frozen=True)
class Timing:
    """Seconds of one run."""

    wall_s: float
    cpu_s: float


def timed(run: Callable[[], object]) -> tuple[Timing, object]:
    """Run once and return how long it took, with the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu), result


def make_clip(
    picture: Path, clip: Path, frames: int = 105, fps: int = 25, size: tuple[int, int] = (1920, 1080)
) -> None:
    """Write an h264 clip in which a photograph drifts, turns up to 4 degrees and grows by up to a fifth."""
    image = Image.open(picture).convert("RGB")
    width, height = size
    fit = min(width / image.width, height / image.height)
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            phase = 2 * math.pi * number / frames
            zoom = fit * (1.1 + 0.1 * math.sin(phase))
            angle = math.radians(4 * math.sin(2 * phase))
            cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
            x = image.width / 2 + 0.05 * image.width * math.sin(phase)
            y = image.height / 2 + 0.04 * image.height * math.cos(phase)
            matrix = (
                cos,
                sin,
                x - cos * width / 2 - sin * height / 2,
                -sin,
                cos,
                y + sin * width / 2 - cos * height / 2,
            )
            moved = image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
            for packet in stream.encode(av.VideoFrame.from_image(moved)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def make_checkpoint(root: Path, arch: str, dim: int, size: int, name: str = "random") -> torch.nn.Module:
    """Write a checkpoint folder with random weights and return the network."""
    torch.manual_seed(0)
    model = create_model(arch, 10).eval()
    torch.nn.init.normal_(model.get_classifier().bias)  # equal tensors would be merged by an ONNX export
    content = save({key: value.contiguous() for key, value in model.state_dict().items()})
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.toml").write_text(
        MANIFEST.format(name=name, arch=arch, dim=dim, size=size, sha256=digest), "utf-8"
    )
    return model


def boxes_by_frame(analysis: Analysis) -> dict[int, np.ndarray]:
    """Return frame index -> boxes (N, 4) px."""
    rows: dict[int, list[np.ndarray]] = {}
    for face in analysis.faces:
        for index, box in zip(face.track.frame_index, face.track.boxes_xyxy, strict=True):
            rows.setdefault(int(index), []).append(box)
    return {index: np.stack(boxes) for index, boxes in rows.items()}


def agreement(reference: dict[int, np.ndarray], found: dict[int, np.ndarray]) -> tuple[float, float]:
    """Return recall of the reference boxes at IoU 0.5 and the mean IoU of those that were found."""
    best: list[float] = []
    for index, boxes in reference.items():
        mine = found.get(index, np.zeros((0, 4), np.float32))
        best += (
            overlap(boxes.astype(np.float32), mine).max(axis=1).tolist() if len(mine) else [0.0] * len(boxes)
        )
    hits = [value for value in best if value >= 0.5]
    return len(hits) / max(len(best), 1), float(np.mean(hits)) if hits else 0.0
