"""Labels and submissions of the challenge: a file per video (Aff-Wild2), or a table of clips (Hume)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from hsemotion_space.tasks import Task
from hsemotion_space.training.files import DataError, located, replacing, unexpected
from hsemotion_space.training.formats.tables import (
    ListedFrame,
    Row,
    check_header,
    column_names,
    header_of,
    listed,
    normalized,
    read_list,
    read_rows,
    row_format,
)
from hsemotion_space.training.series import Series, by_video, check_thresholds, filled
from hsemotion_space.types import FloatArray, check_shape

DECIMALS = 6


def read_labels(folder: Path, task: Task) -> Iterator[Series]:
    """Yield the labels of Aff-Wild2 sorted by video: one ``<video>.txt`` each, line k + 1 describes frame k.

    Rows that are not annotated (-5, or -1 for classes and units) are kept as NaN.
    """
    files = sorted(
        (file for file in folder.glob("*.txt") if not file.name.startswith(".")), key=lambda file: file.stem
    )
    if not files:
        raise DataError(
            "{folder} has no label files; expected one <video>.txt per video.",
            code="no_labels",
            folder=folder,
        )
    row = row_format(task)
    for file in files:
        rows, values = read_rows(file), []
        check_header(file, rows, column_names(task))
        for line, cells in rows:
            with located(f"{file}, line {line}"):
                values.append(row.parse(cells))
        yield Series(
            file.stem, np.arange(1, len(values) + 1), np.array(values, np.float32).reshape(-1, row.columns)
        )


def write_labels(folder: Path, task: Task, series: Iterable[Series]) -> None:
    """Write labels as :func:`read_labels` reads them; frames that are left out are not annotated."""
    row = row_format(task)
    folder.mkdir(parents=True, exist_ok=True)
    for labels in series:
        check_shape("Series", "values", labels.values, (None, row.columns))
        with located(f"labels of {labels.video}"):
            if len(labels.frames) and labels.frames[0] < 1:
                raise unexpected("frame numbers from 1", str(labels.frames[0]), "frame_number")
            values = np.full((int(labels.frames.max(initial=0)), row.columns), np.nan, np.float32)
            values[labels.frames - 1] = labels.values
            lines = [",".join(column_names(task)), *(row.write(frame) for frame in values)]
        (folder / f"{labels.video}.txt").write_text("\n".join(lines) + "\n", "utf-8", newline="\n")


def read_clip_labels(csv: Path, task: Task) -> Iterator[Series]:
    """Yield the values (1, K) of each clip of a table ``Filename,<label>,...``, in the order of the file.

    Columns are matched by name, ids stay as they are (``00001``; ``.mp4`` is removed), other columns do not
    matter, and a row with an empty value is not annotated (NaN).
    """
    return (series for _, series in _clip_rows(csv, task))


def _clip_rows(csv: Path, task: Task) -> Iterator[tuple[ListedFrame, Series]]:
    row_reader, rows = row_format(task), read_rows(csv)
    line, header = next(rows, (1, [""]))
    names, columns = [normalized(name) for name in header], [normalized(name) for name in header_of(task)]
    if any(names.count(name) != 1 for name in columns):
        with located(f"{csv}, line {line}"):
            raise unexpected(
                f"a header with {','.join(header_of(task))}, each once", ",".join(header), "header"
            )
    places = [names.index(name) for name in columns]

    def reordered() -> Iterator[Row]:
        for number, cells in rows:
            if len(cells) != len(names):
                with located(f"{csv}, line {number}"):
                    raise unexpected(f"{len(names)} columns as in the header", ",".join(cells), "columns")
            yield number, [cells[place] for place in places]

    for row in listed(csv, reordered(), clips=True):
        with located(f"{csv}, line {row.line}"):
            values = np.array([row_reader.parse(row.cells)], np.float32)
        yield row, Series(row.video, np.zeros(1, np.int64), values)


def read_submission(file: Path, task: Task) -> Iterator[Series]:
    """Yield a submission in the form of labels, one series per run of rows of one video, frames rising."""
    if task.scope == "clip":
        for row, series in _clip_rows(file, task):
            _check_complete(file, row, series.values[0].tolist())
            yield series
        return
    rows = read_rows(file)
    check_header(file, rows, header_of(task))
    for video, group in groupby(listed(file, rows, clips=False), lambda row: row.video):
        pairs = sorted((row.frame, _submitted(file, task, row)) for row in group)
        yield Series(
            video,
            np.array([frame for frame, _ in pairs]),
            np.array([values for _, values in pairs], np.float32),
        )


def _submitted(file: Path, task: Task, row: ListedFrame) -> list[float]:
    with located(f"{file}, line {row.line}"):
        values = row_format(task).parse(row.cells)
    _check_complete(file, row, values)
    return values


def _check_complete(file: Path, row: ListedFrame, values: list[float]) -> None:
    if np.isnan(values).any():
        with located(f"{file}, line {row.line}"):
            raise unexpected("a value in every column", ",".join(row.cells), "incomplete")


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
    file: Path,
    task: Task,
    predictions: Iterable[Series],
    frame_list: Path,
    thresholds: Sequence[float] | None = None,
) -> SubmissionReport:
    """Write the predictions of one task in the official form, one row for each of the list and in its order.

    Frames without a prediction are filled as in :func:`~hsemotion_space.training.series.filled`; the class or
    the units, which are present at or above their thresholds, are decided afterwards. The file is replaced
    when everything has been written.
    """
    limits = check_thresholds(task, thresholds)
    known = by_video(task, predictions, len(task.labels), "predictions")
    missing: dict[str, None] = {}  # an ordered set
    frames, interpolated = 0, 0
    with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        out.write(",".join(header_of(task)) + "\n")
        for video, group in groupby(read_list(frame_list, task.scope == "clip"), lambda row: row.video):
            rows, series = list(group), known.get(video)
            numbers = np.array([row.frame for row in rows])
            if series is None:
                missing[video] = None
            else:
                interpolated += int(np.count_nonzero(~np.isin(numbers, series.frames)))
            texts = _texts(task, filled(task, series, numbers), limits)
            out.writelines(f"{row.location},{text}\n" for row, text in zip(rows, texts, strict=True))
            frames += len(rows)
        if not frames:
            raise DataError(
                "{file} has no rows; expected one per {scope}.",
                code="empty_list",
                file=frame_list,
                scope=task.scope,
            )
    return SubmissionReport(frames, interpolated, tuple(missing))


def _texts(task: Task, values: FloatArray, limits: FloatArray) -> list[str]:
    if task.kind == "one_of":
        return [str(index) for index in values.argmax(1)]
    if task.kind == "independent" and task.scope == "frame":
        return [",".join(map(str, row)) for row in (values >= limits).astype(np.int64)]
    rounded = np.round(values.astype(np.float64), DECIMALS) + 0.0  # no -0
    return [",".join(f"{value:.{DECIMALS}f}" for value in row) for row in rounded]
