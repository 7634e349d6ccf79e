"""Visitors of the page, each with an address of this machine and a session, who act as browsers do."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples"
PICTURE, CLIP = EXAMPLES / "astronaut.jpg", EXAMPLES / "astronaut.mp4"
ONE_CLIP_IN, ONE_LEAVES_IN = 10, 20
ASK_EVERY_S, THINK_S = 0.5, 1.0
PATIENCE_S: Final = 300.0

Kind = Literal["image", "video"]


class RefusedError(RuntimeError):
    """The page did not analyze a file, and said why."""


@dataclass(frozen=True)
class Tab:
    """How a browser uses the page: the functions behind an added file and behind the timer, their inputs."""

    start: int
    ask: int
    start_data: Sequence[Any]
    ask_data: Sequence[Any]
    file_at: int
    timer_at: int


@dataclass(frozen=True)
class Stay:
    """One analysis: what was uploaded, when the upload began, and when the result arrived, in seconds."""

    kind: Kind
    start_s: float
    end_s: float


@dataclass
class Record:
    """What users met."""

    stays: list[Stay] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    left: int = 0

    def note(self, answer: httpx.Response) -> None:
        """Count an answer, and what it says if it is a refusal."""
        self.answers[answer.status_code] += 1
        if answer.status_code >= 400:
            self.refusals[f"{answer.status_code} {answer.text[:160]}"] += 1


def read_tab(config: Mapping[str, Any]) -> Tab:
    """Find the functions in what the page tells browsers."""
    components = {one["id"]: one for one in config["components"]}

    def types(numbers: Sequence[int]) -> list[str]:
        return [components[number]["type"] for number in numbers]

    def data(item: Mapping[str, Any]) -> list[Any]:
        found = [components[number] for number in item["inputs"]]
        return [True if one["type"] == "checkbox" else one["props"].get("value") for one in found]

    def event(item: Mapping[str, Any]) -> str:
        return str(item["targets"][0][1]) if item["targets"] else ""

    items = config["dependencies"]
    start = next(one for one in items if event(one) == "upload" and "browserstate" in types(one["outputs"]))
    ask = next(one for one in items if event(one) == "tick" and one["outputs"] == start["outputs"])
    file = start["inputs"].index(start["targets"][0][0])
    timer = types(start["outputs"]).index("timer")
    return Tab(start["id"], ask["id"], data(start), data(ask), file, timer)


class User:
    """A visitor with an address and a session."""

    def __init__(self, url: str, number: int, record: Record) -> None:
        address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        limits = httpx.Limits(max_connections=8)
        transport = httpx.AsyncHTTPTransport(local_address=address, limits=limits)
        self.client = httpx.AsyncClient(base_url=url, transport=transport, timeout=PATIENCE_S)
        self.number, self.record, self.draw = number, record, random.Random(number)
        self.sessions, self.uploads = itertools.count(), itertools.count()
        self.opened = AsyncExitStack()
        self.session = ""

    async def open(self) -> None:
        """Load the page, with the stream that a browser holds open."""
        await self.opened.aclose()
        self.session = f"load{self.number}x{next(self.sessions)}"
        self.record.note(await self.client.get("/"))
        config = (await self.client.get("/config")).json()
        self.tab = read_tab(config)
        await self.opened.enter_async_context(
            self.client.stream("GET", f"/gradio_api/heartbeat/{self.session}")
        )

    async def upload(self, file: Path, share: float = 1.0) -> str:
        """Upload a file with unique content and return its path; a share below 1 aborts the upload there."""
        content = file.read_bytes() + f"{self.number} {next(self.uploads)}".encode()
        form = (
            f'--b0\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'.encode()
            + content
            + b"\r\n--b0--\r\n"
        )

        async def pieces() -> AsyncIterator[bytes]:
            end = int(share * len(form))
            for start in range(0, end, 65_536):
                yield form[start : min(start + 65_536, end)]
            if share < 1:
                raise ConnectionError

        headers = {"content-type": "multipart/form-data; boundary=b0", "content-length": str(len(form))}
        answer = await self.client.post("/gradio_api/upload", content=pieces(), headers=headers)
        self.record.note(answer)
        if answer.status_code != 200:
            raise RefusedError
        return str(answer.json()[0])

    async def call(self, number: int, data: Sequence[Any]) -> list[Any]:
        """Call a function as the page does and return what it shows."""
        body = {
            "data": data,
            "fn_index": number,
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        answer = await self.client.post("/gradio_api/run/predict", json=body)
        self.record.note(answer)
        if answer.status_code != 200:
            raise RefusedError
        return list(answer.json()["data"])

    async def analyze(self, file: Path, kind: Kind, *, leave: bool = False) -> None:
        """Add a file and wait for its result."""
        tab, start_s = self.tab, time.monotonic()
        path = await self.upload(file)
        data = list(tab.start_data)
        data[tab.file_at] = [{"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": file.name}]
        shown = await self.call(tab.start, data)
        while shown[tab.timer_at].get("active") and not leave and time.monotonic() - start_s < PATIENCE_S:
            await asyncio.sleep(ASK_EVERY_S)
            shown = await self.call(tab.ask, tab.ask_data)
        if leave:
            return
        if "Face 1" not in str(shown):
            notices = re.findall(r"<li>(.*?)</li>", str(shown)) or ["no result, and no word about it"]
            self.record.refusals[f"on the page: {notices[0][:160]}"] += 1
            raise RefusedError
        self.record.stays.append(Stay(kind, start_s, time.monotonic()))

    async def visit(self, until_s: float) -> None:
        """Use the page until it is time."""
        await asyncio.sleep(self.draw.random() * 3)
        await self.open()
        while time.monotonic() < until_s:
            kind: Kind = "video" if self.draw.randrange(ONE_CLIP_IN) == 0 else "image"
            file, leaves = {"image": PICTURE, "video": CLIP}[kind], self.draw.randrange(ONE_LEAVES_IN) == 0
            try:
                if leaves and self.draw.randrange(2):
                    await self.upload(file, self.draw.random())
                else:
                    await self.analyze(file, kind, leave=leaves)
            except RefusedError:
                await asyncio.sleep(2 * THINK_S)
            except (ConnectionError, httpx.TransportError) as error:
                if not leaves:
                    self.record.refusals[f"connection: {type(error).__name__}"] += 1
            if leaves:
                self.record.left += 1
                await self.open()
            await asyncio.sleep(self.draw.random() * THINK_S)

    async def close(self) -> None:
        """Leave."""
        await self.opened.aclose()
        await self.client.aclose()
