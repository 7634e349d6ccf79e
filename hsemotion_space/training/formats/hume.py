"""Hume-Vidmimic2, the emotional mimicry challenge: a table of intensities per clip, and folders of face crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hsemotion_space.tasks import MIMICRY_INTENSITY, Task
from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.listing import FaceFile, merged_folders, natural_key, picture_names
from hsemotion_space.training.formats.lists import CLIP_HEADER, ListedFrame, listed_clips
from hsemotion_space.training.formats.text import normal, read_rows, wrong
from hsemotion_space.training.formats.values import column_names, row_form
from hsemotion_space.training.series import Series
from hsemotion_space.types import check_shape


def clip_rows(csv: Path, task: Task) -> Iterator[tuple[ListedFrame, Series]]:
    """Yield each row of a table ``Filename,<label>,...`` of a clip-level task with its values, whatever the order of the columns.

    Raises:
        DataError: if a column is missing or given twice, a row is not of that form, or a clip is repeated.
    """
    form, rows = row_form(task), read_rows(csv)
    line, header = next(rows, (1, [""]))
    names, wanted = [normal(name) for name in header], [normal(name) for name in (CLIP_HEADER, *column_names(task))]
    if any(names.count(name) != 1 for name in wanted):
        raise wrong(csv, line, f"a header with {','.join((CLIP_HEADER, *column_names(task)))}, each once", ",".join(header))
    places = [names.index(name) for name in wanted]

    def reordered() -> Iterator[tuple[int, list[str]]]:
        for number, cells in rows:
            if len(cells) != len(names):
                raise wrong(csv, number, f"{len(names)} columns as in the header", ",".join(cells))
            yield number, [cells[place] for place in places]

    for row in listed_clips(csv, reordered()):
        try:
            values = np.array([form.parse(row.cells)], np.float32)
        except ValueError as error:
            raise wrong(csv, row.line, str(error), ",".join(row.cells)) from error
        yield row, Series(row.video, np.zeros(1, np.int64), values)


def read_clip_labels(csv: Path) -> Iterator[Series]:
    """Yield the six intensities (1, 6) of each clip of ``train_split.csv`` or ``valid_split.csv``, in the order of the file.

    Columns are matched by name, ids stay as they are (``00001``; ``.mp4`` is removed), other columns do not matter, and a row with
    an empty value is not annotated (NaN).

    Raises:
        DataError: if a column is missing, a value is not from 0 to 1, or a clip is repeated.
    """
    return (series for _, series in clip_rows(csv, MIMICRY_INTENSITY))


def write_clip_labels(csv: Path, series: Iterable[Series]) -> int:
    """Write what :func:`read_clip_labels` reads and return the number of clips.

    Raises:
        DataError: if a value is not from 0 to 1.
    """
    form, count = row_form(MIMICRY_INTENSITY), 0
    with csv.open("w", encoding="utf-8", newline="\n") as out:
        out.write(",".join((CLIP_HEADER, *column_names(MIMICRY_INTENSITY))) + "\n")
        for count, labels in enumerate(series, 1):  # noqa: B007  the count of clips is what is returned
            check_shape("Series", "values", labels.values, (1, form.columns))
            try:
                out.write(f"{labels.video},{form.write(labels.values[0])}\n")
            except ValueError as error:
                raise DataError(f"The labels of {labels.video} cannot be written: expected {error}.") from error
    return count


def list_clips(roots: Sequence[Path]) -> Iterator[FaceFile]:
    """Yield the face crops ``<root>/<clip>/<any name>.jpg`` by clip, numbered from 1 in the natural order of their names.

    Args:
        roots: folders of clips (``face_images``); where two have a picture of the same clip and name, the first wins.

    Raises:
        DataError: if a root cannot be listed.
    """
    for clip, folders in merged_folders(roots):
        faces: dict[str, Path] = {}
        for folder in folders:
            faces = {name: folder / name for name in picture_names(folder)} | faces
        for number, name in enumerate(sorted(faces, key=natural_key), 1):
            yield FaceFile(clip, number, faces[name])
