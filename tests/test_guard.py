from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hsemotion_space.ui.guard import Guard, GuardLimits

LIMITS = GuardLimits(upload_bytes=4096, other_bytes=1024)


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body()), "path": request.url.path})


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])], middleware=[Middleware(Guard, limits=LIMITS)])
    return TestClient(app, base_url="http://space.test")


def test_normal_requests_pass_with_safe_headers(client: TestClient) -> None:
    answer = client.post("/gradio_api/queue/join", json={"data": [1, "a", {"path": "/tmp/x", "url": "http://space.test/file=/tmp/x"}]})
    assert answer.status_code == 200
    assert answer.json()["bytes"] > 10
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'self' ")
    assert "http" not in answer.headers["content-security-policy"]
    assert client.get("/gradio_api/file=/tmp/x.png").headers["cache-control"] == "no-store"


def test_browsers_keep_only_the_script_of_the_page() -> None:
    middleware = [Middleware(Guard, limits=LIMITS, script=Path("/lib/chart.js"))]
    client = TestClient(Starlette(routes=[Route("/gradio_api/file=/{path:path}", echo)], middleware=middleware))
    kept = {path: "immutable" in client.get(path).headers["cache-control"] for path in (
        "/gradio_api/file=/lib/chart.js?v=1", "/gradio_api/file=/other/lib/chart.js", "/gradio_api/file=/lib/chart.js/../face.png",
    )}  # fmt: skip
    assert list(kept.values()) == [True, False, False]
    missing = TestClient(Starlette(middleware=middleware)).get("/gradio_api/file=/lib/chart.js")
    assert missing.status_code == 404 and missing.headers["cache-control"] == "no-store", "an error is not kept"


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=http://127.0.0.1/", "file=HTTPS://x/", "gradio_api/proxy=x", "gradio_api/deep_link", "gradio_api/process_recording",
     "gradio_api/component_server", "monitoring", "monitoring/summary", "gradio_api/runs"],
)  # fmt: skip
def test_unused_routes_are_closed(client: TestClient, path: str) -> None:
    assert client.get("/" + path).status_code == 404


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/gradio_api/upload", 4096, 200),
        ("/gradio_api/upload", 4097, 413),
        ("/gradio_api/run/x", 1024, 200),
        ("/gradio_api/run/x", 1025, 413),
    ],
)
def test_bodies_are_bounded(client: TestClient, path: str, size: int, status: int) -> None:
    assert client.post(path, content=b"x" * size).status_code == status
    assert client.post(path, content=iter([b"x" * size])).status_code == status  # chunked, without a content-length


def test_json_bodies_are_bounded_while_read(client: TestClient) -> None:
    body = json.dumps({"data": ["x" * 2000]}).encode()
    assert client.post("/gradio_api/queue/join", content=iter([body]), headers={"content-type": "application/json"}).status_code == 413


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"data": [{"path": "http://example.org/x.png"}]}', "must be uploaded"),
        ('{"data": [{"path": "relative.png"}]}', "must be uploaded"),
        ('{"data": [{"url": "data:image/png;base64,AAAA", "path": "/x"}]}', "data URLs"),
        ('{"data": [NaN]}', "NaN"),
        ('{"data": [-Infinity]}', "Infinity"),
        ('{"data": ' + "[" * 30 + "]" * 30 + "}", "nested"),
        ("{" * 500, "not valid JSON"),
        ("not json", "not valid JSON"),
    ],
)
def test_smuggled_values_are_refused(client: TestClient, body: str, words: str) -> None:
    answer = client.post("/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert words in answer.text


@pytest.mark.parametrize(("origin", "status"), [(None, 200), ("http://space.test", 200), ("http://evil.test", 403), ("null", 403)])
def test_posts_from_other_sites_are_refused(client: TestClient, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": origin}
    assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == status
    assert client.get("/", headers=headers).status_code == 200


def test_a_proxy_names_the_host_that_the_visitor_sees(client: TestClient) -> None:
    headers = {"origin": "https://space.example", "x-forwarded-host": "space.example"}
    assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 200
