"""Bodies of requests: read within limits of size and time, and checked before Gradio sees them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from starlette.types import Message, Receive

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

JSON_DEPTH: Final = 20
FILE_TYPE: Final = "gradio.FileData"
IDLE_S: Final = 20.0  # between two pieces of a body
LONGEST_S: Final = 300.0  # a whole body


class RequestError(ValueError):
    """A request is refused; the message can be shown.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class BoundedBody:
    """A ``receive`` that counts: it stops a body that is too large or too slow.

    Args:
        receive: of the server.
        limit: bytes.
        each: called with every piece of the body before it is passed on.
    """

    def __init__(self, receive: Receive, limit: int, each: Callable[[bytes], None] | None = None) -> None:
        self.receive, self.limit, self.each = receive, limit, each
        self.total, self.complete = 0, False
        self.until_s = time.monotonic() + LONGEST_S

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            RequestError: if the body is too large or too slow.
        """
        if self.complete:  # what comes now tells that the client has gone, whenever that is
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), min(IDLE_S, self.until_s - time.monotonic()))
        except TimeoutError as error:
            raise RequestError(408, "The request arrives too slowly.") from error
        piece: bytes = message.get("body", b"")
        self.total += len(piece)
        self.complete = not message.get("more_body", False)
        if self.total > self.limit:
            raise RequestError(413, too_large(self.limit))
        if self.each is not None and piece:
            self.each(piece)
        return message

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            RequestError: as above.
        """
        body = bytearray()
        while not self.complete:
            body += (await self()).get("body", b"")
        return bytes(body)


def too_large(limit: int) -> str:
    """Return what is said of a body over a limit in bytes."""
    return f"The request is larger than {limit / 2**20:.1f} MB."


def read_json(body: bytes) -> Json:
    """Return the value of a body; None of an empty one.

    Raises:
        RequestError: if it is no JSON, or holds what no page of ours sends: NaN, deep nesting, a file that
            was not uploaded.
    """
    try:
        value: Json = json.loads(body, parse_constant=_no_constant) if body.strip() else None
    except (ValueError, RecursionError) as error:
        raise (
            error if isinstance(error, RequestError) else RequestError(400, "The request is not valid JSON.")
        ) from error
    _check(value, 0)
    return value


def session_in(value: Json) -> str:
    """Return the session that a request names; empty if it names none."""
    session = value.get("session_hash") if isinstance(value, dict) else None
    return session if isinstance(session, str) else ""


def _no_constant(name: str) -> Json:
    raise RequestError(400, f"{name} is not a number that can be used.")


def _check(value: Json, depth: int) -> None:
    """Refuse what makes Gradio fetch, decode or open something by itself."""
    if depth > JSON_DEPTH:
        raise RequestError(400, "The request is nested too deeply.")
    if isinstance(value, dict):
        _check_file(value)
        for item in value.values():
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


def _check_file(value: dict[str, Json]) -> None:
    """Check a table that names a file.

    Gradio checks the paths of those tables alone that say in ``meta`` that they are files, but components
    take any table with a ``path``.
    """
    path, url, meta = value.get("path"), value.get("url"), value.get("meta")
    if isinstance(url, str) and url.lstrip().lower().startswith("data:"):
        raise RequestError(400, "Files must be uploaded; data URLs are not read.")
    if path is None or path == "":
        return
    if not isinstance(path, str) or not path.startswith("/"):
        raise RequestError(400, "Files must be uploaded; a URL in place of a file is not fetched.")
    if not isinstance(meta, dict) or meta.get("_type") != FILE_TYPE:
        raise RequestError(400, "Files must be uploaded; a path alone names none.")


class PartCounter:
    """Counts the parts of a multipart body while it passes.

    Args:
        content_type: of the request.
        most: parts that may come.

    Raises:
        RequestError: if the type is another one or has no boundary.
    """

    def __init__(self, content_type: str, most: int) -> None:
        found = re.fullmatch(
            r"multipart/form-data\s*;.*?\bboundary=(?:\"([^\"]{1,70})\"|([^\s;,\"]{1,70})).*",
            content_type,
            re.IGNORECASE | re.DOTALL,
        )
        if found is None:
            raise RequestError(415, "Files must be sent as multipart/form-data.")
        self.delimiter = b"--" + (found[1] or found[2]).encode("latin-1")
        self.most, self.parts, self.tail = most, 0, b""

    def __call__(self, piece: bytes) -> None:
        """Take in a piece.

        Raises:
            RequestError: if there are too many parts.
        """
        text = self.tail + piece
        *parts, rest = text.split(self.delimiter)
        self.parts += len(parts)  # the last delimiter closes the body
        self.tail = rest[-(len(self.delimiter) - 1) :]
        if self.parts > self.most + 1:
            raise RequestError(400, f"At most {self.most} files can be uploaded at once.")
