"""An explanation as HTML: the face, the map over it if reliable, and the caveats."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

from hsemotion_space.analysis.saliency import LIMITS, Verdict
from hsemotion_space.figures import overlay
from hsemotion_space.figures.saliency import LOWERS, RAISES, SIDE
from hsemotion_space.jobs import Explained, Place
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, ByteArray, FaceTrack
from hsemotion_space.ui.data_uri import data_uri
from hsemotion_space.ui.i18n import gettext, translate

NO_MAP: Final[dict[Verdict, str]] = {
    "unstable": "No map is shown because it would not be reliable.",
    "none": "No map is shown because no single part of the face accounts for this value.",
}
PLACES: Final[dict[tuple[int, int], str]] = {
    (0, 0): "the upper left of the face",
    (0, 1): "the upper middle of the face",
    (0, 2): "the upper right of the face",
    (1, 0): "the left of the face",
    (1, 1): "the middle of the face",
    (1, 2): "the right of the face",
    (2, 0): "the lower left of the face",
    (2, 1): "the lower middle of the face",
    (2, 2): "the lower right of the face",
}
"""By row and column of the third in which the center of a place lies; left and right are those of the
picture."""


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What is to be explained; ``time_s`` is None in a picture."""

    analysis: Analysis
    track: FaceTrack
    row: int
    what: tuple[str, str]

    @property
    def time_s(self) -> float | None:
        """Presentation time of the frame."""
        return float(self.track.times_s[self.row]) if self.analysis.media.kind == "clip" else None

    @property
    def place(self) -> Place:
        """Where the face is."""
        x0, y0, x1, y1 = self.track.boxes_xyxy[self.row].tolist()
        return Place(float(self.track.times_s[self.row]), (x0, y0, x1, y1))


def place_text(place_xyxy: tuple[int, int, int, int], side: int) -> str:
    """Return where in a face of ``side`` px a place is."""
    x0, y0, x1, y1 = place_xyxy
    row, column = (min(max(int(3 * (low + high) / (2 * side)), 0), 2) for low, high in ((y0, y1), (x0, x1)))
    return gettext(PLACES[row, column])


def explained_html(asked: ExplainRequest, explained: Explained) -> str:
    """Return an explanation as HTML: the face, its map if reliable, and the caveats."""
    found = explained.saliency
    number, label = asked.track.track_id, gettext(found.task.labels[found.task.index(found.label)].name)
    values = {
        "number": number,
        "title": asked.analysis.checkpoint.title,
        "task": gettext(found.task.title),
        "label": label,
    }
    values["provenance"] = gettext(PROVENANCE_LABELS[found.provenance])
    if asked.time_s is None:
        about = gettext("Face {number}, {title}: {task}, {label} ({provenance})", **values)
    else:
        about = gettext(
            "Face {number} at {time} s, {title}: {task}, {label} ({provenance})",
            time=f"{asked.time_s:.2f}",
            **values,
        )
    face = _figure(explained.face, gettext("Face {number}, input of the network", number=number))
    lines = [_of_single_frame(asked), translate(found.summary), gettext(LIMITS)]
    map_ = (
        _map(explained, number, label)
        if found.verdict == "clear"
        else f"<p class='no-map'>{escape(gettext(NO_MAP[found.verdict]))}</p>"
    )
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines if line)
    title = f"<p class='title'>{escape(about)}</p>"
    return (
        f"<section class='explained' role='status'>{title}<div"
        f" class='pictures'>{face}{map_}</div>{paragraphs}</section>"
    )


def _of_single_frame(asked: ExplainRequest) -> str:
    return (
        gettext("The value belongs to this single frame, without smoothing.")
        if asked.time_s is not None
        else ""
    )


def _map(explained: Explained, number: int, label: str) -> str:
    """Return the map over the face with its legend."""
    found = explained.saliency
    place = place_text(found.place_xyxy, len(explained.face))
    alt = gettext(
        "Map over face {number}. {label} depends most on {place}; left and right refer to the picture.",
        number=number,
        place=place,
        label=label,
    )
    legend = [
        (
            f"<span class='swatch' style='background:rgb{LOWERS}'></span>",
            gettext("hiding it lowers the value"),
        ),
        (
            f"<span class='swatch' style='background:rgb{RAISES}'></span>",
            gettext("hiding it raises the value"),
        ),
        ("<span class='frame'></span>", gettext("strongest: {place}", place=place)),
    ]
    items = "".join(f"<li>{mark}{escape(words)}</li>" for mark, words in legend)
    picture = _figure(
        overlay(explained.face, found.map, found.place_xyxy), alt, gettext("What the value depends on")
    )
    return f"{picture}<ul class='legend'>{items}</ul>"


def _figure(pixels: ByteArray, alt: str, caption: str = "") -> str:
    """Return a picture that no file holds, with its text alternative, as large as the map."""
    uri = data_uri(pixels, (SIDE, SIDE), "png")
    return (
        f"<figure><img alt='{escape(alt)}'"
        f" src='{uri}'><figcaption>{escape(caption or alt)}</figcaption></figure>"
    )
