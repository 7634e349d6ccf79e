"""Tables of the challenge as comma-separated text: rows, headers, values, lists of frames or clips."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from hsemotion_space.tasks import Task
from hsemotion_space.training.files import located, reading, unexpected
from hsemotion_space.training.formats.crops import frame_number
from hsemotion_space.types import FloatArray

LINE_BYTES = 65536
FRAME_HEADERS = ("image_location", "image")
CLIP_HEADER = "Filename"

Row: TypeAlias = tuple[int, list[str]]
"""Number of the line, from 1, and its cells without surrounding spaces."""


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a UTF-8 file, with or without byte order mark and whatever its line ends.

    Blank lines at the end are left out.
    """
    blank = 0
    with reading(file, "text file"), file.open("rb") as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(LINE_BYTES), b""), 1):
            with located(f"{file}, line {number}"):
                cells = _cells(raw)
            if cells is None:
                blank = blank or number
                continue
            with located(f"{file}, line {blank}"):
                if blank:
                    raise unexpected(
                        "a row (only the end of the file may have blank lines)", "", "blank_line"
                    )
            yield number, cells


def _cells(raw: bytes) -> list[str] | None:
    """Return the cells of a line, None for a blank one."""
    line = raw.decode("utf-8-sig", "replace").strip()
    if len(raw) == LINE_BYTES and not raw.endswith(b"\n"):
        raise unexpected(f"a line of less than {LINE_BYTES} bytes", line, "long_line")
    if "\ufffd" in line:
        raise unexpected("UTF-8 text", line, "encoding")
    if '"' not in line:
        return [cell.strip() for cell in line.split(",")] if line else None
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise unexpected("well-formed quotes", line, "quotes") from error


def normalized(name: str) -> str:
    """Return a column or class name for comparison: in any case, underscores like spaces."""
    return name.strip().casefold().replace("_", " ")


def check_header(file: Path, rows: Iterator[Row], names: Sequence[str]) -> None:
    """Take the first row and compare it with ``names``, ignoring case and commas at its end."""
    number, cells = next(rows, (1, [""]))
    header = ",".join(cells).rstrip(", ")
    if [normalized(cell) for cell in header.split(",")] != [normalized(name) for name in names]:
        with located(f"{file}, line {number}"):
            raise unexpected(f"the header {','.join(names)}", header, "header")


@dataclass(frozen=True, slots=True)
class RowFormat:
    """Values of one row of labels.

    Attributes:
        columns: number of values: one for a class, else one per label.
        whole: whether they are whole numbers.
        low, high: range of every value, both ends allowed.
        missing: what stands for a value that is not annotated; None where an empty cell does.
    """

    columns: int
    whole: bool
    low: float
    high: float
    missing: int | None

    @property
    def expected(self) -> str:
        """A phrase for messages."""
        kind = ("whole number" if self.whole else "number") + ("s" if self.columns > 1 else "")
        absent = "nothing" if self.missing is None else str(self.missing)
        return f"{self.columns} {kind} from {self.low:g} to {self.high:g} (or {absent} if not annotated)"

    def parse(self, cells: Sequence[str]) -> list[float]:
        """Return the values of a row; NaN in all columns if any of them is not annotated."""
        try:
            if len(cells) != self.columns:
                raise ValueError
            values = [self._number(cell) for cell in cells]
        except ValueError as error:
            raise unexpected(self.expected, ",".join(cells), "values") from error
        return [math.nan] * self.columns if any(map(math.isnan, values)) else values

    def _number(self, cell: str) -> float:
        if self.missing is None and not cell:
            return math.nan
        value = float(int(cell) if self.whole else float(cell))
        if self.missing is not None and value == self.missing:
            return math.nan
        if not self.low <= value <= self.high or "_" in cell:
            raise ValueError
        return value

    def write(self, values: FloatArray) -> str:
        """Return a row of labels (columns,) as text that :meth:`parse` reads back as equal float32 values."""
        if np.isnan(values).any():
            return ",".join(["" if self.missing is None else str(self.missing)] * self.columns)
        fractional = self.whole and np.any(values != np.round(values))
        if len(values) != self.columns or fractional or values.min() < self.low or values.max() > self.high:
            raise unexpected(self.expected, ",".join(map(str, values)), "values")
        return ",".join(
            str(int(value)) if self.whole else np.format_float_positional(value, trim="0") for value in values
        )


def row_format(task: Task) -> RowFormat:
    """Return the format of a task: -5 marks missing affect, -1 classes and units, nothing intensities."""
    count = len(task.labels)
    if task.kind == "continuous":
        return RowFormat(count, False, task.low, task.high, -5)
    if task.kind == "one_of":
        return RowFormat(1, True, 0, count - 1, -1)
    if task.scope == "clip":
        return RowFormat(count, False, task.low, task.high, None)
    return RowFormat(count, True, 0, 1, -1)


def column_names(task: Task) -> tuple[str, ...]:
    """Return the labels as the official headers write them: ``valence``, ``Fearfully_Surprised``, ``AU1``."""
    if task.kind == "continuous":
        return tuple(name.lower() for name in task.label_names)
    if task.kind == "one_of":
        return tuple(name.title().replace(" ", "_") for name in task.label_names)
    return task.label_names


def header_of(task: Task) -> tuple[str, ...]:
    """Return the official header of a submission."""
    return (CLIP_HEADER if task.scope == "clip" else FRAME_HEADERS[0], *column_names(task))


class ListedFrame(NamedTuple):
    """One row of a list: line number, first cell, its video and frame (0 for a clip), the other cells."""

    line: int
    location: str
    video: str
    frame: int
    cells: list[str]


def listed(file: Path, rows: Iterator[Row], clips: bool) -> Iterator[ListedFrame]:
    """Yield rows ``<video>/<frame>.<suffix>[,...]``, or ``<clip>[.mp4][,...]``, in their order.

    Memory grows by about 100 bytes per row.
    """
    seen: dict[str, set[int]] = {}
    for line, (location, *cells) in rows:
        name = location.removesuffix(".mp4") if clips else location
        place = _clip(name) if clips else _frame(name)
        with located(f"{file}, line {line}"):
            if place is None:
                expected = "the id of a clip" if clips else "<video>/<frame number>.jpg in the first column"
                raise unexpected(expected, location, "location")
            if place[1] in seen.setdefault(place[0], set()):
                raise unexpected(f"every {'clip' if clips else 'frame'} once", location, "twice")
        seen[place[0]].add(place[1])
        yield ListedFrame(line, name, *place, cells)


def _clip(name: str) -> tuple[str, int] | None:
    return (name, 0) if name and "/" not in name else None


def _frame(location: str) -> tuple[str, int] | None:
    video, _, name = location.partition("/")
    stem, _, suffix = name.rpartition(".")
    frame = frame_number(stem)
    return (video, frame) if video and suffix and frame is not None else None


def read_list(file: Path, clips: bool) -> Iterator[ListedFrame]:
    """Yield the rows of a sample list or submission template, of clips or of frames, without its header."""
    rows = read_rows(file)
    first = next(rows, None)
    if first is None:
        return
    headers = [normalized(header) for header in ((CLIP_HEADER,) if clips else FRAME_HEADERS)]
    columns = [column for column, cell in enumerate(first[1]) if normalized(cell) in headers]
    if not columns:
        rows = chain([first], rows)
    elif column := columns[0]:
        rows = ((line, [cells[column], *cells[:column], *cells[column + 1 :]]) for line, cells in rows)
    yield from listed(file, rows, clips)
