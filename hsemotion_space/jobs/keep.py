"""The files of jobs that have not ended, in a private folder, where no clean-up of uploads reaches them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from hsemotion_space.jobs.status import JobError

_OURS = re.compile(r"[0-9a-f]{32}")


class Kept:
    """Files by the id of their job: hard links, or copies where the folder lies on another disk.

    Args:
        folder: of one runner alone; it is made if need be, and only this user can read it. Files of jobs that an earlier runner left
            there are deleted. Without a folder, jobs use their files where they are.

    Raises:
        OSError: if the folder cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            for file in folder.iterdir():
                if _OURS.fullmatch(file.name):
                    file.unlink()

    def take(self, path: Path, job_id: str) -> Path:
        """Return the path under which the file stays as long as its job needs it.

        Raises:
            JobError: if the file is gone, cannot be kept, or lies outside of the folder around the kept ones: whatever jobs
                are given, they read what belongs to this server alone.
        """
        if self.folder is None:
            return path
        target = self.folder / job_id
        try:
            source = path.resolve(strict=True)  # a link to a link would go with the upload
            if not source.is_relative_to(self.folder.resolve().parent) or not source.is_file():
                raise FileNotFoundError(path)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
                target.chmod(0o600)
        except FileNotFoundError as error:
            raise JobError("This file is not here any more. Please add it again.") from error
        except OSError as error:
            self.drop(job_id)
            raise JobError("The server has no room for this file at the moment. Please try again in a few minutes.") from error
        return target

    def drop(self, job_id: str) -> None:
        """Delete what was kept for a job; nothing happens if there is nothing."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / job_id).unlink()
