"""What Gradio leaves open, closed before it: body sizes, unused routes, foreign sites, URLs in place of files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

UNUSED_ROUTES = re.compile(
    r"/(gradio_api/)?(file=https?:|proxy=|deep_link|process_recording|component_server|monitoring|runs|run_history|history|vibe)",
    re.IGNORECASE,
)
LARGE_ROUTE = re.compile(r"/(gradio_api/)?upload/?$")
JSON_DEPTH = 20
OWN_CONTENT_ONLY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """Largest bodies in bytes."""

    upload_bytes: int
    other_bytes: int = 256 * 1024


class _TooLargeError(Exception):
    """The body went over its limit while it was read."""


class Guard:
    """ASGI middleware.

    Refuses with a plain sentence: bodies over the limit (413), routes the page does not use (404), posts from other sites (403),
    and JSON that smuggles a URL, a ``data:`` image, NaN or deep nesting (400). Adds ``nosniff``, ``no-referrer``, a content security
    policy under which a browser asks no other server for anything, and, for files, ``no-store``.

    Args:
        app: behind it.
        limits: of bodies.
        script: a file of the page itself, the only one that browsers may keep; its address changes with its version.
    """

    def __init__(self, app: ASGIApp, limits: GuardLimits, script: Path | None = None) -> None:
        self.app, self.limits = app, limits
        self.script = f"/file={script}" if script else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), str(scope["path"])
        limit = self.limits.upload_bytes if LARGE_ROUTE.search(path) else self.limits.other_bytes
        refusal = self._refusal(scope, headers, limit)
        if refusal is not None:
            await refusal(scope, receive, self._with_headers(send, path))
            return
        if scope["method"] == "POST" and "json" in headers.get("content-type", ""):
            try:
                body = await _read(receive, limit)
                _check(json.loads(body, parse_constant=_no_constant) if body else None, 0)
            except _TooLargeError:
                await _too_large(limit)(scope, receive, send)
                return
            except (ValueError, RecursionError) as error:
                words = str(error) if isinstance(error, _BadValueError) else "The request is not valid JSON."
                await PlainTextResponse(words, 400)(scope, receive, send)
                return
            receive = _replay(body, receive)
        else:
            receive = _counted(receive, limit)
        try:
            await self.app(scope, receive, self._with_headers(send, path))
        except _TooLargeError:
            await _too_large(limit)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers, limit: int) -> PlainTextResponse | None:
        if UNUSED_ROUTES.match(str(scope["path"])):
            return PlainTextResponse("Not found.", 404)
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not _same_site(headers):
            return PlainTextResponse("This request comes from another site.", 403)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            return _too_large(limit)
        return None

    def _with_headers(self, send: Send, path: str) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["content-security-policy"] = OWN_CONTENT_ONLY
                if self.script and path.endswith(self.script) and message["status"] == 200:
                    headers["cache-control"] = "public, max-age=31536000, immutable"
                elif "/file=" in path:
                    headers["cache-control"] = "no-store"
            await send(message)

        return sending


class _BadValueError(ValueError):
    """A value in the JSON body that no page of ours sends."""


def _too_large(limit: int) -> PlainTextResponse:
    return PlainTextResponse(f"The request is larger than {limit / 2**20:.1f} MB.", 413, {"connection": "close"})


def _same_site(headers: Headers) -> bool:
    """Compare Origin with Host; programs send no Origin."""
    origin = headers.get("origin")
    if origin is None:
        return True
    host = headers.get("x-forwarded-host") or headers.get("host", "")
    return urlsplit(origin).netloc.lower() == host.split(",")[0].strip().lower()


def _no_constant(name: str) -> Json:
    raise _BadValueError(f"{name} is not a number that can be used.")


def _check(value: Json, depth: int) -> None:
    """Refuse what makes Gradio fetch or decode something by itself."""
    if depth > JSON_DEPTH:
        raise _BadValueError("The request is nested too deeply.")
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "path" and isinstance(item, str) and item and not item.startswith("/"):
                raise _BadValueError("Files must be uploaded; a URL in place of a file is not fetched.")
            if key == "url" and isinstance(item, str) and item.lower().startswith("data:"):
                raise _BadValueError("Files must be uploaded; data URLs are not read.")
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            raise _TooLargeError
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _counted(receive: Receive, limit: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise _TooLargeError
        return message

    return counted
