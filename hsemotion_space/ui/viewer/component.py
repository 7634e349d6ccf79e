"""The component: its files, plotly.js from the installed package, and its events."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from hsemotion_space.ui.inputs import read_event
from hsemotion_space.ui.viewer.payload import ViewerValue

FOLDER = Path(__file__).parent
SCRIPTS = (
    "i18n.js",
    "data.js",
    "stage.js",
    "plots.js",
    "card.js",
    "edits.js",
    "viewer.js",
)  # one scope, in this order


@dataclass(frozen=True, slots=True)
class Selection:
    """What a visitor chose in the viewer: a stretch of time in seconds, rising, and the number of a face."""

    start_s: float
    end_s: float
    face: int


def build_viewer(*, visible: bool = True, elem_id: str | None = None) -> gr.HTML:
    """Return the picture with its faces, linked to all timelines; its value comes from :func:`as_text`.

    Events: ``label_key`` (a key from 1 to 8 was pressed), ``seek`` (the visitor went to another time),
    ``correct`` ("Not right?" was pressed). All bring ``face``, and ``start`` and ``end`` of the selected
    range in seconds or None; ``label_key`` and ``seek`` bring ``time``, ``label_key`` the ``number`` and
    ``correct`` the ``task``; :func:`read_selection` and :func:`read_label_key` check what they bring.
    ``edit`` brings an ``action`` that changes the result by hand, and what it needs.

    Args:
        visible: the 5 MB of plotly.js are loaded when a viewer is first visible.
        elem_id: of its block.
    """
    return gr.HTML(
        value=None,
        html_template=_text("viewer.html"),
        css_template=_text("viewer.css"),
        js_on_load="\n".join(_text(name) for name in SCRIPTS),
        # kept by the browser
        head=f'<script src="{media_url(serve_plotly())}?v={version("plotly")}"></script>',
        apply_default_css=False,
        visible=visible,
        elem_id=elem_id,
        elem_classes="linked-viewer",
    )


def as_text(value: ViewerValue) -> str:
    """Return the value as one text, which Gradio handles faster than a million numbers."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@cache
def serve_plotly() -> Path:
    """Let Gradio serve plotly.js of the installed package, that one file, and return its path.

    Raises:
        FileNotFoundError: if the package is not there or has no such file.
    """
    found = find_spec("plotly")
    script = (
        Path(found.origin or "").parent / "package_data" / "plotly.min.js" if found else Path("plotly.min.js")
    )
    if not script.is_file():
        raise FileNotFoundError("The package plotly with its file plotly.min.js is not installed.")
    gr.set_static_paths([script])
    return script


def media_url(path: Path | str) -> str:
    """Return where the browser gets an uploaded file, or another one that Gradio may serve."""
    return "/gradio_api/file=" + quote(str(path))


def read_selection(event: gr.EventData) -> Selection | None:
    """Return the selected range of a ``correct`` or ``label_key`` event; None if absent or invalid."""
    given = read_event(event)
    start, end, face = (_number(given.get(name)) for name in ("start", "end", "face"))
    if start is None or end is None or face is None or not 0 <= start < end or face < 1 or face != int(face):
        return None
    return Selection(start, end, int(face))


def read_label_key(event: gr.EventData) -> int | None:
    """Return the number from 1 to 8 of a ``label_key`` event; None if it brings another."""
    number = _number(read_event(event).get("number"))
    return int(number) if number is not None and number in range(1, 9) else None


def _number(value: object) -> float | None:
    """Return a number of an event; what a browser sends may be anything."""
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")
