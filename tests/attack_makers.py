"""What a hostile client sends to the page: names of files that are not its own, in every form that a value
can have."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

CANARY: Final = "canary7c1f0e9a"  # letters and digits alone, so that no encoding of texts changes it
META: Final = {"_type": "gradio.FileData"}
FILES: Final = ("image", "video", "file")
SHAPES: Final = (
    lambda path: {"path": path},
    lambda path: {"path": path, "meta": META},
    lambda path: {"path": path, "meta": None, "orig_name": "face.png"},
    lambda path: {"path": path, "meta": {"_type": "gradio.filedata"}},
    lambda path: {"path": path, "meta": {}, "url": path, "size": 1, "mime_type": "image/png", "is_stream": False},
    lambda path: {"path": path, "url": path, "orig_name": "face.png", "size": None, "mime_type": None, "is_stream": False, "meta": META},
    lambda path: {"path": path, "meta": META, "is_stream": True},
    lambda path: [{"path": path}],
    lambda path: [{"path": path, "meta": META}, {"path": path}],
    lambda path: path,
    lambda path: {"path": path, "meta": [META]},
    lambda path: {"path": path, "meta": {"_type": ["gradio.FileData"]}},
    lambda path: {"path": {"path": path, "meta": META}},
    lambda path: {"path": [path]},
    lambda path: {"url": path},
    lambda path: {"path": None, "url": path, "meta": META},
    lambda path: {"path": "", "url": path, "meta": META},
    lambda path: {"path": path.encode("utf-8", "replace").hex(), "url": f"data:text/plain;base64,{base64.b64encode(b'x').decode()}"},
    lambda path: [path],
    lambda path: [[{"path": path}]],
    lambda path: {"root": [{"path": path}]},
    lambda path: {"video": {"path": path}, "subtitles": {"path": path, "meta": META}},
    lambda path: {"image": {"path": path}},
    lambda path: {"file": {"path": path, "meta": META}},
    lambda path: {"files": [{"path": path}]},
    lambda path: {"background": {"path": path}, "layers": [{"path": path}], "composite": {"path": path}},
    lambda path: {"value": {"path": path, "meta": META}},
    lambda path: {"__type__": "update", "value": {"path": path}},
    lambda path: {"name": path, "is_file": True, "data": None},
    lambda path: {path: path},
    lambda path: None,
)  # fmt: skip
"""Every form in which a value can name a file."""
KINDS: Final = (
    "application/json", "application/JSON", "Application/Json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded",
    "application/octet-stream", "multipart/form-data; boundary=b0", "text/json", "",
)  # fmt: skip

OPEN: Final = frozenset({
    "GET /", "HEAD /", "GET /config", "GET /config/", "GET /theme.css", "GET /robots.txt", "GET /favicon.ico", "GET /manifest.json",
    "GET /pwa_icon", "GET /pwa_icon/{size}", "GET /svelte/{path:path}", "GET /static/{path:path}", "GET /assets/{path:path}",
    "GET /app_id", "GET /app_id/", "GET /info", "GET /info/", "GET /startup-events", "GET /heartbeat/{session_hash}", "GET /queue/data",
    "GET /queue/status", "GET /call/{api_name}/{event_id}", "GET /upload_progress", "POST /upload", "POST /queue/join",
    "POST /run/{api_name}", "POST /run/{api_name}/", "POST /api/{api_name}", "POST /api/{api_name}/", "POST /call/{api_name}",
    "POST /call/{api_name}/", "POST /cancel", "POST /reset", "POST /reset/",
})  # fmt: skip
"""All routes of the framework that are open; what a new version adds must be weighed before it is written
down here."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the page.

    Attributes:
        number: by which the page calls it.
        name: by which programs may.
        usual: a plausible value for each input.
        files: positions of the inputs that take files.
        choices: other values for each input.
    """

    number: int
    name: str
    usual: tuple[Any, ...]
    files: tuple[int, ...]
    choices: tuple[tuple[Any, ...], ...]


def read_functions(url: str) -> tuple[Function, ...]:
    """Return all functions that a page tells browsers of."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    components = {component["id"]: component for component in config["components"]}
    return tuple(
        _function(item["id"], item["api_name"], [components[number] for number in item["inputs"]])
        for item in config["dependencies"] if item["backend_fn"]
    )  # fmt: skip


