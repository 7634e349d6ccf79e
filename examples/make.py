"""Make the clips of this folder from ``astronaut.jpg``: the expression changes, by a warp of the portrait.

The points of the face were placed by hand. No frame shows what the person did or felt: every frame is labeled
as synthetic, and so is each file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import PchipInterpolator, RBFInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates

Floats = npt.NDArray[np.float64]
FOLDER = Path(__file__).parent
RATE, SECONDS = 15, 9.0  # frames per second, length
POSTER_S = 5.5  # of the surprise
REGION = (124.0, 18.0, 200.0)  # left, top and side of what is shown, px of the portrait
FACE = (164.0, 50.0, 284.0, 200.0)  # nothing is moved outside, px of the portrait
LABEL = "synthetic"

POINTS: Mapping[str, tuple[float, float]] = {  # px of the portrait; left and right as seen
    "brow_left_outer": (191, 90), "brow_left": (200, 88.5), "brow_left_inner": (213, 92),
    "brow_right_inner": (238, 93.5), "brow_right": (251, 91.5), "brow_right_outer": (262, 95),
    "lid_left": (202, 97), "eye_left_outer": (193, 101), "eye_left_inner": (212, 102),
    "lid_right": (246, 99), "eye_right_inner": (236, 103.5), "eye_right_outer": (257, 103.5),
    "low_lid_left": (202, 105), "low_lid_right": (246, 107),
    "nose_left": (211, 129), "nose_right": (236, 130), "nose": (224, 131), "nose_bridge": (224, 104),
    "corner_left": (203, 140.5), "corner_right": (246, 139.5),
    "lip_left": (213, 139.5), "lip": (224, 139.5), "lip_right": (236, 139),
    "upper_left": (212, 141.7), "upper": (224, 143), "upper_right": (236, 141.7),
    "lower_left": (212, 149.2), "lower": (224, 150.4), "lower_right": (236, 148.8),
    "bottom_left": (213, 152.5), "bottom": (224, 154.5), "bottom_right": (236, 152),
    "cheek_left": (190, 125), "cheek_right": (258, 126), "fold_left": (199, 133), "fold_right": (248, 135),
    "chin": (225, 178), "chin_left": (208, 173), "chin_right": (243, 172),
    "jaw_left": (184, 148), "jaw_right": (263, 150), "temple_left": (182, 95), "temple_right": (268, 98),
    "forehead": (224, 76), "forehead_left": (200, 76), "forehead_right": (250, 80),
}  # fmt: skip

SMILE: Mapping[str, tuple[float, float]] = {}
NEUTRAL: Mapping[str, tuple[float, float]] = {  # by how much a point is moved
    "corner_left": (5, 7.5), "corner_right": (-5, 8),
    "lip_left": (2, 3.9), "lip": (0, 2.7), "lip_right": (-2, 3.9),
    "upper_left": (1.2, 5.7), "upper": (0, 4.4), "upper_right": (-1.2, 5.4),
    "lower_left": (1.2, -1.8), "lower": (0, -3), "lower_right": (-1.2, -1.7),
    "bottom_left": (2, -3.9), "bottom": (0, -4.5), "bottom_right": (-2, -3.7),
    "cheek_left": (0.5, 4.3), "cheek_right": (-0.5, 4.3), "fold_left": (2.5, 5.3), "fold_right": (-2.5, 5.3),
    "lid_left": (0, 1), "lid_right": (0, 1), "low_lid_left": (0, 1.5), "low_lid_right": (0, 1.5),
    "chin": (0, -3),
}  # fmt: skip
SURPRISE: Mapping[str, tuple[float, float]] = {
    "brow_left_outer": (0, -5.5), "brow_left": (0, -7), "brow_left_inner": (0, -6.5),
    "brow_right_inner": (0, -6.5), "brow_right": (0, -7), "brow_right_outer": (0, -5.5),
    "forehead": (0, -2), "forehead_left": (0, -2), "forehead_right": (0, -2),
    "lid_left": (0, -2.6), "lid_right": (0, -2.6), "low_lid_left": (0, 1.2), "low_lid_right": (0, 1.2),
    "corner_left": (8, 10), "corner_right": (-8, 11),
    "lip_left": (3, 4), "lip": (0, 2.5), "lip_right": (-3, 4),
    "upper_left": (4, 5.4), "upper": (0, 3.6), "upper_right": (-4, 5.6),
    "lower_left": (3, 12.5), "lower": (0, 14.4), "lower_right": (-3, 12.7),
    "bottom_left": (3, 14), "bottom": (0, 15.5), "bottom_right": (-3, 14.5),
    "cheek_left": (1.5, 3), "cheek_right": (-1.5, 3), "fold_left": (4, 5), "fold_right": (-4, 5),
    "chin": (0, 12), "chin_left": (1, 9), "chin_right": (-1, 9), "jaw_left": (1, 2), "jaw_right": (-1, 2),
}  # fmt: skip
STATES = (SMILE, NEUTRAL, SURPRISE)
MOVES = np.array([[state.get(name, (0, 0)) for name in POINTS] for state in STATES], np.float64)
ABOVE, BESIDE = np.linspace(FACE[0], FACE[2], 7), np.linspace(FACE[1], FACE[3], 9)[1:-1]
FIXED = np.array([(x, y) for x in ABOVE for y in FACE[1::2]] + [(x, y) for x in FACE[::2] for y in BESIDE])
NAMES = list(POINTS)
LIP_COLOR, LIP_TINT = np.array([188.0, 118.0, 114.0]), 0.4  # without the gloss of the smile

Keys = list[tuple[float, int]]
ONE: Keys = [  # second, index of the state; between equal ones the face rests
    (0.0, 0), (1.8, 0), (2.6, 1), (4.2, 1), (4.7, 2), (6.2, 2), (7.0, 1), (7.6, 1), (8.2, 0), (9.0, 0),
]  # fmt: skip
OTHER: Keys = [
    (0.0, 1), (1.2, 1), (1.7, 2), (3.0, 2), (3.6, 1), (4.2, 1), (4.9, 0), (6.6, 0), (7.4, 1), (9.0, 1),
]  # fmt: skip


def weights_at(keys: Keys, time_s: float) -> tuple[float, ...]:
    """Return how much of each of the three states a moment has, with smooth transitions."""
    after = next((place for place, (key_s, _) in enumerate(keys) if key_s > time_s), len(keys) - 1)
    (start_s, first), (end_s, second) = keys[after - 1], keys[after]
    share = float(np.clip((time_s - start_s) / (end_s - start_s), 0, 1))
    share = share * share * (3 - 2 * share)
    weights = [0.0] * len(STATES)
    weights[first] += 1 - share
    weights[second] += share
    return tuple(weights)


def face_at(portrait: Floats, weights: Floats, side: int) -> Floats:
    """Return the region of the portrait with an expression: (side, side, 3), 0 to 255.

    Two thin-plate splines lead from the moved points back to the portrait, one for what is above the line
    between the lips and one for what is below, so that the lips can meet and part. Between parted lips, where
    the portrait shows nothing, a dark interior is painted; the folds of the smile are softened as it goes.
    """
    left, top, size = REGION
    ticks = (np.arange(side) + 0.5) * size / side
    x, y = np.meshgrid(left + ticks, top + ticks)
    here = np.array([POINTS[name] for name in NAMES])
    moved = here + np.tensordot(weights, MOVES, 1)
    place = dict(zip(NAMES, moved, strict=True))
    upper, lower = (lip_edge(place, name, x) for name in ("upper", "lower"))
    outside = np.clip(np.maximum(place["corner_left"][0] - x, x - place["corner_right"][0]), 0, None)
    below = 1 / (1 + np.exp(-np.clip((y - (upper + lower) / 2) / (0.3 + outside / 2), -50, 50)))
    shift = back_shift(moved, here, x, y, "lower", "bottom") * (1 - below)[..., None]
    shift += back_shift(moved, here, x, y, "upper", "lip") * below[..., None]
    relaxed = 1 - weights[0]
    at = [y + shift[..., 1] - 0.5, x + shift[..., 0] - 0.5]
    sharp, blurred = (
        np.stack(
            [map_coordinates(image[..., channel], at, order=3, mode="nearest") for channel in range(3)], -1
        )
        for image in (portrait, gaussian_filter(portrait, (4, 4, 0)))
    )
    folds = sum(
        np.exp(-(((x - place[name][0]) / 9) ** 2) - ((y - place[name][1]) / 10) ** 2)
        for name in ("fold_left", "fold_right")
    )
    image = sharp + (relaxed * np.clip(folds, 0, 1))[..., None] * 0.85 * (blurred - sharp)
    bottom = lip_edge(place, "bottom", x)
    lip = gaussian_filter(((y > lower) & (y < bottom)) * relaxed * (outside == 0) * LIP_TINT, 1.2)[..., None]
    image = image + lip * (LIP_COLOR - image)
    return paint_mouth(image, y - upper, lower - y, (lower - upper).max(), relaxed * (outside == 0))


def lip_edge(place: Mapping[str, Floats], lip: str, x: Floats) -> Floats:
    """Return the height of the edge of a lip toward the mouth at every x; that of the corners beside it."""
    points = [place[name] for name in ("corner_left", f"{lip}_left", lip, f"{lip}_right", "corner_right")]
    at_x, at_y = np.transpose(points)
    return np.asarray(PchipInterpolator(at_x, at_y)(np.clip(x, at_x[0], at_x[-1])))


def back_shift(moved: Floats, here: Floats, x: Floats, y: Floats, *without: str) -> Floats:
    """Return the way from each pixel to the portrait, (side, side, 2), without points of some names."""
    used = np.array([not name.startswith(without) for name in NAMES])
    spline = RBFInterpolator(
        np.concatenate([moved[used], FIXED]), np.concatenate([(here - moved)[used], np.zeros_like(FIXED)]),
        kernel="thin_plate_spline", smoothing=0.02,
    )  # fmt: skip
    edge = np.minimum.reduce([x - FACE[0], FACE[2] - x, y - FACE[1], FACE[3] - y])
    shift, inside = np.zeros((*x.shape, 2)), edge > 0
    shift[inside] = spline(np.stack([x[inside], y[inside]], 1)) * np.clip(edge[inside] / 8, 0, 1)[:, None]
    return shift


def paint_mouth(
    image: Floats, under_upper: Floats, over_lower: Floats, open_px: float, opacity: Floats
) -> Floats:
    """Return the face with a dark interior between the lips, which is a thin line where they meet."""
    mask = np.clip((np.minimum(under_upper, over_lower) + 0.9) / 1.1, 0, 1)
    mask = gaussian_filter(mask * opacity, 0.7)
    teeth = np.clip(1 - under_upper / 3.5, 0, 1) * np.clip((open_px - 4) / 6, 0, 1) * 0.75
    closed, parted, white = np.array([[92.0, 46.0, 46.0], [48.0, 16.0, 20.0], [226.0, 214.0, 204.0]])
    color = closed + np.clip(open_px / 8, 0, 1) * (parted - closed)
    inside = color + teeth[..., None] * (white - color)
    return np.asarray(image + mask[..., None] * (inside - image))


def labeled(image: Floats) -> npt.NDArray[np.uint8]:
    """Return a frame that says what it is."""
    frame = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(size=15)
    draw.text((8, frame.height - 24), LABEL, "white", font, stroke_width=2, stroke_fill="black")
    return np.asarray(frame)


def write_clip(file: Path, frame_at: Callable[[float], Floats]) -> None:
    """Write a clip whose frames are functions of time."""
    with av.open(str(file), "w") as out:
        out.metadata["comment"] = f"{LABEL}: made from astronaut.jpg by examples/make.py"
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "21", "preset": "slow"})
        stream.height, stream.width = frame_at(0).shape[:2]
        stream.pix_fmt = "yuv420p"
        for number in range(int(SECONDS * RATE) + 1):
            frame = labeled(frame_at(number / RATE))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def main() -> None:
    """Write both clips, and a picture of each for the page."""
    portrait = np.asarray(Image.open(FOLDER / "astronaut.jpg").convert("RGB"), np.float64)

    @cache  # the face rests most of the time
    def face(weights: tuple[float, ...], side: int) -> Floats:
        return face_at(portrait, np.array(weights), side)

    def one(time_s: float) -> Floats:
        return face(weights_at(ONE, time_s), 360)

    def both(time_s: float) -> Floats:
        faces = [face(weights_at(keys, time_s), 320) for keys in (ONE, OTHER)]
        return np.concatenate([faces[0], faces[1][:, ::-1]], 1)

    for name, frame_at in (("astronaut", one), ("two_people", both)):
        write_clip(FOLDER / f"{name}.mp4", frame_at)
        poster = Image.fromarray(labeled(frame_at(POSTER_S)))
        poster.thumbnail((240, 240))
        poster.save(FOLDER / "posters" / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
