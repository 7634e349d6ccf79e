"""Changes that a visitor makes by hand in a result, as the viewer sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hsemotion_space.edits import EditError, Edits, read_face, read_marker, read_text, read_time
from hsemotion_space.inference.postprocess import NEUTRAL_HALF_S, calmest_s
from hsemotion_space.types import Analysis, FaceResult


def change(edits: Edits, analysis: Analysis, sent: Mapping[str, object]) -> Edits:
    """Return edits after one more change.

    Args:
        edits: before it.
        analysis: with these edits.
        sent: the change, unchecked: an ``action``, and what it needs.

    Raises:
        EditError: if it cannot be made.
    """
    if sent.get("action") == "markers" and isinstance(marks := sent.get("markers"), list):
        return replace(edits, markers=tuple(map(read_marker, marks)))
    number = read_face(sent.get("face"))
    face, action = _find(analysis, number), sent.get("action")
    if action == "name":
        return replace(edits, names={**edits.names, number: read_text(sent.get("name"))})
    if action == "merge":
        return edits.merge(number, _find(analysis, read_face(sent.get("other"))).track.track_id)
    if action == "split":
        return edits.split(number)
    if action in ("neutral", "calmest"):
        others = {other: time_s for other, time_s in edits.neutral_s.items() if other != number}
        moment = {number: time_s} if (time_s := _moment(face, action, sent.get("time"))) is not None else {}
        return replace(edits, neutral_s=others | moment)
    raise EditError("This change is unknown. Reload the page.", code="unknown_change")


def _find(analysis: Analysis, number: int) -> FaceResult:
    for face in analysis.faces:
        if face.track.track_id == number:
            return face
    raise EditError("This face does not exist.", code="no_face")


def _moment(face: FaceResult, action: object, time: object) -> float | None:
    """Return a moment at which a face is visible: the calmest one, or a given one; None to have none."""
    if action == "calmest":
        return calmest_s(face)
    if time is None:
        return None
    time_s = read_time(time)
    if np.abs(face.track.times_s - time_s).min() > NEUTRAL_HALF_S:
        raise EditError("The face is not visible at this moment. Go to another one.", code="not_visible")
    return time_s
