from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hsemotion_space.ui import bodies
from hsemotion_space.ui.guard import LOCAL_HOSTS, Guard, GuardLimits
from hsemotion_space.ui.protocol import FAILED
from hsemotion_space.ui.quotas import LEAST, NO_SPACE, SessionQuota, UploadLimits, UploadQuota

LIMITS = GuardLimits(upload_bytes=4096, other_bytes=1024, files=2)
FORM = {"content-type": "multipart/form-data; boundary=b0"}
META = {"_type": "gradio.FileData"}


KINDS = (
    "application/json", "application/JSON", "Application/Json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded",
    "application/octet-stream", "multipart/form-data; boundary=b0", "x", "",
)  # fmt: skip


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    content = {"bytes": len(body), "path": request.url.path, "body": body.decode("latin-1")}
    return JSONResponse(content, headers={"x-kind": request.headers.get("content-type", "")})


async def fail(request: Request) -> JSONResponse:
    """Answer as Gradio does where something is wrong."""
    name = request.path_params["name"]
    if name in ("refused", "logged"):
        FAILED.set(name == "logged")
        return JSONResponse({"error": "Please tick it first."}, 500)
    raise {
        "space": OSError(errno.ENOSPC, "No space left", "/tmp/face.png"), "other": ValueError("/tmp/face.png"),
        "form": TypeError("/tmp/face.png"), "function": KeyError("/tmp/face.png"),
    }[name]  # fmt: skip


def make_client(limits: GuardLimits, host: str = "space.test") -> TestClient:
    routes = [
        Route("/gradio_api/run/{name}", fail, methods=["POST"]),
        Route("/{path:path}", echo, methods=["GET", "POST"]),
    ]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(Guard, limits=limits)]), base_url=f"http://{host}"
    )


ECHO = make_client(LIMITS)


@pytest.fixture
def client() -> TestClient:
    return ECHO


def test_normal_requests_pass_with_safe_headers(client: TestClient) -> None:
    answer = client.post(
        "/gradio_api/queue/join",
        json={"data": [1, "a", {"path": "/tmp/x", "url": "http://space.test/file=/tmp/x", "meta": META}]},
    )
    assert answer.status_code == 200
    assert answer.json()["bytes"] > 10
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy.pop("frame-ancestors") == "'self' https://huggingface.co"
    assert policy.keys() == {"default-src", "object-src", "base-uri", "form-action"} and "http" not in str(
        policy
    )
    assert client.get("/gradio_api/file=/tmp/x.png").headers["cache-control"] == "no-store"


def test_browsers_keep_only_the_script_of_the_page() -> None:
    middleware = [Middleware(Guard, limits=LIMITS, script=Path("/lib/chart.js"))]
    client = TestClient(
        Starlette(routes=[Route("/gradio_api/file=/{path:path}", echo)], middleware=middleware)
    )
    kept = {path: "immutable" in client.get(path).headers["cache-control"] for path in (
        "/gradio_api/file=/lib/chart.js?v=1", "/gradio_api/file=/other/lib/chart.js", "/gradio_api/file=/lib/chart.js/../face.png",
    )}  # fmt: skip
    assert list(kept.values()) == [True, False, False]
    missing = TestClient(Starlette(middleware=middleware)).get("/gradio_api/file=/lib/chart.js")
    assert missing.status_code == 404 and missing.headers["cache-control"] == "no-store", (
        "an error is not kept"
    )


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=http://127.0.0.1/", "file=HTTPS://x/", "gradio_api/proxy=x", "gradio_api/deep_link", "gradio_api/process_recording",
     "gradio_api/component_server", "monitoring", "monitoring/summary", "gradio_api/runs", "gradio_api/dev/reload", "openapi.json",
     "gradio_api/openapi.json", "docs", "redoc", "gradio_api/run-history/records", "gradio_api/vibe-code", "x", "%2e%2e/x"],
)  # fmt: skip
def test_unused_routes_are_closed(client: TestClient, path: str) -> None:
    for answer in (client.get("/" + path), client.post("/" + path, json={})):
        assert answer.status_code == 404 and answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "X"])
