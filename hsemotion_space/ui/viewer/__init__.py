"""The linked viewer: video or picture, faces, and timelines of all tasks, in one component."""

from hsemotion_space.ui.viewer.component import (
    Selection,
    as_text,
    build_viewer,
    media_url,
    read_label_key,
    read_selection,
    serve_plotly,
)
from hsemotion_space.ui.viewer.payload import ViewerValue, viewer_value

__all__ = [
    "Selection",
    "ViewerValue",
    "as_text",
    "build_viewer",
    "media_url",
    "read_label_key",
    "read_selection",
    "serve_plotly",
    "viewer_value",
]
