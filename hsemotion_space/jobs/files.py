"""The media files of jobs: kept while a job is known, and shown to browsers."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsemotion_space.jobs.requests import JobError

MEDIA: Final = Path("uploads", "shown")  # in the folder of the server; browsers may read it


class JobFiles:
    """The media file of each job until the job is forgotten: a hard link, or a copy on another disk.

    Args:
        root: folder of the server, which no other server uses; None lets jobs use their files where they are.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        if root is not None:
            (root / MEDIA).mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, path: Path, job_id: str) -> Path:
        """Return the path at which the file stays as long as its job is known.

        Raises:
            JobError: if the file is gone, there is no room for it, or it lies outside the root: whatever path
                a job is given, it reads files of this server alone.
        """
        if self.root is None:
            return path
        suffix = path.suffix.lower() if re.fullmatch(r"[.]\w{1,5}", path.suffix) else ""
        target = self.root / MEDIA / job_id / f"media{suffix}"
        try:
            source = path.resolve(strict=True)  # a link to a link would go with the upload
            if not source.is_relative_to(self.root.resolve()) or not source.is_file():
                raise FileNotFoundError(path)
            target.parent.mkdir(mode=0o700)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
        except FileNotFoundError as error:
            raise JobError(
                "This file is no longer on the server. Upload it again.", code="file_gone"
            ) from error
        except OSError as error:
            self.remove(job_id)
            text = "The server has no room for this file at the moment. Try again in a few minutes."
            raise JobError(text, code="no_room") from error
        return target

    def find(self, job_id: str) -> Path | None:
        """Return the file of a job, None if there is none; the id may be any text."""
        if self.root is None or not re.fullmatch("[0-9a-f]{32}", job_id):
            return None
        with suppress(OSError):  # the folder may be deleted meanwhile, at which a glob fails
            return next((self.root / MEDIA / job_id).glob("media*"), None)
        return None

    def remove(self, job_id: str) -> None:
        """Delete the file of a job; nothing happens if there is none."""
        if self.root is not None:
            shutil.rmtree(self.root / MEDIA / job_id, ignore_errors=True)