def _function(number: int, name: str, inputs: Sequence[dict[str, Any]]) -> Function:
    usual, files, choices = [], [], []
    for position, component in enumerate(inputs):
        props = component["props"]
        shape = props.get("_api_info") or {}
        if component["type"] in FILES or "path" in shape.get("properties", {}):
            files.append(position)
        agreed = component["type"] == "checkbox" or shape.get("type") == "boolean"
        usual.append(True if agreed else props.get("value"))
        choices.append(tuple(choice[1] for choice in props.get("choices") or ()))
    return Function(number, name, tuple(usual), tuple(files), tuple(choices))


def hostile_paths(added: Path, outside: Path, hits: str) -> list[str]:
    """Return names of every kind that lead to something else than an upload.

    Args:
        added: folder with what visitors added, some of it by another visitor.
        outside: file that belongs to the server.
        hits: address of a server on this machine that nothing may ask.
    """
    uploads = added / "uploads"
    (uploads / "ab12").mkdir(exist_ok=True)
    (uploads / "ab12" / "link.png").symlink_to(outside)
    (uploads / "tree").symlink_to(outside.parent)
    os.mkfifo(uploads / "ab12" / "fifo.png")
    private = [
        str(path)
        for folder in ("claims", "uploads/shown")
        for path in (added / folder).rglob("*")
        if path.is_file()
    ]
    steps = os.path.relpath(outside, uploads / "ab12")
    return [
        str(outside), "/proc/self/environ", *private, f"{uploads}/ab12/link.png", f"{uploads}/tree/{outside.name}",
        str(outside.parent / "feedback" / "feedback.sqlite"), str(outside.parent / "feedback" / "secret"),
        str(outside.parent / "checkpoints" / "random" / "manifest.toml"), f"{uploads}/ab12/{steps}", f"{uploads}/../../{outside.name}",
        f"//{outside}", f"/.{outside}", f"{uploads}/%2e%2e/%2e%2e/{outside.name}", f"{uploads}/ab12/..%2f..%2f..%2f{outside.name}",
        f"file://{outside}", f"{outside}\0.png", f"{outside}\n", f"{outside} ", f"{uploads}\\..\\..\\{outside.name}", steps,
        *(f"/proc/self/fd/{number}" for number in (0, 3, 5, 8, 12)), "/proc/self/cmdline", "/proc/self/maps", f"/proc/self/root{outside}",
        f"/proc/self/cwd/../../..{outside}", "/etc/passwd", "/dev/stdin", "/dev/zero", "/dev/fd/0", f"{uploads}/ab12/fifo.png",
        str(uploads), str(added), f"{uploads}/ab12", f"{uploads}/shown", f"{uploads}/none.png", "", "/", ".", "~", "\ud800",
        f"{outside}\udcff",
        f"{hits}/face.png", f"{hits.replace('127.0.0.1', 'localhost')}/face.png", f"{hits.replace('127.0.0.1', '0x7f000001')}/face.png",
        f"{hits.replace('http', 'HTTP')}/face.png", f" {hits}/face.png", f"//{hits.partition('//')[2]}/face.png", "a" * 5_000,
    ]  # fmt: skip


def spellings(content: bytes) -> tuple[bytes, ...]:
    """Return a content as replies may carry it: as it is, as hexadecimal digits, and in base64 wherever it
    begins."""
    inner = [base64.b64encode(b"x" * lead + content)[4 * bool(lead) :][:-4] for lead in range(3)]
    return (content, content.hex().encode(), *(piece for piece in inner if len(piece) > 8))


def to_json(value: object) -> bytes:
    """Return a body; whatever a text holds, it is ASCII."""
    return json.dumps(value).encode()


def file_address(url: str, path: str) -> str:
    """Return where the page would serve a file."""
    return f"{url}/gradio_api/file={quote(path, safe='/', errors='surrogatepass')}"


@contextmanager
def count_hits() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server on this machine, with the growing list of what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CANARY.encode())

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
