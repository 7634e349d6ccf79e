"""What monitors and proxies ask a server: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hsemotion_space import __version__
from hsemotion_space.logs import log_event
from hsemotion_space.operations.health import NEEDED, Check, Deployment, Health, examine
from hsemotion_space.operations.monitoring import Metrics
from hsemotion_space.ui.protocol import SAFE_HEADERS

FRESH_S: Final = 2.0  # anybody may ask, and each check asks the database
PATIENCE_S: Final = 5.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STUCK: Final = Health({"page": Check("failing", f"The checks take longer than {PATIENCE_S:.0f} s.")})


class Probes:
    """ASGI middleware before the guard: it answers three routes under any host name, as probes have none.

    Args:
        app: that answers everything else.
        deployment: that is examined.
        metrics: None to have no ``/metrics``.
    """

    def __init__(self, app: ASGIApp, deployment: Deployment, metrics: Metrics | None = None) -> None:
        self.app, self.deployment, self.metrics = app, deployment, metrics
        self._check: asyncio.Task[Health] | None = None
        self._checked_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a probe, or pass a request on."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif scope["path"] in ("/healthz", "/readyz"):
            health = await self._examine()
            await _answer(health, scope["path"] == "/readyz")(scope, receive, send)
        elif scope["path"] == "/metrics" and self.metrics is not None:
            response = await self._metrics(self.metrics, Headers(scope=scope))
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _examine(self) -> Health:
        """Return the health of the last seconds; there is never more than one examination."""
        if self._check is None or (self._check.done() and time.monotonic() - self._checked_s > FRESH_S):
            self._checked_s = time.monotonic()
            self._check = asyncio.create_task(asyncio.to_thread(examine, self.deployment))
        await asyncio.wait({self._check}, timeout=PATIENCE_S)
        return self._check.result() if self._check.done() else STUCK

    async def _metrics(self, metrics: Metrics, headers: Headers) -> Response:
        known = f"Bearer {self.deployment.settings.metrics_token}".encode()
        if not hmac.compare_digest(headers.get("authorization", "").encode(), known):
            log_event("refusal", where="metrics", status=401)
            text = "Send the metrics token of this server as a bearer token."
            return PlainTextResponse(text, 401, {**SAFE_HEADERS, "www-authenticate": "Bearer"})
        return Response(await asyncio.to_thread(metrics.text), 200, SAFE_HEADERS, METRICS_TYPE)


def _answer(health: Health, ready: bool) -> Response:
    """Return all checks, or for ``ready`` those that a proxy needs to know."""
    checks = {name: check for name, check in health.checks.items() if not ready or name in NEEDED}
    good = health.ready if ready else not health.failing
    words = ("ready", "not ready") if ready else ("ok", "failing")
    content = {
        "status": words[0 if good else 1],
        "version": __version__,
        "checks": {
            name: {
                "status": check.state,
                **({"reason": check.reason} if check.reason else {}),
                **check.values,
            }
            for name, check in checks.items()
        },
    }
    return JSONResponse(content, 200 if good else 503, {**SAFE_HEADERS, "cache-control": "no-store"})
