"""A generated walk over every route and function of a running page: whatever is sent, it answers in time,
safely, and tells no names."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from attack_makers import CANARY, KINDS, OPEN, SHAPES, Function, read_functions, to_json
from face_makers import picture_with
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from page_makers import ROOT, Page, call, file_data, function_index, png, start_page, upload
from wire import Answer, connect, exchange, leave, read_answer, request

ANSWERED_S = 30.0  # with other work on the machine
KNOWN: dict[tuple[int, str], str] = {
    (503, "Queue is full"): "Gradio's way to say that too many requests wait; it says so in a sentence"
}
"""Answers of 5xx that the framework gives on purpose, with the reason of each."""
SESSION = "walker"
BROUGHT = (
    "other", "name", "markers", "turn", "action", "choice", "label", "point", "frame", "job", "sequence", "time", "start", "end", "face", "number", "task", "kind",
)  # fmt: skip
"""Names of what the events of the page's own components bring."""
NAME = f"face-{CANARY}.png"
CLOSED = (
    "/login", "/logout", "/monitoring", "/openapi.json", "/gradio_api/component_server", "/gradio_api/stream/x", "/gradio_api/deep_link",
    "/gradio_api/call/v2/analyze_image", "/gradio_api/vibe-edit/", "/gradio_api/process_recording", "/gradio_api/proxy=http://127.0.0.1/",
)  # fmt: skip
ODD = (
    "*", "http://127.0.0.1/config", "/../config", "//config", "/%2e%2e/config", "/\ud800", "/config%00", "/gradio_api/gradio_api/config",
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=", "/pwa_icon/64", "/static/img/logo.svg", "/gradio_api/heartbeat/",
)  # fmt: skip
TARGETS = (
    *sorted(
        {
            before + re.sub(r"\{[^}]+\}", "x", route.split()[1])
            for route in OPEN
            for before in ("", "/gradio_api")
        }
    ),
    *CLOSED,
    *ODD,
)
PARTS = ("name", "filename", "filename*", "x", "")


@dataclass(frozen=True, slots=True)
class Walk:
    """A page, its functions, and what must be as before at the end."""

    page: Page
    functions: tuple[Function, ...]


def find_faces(page: Page, functions: tuple[Function, ...]) -> None:
    """Analyze a picture in the session of the walk, as most functions have something to do only beside a
    result."""
    function = next(one for one in functions if one.name == "add")
    path = upload(page.url, NAME, png(picture_with([(60, 40)])))
    answer = call(page.url, function.number, SESSION, [None, None, [file_data(path)], *function.usual[3:]])
    ask = function_index(page.url, "tick", type="timer")
    until_s = time.monotonic() + 120
    while "role='progressbar'" in answer and time.monotonic() < until_s:
        answer = call(page.url, ask, SESSION, [None, None, "random", None])
    assert "Face 1" in answer, answer


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("walk")
    with start_page(folder, {"GREETING": CANARY}, [CANARY, "hsemotion-space-", "ASGI callable"]) as page:
        functions = read_functions(page.url)
        find_faces(page, functions)
        yield Walk(page, functions)
    printed = (folder / "printed.txt").read_text(errors="replace")
    messages = [json.loads(line).get("message", "") for line in printed.splitlines() if line[:1] == "{"]
    assert messages, "the log is in JSON"
    assert not [text for text in messages if re.search(r" \([0-9a-f]{8}\)$", text)], (
        "errors that nobody foresaw"
    )
    places = [found[1] for text in messages if (found := re.search(r" of (\w+\.py)$", text))]
    assert not [name for name in places if list((ROOT / "hsemotion_space").rglob(name))], printed


leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
)
anything = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
hostile = st.builds(
    lambda shape, path: shape(path),
    st.sampled_from(SHAPES),
    st.sampled_from(["/etc/passwd", f"/tmp/{NAME}", "", "x"]),
)


