"""The guard of the page: which requests reach Gradio, their size and time limits, response headers."""

from __future__ import annotations

import errno
import json
import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from gradio.route_utils import FnIndexInferError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsemotion_space.logs import log_event
from hsemotion_space.ui.bodies import BoundedBody, PartCounter, RequestError, read_json, session_in, too_large
from hsemotion_space.ui.clients import client_in
from hsemotion_space.ui.protocol import FAILED, SAFE_HEADERS
from hsemotion_space.ui.quotas import NO_SPACE, SessionQuota, UploadQuota

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
UPLOAD: Final = "/upload"
READ: Final = re.compile(
    r"/|/config/?|/theme\.css|/robots\.txt|/favicon\.ico|/manifest\.json|/pwa_icon(/\w+)?|/app_id/?|/info/?|/startup-events"
    r"|/(static|assets|svelte)/.*|/file=/.*|/heartbeat/(?P<session>[^/]+)|/queue/(data|status)|/call/[^/]+/[^/]+|/upload_progress",
    re.DOTALL,
)
SIGN_IN: Final = frozenset({"/login/huggingface", "/login/callback", "/logout"})
"""Routes that are read where people can sign in."""
WRITTEN: Final = re.compile(rf"{UPLOAD}/?|/queue/join|/(run|api|call)/[^/]+/?|/cancel|/reset/?")
"""Routes that the page and ``gradio_client`` use, without the prefix of Gradio's own; all others are closed.
"""
OPENED: Final = re.compile(r"^/(upload|queue|run|api|call|cancel|reset|heartbeat|file|static|assets)\b")
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MALFORMED: Final = (LookupError, TypeError, AttributeError, FnIndexInferError)
"""What Gradio raises while it reads a form or seeks a function; errors of functions it answers by itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """What the guard lets through.

    Attributes:
        upload_bytes: largest body of an upload.
        other_bytes: largest body of any other request.
        files: files in one upload.
        hosts: names that the page answers to; empty for any.
        uploads: bytes by network and in all; None for no bound.
        sessions: by network; None for no bound.
        sign_in: whether people can sign in.
    """

    upload_bytes: int
    other_bytes: int = 256 * 1024
    files: int = 1
    hosts: frozenset[str] = frozenset()
    uploads: UploadQuota | None = field(default=None, repr=False)
    sessions: SessionQuota | None = field(default=None, repr=False)
    sign_in: bool = False


class Guard:
    """ASGI middleware.

    Refuses with a plain sentence: names that the server does not have (403), methods (405) and routes (404)
    that the page does not use, posts from other sites (403), bodies that are too large (413), too slow (408)
    or too many (429, 507), and JSON that names a file in another way than the page does (400). What is passed
    on as JSON is what was checked, whatever the request called itself. An error of the layers behind becomes
    a sentence with a code, by which the log tells what it was.

    Args:
        app: behind it.
        limits: of requests.
        script: a file of the page itself, the only one that browsers may keep; its address changes with its
            version.
    """

    def __init__(self, app: ASGIApp, limits: GuardLimits, script: Path | None = None) -> None:
        self.app, self.limits = app, limits
        self.script = f"/file={script}" if script else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send, self._kept_by(str(scope["path"])))
        try:
            await self._pass_on(scope, receive, answer)
        except RequestError as error:
            log_event(
                "refusal",
                where=next(iter(OPENED.findall(_route(scope))), "other"),
                method=scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other",
                status=error.status,
            )
            await answer.refuse(scope, receive, error.status, str(error))
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001  whatever Gradio raises; its text may hold names of files
            # a stream of events has told that nothing is there
            if answer.started and isinstance(error.__cause__, HTTPException):
                await answer({"type": "http.response.body"})
                return
            await answer.refuse(scope, receive, *_failure(error, scope))

    async def _pass_on(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Check a request and let Gradio answer it.

        Raises:
            RequestError: if it is refused.
        """
        headers, route = Headers(scope=scope), _route(scope)
        self._check_head(scope, headers, route)
        limit = self.limits.upload_bytes if route.startswith(UPLOAD) else self.limits.other_bytes
        client = client_in(headers, scope["client"][0] if scope.get("client") else "")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise RequestError(413, too_large(limit))
        if scope["method"] != "POST":
            self._count_session(client, _session_of(scope, route))
            await self.app(scope, BoundedBody(receive, limit), answer)
        elif WRITTEN.fullmatch(route) and route.rstrip("/") == UPLOAD:
            await self.app(scope, self._counted(receive, headers, client), answer)
        else:
            value = read_json(await BoundedBody(receive, limit).read())
            self._count_session(client, session_in(value))
            checked = json.dumps(value).encode() if value is not None else b""
            await self.app(_as_json(scope, checked), _replay(checked, receive), answer)

    def _check_head(self, scope: Scope, headers: Headers, route: str) -> None:
        """Check what comes before the body.

        Raises:
            RequestError: if the request is refused.
        """
        host = _name_of(headers.get("host", ""))
        if self.limits.hosts and host not in self.limits.hosts:
            raise RequestError(
                403,
                "This server does not answer to that name. Set HSEMOTION_HOSTS to the name under which"
                " visitors reach it.",
            )
        routes = {"GET": READ, "HEAD": READ, "OPTIONS": READ, "POST": WRITTEN}.get(scope["method"])
        if routes is None:
            raise RequestError(405, "This method is not used here.")
        signs_in = self.limits.sign_in and scope["method"] == "GET" and route in SIGN_IN
        if not routes.fullmatch(route) and not signs_in:
            raise RequestError(404, "Not found.")
        if scope["method"] == "POST" and not _same_site(headers):
            raise RequestError(403, "This request comes from another site.")

    def _counted(self, receive: Receive, headers: Headers, client: str) -> BoundedBody:
        """Return the body of an upload, which counts what it passes on.

        Raises:
            RequestError: if it cannot be taken.
        """
        parts = PartCounter(headers.get("content-type", ""), self.limits.files)
        quota = self.limits.uploads
        if quota is None:
            return BoundedBody(receive, self.limits.upload_bytes, parts)
        length = headers.get("content-length", "")
        upload = quota.begin(client, int(length) if length.isdigit() else 0)

        def count(piece: bytes) -> None:
            parts(piece)
            quota.add(upload, len(piece))

        return BoundedBody(receive, self.limits.upload_bytes, count)

    def _count_session(self, client: str, session: str) -> None:
        if self.limits.sessions is not None and session:
            self.limits.sessions.use(client, session)

    def _kept_by(self, path: str) -> str:
        """Return how long browsers may keep what is at a path; empty where the guard does not decide."""
        if self.script and path.endswith(self.script):
            return "public, max-age=31536000, immutable"
        return "no-store" if "/file=" in path else ""


