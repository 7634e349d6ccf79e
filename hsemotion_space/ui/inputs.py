"""Inputs that hand on what a request holds, unchecked; what is done with it says what is wrong with it."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from hsemotion_space.ui.uploads import NamedFile


class RawImage(gr.Image):
    """An image; decoding untrusted pictures is the worker's task."""

    is_template = True

    def preprocess(self, payload: ImageData | None) -> NamedFile | None:  # type: ignore[override]
        """Return what is named, or None."""
        return NamedFile(payload.path) if payload is not None and payload.path else None


class RawFiles(gr.File):
    """One file or several."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[NamedFile]:  # type: ignore[override]
        """Return all that is named."""
        files = payload.root if isinstance(payload, ListFiles) else [payload]
        return [NamedFile(file.path) for file in files if file is not None and file.path]


class RawNumber(gr.Number):
    """A field for a number."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | None:
        """Return what was sent, which may be nothing."""
        return payload


class RawSlider(gr.Slider):
    """A slider with a field."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | None:  # type: ignore[override]
        """Return what was sent, which may be nothing."""
        return payload


def read_event(event: gr.EventData) -> dict[str, object]:
    """Return what an event brings, unchecked; empty if it is no table, as a browser can send anything."""
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}
