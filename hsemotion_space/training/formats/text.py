"""Comma-separated text line by line: numbered rows, headers, and messages that name file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from hsemotion_space.training.data import DataError

LINE_BYTES = 65536
SHOWN = 80  # characters of a wrong line in a message

Row: TypeAlias = tuple[int, list[str]]
"""Number of the line, from 1, and its cells without surrounding spaces."""


def wrong(file: Path, line: int, expected: str, got: str) -> DataError:
    """Return the error for one line of a file."""
    shown = got if len(got) <= SHOWN else got[:SHOWN] + "…"
    return DataError(f"{file}, line {line}: expected {expected}, got {shown!r}.")


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open("rb") as stream:
            for number, raw in enumerate(iter(lambda: stream.readline(LINE_BYTES), b""), 1):
                if len(raw) == LINE_BYTES and not raw.endswith(b"\n"):
                    raise wrong(file, number, f"a line of less than {LINE_BYTES} bytes", raw[:SHOWN].decode("utf-8", "replace"))
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise wrong(file, number, "UTF-8 text", raw.decode("utf-8", "replace").strip()) from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error


def _cells(file: Path, number: int, line: str) -> list[str]:
    if '"' not in line:
        return [cell.strip() for cell in line.split(",")]
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise wrong(file, number, "well-formed quotes", line) from error


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a UTF-8 file, with or without byte order mark and whatever its line ends; blank lines at the end are left out.

    Raises:
        DataError: if the file cannot be read, a line is not text or has more than 64 KiB, or a blank line is followed by another.
    """
    blank = 0
    for number, line in _lines(file):
        if not line:
            blank = blank or number
        elif blank:
            raise wrong(file, blank, "a row (blank lines are allowed at the end only)", "")
        else:
            yield number, _cells(file, number, line)


def normal(name: str) -> str:
    """Return a column or class name for comparison: no matter which case, underscores like spaces."""
    return name.strip().casefold().replace("_", " ")


def check_header(file: Path, rows: Iterator[Row], names: Sequence[str]) -> None:
    """Take the first row and compare it with ``names`` by :func:`normal`, not counting commas at its end.

    Raises:
        DataError: if there is no row or it has other names; the message quotes the header expected.
    """
    number, cells = next(rows, (1, [""]))
    given = ",".join(cells).rstrip(", ")
    if [normal(cell) for cell in given.split(",")] != [normal(name) for name in names]:
        raise wrong(file, number, f"the header {','.join(names)}", given)
