"""Hard cuts: find where a new shot begins, from what consecutive pictures have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from hsemotion_space.types import ByteArray, FloatArray, Frame

# px of the small gray picture, of its blocks, and how far a block may have moved
SIDE, BLOCK, REACH = 48, 8, 5
# standard deviation of gray levels; a picture below it (black, white, faded) belongs to no shot
MIN_CONTRAST = 6.0
MAX_DISTANCE = 0.15  # 1 - correlation; without motion, pictures of one shot are nearer, whatever the light
# share of the detail that moved blocks of the other picture do not explain (docs/detection.md)
MAX_RESIDUAL = 0.6


def mark_cuts(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames, with ``starts_shot`` set on the first one after each hard cut.

    One frame is held back, because a flash is not a cut: the frame after it resembles the frame before it.
    """
    shot: FloatArray | None = None  # the latest picture of the shot
    held: Frame | None = None
    gray: FloatArray | None = None
    for frame in frames:
        following = _small_gray(frame.rgb)
        if held is not None:
            is_cut, shot = _compare(shot, gray, following)
            yield replace(held, starts_shot=is_cut)
        held, gray = frame, following
    if held is not None:
        yield replace(held, starts_shot=_compare(shot, gray, gray)[0])


def _compare(
    shot: FloatArray | None, gray: FloatArray | None, following: FloatArray | None
) -> tuple[bool, FloatArray | None]:
    """Return whether a picture starts a shot, and the shot's latest picture; None lacks contrast."""
    if shot is None or gray is None:
        return False, shot if gray is None else gray
    if not _differ(shot, gray):
        return False, gray
    if following is not None and not _differ(shot, following):
        return False, shot  # a flash
    return True, gray


def _small_gray(rgb: ByteArray) -> FloatArray | None:
    """Return (SIDE, SIDE) gray levels of mean 0 and standard deviation 1; None without contrast."""
    step = max(1, max(rgb.shape[:2]) // (4 * SIDE))
    image = Image.fromarray(np.ascontiguousarray(rgb[::step, ::step])).convert("L")
    gray = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    contrast = float(gray.std())
    return None if contrast < MIN_CONTRAST else (gray - gray.mean()) / contrast


def _differ(one: FloatArray, other: FloatArray) -> bool:
    """Return whether two pictures belong to different shots: uncorrelated, and not by motion."""
    if 1 - float((one * other).mean()) <= MAX_DISTANCE:
        return False
    residual, detail = (
        sum(pair) for pair in zip(_prediction(one, other), _prediction(other, one), strict=True)
    )
    return residual > MAX_RESIDUAL * detail


def _prediction(source: FloatArray, target: FloatArray) -> tuple[float, float]:
    """Return what remains of ``target`` after each block is predicted, from ``source`` and from its own mean.

    These are the inter and the intra cost of a video encoder, as sums of absolute differences.
    """
    blocks = SIDE // BLOCK
    moved = np.lib.stride_tricks.sliding_window_view(np.pad(source, REACH, mode="edge"), (SIDE, SIDE))
    costs = np.abs(moved - target).reshape(*moved.shape[:2], blocks, BLOCK, blocks, BLOCK).sum((3, 5))
    tiles = target.reshape(blocks, BLOCK, blocks, BLOCK)
    return float(costs.min((0, 1)).sum()), float(np.abs(tiles - tiles.mean((1, 3), keepdims=True)).sum())
