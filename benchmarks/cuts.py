"""Which hard cuts are found, and what is taken for one? Prints a Markdown table.

python benchmarks/cuts.py CLIP CLIP [CLIP ...] --photograph PHOTOGRAPH [--portraits FOLDER]

Clips must have no cut. Portraits are pictures of different people, best in one studio: the cuts that are
hardest to see.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from hsemotion_space.media.clips import open_clip
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import ByteArray, Frame
from hsemotion_space.vision.cuts import mark_cuts

STEPS = 10  # frames of a pan, a fade or a dissolve: one second at ten frames per second


def cuts_in(pictures: Iterable[ByteArray]) -> list[int]:
    """Return the numbers of the pictures that start a shot."""
    frames = (Frame(picture, number, number / 10) for number, picture in enumerate(pictures))
    return [frame.index for frame in mark_cuts(frames) if frame.starts_shot]


def resized(picture: ByteArray, size: tuple[int, int] = (480, 360)) -> ByteArray:
    """Return a picture of one size for all."""
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def pan(picture: ByteArray, speed: float) -> list[ByteArray]:
    """Return windows of half the width that move by ``speed`` of their width per frame."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    starts = range(0, width, max(1, round(speed * width)))
    return [picture[height // 2 : height // 2 + height, start : start + width] for start in starts][
        : STEPS + 1
    ]


def mixed(one: ByteArray, other: ByteArray, share: float) -> ByteArray:
    """Return a picture between two."""
    return np.clip(one * (1 - share) + other * share, 0, 255).astype(np.uint8)


def flashes(picture: ByteArray) -> Iterator[list[ByteArray]]:
    """Yield a shot with one frame that is lit, white, or black."""
    for odd in (
        np.clip(picture * 3.0, 0, 255),
        np.clip(picture + 100.0, 0, 255),
        picture * 0 + 255,
        picture * 0,
    ):
        yield [picture, picture, odd.astype(np.uint8), picture, picture]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--photograph", type=Path, required=True)
    parser.add_argument("--portraits", type=Path)
    options = parser.parse_args()
    limits = replace(MediaLimits(), clip_frames=10**6)
    rows: dict[str, list[bool]] = {}
    stills, spent, count = [], 0.0, 0
    for path in options.clips:
        with open_clip(path, limits, 0) as clip:
            frames = [Frame(resized(frame.rgb), frame.index, frame.time_s) for frame in clip]
        stills += [
            frame.rgb for frame in (frames[0], frames[len(frames) // 2], frames[-1]) if frame.rgb.std() > 20
        ]
        for fps in (60, 10, 5, 3, 1):
            slots = {int((frame.time_s + 0.001) * fps): frame for frame in reversed(frames)}
            start = time.process_time()
            sampled = list(mark_cuts(slots[slot] for slot in sorted(slots)))
            spent, count = spent + time.process_time() - start, count + len(sampled)
            rows.setdefault(f"clips of moving heads, {fps} fps", []).extend(
                frame.starts_shot for frame in sampled
            )
    photograph = np.asarray(Image.open(options.photograph).convert("RGB"))
    clips = [stills[number : number + 3] for number in range(0, len(stills), 3)]
    rows["CUT between clips"] = [
        cuts_in([a, a, b, b]) == [2] for one, other in combinations(clips, 2) for a in one for b in other
    ]
    if options.portraits:
        portraits = [
            np.asarray(Image.open(file).convert("RGB")) for file in sorted(options.portraits.iterdir())
        ]
        rows["CUT between portraits"] = [cuts_in([a, a, b, b]) == [2] for a, b in combinations(portraits, 2)]
    for speed in (0.02, 0.05, 0.08, 0.1, 0.15):
        found = [bool(cuts_in(pan(picture, speed))) for picture in (photograph, *stills)]
        rows[f"pan of a second, {speed:.0%} of the width per frame"] = found
    shades = np.linspace(1, 0, STEPS + 1)
    for picture in stills:
        fade = [mixed(picture, picture * 0, 1 - shade) for shade in shades]
        rows.setdefault("fade to black and back", []).append(bool(cuts_in([*fade, *fade[::-1]])))
        rows.setdefault("flash of one frame", []).extend(
            bool(cuts_in(sequence)) for sequence in flashes(picture)
        )
    for one, other in combinations(stills, 2):
        rows.setdefault("dissolve of a second", []).append(
            bool(cuts_in(mixed(one, other, s) for s in shades))
        )
    print("| pictures | sequences | share in which a cut is found |\n|---|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {len(found)} | {np.mean(found):.3f} |")
    print(f"\n{spent * 1000 / count:.2f} ms of CPU time per frame of 480 x 360 px")


if __name__ == "__main__":
    main()
