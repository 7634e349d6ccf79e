"""Folders of pictures: what is in them and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hsemotion_space.training.data import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class FaceFile:
    """One crop of a face: frame ``frame`` (from 1) of ``video`` (or of a clip) is the picture ``image``."""

    video: str
    frame: int
    image: Path


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Return a key that sorts numbers inside names by value: ``2.jpg`` before ``10.jpg``."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def frame_number(stem: str) -> int | None:
    """Return the number that names a picture (``00001``: at most nine digits), None if it is named otherwise."""
    return int(stem) if re.fullmatch("[0-9]{1,9}", stem) else None


def inside(folder: Path, location: str) -> Path:
    """Return the file that a table places in ``folder``.

    Raises:
        ValueError: if the location is empty or leads out of the folder.
    """
    path = PurePosixPath(location)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path of a picture inside {folder}, not {location!r}")
    return folder / path


def _entries(folder: Path, folders: bool) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir() == folders)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be listed: {error.strerror or error}.") from error


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones.

    Raises:
        DataError: if the folder cannot be listed.
    """
    return sorted(_entries(folder, folders=True))


def picture_names(folder: Path) -> list[str]:
    """Return the unsorted names of the pictures in a folder, without hidden files and other formats.

    Raises:
        DataError: if the folder cannot be listed.
    """
    return [name for name in _entries(folder, folders=False) if name.lower().endswith(IMAGE_SUFFIXES)]


def merged_folders(roots: Sequence[Path], wanted: Iterable[str] | None = None) -> Iterator[tuple[str, list[Path]]]:
    """Yield (name, the folders of that name in the order of ``roots``), sorted by name; ``wanted`` restricts the names.

    Raises:
        DataError: if a root cannot be listed.
    """
    names = [set(subfolders(root)) for root in roots]
    chosen = set().union(*names) if wanted is None else set().union(*names).intersection(wanted)
    for name in sorted(chosen):
        yield name, [root / name for root, inside in zip(roots, names, strict=True) if name in inside]
