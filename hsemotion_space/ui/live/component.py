"""The component: its files, and the events that bring frames to the server and numbers back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import gradio as gr

from hsemotion_space.feedback.consent import PROCESS
from hsemotion_space.figures import face_color
from hsemotion_space.figures.style import FACE_COLORS, ink
from hsemotion_space.ui.analyze import Shared
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import QUIET, AppContext
from hsemotion_space.ui.i18n import gettext, gettext_lazy, script_texts
from hsemotion_space.ui.live.answer import answer
from hsemotion_space.ui.viewer.component import FOLDER as VIEWER

FOLDER: Final = Path(__file__).parent
SCRIPTS: Final = (
    *(VIEWER / name for name in ("i18n.js", "data.js", "stage.js", "plots.js")),
    *(FOLDER / name for name in ("follow.js", "draw.js", "camera.js", "live.js")),
)  # one scope, in this order
LIMIT_S: Final = 60.0
ABOUT: Final = """
Analyze your camera live. The camera starts when you press the button, and stops after {seconds} seconds or as
soon as you leave this tab. Single pictures of at most 480 pixels are sent to this server, analyzed, and
deleted within seconds. **Nothing is saved**: no picture, no value, no file. The values describe single
pictures, without smoothing. Mimicry intensity describes a whole clip, so it is not predicted here.
"""


def build_live(context: AppContext, shared: Shared, tab: gr.Tab, limit_s: float = LIMIT_S) -> gr.HTML:
    """Lay out the tab.

    Args:
        context: of the page.
        shared: components of the page; the tick must have an ``elem_id``, by which the browser finds it
            before it asks for the camera.
        tab: in which it stands.
        limit_s: seconds after which the camera is stopped.

    Raises:
        ValueError: if the tick has no ``elem_id``.
    """
    if not shared.agreed.elem_id:
        raise ValueError("The tick needs an elem_id, by which the browser finds it.")
    gr.Markdown(gettext_lazy(ABOUT, seconds=f"{limit_s:g}"))
    live = gr.HTML(
        value="",
        html_template=(FOLDER / "live.html").read_text("utf-8"),
        css_template=(FOLDER / "live.css").read_text("utf-8"),
        js_on_load="\n".join(file.read_text("utf-8") for file in SCRIPTS),
        apply_default_css=False,
        elem_classes="live-camera",
        limit_s=limit_s,
        tick=PROCESS.title,
        agreed=shared.agreed.elem_id,
        colors=[
            {"color": color, "ink": ink(color)} for color in map(face_color, range(1, len(FACE_COLORS) + 1))
        ],
    )

    def analyze_frame(checkpoint: object, agreed: object, event: gr.EventData, request: gr.Request) -> str:
        return answer(context, event, checkpoint, agreed, client_of(request))

    live.frame(analyze_frame, [shared.picker.choice, shared.agreed], live, trigger_mode="multiple", **QUIET)
    tab.select(_texts, None, live, **QUIET)  # in the language of the visitor
    return live


def _texts() -> str:
    """Return the texts of the scripts, as another kind of value."""
    return json.dumps(
        {"texts": {**script_texts("viewer"), **script_texts("live")}, "tick": gettext(PROCESS.title)}
    )
