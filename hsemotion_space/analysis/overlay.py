"""Faces drawn on the frames of a clip: a box, the number, and the most probable label with its value."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.figures.style import face_color, ink
from hsemotion_space.types import Analysis, ByteArray, FaceResult, Frame

LONGEST_STEP: Final = 2.5  # typical steps between analyzed frames; in a longer one the face is not visible


class Overlay:
    """Draws the faces of a finished analysis.

    Between analyzed frames, boxes move in a straight line, and labels are those of the nearest one. A "?"
    marks a face that may be none.

    Args:
        analysis: of the clip whose frames are drawn on.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._faces = [(face, " ?" if doubt(face) else "") for face in analysis.faces]
        times_s = analysis.frame_times_s
        self._step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0

    def paint(self, frame: Frame) -> ByteArray:
        """Return the picture (H, W, 3) of a frame with the faces that are visible at its time."""
        image = Image.fromarray(frame.rgb)
        for face, mark in self._faces:
            if self._is_visible(face, frame.time_s):
                text, color = _label(face, frame.time_s)
                _draw(image, _box(face, frame.time_s), text + mark, color)
        return np.asarray(image)

    def _is_visible(self, face: FaceResult, time_s: float) -> bool:
        """Return whether a face is there: until half a step after an analyzed frame, and in short gaps."""
        times_s = face.track.times_s
        row = int(np.searchsorted(times_s, time_s, side="right")) - 1
        if row < 0:
            return False
        after_s = time_s - times_s[row]
        gap_s = times_s[row + 1] - times_s[row] if row + 1 < len(times_s) else np.inf
        return bool(after_s <= self._step_s / 2 or gap_s <= LONGEST_STEP * self._step_s)


def _box(face: FaceResult, time_s: float) -> list[float]:
    track = face.track
    return [float(np.interp(time_s, track.times_s, edges)) for edges in track.boxes_xyxy.T]


def _label(face: FaceResult, time_s: float) -> tuple[str, str]:
    """Return what stands above the box, and its color ``#rrggbb``."""
    number = face.track.track_id
    for line in face.timelines:
        if line.task.kind == "one_of" and line.task.scope == "frame":
            values = line.values[int(np.abs(line.times_s - time_s).argmin())]
            label = line.task.labels[int(values.argmax())]
            return f"{number}: {label.short} {values.max():.2f}", label.color
    return str(number), face_color(number)


def _draw(image: Image.Image, box: list[float], text: str, color: str) -> None:
    """Draw a box, and above it, or inside where there is no room, a text on its color."""
    side = min(image.size)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(max(12, side // 30))
    draw.rectangle(box, outline=color, width=max(2, side // 240))
    *_, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = min(max(box[0], 0), max(image.width - right, 0))
    y = box[1] - bottom if box[1] >= bottom else max(box[1], 0)
    draw.rectangle((x, y, x + right, y + bottom), fill=color)
    draw.text((x, y), text, fill=ink(color), font=font)
