"""HTTP by hand: whole, cut off, slow and wrong requests, as no library would send them."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Final

PATIENCE_S: Final = 60.0
STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: by name in small letters.
        body: all of it; of a stream of events the beginning.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(method: str, target: bytes, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a request; what ``headers`` say goes before what is right."""
    lines = {
        "host": "127.0.0.1",
        **({"content-length": str(len(body))} if body or method == "POST" else {}),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1", "replace")
    return method.encode("latin-1") + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + body


@contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    """Yield a connection to a server on this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        yield connection


def exchange(port: int, content: bytes, method: str = "GET", pieces: int = 1) -> Answer | None:
    """Send bytes, slowly if there are several pieces, and return the answer; None if the server closes
    without one.

    Raises:
        TimeoutError: if nothing comes.
    """
    with connect(port) as connection:
        size = -(-len(content) // pieces) or 1
        with contextlib.suppress(ConnectionError):  # it may refuse before it has read everything
            for start in range(0, len(content), size):
                connection.sendall(content[start : start + size])
                if pieces > 1:
                    time.sleep(0.02)
        return read_answer(connection, method)


def read_answer(connection: socket.socket, method: str) -> Answer | None:
    """Return the next answer of a connection; None if it is closed without one."""
    response = HTTPResponse(connection, method=method)
    try:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        endless = headers.get("content-type", "").startswith(STREAM)
        body = response.read1(65_536) if endless else response.read()
    except (HTTPException, ConnectionError):
        return None
    return Answer(response.status, headers, body)


def leave(port: int, content: bytes, share: float, *, abrupt: bool) -> None:
    """Send a part of some bytes, then close: with a reset, or as if all had been sent."""
    with connect(port) as connection:
        if abrupt:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(ConnectionError):
            connection.sendall(content[: int(len(content) * share)])
