"""From a path in a request to a file uploaded here: the only way, for all components and endpoints."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from hsemotion_space.jobs.files import MEDIA  # browsers read it: results, never a source
from hsemotion_space.messages import Message
from hsemotion_space.settings import SettingsError

NO_FILE: Final = Message("This file was not uploaded to this server. Upload it again.", code="not_uploaded")
PRIVATE: Final = 0o700


class UploadError(SettingsError):
    """A request names something else than an uploaded file; the message can be shown."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """What a request names as a file: anything at all. Only :meth:`Uploads.claim` makes a path of it."""

    name: object


class Uploads:
    """The folder that Gradio stores uploads in, and a private one beside it with what was claimed.

    A claim is a hard link to the very file that was checked (a copy where links are impossible), under a name
    that no request can choose, so nothing can be put in its place between the check and the use. Gradio names
    the folder of an upload after the SHA-256 of its content: whoever can name a file has had its content.

    Args:
        folder: ``GRADIO_TEMP_DIR``; made if need be.
        claims: private folder on the same disk; made if need be.
    """

    def __init__(self, folder: Path, claims: Path) -> None:
        for made in (folder, claims):
            made.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        self.folder, self.claims = folder.resolve(), claims.resolve()

    def claim(self, named: NamedFile) -> Path:
        """Return a private path with the content of an uploaded file.

        Args:
            named: what a request names.

        Raises:
            UploadError: if it is not the path of a regular file below the folder, or leads there through a
                link.
        """
        parts = self._parts(named.name)
        with contextlib.ExitStack() as opened:

            def enter(name: str | Path, within: int | None) -> int:
                descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
                opened.callback(os.close, descriptor)
                return descriptor

            try:
                parent = enter(self.folder, None)
                for part in parts[:-1]:
                    parent = enter(part, parent)
                return self._link(parent, parts[-1])
            except OSError as error:
                raise UploadError(NO_FILE) from error

    def _parts(self, name: object) -> tuple[str, ...]:
        """Return the names below the folder that lead to a file."""
        if not isinstance(name, str) or "\0" in name or not PurePosixPath(name).is_relative_to(self.folder):
            raise UploadError(NO_FILE)
        parts = PurePosixPath(name).relative_to(self.folder).parts
        if not parts or parts[0] == MEDIA.name or ".." in parts:
            raise UploadError(NO_FILE)
        return parts

    def _link(self, parent: int, name: str) -> Path:
        """Open one file without following links, and return a link to what was opened.

        Raises:
            OSError: if that is impossible.
        """
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("not a regular file")
            target = self.claims / f"{found.st_dev:x}-{found.st_ino:x}{_suffix(name)}"
            try:
                with contextlib.suppress(FileExistsError):  # claimed before
                    os.link(name, target, src_dir_fd=parent, follow_symlinks=False)
                if os.path.samestat(target.lstat(), found):
                    return target
                target.unlink()
            except OSError:  # links are impossible here
                pass
            copy = self.claims / f"{uuid.uuid4().hex}{_suffix(name)}"
            with os.fdopen(os.dup(descriptor), "rb") as source, copy.open("xb") as written:
                shutil.copyfileobj(source, written)
            return copy
        finally:
            os.close(descriptor)


def _suffix(name: str) -> str:
    """Return the ending of a name, which browsers go by, or nothing if it is no usual one."""
    return suffix if re.fullmatch(r"[.][a-z0-9]{1,5}", suffix := PurePosixPath(name).suffix.lower()) else ""
