"""What to analyze: files, folders, patterns, lists and addresses, each checked before work starts."""

from __future__ import annotations

import glob
import mimetypes
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

import fsspec

from hsemotion_space.media.formats import MediaError, file_sha256, identify
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.settings import MediaLimits

MISSING: Final = Message("There is no such file.", code="missing")
NO_MATCH: Final = Message("No file matches this pattern.", code="no_match")
NOT_A_FILE: Final = Message("This is a pipe, a socket or a device, not a file.", code="not_a_file")
NO_ACCESS: Final = Message("You have no permission to read this.", code="no_access")
EMPTY: Final = Message("This folder contains no pictures or clips.", code="empty_folder")
OWN_FILES: Final = MediaLimits().for_own_files()  # what is recognized as a picture or a clip


class InputError(MessageError, ValueError):
    """The inputs of a command cannot be listed."""


@dataclass(frozen=True, slots=True)
class Input:
    """One file to analyze.

    Attributes:
        path: absolute path or address; the identity of the input.
        source: its name in tables: the path below the common folder of all arguments.
        fault: why it cannot be analyzed; None if nothing is known.
    """

    path: str
    source: str
    fault: Message | None = None


def find_inputs(arguments: Sequence[str]) -> tuple[list[Input], int]:
    """Return the inputs that arguments name, each once, and how many other files their folders contain.

    A folder stands for the pictures and clips in it and below; hidden ones are left out. A pattern such as
    ``clips/**/*.mp4`` stands for its matches, ``@list.txt`` for an argument per line. Whatever fsspec can
    read has an address, such as ``s3://bucket/clips``.

    Raises:
        InputError: if a list or an address cannot be read.
    """
    found: dict[str, Message | None] = {}
    roots, others = [], 0
    for argument in _arguments(arguments):
        root, files = _remote(argument) if is_remote(argument) else _local(os.path.abspath(argument))  # noqa: PTH100  links stay
        roots.append(root)
        for path, fault in files:
            others += path is None
            if path is not None:
                found.setdefault(path, fault)
    levels = zip(*(root.rstrip("/").split("/") for root in roots), strict=False)
    common = "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))
    return [Input(path, _source(path, common), fault) for path, fault in found.items()], others


def is_remote(path: str) -> bool:
    """Tell whether a path is an address."""
    return "://" in path


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """Yield a local file with the content of an input; a copy of a remote one is deleted afterwards.

    Raises:
        MediaError: if a remote file cannot be copied.
    """
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="hsemotion-") as folder:
        file = Path(folder) / "input"
        try:
            system, name = fsspec.core.url_to_fs(path)
            system.get_file(name, str(file))
        except Exception as error:
            raise MediaError(
                "The file could not be downloaded: {reason}.", code="not_downloaded", reason=_reason(error)
            ) from error
        yield file


def version_of(path: str) -> str:
    """Return what changes with the content of an input: a digest, or what a remote system knows of the file.

    Raises:
        MediaError: if it cannot be read.
    """
    if not is_remote(path):
        return file_sha256(Path(path))
    try:
        system, name = fsspec.core.url_to_fs(path)
        return str(system.ukey(name))
    except Exception as error:
        raise MediaError(MISSING) from error


def _arguments(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if not argument.startswith("@"):
            yield argument
            continue
        try:
            text = Path(argument[1:]).read_text("utf-8-sig", "surrogateescape")
        except OSError as error:
            text = "The list '{name}' cannot be read: {reason}."
            raise InputError(text, code="list", name=argument[1:], reason=error.strerror) from error
        yield from filter(None, text.splitlines())


def _local(path: str) -> tuple[str, Iterator[tuple[str | None, Message | None]]]:
    """Return the folder that names count from, and files with their faults; None for each other file."""
    if not os.path.lexists(path) and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  a pattern may be absolute
        files = [pair for match in matches for pair in _local(match)[1]]
        return _fixed(path), iter(files or [(path, NO_MATCH)])
    if Path(path).is_dir():
        return path, _folder(path)
    return os.path.dirname(path), iter([(path, _fault(path))])  # noqa: PTH120


def _fixed(pattern: str) -> str:
    """Return the folder that a pattern starts from."""
    return pattern[: min(pattern.find(sign) for sign in "*?[" if sign in pattern)].rpartition("/")[0]


def _fault(path: str) -> Message | None:
    if not Path(path).exists():
        return MISSING
    if not Path(path).is_file():
        return NOT_A_FILE
    return None if os.access(path, os.R_OK) else NO_ACCESS


def _folder(path: str) -> Iterator[tuple[str | None, Message | None]]:
    denied: list[OSError] = []
    empty = True
    for folder, folders, names in os.walk(path, onerror=denied.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = os.path.join(folder, name)  # noqa: PTH118
            is_input = Path(file).is_file() and _is_media(file)
            empty = empty and not is_input
            yield (file, _fault(file)) if is_input else (None, None)
    yield from ((str(error.filename), NO_ACCESS) for error in denied)
    if empty and not denied:
        yield path, EMPTY


def _is_media(file: str) -> bool:
    """Tell whether a name or the first bytes promise a picture or a clip; a damaged one is reported."""
    kind, _ = mimetypes.guess_type(file)
    if (kind or "").startswith(("image/", "video/")):
        return True
    try:
        return bool(identify(Path(file), OWN_FILES))
    except MediaError:
        return False


def _remote(address: str) -> tuple[str, Iterator[tuple[str | None, Message | None]]]:
    """Return the folder that names count from, and files with their faults; None for each other file."""
    try:
        system, name = fsspec.core.url_to_fs(address)
        if glob.has_magic(name):
            root, names = _fixed(name), sorted(system.glob(name))
        elif system.isdir(name):
            root, names = name, sorted(system.find(name))
        else:
            file = system.unstrip_protocol(name)
            return file.rpartition("/")[0], iter([(file, None if system.exists(name) else MISSING)])
    except Exception as error:
        text = "'{address}' cannot be read: {reason}."
        raise InputError(text, code="remote", address=address, reason=_reason(error)) from error
    media = [
        str(system.unstrip_protocol(file))
        for file in names
        if (mimetypes.guess_type(file)[0] or "").startswith(("image/", "video/"))
    ]
    files: list[tuple[str | None, Message | None]] = [(file, None) for file in media] or [(address, EMPTY)]
    return system.unstrip_protocol(root), iter([*files, *[(None, None)] * (len(names) - len(media))])


def _source(path: str, common: str) -> str:
    name = path.removeprefix(common.rstrip("/") + "/") or path
    return name.encode("utf-8", "backslashreplace").decode("utf-8")  # names may carry bytes that are no text


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
