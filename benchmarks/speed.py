"""How fast: clips beside emotiefflib, the stages of a clip, growth with length and size, and the start.

    python benchmarks/speed.py PHOTOGRAPH_OF_SEVERAL [--rounds 3] [--json speed.json] [--minutes 1 10]

Everything runs in turn, round by round; compare ratios within a round. Without emotiefflib its rows are left
out; it needs an environment with ``pip install --no-deps emotiefflib`` and ``pip install onnx onnxruntime
opencv-python-headless`` (see README.md).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
from common import Timing, agreement, boxes_by_frame, make_checkpoint, make_clip, timed

from hsemotion_space.inference import batcher
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.media.clips import Clip
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis
from hsemotion_space.vision.detection import MtcnnDetector

ARCH, DIM, SIZE, PEER_MODEL = "tf_efficientnet_b0.ns_jft_in1k", 1280, 224, "enet_b0_8_va_mtl"
ROOT = Path(__file__).resolve().parent.parent
PORTRAIT = ROOT / "examples" / "astronaut.jpg"
ANALYZE = """
import re, sys, time
from hsemotion_space.cli import main
main(["analyze", *sys.argv[1:]])
print(time.process_time(), re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
Rows = list[dict[str, object]]


def peers(folder: Path) -> dict[str, object]:
    """Return emotiefflib's recognizers by engine, with the weights of the checkpoint in its folder."""
    import torch
    from emotiefflib.facial_analysis import EmotiEffLibRecognizer

    os.environ["HOME"] = str(folder)
    home = folder / ".emotiefflib"
    home.mkdir()
    model = make_checkpoint(folder / "peer", ARCH, DIM, SIZE)  # the same seed gives the same weights
    torch.save(model, home / f"{PEER_MODEL}.pt")
    torch.onnx.export(
        model, (torch.zeros(1, 3, SIZE, SIZE),), str(home / f"{PEER_MODEL}.onnx"), input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}}, dynamo=False, opset_version=17,
    )  # fmt: skip
    return {name: EmotiEffLibRecognizer(engine=name, model_name=PEER_MODEL) for name in ("onnx", "torch")}


def peer_loop(clip: Path, recognizer: object) -> dict[int, np.ndarray]:
    """Read with OpenCV, build MTCNN for each frame, predict all sure faces at once; return the boxes."""
    import cv2
    from facenet_pytorch import MTCNN

    capture = cv2.VideoCapture(str(clip))
    found: dict[int, np.ndarray] = {}
    index = 0
    while True:
        ok, bgr = capture.read()
        if not ok:
            return found
        frame = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        mtcnn = MTCNN(keep_all=True, post_process=False, min_face_size=40, device="cpu")
        boxes, probabilities = mtcnn.detect(frame, landmarks=False)
        if boxes is not None:
            boxes = np.asarray(boxes, np.float64)[np.asarray(probabilities, np.float64) > 0.9]
            faces = [frame[max(y0, 0) : y1, max(x0, 0) : x1] for x0, y0, x1, y1 in boxes.astype(int)]
            if faces:
                recognizer.predict_emotions(faces, logits=False)  # type: ignore[attr-defined]
                found[index] = boxes
        index += 1


