"""Sources of pictures and clips: the drop zone, its short form beside a result, and the examples."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final, Literal

import gradio as gr

from hsemotion_space.media.images import read_image
from hsemotion_space.settings import MediaLimits
from hsemotion_space.types import MediaInfo
from hsemotion_space.ui.context import EXAMPLES
from hsemotion_space.ui.data_uri import data_uri
from hsemotion_space.ui.i18n import gettext, script_texts
from hsemotion_space.ui.viewer.component import FOLDER as VIEWER

Example = Literal["image", "clip", "people"]
FOLDER: Final = Path(__file__).parent
SCRIPTS: Final = (VIEWER / "i18n.js", FOLDER / "source.js")  # one scope, in this order
EXAMPLE_FILES: Final[dict[Example, Path]] = {
    "image": EXAMPLES / "astronaut.jpg",
    "clip": EXAMPLES / "astronaut.mp4",
    "people": EXAMPLES / "two_people.mp4",
}
POSTERS: Final[dict[Example, Path]] = {
    "image": EXAMPLE_FILES["image"],
    "clip": EXAMPLES / "posters" / "astronaut.jpg",
    "people": EXAMPLES / "posters" / "two_people.jpg",
}
"""Pictures of the examples; this process decodes no clips."""
TITLES: Final[dict[Example, str]] = {"image": "Picture", "clip": "Clip", "people": "Two people"}
THUMBNAIL_PX: Final = 240


def build_source() -> gr.HTML:
    """Return the component; ``example`` carries the ``kind`` of a selected example, ``remove`` nothing."""
    return gr.HTML(
        value=source_value(),
        html_template=(FOLDER / "source.html").read_text("utf-8"),
        css_template=(FOLDER / "source.css").read_text("utf-8"),
        js_on_load="\n".join(file.read_text("utf-8") for file in SCRIPTS),
        apply_default_css=False,
    )


def source_value(name: str = "", media: MediaInfo | None = None) -> str:
    """Return the value of the component in the language of the visitor.

    Args:
        name: of the file that is analyzed or shown; without it, the examples are offered.
        media: what is known of it.
    """
    about = ""
    if media is not None:
        about = f"{media.width} x {media.height} px"
        name = name or gettext(TITLES[media.kind])
        if media.kind == "clip":
            about = gettext("{seconds} s", seconds=f"{media.duration_s:.1f}") + f", {about}"
    examples = [
        {"kind": kind, "title": gettext(TITLES[kind]), "thumbnail": thumbnail}
        for kind, thumbnail in _thumbnails().items()
    ]
    return json.dumps(
        {
            "name": name,
            "about": about,
            "examples": [] if name else examples,
            "texts": dict(script_texts("source")),
        }
    )


@cache
def _thumbnails() -> dict[Example, str]:
    """Return a small picture of each example as a data URI."""
    if not EXAMPLES.is_dir():
        return {}
    return {kind: _thumbnail(file) for kind, file in POSTERS.items()}


def _thumbnail(file: Path) -> str:
    pixels = read_image(file, MediaLimits())[1].rgb
    scale = THUMBNAIL_PX / max(pixels.shape)
    return data_uri(pixels, (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)))
