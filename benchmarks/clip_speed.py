"""Time the clip path beside the loop of emotiefflib's tutorial, same architecture and weights, in turn.

    python benchmarks/clip_speed.py PHOTOGRAPH_WITH_FACES [--rounds 3]

Needs ``pip install --no-deps emotiefflib`` and ``pip install onnx onnxscript onnxruntime
opencv-python-headless`` in the same environment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from common import Timing, agreement, boxes_by_frame, make_checkpoint, make_clip, timed
from facenet_pytorch import MTCNN

from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis

ARCH, DIM, SIZE, PEER_MODEL = "tf_efficientnet_b0.ns_jft_in1k", 1280, 224, "enet_b0_8_va_mtl"


def export_for_peer(model: torch.nn.Module, home: Path) -> None:
    """Put the weights where emotiefflib looks for its ONNX model, so that it downloads nothing."""
    folder = home / ".emotiefflib"
    folder.mkdir()
    torch.onnx.export(
        model, (torch.zeros(1, 3, SIZE, SIZE),), str(folder / f"{PEER_MODEL}.onnx"), input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}}, dynamo=False, opset_version=17,
    )  # fmt: skip


def peer_loop(clip: Path, recognizer: object) -> dict[int, np.ndarray]:
    """Read with OpenCV, build MTCNN for each frame, predict all faces it finds; return the boxes."""
    capture = cv2.VideoCapture(str(clip))
    found: dict[int, np.ndarray] = {}
    index = 0
    while True:
        ok, bgr = capture.read()
        if not ok:
            return found
        frame = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        boxes, probabilities = MTCNN(
            keep_all=True, post_process=False, min_face_size=40, device="cpu"
        ).detect(frame, landmarks=False)
        if boxes is not None:
            boxes = np.asarray(boxes, np.float64)[np.asarray(probabilities, np.float64) > 0.9]
            faces = [frame[max(y0, 0) : y1, max(x0, 0) : x1] for x0, y0, x1, y1 in boxes.astype(int)]
            if faces:
                recognizer.predict_emotions(faces, logits=False)  # type: ignore[attr-defined]
                found[index] = boxes
        index += 1


def main() -> None:
    """Run the comparison and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=105)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        make_clip(options.photograph, clip, options.frames)
        model = make_checkpoint(folder / "checkpoints", ARCH, DIM, SIZE)
        os.environ["HOME"] = name
        export_for_peer(model, folder)
        from emotiefflib.facial_analysis import EmotiEffLibRecognizer

        recognizer = EmotiEffLibRecognizer(engine="onnx", model_name=PEER_MODEL)
        settings = replace(Settings(), checkpoints=folder / "checkpoints", cache=folder / "cache")
        runs: dict[str, Callable[[], object]] = {"emotiefflib, onnx": lambda: peer_loop(clip, recognizer)}
        for engine in ("openvino", "torch"):
            pipeline = Pipeline(replace(settings, engine=engine))
            for every in (1, 3, 5, 10) if engine == "openvino" else (5,):
                config = PipelineConfig(sample_fps=0, detect_every=every)
                runs[f"this project, {engine} f32, search every {every}"] = lambda p=pipeline, c=config: (
                    p.analyze(clip, c)
                )
        report(runs, options.rounds, options.frames)


def report(runs: dict[str, Callable[[], object]], rounds: int, frames: int) -> None:
    """Run everything once to warm up, then in turn, and print medians and ratios to the first entry."""
    timings: dict[str, list[Timing]] = {name: [] for name in runs}
    results = {name: run() for name, run in runs.items()}
    for _ in range(rounds):
        for name, run in runs.items():
            timings[name].append(timed(run)[0])
    first, *others = runs
    reference = results[first]
    print(
        "| pipeline | wall ms/frame | CPU ms/frame | times as fast, per round | recall | mean IoU"
        " |\n|---|---|---|---|---|---|"
    )
    for name in (first, *others):
        wall = statistics.median(timing.wall_s for timing in timings[name]) * 1000 / frames
        cpu = statistics.median(timing.cpu_s for timing in timings[name]) * 1000 / frames
        ratios = " ".join(
            f"{base.wall_s / mine.wall_s:.1f}"
            for base, mine in zip(timings[first], timings[name], strict=True)
        )
        result = results[name]
        boxes = boxes_by_frame(result) if isinstance(result, Analysis) else result
        recall, iou = agreement(reference, boxes)  # type: ignore[arg-type]
        print(f"| {name} | {wall:.0f} | {cpu:.0f} | {ratios} | {recall:.2f} | {iou:.2f} |", flush=True)


if __name__ == "__main__":
    main()
