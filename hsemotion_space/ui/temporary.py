"""The folder for uploads: of one server, swept while it runs, removed even if the server was killed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hsemotion_space.jobs.files import MEDIA

PREFIX: Final = "hsemotion-space-"
LOCK: Final = "lock"
SWEPT: Final = ("uploads", "claims", "results")
SWEEP_EVERY_S: Final = 60.0
STARTING_S: Final = 60.0  # so long a folder may be without its lock
log = logging.getLogger(__name__)
_held: Final[list[int]] = []  # descriptors; what they lock is free when the process ends, however it ends


def make_folder() -> Path:
    """Return a new folder, after removing those of servers that are not running any more."""
    remove_left_overs(Path(tempfile.gettempdir()), time.time())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    _lock(descriptor)
    _held.append(descriptor)
    return folder


def remove_left_overs(parent: Path, now_s: float) -> int:
    """Remove the folders of servers that were killed; return how many there were."""
    gone = 0
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not folder.is_dir() or folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if not (folder / LOCK).exists():
                abandoned = now_s - folder.stat().st_mtime > STARTING_S
            else:
                descriptor = os.open(folder / LOCK, os.O_RDWR)
                try:
                    abandoned = _lock(descriptor)
                finally:
                    os.close(descriptor)
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)
                gone += 1
    return gone


def _lock(descriptor: int) -> bool:
    """Take the lock of a file; return whether nobody else has it."""
    try:
        import fcntl  # noqa: PLC0415  not on every platform
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path, age_s: float, now_s: float) -> int:
    """Delete uploads in ``folder`` older than ``age_s``, then empty folders; return the number of files.

    Files of jobs are not touched; they are deleted with their jobs.

    Gradio's own clean-up leaves aborted uploads and all folders behind.
    """
    gone = 0
    for path in (path for part in SWEPT for path in walk(folder / part)):
        if path.is_relative_to(folder / MEDIA):
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif now_s - path.lstat().st_mtime > age_s:
                path.unlink()
                gone += 1
        except OSError:  # in use, not empty, or gone already
            continue
    return gone


def walk(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, contents before their folder.

    Unlike ``Path.rglob``, it passes over folders that others delete meanwhile.
    """
    for place, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            yield Path(place, name)


def sweep_for_ever(folder: Path, age_s: float) -> None:
    """Sweep again and again, as long as the folder is there; no error ends it."""
    while folder.exists() and not sys.is_finalizing():
        try:
            sweep(folder, age_s, time.time())
        except Exception:
            log.exception("The temporary files could not be swept; the next try follows.")
        time.sleep(SWEEP_EVERY_S)
