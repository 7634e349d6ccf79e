"""Folders of pictures: what is in them and in which order; face crops by video and frame, or by clip."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hsemotion_space.training.files import DataError, reading

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class FaceFile:
    """One crop of a face: frame ``frame`` (from 1) of ``video`` (or of a clip) is the picture ``image``."""

    video: str
    frame: int
    image: Path


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Return a key that sorts numbers inside names by value: ``2.jpg`` before ``10.jpg``."""
    pieces = re.split(r"([0-9]+)", name)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def frame_number(stem: str) -> int | None:
    """Return the number that names a picture (``00001``, at most nine digits), or None."""
    return int(stem) if re.fullmatch("[0-9]{1,9}", stem) else None


def path_inside(folder: Path, location: str) -> Path:
    """Return the file that a table places in ``folder``."""
    path = PurePosixPath(location)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise DataError(
            "the path {path!r} is not inside {folder}.", code="path", path=location, folder=folder
        )
    return folder / path


def _entries(folder: Path, folders: bool) -> Iterator[str]:
    with reading(folder, "folder"), os.scandir(folder) as entries:
        yield from (
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir() == folders
        )


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones."""
    return sorted(_entries(folder, folders=True))


def picture_names(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder in natural order, hidden files excluded."""
    names = (name for name in _entries(folder, folders=False) if name.lower().endswith(IMAGE_SUFFIXES))
    return sorted(names, key=natural_key)


def _merged_folders(roots: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Yield (name, the folders of that name in the order of ``roots``), sorted by name."""
    names = [set(subfolders(root)) for root in roots]
    for name in sorted(set().union(*names)):
        yield name, [root / name for root, found in zip(roots, names, strict=True) if name in found]


def list_faces(roots: Sequence[Path]) -> Iterator[FaceFile]:
    """Yield the face crops ``<root>/<video>/<frame>.jpg`` of several roots, sorted by video and frame.

    Where two roots have the same frame, the first one counts (Aff-Wild2 unpacks into two folders).
    """
    for video, folders in _merged_folders(roots):
        faces: dict[int, Path] = {}
        for folder in folders:
            faces = _numbered_faces(folder) | faces
        yield from (FaceFile(video, frame, faces[frame]) for frame in sorted(faces))


def _numbered_faces(folder: Path) -> dict[int, Path]:
    faces: dict[int, Path] = {}
    for name in picture_names(folder):
        frame = frame_number(name.rpartition(".")[0])
        if not frame:
            raise DataError(
                "{file} is not named by a frame number from 1, such as 00001.jpg.",
                code="frame_name",
                file=folder / name,
            )
        other = faces.setdefault(frame, folder / name).name
        if other != name:
            raise DataError(
                "{folder} has two pictures of frame {frame}: {first} and {second}.",
                code="frame_twice", folder=folder, frame=frame, first=min(name, other),
                second=max(name, other),
            )  # fmt: skip
    return faces


def list_clips(roots: Sequence[Path]) -> Iterator[FaceFile]:
    """Yield the face crops ``<root>/<clip>/<any name>.jpg`` by clip, numbered from 1 in natural order.

    Where two roots have a picture of the same clip and name, the first one counts.
    """
    for clip, folders in _merged_folders(roots):
        faces: dict[str, Path] = {}
        for folder in folders:
            faces = {name: folder / name for name in picture_names(folder)} | faces
        for number, name in enumerate(sorted(faces, key=natural_key), 1):
            yield FaceFile(clip, number, faces[name])
