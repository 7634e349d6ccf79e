"""Make ``astronaut.mp4`` from ``astronaut.jpg``: the camera moves; the face itself never changes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
RATE = 15  # frames per second
SIDE = 360  # px
KEYS = [  # second, side of the part that is seen in shares of the picture, center x and y in the same
    (0.0, 0.80, 0.45, 0.40),
    (1.5, 0.40, 0.44, 0.24),
    (2.5, 0.40, 0.44, 0.24),
    (2.7, 0.40, 0.95, 0.24),
    (3.1, 0.40, 0.95, 0.24),
    (3.3, 0.40, 0.44, 0.24),
    (4.0, 0.40, 0.44, 0.24),
    (6.0, 0.95, 0.48, 0.48),
]


def look(picture: Image.Image, time_s: float) -> np.ndarray:
    """Return what the camera sees: (SIDE, SIDE, 3) uint8; outside of the picture it is gray."""
    times = [key[0] for key in KEYS]
    share, x, y = (float(np.interp(time_s, times, [key[part] for key in KEYS])) for part in (1, 2, 3))
    size = picture.width
    corner = ((x - share / 2) * size, (y - share / 2) * size)
    scale = share * size / SIDE
    seen = picture.transform(
        (SIDE, SIDE),
        Image.Transform.AFFINE,
        (scale, 0, corner[0], 0, scale, corner[1]),
        Image.Resampling.BICUBIC,
        fillcolor="gray",
    )
    return np.asarray(seen)


def main() -> None:
    """Write the clip."""
    picture = Image.open(FOLDER / "astronaut.jpg").convert("RGB")
    with av.open(str(FOLDER / "astronaut.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "26", "preset": "slow"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(int(KEYS[-1][0] * RATE) + 1):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(look(picture, number / RATE), format="rgb24")))
        out.mux(stream.encode())


if __name__ == "__main__":
    main()
