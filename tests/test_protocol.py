"""The server under the page, on a real socket: time for the head of a request, and a log without names of
visitors' files."""

from __future__ import annotations

import importlib.metadata
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType

import gradio.http_server
import gradio.queueing
import gradio.routes
import gradio.utils
import pytest
import uvicorn
from page_makers import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from hsemotion_space.ui.protocol import TimedProtocol, install

HEAD_S = 0.4


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        body = await Request(scope, receive).body()
        await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(TimedProtocol, "head_s", HEAD_S)
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    install()
    number = free_port()
    server = uvicorn.Server(
        uvicorn.Config(slow, port=number, log_level="warning", lifespan="off", timeout_keep_alive=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join()


def closed_after(connection: socket.socket) -> float:
    """Return the seconds until the server closes a connection."""
    started_s = time.monotonic()
    connection.settimeout(10 * HEAD_S)
    while connection.recv(4096):
        pass
    return time.monotonic() - started_s


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"]
)
def test_a_head_that_does_not_end_is_given_up(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        assert closed_after(connection) < 5 * HEAD_S


def test_a_head_that_trickles_is_given_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection, pytest.raises(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(40):
            connection.sendall(f"X-{number}: 1\r\n".encode())
            time.sleep(HEAD_S / 8)


def test_a_slow_body_is_the_business_of_the_door(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(2 * HEAD_S)
        connection.sendall(b"cd")
        assert b"200 OK" in connection.recv(4096)


def test_errors_of_gradio_are_logged_without_their_texts(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    for module in (gradio.routes, gradio.queueing):
        caplog.clear()
        try:
            raise ValueError("/uploads/ab/face.png")
        except ValueError:
            with caplog.at_level(logging.ERROR):
                module.traceback.print_exc()
        assert (
            "ValueError in test_errors_of_gradio" in caplog.text
            and "face.png" not in caplog.text + "".join(capsys.readouterr())
        )


def test_no_code_is_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Space, Gradio would let anybody on port 7887 write into the program."""
    started: list[dict[str, object]] = []
    reloading = ModuleType("spaces.reloading")
    reloading.start_reload_server = lambda **options: started.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", ModuleType("spaces"))
    monkeypatch.setitem(sys.modules, "spaces.reloading", reloading)
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "1.0")
    monkeypatch.setattr(gradio.http_server, "watchfn_spaces", gradio.utils.watchfn_spaces)
    for name, value in {"SYSTEM": "spaces", "SPACE_ID": "ann/space"}.items():
        monkeypatch.setenv(name, value)

    def serve() -> None:
        app = Starlette()
        app.blocks = None  # type: ignore[attr-defined]
        *_, server = gradio.http_server.start_server(app, "127.0.0.1", free_port())  # type: ignore[arg-type]
        server.close()

    serve()
    assert started, "or this test shows nothing"
    started.clear()
    install()
    serve()
    assert not started
