"""Synthetic analyses for tests: seeded, small, all five tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from hsemotion_space.inference.heads import least_part
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import (
    NOT_MEASURED,
    Analysis,
    CheckpointRef,
    FaceResult,
    FaceTrack,
    FloatArray,
    MediaInfo,
    Prediction,
    Provenance,
    Reliability,
    Timeline,
)

PROVENANCES: dict[str, Provenance] = {
    "expression": "trained",
    "valence_arousal": "trained",
    "action_units": "trained",
    "compound_expression": "rule",
    "mimicry_intensity": "prior",
}


def make_values(task: Task, frames: int, rng: np.random.Generator) -> FloatArray:
    """Return smooth random values (frames, K) within the bounds of a task; one_of rows sum to one."""
    phase, pace = rng.uniform(0, 6.28, len(task.labels)), rng.uniform(0.05, 0.4, len(task.labels))
    waves = 2 * np.sin(phase + pace * np.arange(frames)[:, None]) + 0.2 * rng.standard_normal(
        (frames, len(task.labels))
    )
    if task.kind == "one_of":
        chances = np.exp(waves)
        return (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)
    unit = 1 / (1 + np.exp(-waves))
    return (task.low + (task.high - task.low) * unit).astype(np.float32)


def make_reliability(task: Task) -> Reliability:
    """Return counts for a task with labels: 6 of 10 answers are right, but the last label has too few."""
    if task.kind == "continuous" or task.scope == "clip":
        return NOT_MEASURED
    most = len(task.labels) - 1
    return Reliability((*[60] * most, 3), (*[100] * most, 5), "tuning pictures of web")


def make_support(task: Task, before: Sequence[Timeline]) -> FloatArray:
    """Return what the expressions before a task give to the parts of its labels; (0, 0) for labels without
    parts."""
    names = {name for label in task.labels for name in label.parts}
    for line in before:
        if names and names <= set(line.task.label_names):
            return least_part(task, line.task, line.values)
    return np.zeros((0, 0), np.float32)


def make_face(
    track_id: int, present: np.ndarray, frame_times_s: np.ndarray, seed: int, tasks: tuple[Task, ...] = TASKS
) -> FaceResult:
    """Return a face that is seen in the frames ``present`` (indices into ``frame_times_s``)."""
    rng = np.random.default_rng([seed, track_id])
    count, times = len(present), frame_times_s[present]
    corner = np.asarray([60.0 + 150 * (track_id - 1), 80.0]) + rng.normal(0, 1, (count, 2))
    track = FaceTrack(
        track_id=track_id,
        frame_index=(3 * present).astype(np.int64),
        times_s=times,
        boxes_xyxy=np.concatenate([corner, corner + 110], axis=1).astype(np.float32),
        detection_scores=rng.uniform(0.9, 1, count).astype(np.float32),
        embeddings=rng.standard_normal((count, 4)).astype(np.float32),
        scores=rng.standard_normal((count, 8)).astype(np.float32),
        thumbnail=rng.integers(0, 255, (8, 8, 3), np.uint8),
    )
    timelines, predictions = [], []
    for task in tasks:
        given = PROVENANCES[task.name]
        values = make_values(task, count if task.scope == "frame" else 1, rng)
        found = make_reliability(task)
        support = make_support(task, timelines)
        timelines.append(
            Timeline(
                task, given, times if task.scope == "frame" else times[:1], values, (), found, support, 0.125
            )
        )
        spread = values.std(axis=0) if len(values) > 1 else np.full(len(task.labels), np.nan, np.float32)
        whole = support.mean(axis=0) if len(support) else np.zeros(0, np.float32)
        predictions.append(
            Prediction(task, given, values.mean(axis=0), spread, count, (), found, whole, 0.125)
        )
    return FaceResult(track, tuple(timelines), tuple(predictions))


def make_analysis(
    faces: int = 2,
    frames: int = 30,
    gap: bool = True,
    kind: Literal["clip", "image"] = "clip",
    seed: int = 0,
    tasks: tuple[Task, ...] = TASKS,
) -> Analysis:
    """Return an analysis at about ten frames per second.

    With ``gap`` the last face is absent from the middle third of the frames; an image has one frame whatever
    ``frames`` says."""
    frames = 1 if kind == "image" else frames
    rng = np.random.default_rng(seed)
    frame_times_s = np.round(
        np.arange(frames) * 0.1 + rng.uniform(0, 0.01, frames) * (np.arange(frames) > 0), 6
    )
    everywhere = np.arange(frames)
    parted = (
        everywhere[(everywhere < frames // 3) | (everywhere >= 2 * frames // 3)]
        if gap and frames >= 3
        else everywhere
    )
    return Analysis(
        media=MediaInfo(
            f"{seed:064x}", kind, 640, 480, float(frame_times_s[-1]), ("Only the first 60 s were analyzed.",)
        ),
        checkpoint=CheckpointRef("starter", "Starter", "c" * 64),
        frame_times_s=frame_times_s,
        faces=tuple(
            make_face(number, parted if number == faces else everywhere, frame_times_s, seed, tasks)
            for number in range(1, faces + 1)
        ),
        notices=("A face was too small.",),
    )


def change_lines(
    analysis: Analysis, task: Task, values: FloatArray | Sequence[float], **changes: object
) -> Analysis:
    """Return the analysis with other values (T, K), or the same (K,) in every frame, of one task for all
    faces."""
    faces = []
    for face in analysis.faces:
        lines = list(face.timelines)
        for place, line in enumerate(lines):
            if line.task.name == task.name:
                given = np.broadcast_to(
                    np.asarray(values, np.float32), (len(line.times_s), len(task.labels))
                ).copy()
                lines[place] = replace(line, task=task, values=given, **changes)  # type: ignore[arg-type]
        faces.append(replace(face, timelines=tuple(lines)))
    return replace(analysis, faces=tuple(faces))


def make_siblings(count: int = 2, **options: object) -> tuple[Analysis, ...]:
    """Return analyses of one clip with the same tracks by several checkpoints, as one pass gives them; all
    values differ."""
    first = make_analysis(**options)  # type: ignore[arg-type]
    made = [replace(first, checkpoint=CheckpointRef("c0", "Checkpoint 0", "0" * 64))]
    for number in range(1, count):
        faces = []
        for face in first.faces:
            rng = np.random.default_rng([number, face.track.track_id])
            shape = face.track.scores.shape
            track = replace(face.track, scores=rng.standard_normal(shape).astype(np.float32))
            lines = tuple(
                replace(line, values=make_values(line.task, len(line.times_s), rng))
                for line in face.timelines
            )
            predictions = tuple(
                replace(prediction, values=line.values.mean(axis=0))
                for prediction, line in zip(face.predictions, lines, strict=True)
            )
            faces.append(FaceResult(track, lines, predictions))
        made.append(
            replace(
                first,
                checkpoint=CheckpointRef(f"c{number}", f"Checkpoint {number}", f"{number}" * 64),
                faces=tuple(faces),
            )
        )
    return tuple(made)
