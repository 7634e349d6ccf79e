"""Analyses as a nested document (JSON); ``docs/export.md`` describes its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from hsemotion_space.analysis import by_hand
from hsemotion_space.analysis.columns import SCHEMA_VERSION, Json
from hsemotion_space.analysis.events import events, shares
from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.analysis.image_quality import face_sharpness, lead, outside_share, pose
from hsemotion_space.messages import MessageError
from hsemotion_space.types import Analysis, FaceResult, MediaInfo, Prediction, Timeline


class ExportError(MessageError, ValueError):
    """A file cannot be written."""


def document(analyses: Sequence[Analysis], sources: Sequence[str] = ()) -> dict[str, Json]:
    """Return the analyses as one value of JSON types; numbers that are not finite become None.

    Raises:
        ExportError: if there are not as many sources as analyses.
    """
    given = source_labels(analyses, sources)
    return {
        "schema_version": SCHEMA_VERSION,
        "analyses": [_analysis(analysis, source) for analysis, source in zip(analyses, given, strict=True)],
    }


def source_labels(analyses: Sequence[Analysis], sources: Sequence[str]) -> list[str]:
    """Return a label per analysis that UTF-8 can hold; empty texts if none are given.

    Raises:
        ExportError: if there are not as many sources as analyses.
    """
    if sources and len(sources) != len(analyses):
        text = "There are {count} analyses but {names} names for them."
        raise ExportError(text, code="source_count", count=len(analyses), names=len(sources))
    return [_text(source) for source in sources] or [""] * len(analyses)


def _text(text: str) -> str:
    """Return a text that UTF-8 can hold: file names may carry lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def tops(line: Timeline) -> list[str | None]:
    """Return the name of the most probable label in each frame, None where a value is not finite."""
    tops = line.values.argmax(axis=1)
    known = np.isfinite(line.values.sum(axis=1))
    return [line.task.labels[tops[row]].name if known[row] else None for row in range(len(tops))]


def findings(line: Timeline) -> list[str | None]:
    """Return the name of the label that stands out in each frame, None where none does."""
    return [top if found else None for top, found in zip(tops(line), list(line.stands_out), strict=True)]


def _numbers(array: npt.NDArray[np.generic]) -> Json:
    """Return an array as nested lists: float32 in its shortest form, None where a value is not finite."""
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    if not np.issubdtype(array.dtype, np.floating):
        return [int(value) for value in array]
    return [_number(value) for value in array]


def _number(value: np.floating) -> float | None:
    return float(str(value)) if np.isfinite(value) else None


def _analysis(analysis: Analysis, source: str) -> dict[str, Json]:
    media, checkpoint = analysis.media, analysis.checkpoint
    return {
        "source": source,
        "media": {
            "sha256": media.sha256, "kind": media.kind, "width": media.width, "height": media.height,
            "duration_s": media.duration_s, "notices": list(media.notices),
        },
        "checkpoint": {
            "id": checkpoint.id, "title": checkpoint.title, "sha256": checkpoint.sha256,
            "heads_sha256": checkpoint.heads_sha256, "license": checkpoint.license,
        },
        "notices": list(analysis.notices),
        "frame_times_s": _numbers(analysis.frame_times_s),
        "cuts_s": _numbers(analysis.cuts_s),
        "faces": [
            _face(face, media) | by_hand.describe_face(analysis.edits, face.track.track_id)
            for face in analysis.faces
        ],
        "markers": by_hand.describe_markers(analysis.edits),
    }  # fmt: skip


def _face(face: FaceResult, media: MediaInfo) -> dict[str, Json]:
    track = face.track
    return {
        "track_id": track.track_id,
        "frame_index": _numbers(track.frame_index),
        "times_s": _numbers(track.times_s),
        "boxes_xyxy_px": _numbers(track.boxes_xyxy),
        "detection_scores": _numbers(track.detection_scores),
        "face_doubt": found.text if (found := doubt(face)) else None,
        "sharpness": round(face_sharpness(track, media), 6),
        "outside": _numbers(outside_share(track, media)),
        "yaw_pitch_roll_deg": _numbers(pose(track.landmarks)),
        "timelines": [
            _described(line)
            | {
                "times_s": _numbers(line.times_s),
                "values": _numbers(line.values),
                "smoothing_s": round(line.half_width_s, 4),
            }
            | ({"findings": findings(line), "least_support": line.least_support} if len(line.support) else {})
            | _in_time(line)
            | by_hand.describe_neutral(line)
            for line in _of(face, "frame")
        ],
        "clip_values": [
            _described(line) | {"values": _numbers(line.values[0])} for line in _of(face, "clip")
        ],
        "predictions": [
            _described(made)
            | {"values": _numbers(made.values), "spread": _numbers(made.spread), "frames": made.frames}
            | ({"lead": _number(lead(made.values[None])[0])} if made.task.kind == "one_of" else {})
            | (
                {"finding": made.task.labels[made.top].name if made.stands_out else None}
                if len(made.support)
                else {}
            )
            for made in face.predictions
        ],
    }


def _in_time(line: Timeline) -> dict[str, Json]:
    """Return events and shares of time of a timeline; empty where labels do not hold in time."""
    share = shares(line)
    if not np.isfinite(share).all():
        return {}
    found: list[Json] = [
        {
            "label": line.task.labels[event.column].name, "start_s": round(event.start_s, 3),
            "end_s": round(event.end_s, 3),
            "peak": round(event.peak, 4), "peak_s": round(event.peak_s, 3),
        }
        for event in events(line)
    ]  # fmt: skip
    return {"share_of_time": [round(float(value), 4) for value in share], "events": found}


def _of(face: FaceResult, scope: str) -> Iterable[Timeline]:
    return (line for line in face.timelines if line.task.scope == scope)


def _described(value: Timeline | Prediction) -> dict[str, Json]:
    task = value.task
    given: dict[str, Json] = {
        "task": task.name,
        "task_version": task.version,
        "labels": list(task.label_names),
        "provenance": value.provenance,
    }
    if value.thresholds:
        given["thresholds"] = list(value.thresholds)
    if found := value.reliability:
        given["reliability"] = {
            "right": list(found.right),
            "answers": list(found.answers),
            "pictures": found.pictures,
        }
    return given
