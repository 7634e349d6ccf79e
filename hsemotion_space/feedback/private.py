"""Files and folders that no other user of the machine can read: they hold faces, comments and keys."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_OTHERS: Final = 0o077


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone, unless it is there; folders above it get the usual mode.

    Raises:
        OSError: if it cannot be made.
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)


def make_file(file: Path) -> None:
    """Make an empty file for this user alone, unless it is there.

    Raises:
        OSError: if it cannot be made.
    """
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, FILE_MODE))


def write(file: Path, content: bytes) -> None:
    """Write a new file that only this user can read.

    Raises:
        OSError: if it is there or cannot be written.
    """
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as out:
        out.write(content)


def tighten(folder: Path, names: Collection[str]) -> None:
    """Remove other users' read access, left by earlier versions: ``names``, logs, locks and copies.

    The folder is closed too, unless something else lies in it, which others may be meant to reach. What
    belongs to another user stays.
    """
    with suppress(OSError):
        entries = list(folder.iterdir())
        begins = tuple(f"{name}{mark}" for name in names for mark in ".-")
        ours = [entry for entry in entries if entry.name in names or entry.name.startswith(begins)]
        for path in [*ours, *([folder] if len(ours) == len(entries) else [])]:
            with suppress(OSError):
                mode = path.lstat().st_mode
                if mode & _OTHERS and not path.is_symlink():
                    path.chmod(mode & 0o7777 & ~_OTHERS)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
