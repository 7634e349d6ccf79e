"""How often must the whole picture be searched?

Recall and overlap against a search of every frame at full size.

python benchmarks/detection_interval.py CLIP [CLIP ...] [--photograph PHOTOGRAPH]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import agreement, make_clip

from hsemotion_space.inference.pipeline import follow_faces
from hsemotion_space.media.clips import open_clip
from hsemotion_space.settings import MediaLimits, PipelineConfig
from hsemotion_space.vision.detection import MtcnnDetector
from hsemotion_space.vision.engine import EngineOptions

Boxes = dict[int, np.ndarray]


def boxes_of(clip: Path, detector: MtcnnDetector, every: int, sample_fps: float) -> tuple[Boxes, float, int]:
    """Return boxes by frame, CPU milliseconds per frame without decoding, and the number of frames."""
    limits = replace(MediaLimits(), clip_frames=10**6, clip_duration_s=3600.0)
    with open_clip(clip, limits, sample_fps) as frames:
        decoded = list(frames)
    start = time.process_time()
    found = {
        frame.index: faces.boxes_xyxy
        for frame, faces, _ in follow_faces(decoded, detector, every)
        if len(faces)
    }
    return found, (time.process_time() - start) * 1000 / len(decoded), len(decoded)


def main() -> None:
    """Print a Markdown table, pooled over the clips."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--photograph", type=Path, help="also measure a clip made from this photograph")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clips = list(options.clips)
        if options.photograph:
            clips.append(Path(name) / "drift.mp4")
            make_clip(options.photograph, clips[-1], frames=50)
        engine = EngineOptions("openvino", Path(name))
        sample_fps = PipelineConfig().sample_fps
        references = [boxes_of(clip, MtcnnDetector(engine, 1920, 20), 1, sample_fps)[0] for clip in clips]
        print(
            "| longer side px | min face px | search every | recall | mean IoU | CPU ms/frame"
            " |\n|---|---|---|---|---|---|"
        )
        for side, smallest in ((640, 20), (640, 40), (480, 20), (960, 20)):
            detector = MtcnnDetector(engine, side, smallest)
            for every in (1, 3, 5, 10) if (side, smallest) == (640, 20) else (5,):
                merged: Boxes = {}
                pooled: Boxes = {}
                costs = []
                for number, (clip, reference) in enumerate(zip(clips, references, strict=True)):
                    found, cost, _ = boxes_of(clip, detector, every, sample_fps)
                    merged |= {number * 10**6 + index: boxes for index, boxes in found.items()}
                    pooled |= {number * 10**6 + index: boxes for index, boxes in reference.items()}
                    costs.append(cost)
                recall, iou = agreement(pooled, merged)
                print(
                    f"| {side} | {smallest} | {every} | {recall:.3f} | {iou:.3f} | {np.mean(costs):.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
