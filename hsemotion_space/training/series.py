"""Values of a task along videos: what label files, predictions and submissions have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.tasks import Task
from hsemotion_space.training.data import DataError
from hsemotion_space.types import FloatArray, IntArray, check_shape

DEFAULT_THRESHOLD = 0.5
FALLBACK_CLASS = "Neutral"  # of a video without any prediction


@dataclass(frozen=True, slots=True)
class Series:
    """Labels or predictions of one task in one video.

    Attributes:
        video: stem of the label file and of the folder of crops (``135-24-1920x1080_left``), or the id of a clip (``00001``).
        frames: (T,) rising frame numbers, the first frame of a video is 1; a clip-level task has one row with frame 0.
        values: (T, K). Predictions have a column per label of the task. Labels are the same, except that a ``one_of`` task has
            one column with the index of the class. A row with NaN is not annotated (labels) or has no face (predictions).
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


def neutral_values(task: Task) -> FloatArray:
    """Return (K,) predictions for a video without any: zeros, or equal probabilities with Neutral (else the first class) just ahead."""
    if task.kind != "one_of":
        return np.zeros(len(task.labels), np.float32)
    values = np.full(len(task.labels), 1 / len(task.labels), np.float32)
    chosen = task.index(FALLBACK_CLASS) if FALLBACK_CLASS in task.label_names else 0
    values[chosen] = np.nextafter(values[chosen], np.float32(1))
    return values


def check_thresholds(task: Task, thresholds: Sequence[float] | None) -> FloatArray:
    """Return (K,) thresholds in float32, in which they are compared with predictions; 0.5 for each label if None.

    Raises:
        ValueError: if thresholds are given for a task that has none, or not one per label.
    """
    if thresholds is None:
        return np.full(len(task.labels), DEFAULT_THRESHOLD, np.float32)
    if task.kind != "independent" or task.scope != "frame" or len(thresholds) != len(task.labels):
        raise ValueError(f"Thresholds belong to units, one for each; {task.title} has {len(task.labels)} labels, got {len(thresholds)}.")
    return np.array(thresholds, np.float32)


def write_series(file: Path, task: Task, rows: Iterable[Series], thresholds: Sequence[float] = ()) -> int:
    """Write predictions as Parquet, one row group per video, and return how many frames were written.

    Columns: ``video``, ``frame``, then one float column per label of the task, null where there is no prediction. The decision
    ``thresholds`` of units, if any, are in the metadata.
    """
    names = ["video", "frame", *task.label_names]
    kinds = [pa.string(), pa.int64(), *[pa.float32()] * len(task.labels)]
    schema = pa.schema(list(zip(names, kinds, strict=True)), metadata={"task": task.name, "thresholds": json.dumps(list(thresholds))})
    partial, count = file.with_name(file.name + ".partial"), 0
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for series in rows:
            check_shape("Series", "values", series.values, (len(series.frames), len(task.labels)))
            columns = [pa.array([series.video] * len(series.frames), pa.string()), pa.array(series.frames, pa.int64())]
            columns += [pa.array(column, pa.float32(), mask=np.isnan(column)) for column in series.values.T]
            writer.write_table(pa.table(columns, schema=schema))
            count += len(series.frames)
    partial.replace(file)
    return count


def read_thresholds(file: Path) -> tuple[float, ...]:
    """Return the decision thresholds that :func:`write_series` wrote, () if there are none.

    Raises:
        DataError: if the file is no predictions file.
    """
    try:
        given = json.loads((pq.read_schema(file).metadata or {}).get(b"thresholds", b"[]"))
        return tuple(float(value) for value in given)
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{file} is not a usable predictions file: {error}") from error


def read_series(file: Path, task: Task) -> Iterator[Series]:
    """Yield what :func:`write_series` wrote, video by video.

    Raises:
        DataError: if the file is not of that form or belongs to another task.
    """
    try:
        parquet = pq.ParquetFile(file)
        table_names = parquet.schema_arrow.names
        if table_names != ["video", "frame", *task.label_names]:
            raise DataError(f"{file} has the columns {', '.join(table_names)}; expected video, frame, {', '.join(task.label_names)}.")
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            videos = table.column("video").to_pylist()
            frames = table.column("frame").to_numpy().astype(np.int64)
            values = np.stack([table.column(name).to_numpy(zero_copy_only=False).astype(np.float32) for name in task.label_names], 1)
            for video in dict.fromkeys(videos):
                rows = np.flatnonzero(np.array([name == video for name in videos]))
                yield Series(video, frames[rows], values[rows])
    except (OSError, pa.ArrowException, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError(f"{file} is not a usable predictions file: {error}") from error
