"""The HTTP side of a stand-in for the Hugging Face Hub: answers, ranges, and faults between server and
client."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple, cast
from urllib.parse import unquote

Kind = Literal["status", "cut", "flip", "truncate", "hang", "reset", "garbage", "lost_response"]
BODY_KINDS = ("cut", "flip", "truncate")


@dataclass(slots=True)
class Fault:
    """What goes wrong with requests whose method is `method` ("" is any) and whose path and query match the
    expression `path`.

    Kinds: `status` answers with a status, headers and body of choice; `cut` sends the first `at` bytes of the
    body and closes; `flip` changes the byte at `at`; `truncate` sends the first `at` bytes as if they were
    all; `hang` waits `wait_s` and then answers; `reset` closes without an answer; `garbage` answers 200 with
    something that is not JSON; `lost_response` does what was asked and closes without an answer. `cut`,
    `flip` and `truncate` leave HEAD requests alone, and `at` is the middle of the body unless given. `count`
    requests are hit (None: all); `hits` tells how many were."""

    kind: Kind
    path: str = ""
    method: str = ""
    count: int | None = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    at: int | None = None
    wait_s: float = 60.0
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        left = self.count is None or self.hits < self.count
        fits = self.method in {"", method} and not (method == "HEAD" and self.kind in BODY_KINDS)
        return left and fits and re.search(self.path, path) is not None


class Request(NamedTuple):
    """One request as it arrived: the decoded path with its query, its range, and whether a token was sent."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status, json.dumps(value).encode(), {"Content-Type": "application/json"} | dict(headers or {})
    )


def file_answer(content: bytes, span: str, headers: Mapping[str, str]) -> Answer:
    """Answer with a file, or with the part of it that a `Range` header asks for."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | dict(headers)
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", span)
    if asked is None:
        return Answer(200, content, headers)
    size, start = len(content), int(asked[1])
    stop = min(int(asked[2]) + 1, size) if asked[2] else size
    if start >= stop:
        return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
    return Answer(206, content[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})


Responder = Callable[[str, str, Message, bytes], Answer]


class FaultyServer(ThreadingHTTPServer):
    """A server on a free port of the loopback interface that asks `respond` for each answer and spoils it as
    its faults say."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, respond: Responder) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.connections: dict[socket.socket, threading.Thread] = {}
        self._loop = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._loop.start()

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            fault = next((fault for fault in self.faults if fault.takes(method, path)), None)
            if fault is not None:
                fault.hits += 1
            return fault

    def stop(self) -> None:
        """End every connection, idle, busy or hanging, and wait for their threads."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._loop.join()
        with self.lock:
            connections = dict(self.connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(1.0)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep mistakes of this server; a client that went away is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def hub(self) -> FaultyServer:
        return cast("FaultyServer", self.server)

    def setup(self) -> None:
        super().setup()
        with self.hub.lock:
            self.hub.connections[self.connection] = threading.current_thread()
        if self.hub.closing.is_set():
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        with self.hub.lock:
            self.hub.connections.pop(self.connection, None)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""

    def do_GET(self) -> None:
        try:
            self._serve()
        except ConnectionError:
            self.close_connection = True
        except Exception as error:  # noqa: BLE001
            self.hub.errors.append(error)
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        body = self._read_body()
        path = unquote(self.path)
        headers = {"range": self.headers["Range"]} if "Range" in self.headers else {}
        headers |= {"authorization": "sent"} if "Authorization" in self.headers else {}
        with self.hub.lock:
            self.hub.requests.append(Request(self.command, path, headers))
        fault = self.hub.take_fault(self.command, path)
        kind = fault.kind if fault else None
        if kind == "reset" or (fault and kind == "hang" and self.hub.closing.wait(fault.wait_s)):
            self.close_connection = True
        elif fault and kind == "status":
            self._send(Answer(fault.status, fault.body, fault.headers), None)
        elif kind == "garbage":
            self._send(Answer(200, b"<html>this is not JSON</html>", {"Content-Type": "text/html"}), None)
        else:
            answer = self.hub.respond(self.command, self.path, self.headers, body)
            if kind == "lost_response":
                self.close_connection = True
            else:
                self._send(answer, fault)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = sent = answer.body
        if fault and body and fault.kind in BODY_KINDS:
            at = len(body) // 2 if fault.at is None else min(fault.at, len(body) - 1)
            if fault.kind == "flip":
                body = sent = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            else:
                sent = body[:at]
                body = sent if fault.kind == "truncate" else body
                self.close_connection = fault.kind == "cut"
        self.send_response(answer.status)
        for name, text in answer.headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