class _Answer:
    """A ``send`` that adds the headers of every answer.

    Args:
        send: of the server.
        kept: how long a browser may keep a successful answer; empty where Gradio decides.
    """

    def __init__(self, send: Send, kept: str) -> None:
        self.send, self.kept, self.started = send, kept, False

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.started = True
            # Gradio tells of refusals by the functions of the page as of errors
            if message["status"] == 500 and not FAILED.get():
                message["status"] = 422
            headers = MutableHeaders(scope=message)
            headers.update(SAFE_HEADERS)
            if self.kept:
                headers["cache-control"] = self.kept if message["status"] == 200 else "no-store"
        await self.send(message)

    async def refuse(self, scope: Scope, receive: Receive, status: int, text: str) -> None:
        """Answer with a sentence, unless an answer has begun; the rest of the body is not read."""
        if not self.started:
            await PlainTextResponse(text, status, {"connection": "close"})(scope, receive, self)


def _failure(error: Exception, scope: Scope) -> tuple[int, str]:
    """Return status and sentence for an error behind the guard; log nothing that a request chose."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return 507, NO_SPACE
    place = f"{type(error).__name__} in {scope['method']} /{_route(scope).split('/')[1]}"
    if scope["method"] == "POST" and isinstance(error, MALFORMED):
        log.warning("%s", place)
        return 400, "The request is not one that this page sends."
    FAILED.set(True)
    code = uuid.uuid4().hex[:8]
    log.error("%s (%s)", place, code)
    return 500, f"The server failed for an unexpected reason. Report it with the code {code}."


def _route(scope: Scope) -> str:
    """Return the path without what Gradio puts before its own routes, which it gives to all of them."""
    return str(scope["path"]).removeprefix("/gradio_api")


def _session_of(scope: Scope, route: str) -> str:
    """Return the session that a request without a body names."""
    found = READ.fullmatch(route)
    named: list[str] = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [])
    return (found["session"] if found else None) or (named[0] if named else "")


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without its port."""
    return re.sub(r":\d*$", "", host.strip()).lower()


def _same_site(headers: Mapping[str, str]) -> bool:
    """Compare Origin with Host; programs send no Origin."""
    origin = headers.get("origin")
    if origin is None:
        return True
    host = headers.get("x-forwarded-host") or headers.get("host", "")
    return urlsplit(origin).netloc.lower() == host.split(",")[0].strip().lower()


def _as_json(scope: Scope, body: bytes) -> Scope:
    """Return a request that says of itself what its body is."""
    others = [
        pair
        for pair in scope["headers"]
        if pair[0].lower() not in (b"content-type", b"content-length", b"transfer-encoding")
    ]
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return {**scope, "headers": [*others, *own]}


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
