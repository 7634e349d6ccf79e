"""The cheap half of the pipeline: from tracks to timelines and predictions in milliseconds, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from hsemotion_space.edits import EditError, Edits
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec
from hsemotion_space.hub.weights import load_heads
from hsemotion_space.inference.heads import apply_heads, least_part
from hsemotion_space.inference.temporal import box_smooth, smooth, summarize
from hsemotion_space.types import Analysis, BoolArray, FaceResult, FaceTrack, FloatArray, Timeline

NEUTRAL_HALF_S: Final = 0.5
"""A person's neutral is the mean over the second around a moment."""
NEUTRAL: Final = "Neutral"
_NO_EDITS: Final = Edits()


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Outputs of a backbone for the frames that count."""

    embeddings: FloatArray
    scores: FloatArray


def read_track(
    track: FaceTrack, checkpoint: Checkpoint, smoothing: float, edits: Edits = _NO_EDITS
) -> FaceResult:
    """Apply every head of a checkpoint to a track, then smooth and summarize.

    Args:
        track: with the scores of this checkpoint's backbone.
        checkpoint: gives the heads.
        smoothing: factor on the window of each task in the challenge, 0 for none.
        edits: say which time is excluded and when the face is neutral. A face whose time is all excluded has
            no timelines.

    Raises:
        CheckpointError: if the weights of a head cannot be used.
    """
    timelines: list[Timeline] = []
    rows = _included(track, edits)
    outputs = _Outputs(track.embeddings[rows], track.scores[rows])
    read = apply_heads(checkpoint, load_heads(checkpoint), outputs) if rows.any() else ()
    for head, values in read:
        times_s = track.times_s[rows][: len(values)]
        raw = Timeline(head.task, head.provenance, times_s, values, head.thresholds, head.reliability)
        raw = _with_neutral(raw, edits.neutral_s.get(track.track_id))
        timelines.append(_supported(smooth(raw, head.task.smoothing_s * smoothing), head, timelines))
    predictions = tuple(summarize(timeline) for timeline in timelines)
    return FaceResult(track, tuple(timelines), predictions, checkpoint.least_length)


def _included(track: FaceTrack, edits: Edits) -> BoolArray:
    """Return which frames (T,) of a track lie in no exclusion."""
    rows = np.ones(len(track.times_s), np.bool_)
    for marker in edits.markers:
        if marker.kind == "exclusion":
            rows &= (track.times_s < marker.start_s) | (track.times_s > marker.end_s)
    return rows


def _with_neutral(line: Timeline, neutral_s: float | None) -> Timeline:
    """Return a timeline of values that can be compared with those at a neutral moment, with these values."""
    if neutral_s is None or line.task.kind == "one_of" or line.task.scope != "frame":
        return line
    near = np.abs(line.times_s - neutral_s) <= NEUTRAL_HALF_S
    return replace(line, neutral=line.values[near].mean(axis=0)) if near.any() else line


def calmest_s(face: FaceResult) -> float:
    """Return the middle of the second in which a face is neutral with the largest probability, in seconds.

    Raises:
        EditError: if no task of the face has the label Neutral.
    """
    for line in face.timelines:
        if line.task.scope == "frame" and line.task.kind == "one_of" and NEUTRAL in line.task.label_names:
            column = line.task.index(NEUTRAL)
            means = box_smooth(line.times_s, line.values[:, [column]], NEUTRAL_HALF_S)[:, 0]
            first_s, last_s = line.times_s[[0, -1]]
            whole = (line.times_s >= first_s + NEUTRAL_HALF_S) & (line.times_s <= last_s - NEUTRAL_HALF_S)
            return float(line.times_s[np.where(whole | ~whole.any(), means, -1).argmax()])
    raise EditError("The backbone does not predict a neutral expression.", code="no_neutral")


def _supported(line: Timeline, head: HeadSpec, before: Sequence[Timeline]) -> Timeline:
    """Return a timeline of labels with parts, with the support that an earlier task gives them."""
    names = {name for label in line.task.labels for name in label.parts}
    for other in before:
        if names and names <= set(other.task.label_names) and len(other.times_s) == len(line.times_s):
            least = head.least_support or 1 / len(other.task.labels)
            return replace(line, support=least_part(line.task, other.task, other.values), least_support=least)
    return line


def merge_tracks(tracks: Iterable[FaceTrack], edits: Edits) -> tuple[FaceTrack, ...]:
    """Return the tracks with those joined that count as one person, by track id.

    Raises:
        EditError: if two of them are visible in the same frame.
    """
    groups: dict[int, list[FaceTrack]] = {}
    for track in sorted(tracks, key=lambda track: track.track_id):
        groups.setdefault(edits.merged.get(track.track_id, track.track_id), []).append(track)
    return tuple(_joined(group) for group in groups.values())


def _joined(tracks: Sequence[FaceTrack]) -> FaceTrack:
    """Return tracks as the first of them, with the thumbnail of the surest face."""
    if len(tracks) == 1:
        return tracks[0]
    times_s = np.concatenate([track.times_s for track in tracks])
    order = times_s.argsort(kind="stable")
    if np.any(np.diff(times_s[order]) <= 0):
        raise EditError("These faces are visible at the same time, so they are two people.", code="overlap")
    whole = [
        item.name
        for item in fields(FaceTrack)
        if item.name not in ("track_id", "thumbnail")
        and all(len(getattr(track, item.name)) == len(track.times_s) for track in tracks)
    ]
    arrays = {name: np.concatenate([getattr(track, name) for track in tracks])[order] for name in whole}
    owners = np.repeat(np.arange(len(tracks)), [len(track.times_s) for track in tracks])[order]
    surest = tracks[owners[arrays["detection_scores"].argmax()]]  # the first one, as feedback takes it
    return FaceTrack(track_id=tracks[0].track_id, thumbnail=surest.thumbnail, **arrays)


def read_tracks(
    tracks: Iterable[FaceTrack], checkpoint: Checkpoint, smoothing: float, edits: Edits = _NO_EDITS
) -> tuple[FaceResult, ...]:
    """Return :func:`read_track` for every track."""
    return tuple(read_track(track, checkpoint, smoothing, edits) for track in tracks)


def reread(
    analysis: Analysis, checkpoint: Checkpoint, smoothing: float, edits: Edits = _NO_EDITS
) -> Analysis:
    """Return the analysis with another smoothing, and with changes made by hand; no network runs.

    Args:
        analysis: without such changes.
        checkpoint: that made it.
        smoothing: factor on the window of each task in the challenge, 0 for none.
        edits: the changes.

    Raises:
        CheckpointError: if the analysis was made by another checkpoint.
        EditError: if the changes do not fit the analysis.
    """
    if (analysis.checkpoint.sha256, analysis.checkpoint.heads_sha256) != (
        checkpoint.sha256,
        checkpoint.heads_sha256,
    ):
        text = "This analysis was made by {made_by}, not by {other}. Analyze the file again."
        raise CheckpointError(
            text, code="other_checkpoint", made_by=analysis.checkpoint.title, other=checkpoint.title
        )
    tracks = merge_tracks((face.track for face in analysis.faces), edits)
    return replace(analysis, faces=read_tracks(tracks, checkpoint, smoothing, edits), edits=edits)