def test_unused_methods_are_refused(client: TestClient, method: str) -> None:
    assert client.request(method, "/gradio_api/queue/join").status_code == 405


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/gradio_api/upload", 4096, 200),
        ("/gradio_api/upload", 4097, 413),
        ("/gradio_api/call/x", 1024, 200),
        ("/gradio_api/call/x", 1025, 413),
    ],
)
def test_bodies_are_bounded(client: TestClient, path: str, size: int, status: int) -> None:
    body = b'"' + b"x" * (size - 2) + b'"'
    for content in (body, iter([body])):  # the second is chunked, without a content-length
        answer = client.post(path, content=content, headers=FORM)
        assert answer.status_code == status and "frame-ancestors" in answer.headers["content-security-policy"]


def test_json_bodies_are_bounded_while_read(client: TestClient) -> None:
    body = json.dumps({"data": ["x" * 2000]}).encode()
    assert (
        client.post(
            "/gradio_api/queue/join", content=iter([body]), headers={"content-type": "application/json"}
        ).status_code
        == 413
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"data": [{"path": "http://example.org/x.png"}]}', "must be uploaded"),
        ('{"data": [{"path": "relative.png"}]}', "must be uploaded"),
        ('{"data": [{"path": "/proc/self/environ"}]}', "a path alone"),
        ('{"data": [[{"path": "/etc/passwd", "meta": null}]]}', "a path alone"),
        ('{"data": {"x": {"path": "/etc/passwd", "meta": {"_type": "other"}}}}', "a path alone"),
        ('{"data": [{"path": ["/etc/passwd"]}]}', "must be uploaded"),
        ('{"path": {"path": "/etc/passwd"}}', "must be uploaded"),
        ('{"path": "", "path": "/etc/passwd"}', "a path alone"),
        ('{"data": [{"url": "data:image/png;base64,AAAA", "path": "/x"}]}', "data URLs"),
        ('{"data": [NaN]}', "NaN"),
        ('{"data": [-Infinity]}', "Infinity"),
        ('{"data": ' + "[" * 30 + "]" * 30 + "}", "nested"),
        ("{" * 500, "not valid JSON"),
        ("not json", "not valid JSON"),
    ],
)
def test_smuggled_values_are_refused(client: TestClient, body: str, words: str) -> None:
    for kind in KINDS:
        answer = client.post(
            "/gradio_api/queue/join", content=body, headers={"content-type": kind} if kind else {}
        )
        assert answer.status_code == 400, kind
        assert words in answer.text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("multipart")])
def test_an_upload_is_a_form_whatever_else_it_says(client: TestClient, kind: str) -> None:
    answer = client.post("/gradio_api/upload", content=b"{}", headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415 and "multipart/form-data" in answer.text


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12),
       st.sampled_from(KINDS), st.sampled_from(["utf-8", "utf-16", "utf-32"]))  # fmt: skip
