"""The error of unusable data, and files that are read with a clear error and replaced as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import pyarrow as pa
from safetensors import SafetensorError

from hsemotion_space.messages import MessageError

UNREADABLE: Final = (
    pa.ArrowException, AttributeError, EOFError, LookupError, OverflowError, RuntimeError, SafetensorError,
    TypeError, UnpicklingError,
    ValueError,
)  # fmt: skip
"""What readers raise for a damaged file or one of another layout."""


class DataError(MessageError, ValueError):
    """Data cannot be used; the message names the file and the reason."""


@contextmanager
def reading(file: object, kind: str, code: str = "unusable") -> Iterator[None]:
    """Turn errors of reading a file into a :class:`DataError` that names it and the ``kind`` expected."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            "{file} cannot be read ({reason}); expected a {kind}.",
            code="unreadable",
            file=file,
            reason=reason,
            kind=kind,
        ) from error
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise DataError(
            "{file} is not a valid {kind} ({reason}).", code=code, file=file, kind=kind, reason=reason
        ) from error


@contextmanager
def located(place: object) -> Iterator[None]:
    """Put a place, such as a file and a line, before the message of a :class:`DataError`; the code stays."""
    try:
        yield
    except DataError as error:
        raise DataError("{place}: {problem}", code=error.code, place=place, problem=error.message) from error


def unexpected(expected: str, found: str, code: str) -> DataError:
    """Return the error for text of another form, which is quoted up to its eightieth character."""
    excerpt = found if len(found) <= 80 else found[:80] + "…"
    return DataError("expected {expected}, found {found!r}.", code=code, expected=expected, found=excerpt)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``file`` at the end; after an error the old one stays."""
    partial = file.with_name(file.name + ".partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
