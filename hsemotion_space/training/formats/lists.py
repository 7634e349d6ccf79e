"""Official lists of what a submission must contain: frames of videos (also of C-EXPR-DB) or clips."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

from hsemotion_space.training.formats.listing import frame_number
from hsemotion_space.training.formats.text import Row, normal, read_rows, wrong

FRAME_HEADERS = ("image_location", "image")
CLIP_HEADER = "Filename"


class ListedFrame(NamedTuple):
    """One row of a list: where it stands, its first cell, the video and frame that it names (a clip has frame 0), the other cells."""

    line: int
    location: str
    video: str
    frame: int
    cells: list[str]


def _split_location(location: str) -> tuple[str, int] | None:
    video, _, name = location.partition("/")
    stem, _, suffix = name.rpartition(".")
    frame = frame_number(stem)
    return (video, frame) if video and suffix and frame is not None else None


def listed_frames(file: Path, rows: Iterator[Row]) -> Iterator[ListedFrame]:
    """Yield rows ``<video>/<frame>.<suffix>[,anything]`` in their order; memory grows by about 100 bytes per row.

    Raises:
        DataError: if a row is not of that form or names a frame a second time.
    """
    seen: dict[str, set[int]] = {}
    for line, (location, *cells) in rows:
        place = _split_location(location)
        if place is None:
            raise wrong(file, line, "<video>/<frame number>.jpg in the first column", location)
        frames = seen.setdefault(place[0], set())
        if place[1] in frames:
            raise wrong(file, line, "every frame once", location)
        frames.add(place[1])
        yield ListedFrame(line, location, *place, cells)


def listed_clips(file: Path, rows: Iterator[Row]) -> Iterator[ListedFrame]:
    """Yield rows ``<clip>[,anything]`` in their order; a clip ``00001.mp4`` is ``00001``.

    Raises:
        DataError: if a row has no clip or names one a second time.
    """
    seen: set[str] = set()
    for line, (name, *cells) in rows:
        clip = name.removesuffix(".mp4")
        if not clip or "/" in clip:
            raise wrong(file, line, "the id of a clip", name)
        if clip in seen:
            raise wrong(file, line, "every clip once", name)
        seen.add(clip)
        yield ListedFrame(line, clip, clip, 0, cells)


def read_list(file: Path, clips: bool) -> Iterator[ListedFrame]:
    """Yield the rows of a sample list or template of a submission, of clips or of frames; a header is skipped.

    Raises:
        DataError: if a row is not of the right form or repeated.
    """
    rows = read_rows(file)
    first = next(rows, None)
    if first is None:
        return
    headers = [normal(header) for header in ((CLIP_HEADER,) if clips else FRAME_HEADERS)]
    columns = [column for column, cell in enumerate(first[1]) if normal(cell) in headers]
    if not columns:
        rows = chain([first], rows)
    elif columns[0]:
        rows = ((line, [cells[columns[0]], *cells[: columns[0]], *cells[columns[0] + 1 :]]) for line, cells in rows)
    yield from listed_clips(file, rows) if clips else listed_frames(file, rows)


def read_frame_list(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield (video, frame numbers) of a list of frames in its order; consecutive rows of one video are one item.

    Args:
        file: rows ``01/00001.jpg``, further columns do not matter; the header ``image_location`` or ``image`` may be there.

    Raises:
        DataError: if a row is not of that form or names a frame a second time.
    """
    for video, rows in groupby(read_list(file, clips=False), lambda row: row.video):
        yield video, [row.frame for row in rows]