def compare(clip: Path, pipeline: Pipeline, rivals: dict[str, object], rounds: int) -> Rows:
    """Return a row per way to analyze a clip; recall and IoU refer to the boxes of the first one."""
    runs: dict[str, Callable[[], object]] = {
        f"emotiefflib, {name}": partial(peer_loop, clip, rival) for name, rival in rivals.items()
    }
    for every in (1, 5, 10):
        config = PipelineConfig(sample_fps=0, detect_every=every)
        runs[f"this project, search every {every}"] = partial(pipeline.analyze, clip, config)
    found = {}
    for name, run in runs.items():  # also warms up
        result = run()
        found[name] = boxes_by_frame(result) if isinstance(result, Analysis) else result
    with av.open(str(clip)) as container:
        frames = container.streams.video[0].frames
    timings: dict[str, list[Timing]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            timings[name].append(timed(run)[0])
    base, rows = next(iter(runs)), []
    for name, mine in timings.items():
        recall, iou = agreement(found[base], found[name])  # type: ignore[arg-type]
        row: dict[str, object] = {"clip": clip.stem, "pipeline": name}
        for kind in ("wall", "cpu"):
            seconds = [getattr(timing, f"{kind}_s") for timing in mine]
            ratios = [
                getattr(one, f"{kind}_s") / own for one, own in zip(timings[base], seconds, strict=True)
            ]
            row[f"{kind} ms/frame"] = round(statistics.median(seconds) * 1000 / frames, 1)
            row[f"times as fast, {kind}"] = round(statistics.median(ratios), 2)
            row[f"per round, {kind}"] = " ".join(f"{ratio:.1f}" for ratio in ratios)
        rows.append(row | {"recall": round(recall, 3), "mean IoU": round(iou, 3)})
    return rows


def stages(clip: Path, pipeline: Pipeline, every: int) -> Rows:
    """Return CPU milliseconds per frame of every stage, with engines on one thread."""
    places = {
        "convert to RGB": (Clip, "_rgb"), "search": (MtcnnDetector, "detect"),
        "follow": (MtcnnDetector, "follow"), "align": (batcher, "align_face"),
        "backbone": (batcher.Batcher, "_run"),
    }  # fmt: skip
    spent, lock, kept = dict.fromkeys(places, 0.0), threading.Lock(), {}
    for name, (owner, attribute) in places.items():
        kept[name] = getattr(owner, attribute)

        def run(*args: object, _name: str = name, **options: object) -> object:
            start = time.thread_time()
            try:
                return kept[_name](*args, **options)
            finally:
                with lock:
                    spent[_name] += time.thread_time() - start

        setattr(owner, attribute, run)
    try:
        pipeline.analyze(clip)  # loads everything
        spent.update(dict.fromkeys(places, 0.0))
        timing, result = timed(lambda: pipeline.analyze(clip, PipelineConfig(0, detect_every=every)))
    finally:
        for name, (owner, attribute) in places.items():
            setattr(owner, attribute, kept[name])
    frames = len(result.frame_times_s)  # type: ignore[attr-defined]
    spent["decode, cuts, ids"] = timing.cpu_s - sum(spent.values())
    per_frame = {name: round(seconds * 1000 / frames, 1) for name, seconds in spent.items()}
    return [{"clip": clip.stem, "search every": every} | per_frame]


def command(arguments: list[str], cache: Path) -> dict[str, float]:
    """Run the command line in a process of its own; return seconds and the peak of its memory."""
    environment = {**os.environ, "HSEMOTION_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", ANALYZE, *arguments], env=environment, cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    cpu_s, peak_kb = done.stdout.splitlines()[-1].split()
    return {
        "wall s": time.perf_counter() - start, "cpu s": float(cpu_s), "peak MB": int(peak_kb) / 1000,
    }  # fmt: skip


def start_up(folder: Path, rounds: int) -> Rows:
    """Return what one photograph costs by command: with an empty cache, and with converted networks."""
    runs: dict[str, list[dict[str, float]]] = {"empty cache": [], "converted networks": []}
    for number in range(rounds):
        for mine in runs.values():
            mine.append(command([str(PORTRAIT)], folder / f"cache {number}"))
    return [{"start": name} | medians(mine) for name, mine in runs.items()]


def medians(runs: list[dict[str, float]]) -> dict[str, object]:
    """Return the median of every column."""
    return {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}


def growth(folder: Path, minutes: list[float], rounds: int) -> Rows:
    """Return time per frame, beyond that of a photograph, and memory for clips of several lengths."""
    cache, second = folder / "cache 0", folder / "seconds.mp4"
    make_clip(PORTRAIT, second, 100, 10, (640, 360))
    clips = {length: repeated(second, folder / f"{length:g}.mp4", round(length * 6)) for length in minutes}
    runs: dict[float, list[dict[str, float]]] = {length: [] for length in minutes}
    for _ in range(rounds):
        still = command([str(PORTRAIT)], cache)
        for length, clip in clips.items():
            run = command([str(clip), "--fps", "0"], cache)
            frames = round(length * 6) * 100
            for kind in ("wall", "cpu"):
                run[f"{kind} ms/frame"] = (run.pop(f"{kind} s") - still[f"{kind} s"]) * 1000 / frames
            runs[length].append(run)
    return [
        {"minutes": length, "frames": round(length * 6) * 100} | medians(runs[length]) for length in minutes
    ]


def repeated(source: Path, target: Path, times: int) -> Path:
    """Write a clip that shows another one several times, without encoding it again."""
    with av.open(str(target), "w") as output:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        output.mux(packet)
                shift += video.duration
    return target


def show(rows: Rows) -> None:
    """Print rows as a Markdown table."""
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)


def main() -> None:
    """Run everything and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=105)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tables: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder / "checkpoints", ARCH, DIM, SIZE)
        several, one = folder / "several faces, 1080p.mp4", folder / "one face, 720p.mp4"
        make_clip(options.photograph, several, options.frames)
        make_clip(PORTRAIT, one, options.frames, size=(1280, 720))
        settings = replace(
            Settings(), engine="openvino", checkpoints=folder / "checkpoints", cache=folder / "cache"
        )
        pipeline, single = Pipeline(settings), Pipeline(replace(settings, threads=1))
        tables["start"] = start_up(folder, options.rounds)
        show(tables["start"])
        tables["stages"] = [row for clip in (several, one) for row in stages(clip, single, 5)]
        show(tables["stages"])
        rivals = peers(folder) if importlib.util.find_spec("emotiefflib") else {}
        for clip in (several, one):
            tables[clip.stem] = compare(clip, pipeline, rivals, options.rounds)
            show(tables[clip.stem])
        tables["growth"] = growth(folder, options.minutes, options.rounds)
        show(tables["growth"])
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
