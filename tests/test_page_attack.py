"""Nobody reads what is not theirs: generated requests to every function of a running page, and no way past
the components that check."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import httpx
import numpy as np
import pytest
from attack_makers import (
    CANARY,
    KINDS,
    OPEN,
    SHAPES,
    Function,
    count_hits,
    file_address,
    hostile_paths,
    read_functions,
    spellings,
    to_json,
)
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from gradio.data_classes import FileData, GradioModel, GradioRootModel, ListFiles
from gradio.routes import App
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from page_makers import ROOT, Page, analyze_picture, file_data, png, start_page, upload
from starlette.routing import Route

from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.settings import Settings
from hsemotion_space.ui.app import build
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.guard import READ, WRITTEN
from hsemotion_space.ui.inputs import RawFiles, RawImage
from hsemotion_space.ui.uploads import Uploads

ROUTES = ("run", "run by name", "api", "queue", "call")
ATTACKER = "attacker"


@dataclass(frozen=True, slots=True)
class Attack:
    """A page under attack.

    Attributes:
        page: the page.
        client: of the attacker.
        functions: of the page.
        paths: names of files that the attacker must not read.
        markers: what these files hold.
        before: files below the page's own folder before the attack.
    """

    page: Page
    client: httpx.Client
    functions: tuple[Function, ...]
    paths: list[str]
    markers: tuple[bytes, ...]
    before: frozenset[Path] = field(repr=False)

    def check(self, answer: httpx.Response, sent: object) -> httpx.Response:
        """Return an answer in which nothing was found."""
        for marker in self.markers:
            assert marker not in answer.content, f"{sent!r} was answered with {marker!r} at {answer.url}"
        return answer

    def get(self, address: str, sent: object) -> httpx.Response:
        return self.check(self.client.get(address), sent)

    def send(self, route: str, function: Function, data: list[Any], kind: str) -> None:
        """Call one function, and read what comes of it."""
        body = {
            "data": data,
            "fn_index": function.number,
            "session_hash": ATTACKER,
            "event_data": None,
            "trigger_id": None,
        }
        if route in ("run by name", "call"):
            del body["fn_index"]
        named = {
            "run": "run/predict",
            "run by name": f"run/{function.name}",
            "api": f"api/{function.name}",
            "queue": "queue/join",
        }
        address = f"{self.page.url}/gradio_api/{named.get(route, f'call/{function.name}')}"
        answer = self.client.post(
            address, content=to_json(body), headers={"content-type": kind} if kind else {}
        )
        sent = (route, function.name, data, kind)
        self.check(answer, sent)
        if answer.status_code == 200 and route == "queue":
            self.get(f"{self.page.url}/gradio_api/queue/data?session_hash={ATTACKER}", sent)
        elif answer.status_code == 200 and route == "call":
            self.get(f"{self.page.url}/gradio_api/call/{function.name}/{answer.json()['event_id']}", sent)
        for path in re.findall(r"file=(/[^\"'\\<> ?&]+)", answer.text):
            if path not in repr(data):  # what was sent is asked for by itself
                self.get(file_address(self.page.url, path), sent)
        self.look_around(sent)

    def look_around(self, sent: object) -> None:
        """Ask for every file that has come to the folders of the page, as if its name were known."""
        for path in self.page.added.rglob("*"):
            if path.is_file() and not path.is_symlink() and path not in self.before:
                self.get(file_address(self.page.url, str(path)), sent)


def analyze(page: Page, session: str, path: str) -> None:
    """Begin an analysis."""
    function = next(one for one in read_functions(page.url) if one.name == "add")
    body = {
        "data": [None, None, [file_data(path)], *function.usual[3:]],
        "fn_index": function.number,
        "session_hash": session,
    }
    answer = httpx.post(f"{page.url}/gradio_api/run/predict", json=body, timeout=120)
    # the id of its job
    assert answer.status_code == 200 and re.search(r'"[0-9a-f]{32}"', answer.text), answer.text


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    folder = tmp_path_factory.mktemp("attack")
    outside = folder / "outside.png"  # a picture, so that nothing but the door keeps it from being shown
    picture = png(picture_with([(60, 40)]))
    outside.write_bytes(picture + CANARY.encode())
    environ = {"GREETING": CANARY, "HF_TOKEN": f"hf_{CANARY}", "HSEMOTION_REVIEW_TOKEN": CANARY * 3}
    with count_hits() as (hits, asked), start_page(folder, environ, [CANARY, "outside.png"]) as page:
        with (folder / "checkpoints" / "random" / "manifest.toml").open("a") as manifest:
            manifest.write(f"\n# {CANARY}\n")
        analyze(page, "victim", upload(page.url, "mine.png", picture + CANARY.encode()))
        paths = hostile_paths(page.added, outside, hits)
        secret = (folder / "feedback" / "secret").read_bytes().strip()
        contents = (CANARY.encode(), secret, b"SQLite format 3", b"root:x:0:", b"Entry point of the Space")
        markers = tuple(spelled for content in contents for spelled in spellings(content))
        before = frozenset(page.added.rglob("*"))
        with httpx.Client(timeout=120) as client:
            yield Attack(page, client, read_functions(page.url), paths, markers, before)
        assert not asked, "the server asked for something by itself"


def test_the_attacker_finds_every_function_that_takes_a_file(attack: Attack) -> None:
    assert {one.name for one in attack.functions if one.files} == {
        "add", "add_1", "begin", "analyze_image", "analyze_clip"
    }  # fmt: skip
    assert len(attack.functions) > 40


@pytest.mark.parametrize("runs", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_no_request_reads_a_file_that_is_not_its_own(attack: Attack, runs: int) -> None:
    readable = st.sampled_from(attack.paths[:6]) | st.sampled_from(attack.paths)
    shapes = st.sampled_from(SHAPES[:9]) | st.sampled_from(SHAPES)
    takers = [one for one in attack.functions if one.files]

    @settings(
        max_examples=runs,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        readable,
        shapes,
        st.sampled_from(ROUTES),
        st.sampled_from(KINDS),
        st.sampled_from(attack.functions),
        st.integers(0, 30),
    )
    def ask(path: str, shape: Any, route: str, kind: str, other: Function, place: int) -> None:
        for function, named in product(takers, (shape(path), [shape(path)])):
            data = [
                named if position in function.files else value
                for position, value in enumerate(function.usual)
            ]
            attack.send(route, function, data, kind)
        data = list(other.usual) or [None]
        data[place % len(data)] = shape(path)
        attack.send(route, other, data, kind)
        if "/shown/" not in path:  # whoever knows the id of a job may see what belongs to it
            attack.get(file_address(attack.page.url, path), path)
            attack.get(file_address(attack.page.url, path).replace("/file=/", "/file/"), path)

    ask()


def test_uploads_are_analyzed_after_the_tick_only(attack: Attack) -> None:
    path = upload(attack.page.url, "own.png", png(picture_with([(10, 20)], (240, 320))))
    assert "Face 1" in analyze_picture(attack.page.url, [file_data(path), "random", True])
    for agreed in (False, None, "true", 1, [True]):
        answer = analyze_picture(attack.page.url, [file_data(path), "random", agreed])
        assert "Face 1" not in answer and ("Select “" in answer or "error" in answer)


def test_errors_on_the_page_are_sentences(attack: Attack) -> None:
    broken = upload(attack.page.url, "x.png", b"not a picture at all")
    answer = analyze_picture(attack.page.url, [file_data(broken), "random", True])
    assert "notices" in answer and str(ROOT) not in answer
    picture = upload(attack.page.url, "y.png", png(np.zeros((64, 64, 3), np.uint8)))
    unknown = analyze_picture(attack.page.url, [file_data(picture), "no-such-backbone", True])
    assert "Traceback" not in unknown and "no-such-backbone" in unknown


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("built")
    make_checkpoint(folder / "checkpoints" / "random")
    options = Settings(checkpoints=folder / "checkpoints", cache=folder / "cache", review_token="x" * 40)
    uploads = Uploads(folder / "uploads", folder / "claims")
    runner = SimpleNamespace(problems={})
    checkpoints, feedback = list_checkpoints(options.checkpoint_roots), cast("Any", SimpleNamespace())
    context = AppContext(options, runner, checkpoints, folder / "results", uploads, feedback)

    async def make() -> App:  # where no event loop runs, Gradio makes some that it never closes
        return App.create_app(
            build(context), app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None}
        )

    return asyncio.run(make())


def holds_file(model: object) -> bool:
    """Return whether a value of a data model can hold a file."""
    if isinstance(model, type) and issubclass(model, FileData | ListFiles):
        return True
    if isinstance(model, type) and issubclass(model, GradioModel | GradioRootModel):
        return "path" in model.model_fields or any(
            holds_file(one.annotation) for one in model.model_fields.values()
        )
    return any(holds_file(inner) for inner in get_args(model))


def test_every_input_that_can_hold_a_file_hands_on_a_name_alone(app: App) -> None:
    inputs = {
        block._id: block for function in app.get_blocks().fns.values() for block in function.inputs
    }.values()
    filed = [block for block in inputs if holds_file(getattr(block, "data_model", None))]
    assert {type(block) for block in filed} == {RawFiles, RawImage}, "only these go through uploads.py"


OPEN_TO_FILES = {"GET /file={path_or_url:path}", "HEAD /file={path_or_url:path}"}
"""Open for paths alone, which begin with a slash."""


def routes_of(app: Any, before: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield the path and the methods of every route, of routers within too."""
    for route in app.routes:
        inner = getattr(route, "original_router", None) or (route if getattr(route, "routes", None) else None)
        if inner is not None:
            yield from routes_of(inner, before + getattr(route, "path", ""))
        else:
            assert isinstance(route, Route) or hasattr(route, "path"), (
                f"a route of an unknown kind: {route!r}"
            )
            yield before + route.path, getattr(route, "methods", None) or {"WEBSOCKET"}


def is_open(method: str, route: str, filled: str) -> bool:
    rule = {"GET": READ, "HEAD": READ, "POST": WRITTEN}.get(method)
    return rule is not None and bool(rule.fullmatch(re.sub(r"\{[^}]+\}", filled, route)))


def test_the_routes_that_are_open_are_known(app: App) -> None:
    routes = {
        (method, path.removeprefix("/gradio_api")) for path, methods in routes_of(app) for method in methods
    }
    assert len(routes) > 70, "routers within are walked too"
    opened = {f"{method} {path}" for method, path in routes if is_open(method, path, "x")}
    assert opened == OPEN
    assert {
        f"{method} {path}" for method, path in routes if is_open(method, path, "/x")
    } - opened >= OPEN_TO_FILES


def test_routes_that_are_not_open_say_so(attack: Attack, app: App) -> None:
    for path, methods in routes_of(app):
        route = path.removeprefix("/gradio_api")
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", *methods):
            if method == "WEBSOCKET" or is_open(method, route, "x"):
                continue
            answer = attack.client.request(
                method, attack.page.url + re.sub(r"\{[^}]+\}", "x", path), content=b"{}"
            )
            assert answer.status_code in (404, 405), (method, path)