@st.composite
def values_of(draw: st.DrawFn, function: Function) -> object:
    """Draw what a function is called with: mostly what the page would send, some of it replaced, some missing
    or one too many."""
    data: list[Any] = list(function.usual)
    for position in range(len(data)):
        if draw(st.integers(0, 3)) == 0:
            others = st.sampled_from(function.choices[position]) if function.choices[position] else anything
            data[position] = draw(others | anything | hostile)
    change = draw(st.integers(0, 19))
    return {
        0: data[:-1],
        1: [*data, draw(anything)],
        2: draw(anything),
        3: dict.fromkeys(map(str, data)),
    }.get(change, data)


@st.composite
def calls(draw: st.DrawFn, functions: tuple[Function, ...]) -> tuple[str, bytes]:
    """Draw a call of a function, by one of the ways that lead to it."""
    function = draw(st.sampled_from(functions))
    way = draw(st.sampled_from(["run/predict", "run/{}", "api/{}/", "queue/join", "call/{}"]))
    brought = st.dictionaries(st.sampled_from(BROUGHT), anything, max_size=4)
    body: dict[str, object] = {
        "data": draw(values_of(function)), "fn_index": function.number, "session_hash": SESSION, "trigger_id": None,
        "event_data": draw(st.none() | brought | anything),
    }  # fmt: skip
    if "{}" in way and draw(st.booleans()):
        del body["fn_index"]
    if draw(st.integers(0, 5)) == 0:
        names = st.sampled_from(
            ["event_id", "simple_format", "batched", "session_hash", "fn_index", "trigger_id", "data", "x"]
        )
        body |= draw(st.dictionaries(names, anything, max_size=2))
    return f"/gradio_api/{way.format(quote(function.name))}", to_json(body)


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """Draw the body of an upload, and its headers."""
    body = b""
    for _ in range(draw(st.integers(0, 3))):
        fields = "; ".join(
            f'{part}="{draw(st.sampled_from([NAME, "files", "", "..", "a/b", "x" * 300]))}"'
            for part in draw(st.lists(st.sampled_from(PARTS), max_size=2))
        )
        lead = draw(st.sampled_from(['name="files"; ', 'name="files"; filename="' + NAME + '"; ', ""]))
        body += (
            f"--b0\r\nContent-Disposition: form-data; {lead}{fields}\r\n\r\n".encode()
            + draw(st.binary(max_size=200))
            + b"\r\n"
        )
    body += draw(st.sampled_from([b"--b0--\r\n", b"--b0--\r\n", b"", b"--b0"]))
    kind = draw(
        st.sampled_from(
            ["multipart/form-data; boundary=b0"] * 4
            + ["multipart/form-data", "multipart/form-data; boundary=", "x"]
        )
    )
    return body, {"content-type": kind}


@st.composite
def requests(draw: st.DrawFn, functions: tuple[Function, ...]) -> tuple[str, bytes]:
    """Draw a request: its method, and all of its bytes."""
    most = draw(st.sampled_from([0, 0, 2]))  # with more of these headers, few requests get past the door
    headers = {
        "content-type": draw(st.sampled_from(KINDS)),
        **draw(st.dictionaries(
            st.sampled_from(["accept", "cookie", "range", "origin", "x-forwarded-for", "x-forwarded-host", "accept-language", "upgrade",
                             "connection", "transfer-encoding", "content-encoding", "expect", "content-length", "host", "referer", "x-x"]),
            st.sampled_from(["", "*/*", "bytes=0-9", "bytes=9-0", "null", "http://127.0.0.1", "127.0.0.1", "::1, 1.2.3.4", "ja", "gzip",
                             "websocket", "upgrade", "chunked", "100-continue", "-1", "5", "a=b", "x" * 2000, "\xff", "keep-alive"]),
            max_size=most,
        )),
    }  # fmt: skip
    way = draw(st.integers(0, 9))
    method, query = "POST", ""
    if way < 5:
        target, body = draw(calls(functions))
    elif way < 7:
        body, kind = draw(forms())
        target, headers = "/gradio_api/upload", headers | kind
        query = draw(st.sampled_from(["", "", "?upload_id=x", f"?upload_id={NAME}"]))
    else:
        method = draw(
            st.sampled_from(
                ["GET"] * 5
                + ["HEAD", "POST", "POST", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "get", "X"]
            )
        )
        target = draw(st.sampled_from(TARGETS) | st.text(max_size=12).map(lambda text: "/" + text))
        query = draw(
            st.sampled_from(
                [
                    "",
                    "",
                    "?session_hash=walker",
                    "?session_hash=",
                    "?upload_id=x",
                    "?view=api",
                    "?__theme=dark",
                    "?%",
                ]
            )
        )
        body = draw(st.just(b"") | anything.map(to_json) | st.binary(max_size=60))
    address = target.encode("utf-8", "surrogatepass")
    safe = address if draw(st.integers(0, 4)) == 0 else quote(address, safe="/:*=%").encode()
    return method, request(method, safe + query.encode(), headers, body)