def test_what_is_passed_on_is_what_was_checked(value: object, kind: str, encoding: str) -> None:
    content = json.dumps(value, ensure_ascii=False).encode(encoding, "surrogatepass")
    assume(len(content) <= LIMITS.other_bytes)
    answer = ECHO.post(
        "/gradio_api/queue/join", content=content, headers={"content-type": kind} if kind else {}
    )
    assert (answer.status_code, answer.headers.get("x-kind")) == (200, "application/json")
    assert (json.loads(answer.json()["body"]) if answer.json()["body"] else None) == value


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.integers(1, 60))
def test_files_of_an_upload_are_counted_wherever_the_network_cuts_them(files: list[bytes], step: int) -> None:
    body = (
        b"".join(
            b'--b0\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n' + file + b"\r\n"
            for file in files
        )
        + b"--b0--\r\n"
    )
    assume(not any(b"--b0" in file for file in files))
    pieces = iter([body[start : start + step] for start in range(0, len(body), step)])
    answer = ECHO.post("/gradio_api/upload", content=pieces, headers=FORM)
    assert answer.status_code == (200 if len(files) <= LIMITS.files else 400)


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 200), ("http://space.test", 200), ("http://evil.test", 403), ("null", 403)]
)
def test_posts_from_other_sites_are_refused(client: TestClient, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": origin}
    assert client.post("/gradio_api/upload", content=b"x", headers=headers | FORM).status_code == status
    assert client.get("/", headers=headers).status_code == 200


def test_a_proxy_names_the_host_that_the_visitor_sees(client: TestClient) -> None:
    headers = {"origin": "https://space.example", "x-forwarded-host": "space.example"}
    assert client.post("/gradio_api/upload", content=b"x", headers=headers | FORM).status_code == 200


def test_only_names_of_this_server_are_answered() -> None:
    local = GuardLimits(upload_bytes=1, hosts=frozenset({*LOCAL_HOSTS, "faces.example"}))
    for host, status in [
        ("127.0.0.1:7860", 200), ("LOCALHOST", 200), ("[::1]:7860", 200), ("faces.example:443", 200),
        ("rebound.example", 403), ("127.0.0.1.rebound.example:7860", 403), ("", 403), ("localhost@rebound.example", 403), ("[::1", 403),
    ]:  # fmt: skip
        answer = make_client(local).get("/", headers={"host": host})
        assert (answer.status_code, "HSEMOTION_HOSTS" in answer.text) == (status, status == 403), host
    assert make_client(LIMITS, "any.example").get("/").status_code == 200, (
        "a page on all addresses may have any name"
    )


def test_a_full_disk_is_a_sentence() -> None:
    answer = ECHO.post("/gradio_api/run/space", json={})
    assert (
        answer.status_code == 507
        and answer.text == NO_SPACE
        and "no-referrer" in answer.headers["referrer-policy"]
    )


def test_an_error_behind_the_door_tells_no_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = ECHO.post("/gradio_api/run/other", json={})
    code = answer.text.rpartition(" ")[2].rstrip(".")
    assert answer.status_code == 500 and "frame-ancestors" in answer.headers["content-security-policy"]
    assert code in caplog.text and "ValueError" in caplog.text and "face.png" not in caplog.text + answer.text


def test_what_a_request_got_wrong_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    for name, status in [("form", 400), ("function", 400), ("refused", 422), ("logged", 500)]:
        answer = ECHO.post(f"/gradio_api/run/{name}", json={})
        assert answer.status_code == status and "face.png" not in answer.text + caplog.text, name


def test_a_stream_that_ends_with_a_refusal_is_complete(caplog: pytest.LogCaptureFixture) -> None:
    async def stream(request: Request) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            yield "data: gone"
            raise HTTPException(404)

        return StreamingResponse(events())

    routes = [Route("/gradio_api/queue/data", stream)]
    client = TestClient(Starlette(routes=routes, middleware=[Middleware(Guard, limits=LIMITS)]))
    assert client.get("/gradio_api/queue/data").text == "data: gone" and not caplog.text


def test_uploads_and_sessions_count_by_network(tmp_path: Path) -> None:
    quota = UploadQuota(
        tmp_path, UploadLimits(window_s=60, per_client=2 * LEAST + 8192, together=10 * LEAST, floor=0)
    )
    bounded = make_client(GuardLimits(upload_bytes=4096, uploads=quota, sessions=SessionQuota(3, 60)))
    told = [bounded.post("/gradio_api/upload", content=b"x" * 4000, headers=FORM) for _ in range(3)]
    assert [answer.status_code for answer in told] == [200, 200, 429]
    assert "Try again in 1 minutes." in told[2].text
    opened = [
        bounded.post("/gradio_api/queue/join", json={"session_hash": name}).status_code
        for name in ("a", "b", "a", "c", "d", "b")
    ]
    assert opened == [200, 200, 200, 200, 429, 200]
    assert (
        bounded.get("/gradio_api/heartbeat/e").status_code
        == bounded.get("/gradio_api/queue/data?session_hash=e").status_code
        == 429
    )


def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[int]:
        async def silent() -> dict[str, object]:
            await asyncio.sleep(60)
            return {}

        statuses: list[int] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
            headers = [(b"host", b"space.test"), (b"content-type", FORM["content-type"].encode())]
            scope = {
                "type": "http",
                "method": "POST",
                "path": path,
                "headers": headers,
                "query_string": b"",
                "http_version": "1.1",
            }
            await ECHO.app(scope, silent, send)
        return statuses

    monkeypatch.setattr(bodies, "IDLE_S", 0.05)
    assert asyncio.run(run()) == [408, 408]
