"""Submissions to the challenge: one text file per task with a row for every frame (or clip) of the official list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from hsemotion_space.inference.temporal import interpolate
from hsemotion_space.tasks import Task
from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.hume import clip_rows
from hsemotion_space.training.formats.lists import CLIP_HEADER, FRAME_HEADERS, ListedFrame, listed_frames, read_list
from hsemotion_space.training.formats.text import check_header, read_rows, wrong
from hsemotion_space.training.formats.values import column_names, row_form
from hsemotion_space.training.series import Series, check_thresholds, neutral_values
from hsemotion_space.types import FloatArray, check_shape

DECIMALS = 6


@dataclass(frozen=True, slots=True)
class SubmissionReport:
    """What was written.

    Attributes:
        frames: rows of the file, as many as the list has.
        interpolated: rows among them without a prediction of their own in a video that has some.
        without_prediction: videos of the list without any prediction; they got the neutral values.
    """

    frames: int
    interpolated: int
    without_prediction: tuple[str, ...]


def write_submission(
    file: Path, task: Task, predictions: Iterable[Series], frame_list: Path, thresholds: Sequence[float] | None = None
) -> SubmissionReport:
    """Write the predictions of one task in the official form, one row for each of the list and in its order.

    Frames without a prediction are interpolated linearly by frame number between their neighbors, the first and the last value
    held beyond the ends; the class or the units are decided afterwards. A video without any prediction is called neutral: zeros, or
    the class Neutral (the first class where there is none).

    Args:
        file: replaced when everything has been written.
        task: one of the challenge; says which header and values the file has.
        predictions: a column per label, one series per video; rows with NaN do not count, videos outside the list neither.
        frame_list: sample list or template: frames, or clips for a clip-level task.
        thresholds: (K,) for units, a unit is present at or above its own; 0.5 if None.

    Raises:
        DataError: if the list or the predictions cannot be used.
        ValueError: if thresholds do not fit the task.
    """
    limits = check_thresholds(task, thresholds)
    known = _known(task, predictions)
    partial = file.with_name(file.name + ".partial")
    without: dict[str, None] = {}  # an ordered set
    frames, interpolated = 0, 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as out:
            out.write(",".join(_header(task)) + "\n")
            for video, group in groupby(read_list(frame_list, task.scope == "clip"), lambda row: row.video):
                rows = list(group)
                series = known.get(video)
                if series is None:
                    without[video] = None
                    texts = _texts(task, np.tile(neutral_values(task), (len(rows), 1)), limits)
                else:
                    numbers = np.array([row.frame for row in rows])
                    interpolated += int(np.count_nonzero(~np.isin(numbers, series.frames)))
                    texts = _texts(task, interpolate(series.frames, series.values, numbers), limits)
                out.writelines(f"{row.location},{text}\n" for row, text in zip(rows, texts, strict=True))
                frames += len(rows)
        if not frames:
            raise DataError(f"{frame_list} names nothing to predict; expected a row per {task.scope}.")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return SubmissionReport(frames, interpolated, tuple(without))


def _header(task: Task) -> tuple[str, ...]:
    return (CLIP_HEADER if task.scope == "clip" else FRAME_HEADERS[0], *column_names(task))


def _known(task: Task, predictions: Iterable[Series]) -> dict[str, Series]:
    """Return the rows with a prediction by video, bounded to the range of the task; no entry where there is none."""
    known: dict[str, Series] = {}
    seen: set[str] = set()
    for series in predictions:
        check_shape("Series", "values", series.values, (None, len(task.labels)))
        if series.video in seen:
            raise DataError(f"The predictions have {series.video} twice; expected one series per video.")
        seen.add(series.video)
        if len(series.known):
            values = np.clip(series.values[series.known], task.low, task.high)
            known[series.video] = Series(series.video, series.frames[series.known], values)
    return known


def _texts(task: Task, values: FloatArray, limits: FloatArray) -> list[str]:
    if task.kind == "one_of":
        return [str(index) for index in values.argmax(1)]
    if task.kind == "independent" and task.scope == "frame":
        return [",".join(map(str, row)) for row in (values >= limits).astype(np.int64)]
    rounded = np.round(values.astype(np.float64), DECIMALS) + 0.0  # no -0
    return [",".join(f"{value:.{DECIMALS}f}" for value in row) for row in rounded]


def read_submission(file: Path, task: Task) -> Iterator[Series]:
    """Yield a submission in the form of labels, one series per run of rows of one video, frames rising.

    Raises:
        DataError: if header or a row is not of the official form, a value is missing, or a frame is repeated.
    """
    if task.scope == "clip":
        for row, series in clip_rows(file, task):
            if not len(series.known):
                raise wrong(file, row.line, "a value in every column", ",".join(row.cells))
            yield series
        return
    rows = read_rows(file)
    check_header(file, rows, _header(task))
    for video, group in groupby(listed_frames(file, rows), lambda row: row.video):
        pairs = sorted((row.frame, _values(file, task, row)) for row in group)
        yield Series(video, np.array([frame for frame, _ in pairs]), np.array([values for _, values in pairs], np.float32))


def _values(file: Path, task: Task, row: ListedFrame) -> list[float]:
    form = row_form(task)
    try:
        values = form.parse(row.cells)
    except ValueError as error:
        raise wrong(file, row.line, str(error), ",".join(row.cells)) from error
    if np.isnan(values[0]):
        raise wrong(file, row.line, "a value in every column", ",".join(row.cells))
    return values
