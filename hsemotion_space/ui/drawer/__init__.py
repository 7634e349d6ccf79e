"""A sheet at the side of the page that holds other components."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gradio as gr

from hsemotion_space.ui.i18n import gettext

FOLDER = Path(__file__).parent


def build_drawer() -> gr.HTML:
    """Return a closed sheet to fill with ``with``; :func:`opened` opens it, ``""`` closes it."""
    template, style, script = (
        (FOLDER / f"drawer.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js")
    )
    return gr.HTML(
        value="", html_template=template, css_template=style, js_on_load=script, apply_default_css=False,
        elem_classes="drawer",
    )  # fmt: skip


def opened(title: str, target: str = "") -> str:
    """Return the value that opens the sheet, each a new one, so that a closed sheet opens again.

    Args:
        title: in the language of the visitor.
        target: id of the element to scroll to; empty for none.
    """
    return json.dumps(
        {"title": title, "close": gettext("Close"), "target": target, "turn": time.monotonic_ns()}
    )
