"""What the server under Gradio lacks: a header timeout, safe headers, a log without names, no reloading."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from contextvars import ContextVar
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast

import gradio.http_server
import gradio.queueing
import gradio.routes
import uvicorn.config
from gradio.utils import SpacesReloader
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 15.0  # from the first byte of a connection, or of its next request, to the end of the head
SAFE_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
        # a Space is shown in a frame of huggingface.co
        "form-action 'self'; frame-ancestors 'self' https://huggingface.co"
    ),
}
"""Headers of every answer."""
FAILED: ContextVar[bool] = ContextVar("FAILED", default=False)
"""Whether the request that is being answered met an error that nobody foresaw."""

log = logging.getLogger(__name__)


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose request does not start in time; uvicorn waits forever."""

    head_s = HEAD_S
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.head_s, transport.close)

    def data_received(self, data: bytes) -> None:
        """Go on counting as long as no request has begun."""
        super().data_received(data)
        begun = self.cycle is not None and not self.cycle.response_complete
        if begun and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not begun and self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.head_s, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP at all, with the headers of every other answer."""
        body = msg.encode("ascii", "replace")
        headers = {
            "content-type": "text/plain; charset=utf-8",
            "content-length": len(body),
            "connection": "close",
            **SAFE_HEADERS,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{head}\r\n".encode("ascii") + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)


def install() -> None:
    """Change Gradio and its server in this process.

    Servers use :class:`TimedProtocol`, errors are logged without their texts, and no code is reloaded: in a
    Space, Gradio would listen on port 7887 and write what anybody sends there, a hostile worker included,
    into the files and the memory of this process.
    """
    gradio.http_server.watchfn_spaces = _reload_nothing  # type: ignore[attr-defined]
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimedProtocol.__name__}"
    uvicorn.config.WS_PROTOCOLS["auto"] = None
    quiet = cast("ModuleType", SimpleNamespace(print_exc=_log_error))
    gradio.routes.traceback = gradio.queueing.traceback = quiet  # type: ignore[attr-defined]


def _reload_nothing(reloader: SpacesReloader) -> None:
    """Thread: wait until the server stops."""
    reloader.stop_event.wait()


def _log_error(*_given: Any) -> None:
    """Log the kind and origin of the current error; its text may contain names of uploads."""
    FAILED.set(True)
    kind, _error, trace = sys.exc_info()
    if kind is not None and trace is not None:
        place = traceback.extract_tb(trace)[-1]
        log.error(
            "%s in %s, line %s of %s",
            kind.__name__,
            place.name,
            place.lineno,
            place.filename.rpartition("/")[2],
        )
