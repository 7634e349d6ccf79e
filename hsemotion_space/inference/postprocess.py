"""The cheap half of the pipeline: tracks to timelines and predictions, in milliseconds, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec
from hsemotion_space.hub.weights import load_heads
from hsemotion_space.inference.heads import apply_heads, least_part
from hsemotion_space.inference.temporal import smooth, summarize
from hsemotion_space.types import Analysis, FaceResult, FaceTrack, Timeline


def read_track(track: FaceTrack, checkpoint: Checkpoint, smoothing: float) -> FaceResult:
    """Apply every head of a checkpoint to a track, then smooth and summarize.

    Args:
        track: with the scores of this checkpoint's backbone.
        checkpoint: gives the heads.
        smoothing: factor on the window of each task in the challenge, 0 for none.

    Raises:
        CheckpointError: if the weights of a head cannot be used.
    """
    timelines: list[Timeline] = []
    for head, values in apply_heads(checkpoint, load_heads(checkpoint), track):
        times_s = track.times_s[: len(values)]
        raw = Timeline(head.task, head.provenance, times_s, values, head.thresholds, head.reliability)
        timelines.append(_supported(smooth(raw, head.task.smoothing_s * smoothing), head, timelines))
    predictions = tuple(summarize(timeline) for timeline in timelines)
    return FaceResult(track, tuple(timelines), predictions, checkpoint.least_length)


def _supported(line: Timeline, head: HeadSpec, before: Sequence[Timeline]) -> Timeline:
    """Return a timeline of labels with parts, with the support that an earlier task gives them."""
    names = {name for label in line.task.labels for name in label.parts}
    for other in before:
        if names and names <= set(other.task.label_names) and len(other.times_s) == len(line.times_s):
            least = head.least_support or 1 / len(other.task.labels)
            return replace(line, support=least_part(line.task, other.task, other.values), least_support=least)
    return line


def read_tracks(
    tracks: Iterable[FaceTrack], checkpoint: Checkpoint, smoothing: float
) -> tuple[FaceResult, ...]:
    """Return :func:`read_track` for every track."""
    return tuple(read_track(track, checkpoint, smoothing) for track in tracks)


def reread(analysis: Analysis, checkpoint: Checkpoint, smoothing: float) -> Analysis:
    """Return the analysis with another smoothing; no network runs.

    Raises:
        CheckpointError: if the analysis was made by another checkpoint.
    """
    if (analysis.checkpoint.sha256, analysis.checkpoint.heads_sha256) != (
        checkpoint.sha256,
        checkpoint.heads_sha256,
    ):
        text = "This analysis was made by {made_by}, not by {other}. Analyze the file again."
        raise CheckpointError(
            text, code="other_checkpoint", made_by=analysis.checkpoint.title, other=checkpoint.title
        )
    return replace(
        analysis, faces=read_tracks((face.track for face in analysis.faces), checkpoint, smoothing)
    )
