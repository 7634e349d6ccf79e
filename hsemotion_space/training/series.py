"""Values of a task along videos: what label files, predictions and submissions have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.inference.temporal import interpolate
from hsemotion_space.tasks import Task
from hsemotion_space.training.files import DataError, reading, replacing
from hsemotion_space.types import FloatArray, IntArray, check_shape

DEFAULT_THRESHOLD = 0.5
FALLBACK_CLASS = "Neutral"  # of a video without any prediction


@dataclass(frozen=True, slots=True)
class Series:
    """Labels or predictions of one task in one video.

    Attributes:
        video: stem of the label file and of the folder of crops (``135-24-1920x1080_left``), or the id of a
            clip.
        frames: (T,) rising frame numbers, the first frame of a video is 1; a clip-level task has one row with
            frame 0.
        values: (T, K). Predictions have a column per label of the task. Labels are the same, except that a
            ``one_of`` task has one column with the index of the class. A row with NaN is not annotated
            (labels) or has no face (predictions).
    """

    video: str
    frames: IntArray
    values: FloatArray

    def __post_init__(self) -> None:
        check_shape("Series", "frames", self.frames, (None,))
        check_shape("Series", "values", self.values, (len(self.frames), None))
        if np.any(np.diff(self.frames) <= 0):
            raise ValueError(f"Series of {self.video}: the frame numbers must rise.")

    @property
    def known(self) -> IntArray:
        """Rows without NaN."""
        return np.flatnonzero(~np.isnan(self.values).any(axis=1))


def recording_of(video: str) -> str:
    """Return the stem of a label file's video: ``x_left`` and ``x_right`` belong to the video ``x``."""
    return video.removesuffix("_left") if video.endswith("_left") else video.removesuffix("_right")


def by_video(task: Task, series: Iterable[Series], columns: int, kind: str) -> dict[str, Series]:
    """Return the rows without NaN of each video; ``kind`` is ``labels`` or ``predictions``, for messages."""
    known: dict[str, Series] = {}
    seen: set[str] = set()
    for item in series:
        video, width = item.video, item.values.shape[1]
        if video in seen:
            raise DataError(
                "The {kind} contain {video} twice; give one series per video.",
                code="twice",
                kind=kind,
                video=video,
            )
        if width != columns:
            template = "The {kind} of {video} have {width} columns; {task} needs {columns}."
            raise DataError(
                template,
                code="columns",
                kind=kind,
                video=video,
                width=width,
                task=task.title,
                columns=columns,
            )
        if task.scope == "clip" and item.frames.tolist() != [0]:
            template = "The {kind} of {video} have {count} rows; {task} needs one per clip, with frame 0."
            raise DataError(
                template, code="clip_rows", kind=kind, video=video, count=len(item.frames), task=task.title
            )
        seen.add(video)
        if len(item.known):
            known[video] = Series(video, item.frames[item.known], item.values[item.known])
    return known


def filled(task: Task, series: Series | None, frames: IntArray) -> FloatArray:
    """Return (F, K) predictions of one video at all ``frames``, bounded to the range of the task.

    Frames without a prediction are interpolated linearly by frame number between their neighbors, the first
    and the last value held beyond the ends. A video without any (None) gets zeros, or equal probabilities
    with the class Neutral (the first where there is none) just ahead.
    """
    if series is not None:
        return interpolate(series.frames, np.clip(series.values, task.low, task.high), frames)
    values = np.zeros(len(task.labels), np.float32)
    if task.kind == "one_of":
        values[:] = 1 / len(task.labels)
        column = task.index(FALLBACK_CLASS) if FALLBACK_CLASS in task.label_names else 0
        values[column] = np.nextafter(values[column], np.float32(1))
    return np.tile(values, (len(frames), 1))


def check_thresholds(task: Task, thresholds: Sequence[float] | None) -> FloatArray:
    """Return (K,) thresholds in float32, the type of the predictions; 0.5 for each label if None."""
    if thresholds is None:
        return np.full(len(task.labels), DEFAULT_THRESHOLD, np.float32)
    if task.kind != "independent" or task.scope != "frame" or len(thresholds) != len(task.labels):
        raise DataError(
            "Thresholds belong to action units, one per unit; {task} has {labels} labels, found {count} "
            "thresholds.",
            code="thresholds", task=task.title, labels=len(task.labels), count=len(thresholds),
        )  # fmt: skip
    return np.array(thresholds, np.float32)


def write_series(file: Path, task: Task, series: Iterable[Series], thresholds: Sequence[float] = ()) -> int:
    """Write predictions as Parquet, one row group per video, and return how many frames were written.

    Columns: ``video``, ``frame``, then one float column per label of the task, null where there is no
    prediction. The decision ``thresholds`` of units, if any, are in the metadata.
    """
    names = ["video", "frame", *task.label_names]
    kinds = [pa.string(), pa.int64(), *[pa.float32()] * len(task.labels)]
    metadata = {"task": task.name, "thresholds": json.dumps(list(thresholds))}
    schema, count = pa.schema(list(zip(names, kinds, strict=True)), metadata=metadata), 0
    with replacing(file) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for item in series:
            check_shape("Series", "values", item.values, (len(item.frames), len(task.labels)))
            columns = [
                pa.array([item.video] * len(item.frames), pa.string()),
                pa.array(item.frames, pa.int64()),
            ]
            columns += [pa.array(column, pa.float32(), mask=np.isnan(column)) for column in item.values.T]
            writer.write_table(pa.table(columns, schema=schema))
            count += len(item.frames)
    return count


def read_thresholds(file: Path) -> tuple[float, ...]:
    """Return the decision thresholds that :func:`write_series` wrote, () if there are none."""
    with reading(file, "predictions file"):
        return tuple(map(float, json.loads((pq.read_schema(file).metadata or {}).get(b"thresholds", b"[]"))))


def read_series(file: Path, task: Task) -> Iterator[Series]:
    """Yield what :func:`write_series` wrote, video by video."""
    columns = ["video", "frame", *task.label_names]
    with reading(file, "predictions file"), pq.ParquetFile(file) as parquet:
        if (names := parquet.schema_arrow.names) != columns:
            template = "{file} has the columns {names}; expected {columns}."
            raise DataError(
                template, code="columns", file=file, names=", ".join(names), columns=", ".join(columns)
            )
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            videos, frames = (
                np.array(table["video"].to_pylist(), object),
                table["frame"].to_numpy().astype(np.int64),
            )
            values = np.stack([table[name].to_numpy().astype(np.float32) for name in task.label_names], 1)
            for video in dict.fromkeys(videos):
                yield Series(video, frames[videos == video], values[videos == video])