def check(answer: Answer | None, sent: bytes) -> None:
    """Check what holds for every answer."""
    if answer is None:
        return
    head = sent[:3000]
    if answer.status >= 500:
        assert any(answer.status == status and words in answer.body.decode() for status, words in KNOWN), (
            answer,
            head,
        )
    assert answer.headers.get("x-content-type-options") == "nosniff", (answer, head)
    assert answer.headers.get("referrer-policy") == "no-referrer", (answer, head)
    assert "frame-ancestors 'self' https://huggingface.co" in answer.headers.get(
        "content-security-policy", ""
    ), (answer, head)
    assert b"Traceback" not in answer.body, (answer, head)


def step(page: Page, method: str, content: bytes, way: str, share: float, garbage: bytes) -> None:
    """Send one request in one of the ways that clients have."""
    started = time.monotonic()
    if way == "whole":
        check(exchange(page.port, content, method), content)
    elif way == "slow":
        check(exchange(page.port, content, method, pieces=5), content)
    elif way == "garbage":
        with connect(page.port) as connection:
            connection.sendall(content + garbage + b"\r\n\r\n")
            check(read_answer(connection, method), content)
    else:
        leave(page.port, content, share, abrupt=way == "reset")
    assert time.monotonic() - started < ANSWERED_S, content[:3000]


def state_of(page: Page) -> tuple[int, int]:
    """Return the open descriptors of a page, and the bytes of what visitors added; where descriptors cannot
    be counted, none."""
    added = sum(path.lstat().st_size for path in page.added.rglob("*") if path.is_file())
    try:
        return len(list(Path(f"/proc/{page.pid}/fd").iterdir())), added
    except OSError:  # the page keeps other processes out, but for those of root
        return 0, added


@pytest.mark.parametrize("runs", [200, pytest.param(5000, marks=pytest.mark.long)])
def test_whatever_is_sent_the_page_answers_safely_and_tells_no_names(walk: Walk, runs: int) -> None:
    page, sent = walk.page, 0

    @settings(
        max_examples=runs,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(walk.functions), st.sampled_from(["whole"] * 5 + ["slow", "garbage", "leave", "reset"]), st.floats(0, 1),
           st.binary(max_size=80))  # fmt: skip
    def send(drawn: tuple[str, bytes], way: str, share: float, garbage: bytes) -> None:
        nonlocal sent
        method, content = drawn
        sent += len(content)
        step(page, method, content, way, share, garbage)

    before, _ = state_of(page)
    send()
    assert httpx.get(f"{page.url}/config", timeout=ANSWERED_S).status_code == 200
    until_s = time.monotonic() + 30
    while (after_and_added := state_of(page))[0] > before + 8 and time.monotonic() < until_s:
        assert httpx.get(f"{page.url}/config", timeout=ANSWERED_S).status_code == 200
    after, added = after_and_added
    assert after <= before + 8, "descriptors stay open"
    # the most that one request lets the page copy
    example = max(path.stat().st_size for path in (ROOT / "examples").iterdir())
    assert added <= sent + runs * example, "more lies there than was sent"
