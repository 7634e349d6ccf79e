"""Aff-Wild2: a label file per video, and folders of face crops named by frame number. Compound expressions in the same layout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hsemotion_space.tasks import Task
from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.listing import FaceFile, frame_number, merged_folders, picture_names
from hsemotion_space.training.formats.text import check_header, read_rows, wrong
from hsemotion_space.training.formats.values import column_names, row_form
from hsemotion_space.training.series import Series
from hsemotion_space.types import check_shape

__all__ = ["FaceFile", "audio_video", "list_faces", "read_labels", "write_labels"]


def read_labels(folder: Path, task: Task) -> Iterator[Series]:
    """Yield the labels of one video after the other, sorted by video: one ``<video>.txt`` each, line k + 1 describes frame k.

    Args:
        folder: such as ``VA_Estimation_Challenge/Train_Set``; files with other endings and hidden ones do not count.
        task: says which header and values the files have. Rows that are not annotated (-5, or -1 for classes and units) are kept
            as NaN.

    Raises:
        DataError: if there is no label file, or a line is not of that form.
    """
    if not folder.is_dir():
        raise DataError(f"The folder of labels {folder} does not exist.")
    files = sorted((file for file in folder.glob("*.txt") if not file.name.startswith(".")), key=lambda file: file.stem)
    if not files:
        raise DataError(f"The folder {folder} has no label files; expected one <video>.txt per video.")
    for file in files:
        yield _read_file(file, task)


def _read_file(file: Path, task: Task) -> Series:
    form, rows, values = row_form(task), read_rows(file), []
    check_header(file, rows, column_names(task))
    for line, cells in rows:
        try:
            values.append(form.parse(cells))
        except ValueError as error:
            raise wrong(file, line, str(error), ",".join(cells)) from error
    return Series(file.stem, np.arange(1, len(values) + 1), np.array(values, np.float32).reshape(-1, form.columns))


def write_labels(folder: Path, task: Task, series: Iterable[Series]) -> int:
    """Write labels as :func:`read_labels` reads them and return the number of files; frames that are left out are not annotated.

    Raises:
        DataError: if a value is out of range or a frame number below 1.
    """
    form, count = row_form(task), 0
    folder.mkdir(parents=True, exist_ok=True)
    for count, labels in enumerate(series, 1):  # noqa: B007  the count of files is what is returned
        check_shape("Series", "values", labels.values, (None, form.columns))
        if len(labels.frames) and labels.frames[0] < 1:
            raise DataError(f"The labels of {labels.video} start at frame {labels.frames[0]}; frames are counted from 1.")
        last = int(labels.frames[-1]) if len(labels.frames) else 0
        values = np.full((last, form.columns), np.nan, np.float32)
        values[labels.frames - 1] = labels.values
        try:
            lines = [",".join(column_names(task)), *(form.write(row) for row in values)]
        except ValueError as error:
            raise DataError(f"The labels of {labels.video} cannot be written: expected {error}.") from error
        (folder / f"{labels.video}.txt").write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
    return count


def list_faces(roots: Sequence[Path], videos: Collection[str] | None = None) -> Iterator[FaceFile]:
    """Yield the face crops ``<root>/<video>/<frame>.jpg`` of several roots as one, sorted by video, then by frame number.

    Args:
        roots: folders of videos (the release unpacks into two); where two have the same frame, the first wins.
        videos: only these, all if None; one without a folder has no faces.

    Raises:
        DataError: if a root cannot be listed, a picture is not named by a frame number from 1, or two of one folder by the same.
    """
    for video, folders in merged_folders(roots, videos):
        faces: dict[int, Path] = {}
        for folder in folders:
            faces = _faces_of(folder) | faces
        yield from (FaceFile(video, frame, faces[frame]) for frame in sorted(faces))


def _faces_of(folder: Path) -> dict[int, Path]:
    faces: dict[int, Path] = {}
    for name in picture_names(folder):
        frame = frame_number(name.rpartition(".")[0])
        if not frame:
            raise DataError(f"{folder / name}: expected a frame number from 1 as the name of the picture, such as 00001.jpg.")
        other = faces.setdefault(frame, folder / name)
        if other.name != name:
            raise DataError(f"{folder} has two pictures of frame {frame}: {min(name, other.name)} and {max(name, other.name)}.")
    return faces


def audio_video(video: str) -> str:
    """Return the stem of the video file behind a label file: ``x_left`` and ``x_right`` are two people in the video ``x``."""
    return video.removesuffix("_left") if video.endswith("_left") else video.removesuffix("_right")
