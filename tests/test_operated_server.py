"""A server as an operator runs it: an unprivileged user, a read-only application, a Hub and nobody else."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from attack_makers import CANARY
from face_makers import picture_with
from fake_hub import FakeHub, environment
from feedback_postgres import MISSING, fresh_schema, postgres_server
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from media_makers import write_clip
from page_makers import ROOT, Page, free_port, serve, start_page
from PIL import Image

from hsemotion_space.logs import EVENT_FIELDS

TOKEN, SECRET, MONITOR = "hf_canaryCanary0123456789", "s" * 40, "monitor-canary-0123456789"
PUBLISH = {"keep": ["labels", "publish"], "adult_and_permitted": True}
WATCH = """
import os, sys
_log = os.open(os.environ["WATCH_LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)

def _watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        os.write(_log, f"{arguments[1]!r}\\n".encode())
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        os.write(_log, f"{arguments[0]!r}\\n".encode())

sys.addaudithook(_watch)
"""
"""Writes down whom any Python process of the server connects to, or whose address it looks up."""


def wait_for(page: str, route: str, status: int = 200) -> httpx.Response:
    until_s = time.monotonic() + 180
    while (answer := httpx.get(page + route, timeout=30)).status_code != status:
        assert time.monotonic() < until_s, answer.text
        time.sleep(0.2)
    return answer


def wait_until(page: Page, good: Callable[[dict[str, Any]], bool]) -> None:
    until_s = time.monotonic() + 60
    while not good(checks := httpx.get(f"{page.url}/healthz", timeout=30).json()["checks"]):
        assert time.monotonic() < until_s, checks
        time.sleep(0.5)


def analyze(client: Client, file: Path, kind: str = "image") -> dict[str, Any]:
    given = {"image" if kind == "image" else "clip": handle_file(file)}
    return client.predict(**given, consent=True, checkpoint="", api_name=f"/analyze_{kind}")


def correct(client: Client, job: str, label: str = "Fear", code: str = "") -> dict[str, Any]:
    statement = {"verdict": "wrong", "corrected": {"expression": label}, "receipt_code": code}
    return client.predict(job=job, face=1, statement=statement, consent=PUBLISH, api_name="/submit_feedback")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a picture and a clip, whose names nobody may log."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(picture_with([(10, 20)], (240, 320))).save(folder / f"{CANARY}.png")
    frames = [picture_with([(60 + step, 40)], (240, 320)) for step in range(6)]
    write_clip(folder / f"{CANARY}.mp4", frames, [step / 6 for step in range(6)])
    (folder / "broken.png").write_bytes((folder / f"{CANARY}.png").read_bytes()[:300])
    return folder


def client_of(page: Page) -> Client:
    downloads = page.folder / "downloads"
    return Client(page.url, verbose=False, download_files=downloads, analytics_enabled=False)


def use_server(page: Page, hub: FakeHub, media: Path) -> None:
    """Analyze a picture and a clip, be refused, correct, and wait until that is on the Hub."""
    ready = wait_for(page.url, "/readyz").json()
    assert ready["checks"]["workers"]["ready"] == 2
    client = client_of(page)
    found = analyze(client, media / f"{CANARY}.png")
    analyze(client, media / f"{CANARY}.mp4", "clip")
    with pytest.raises(AppError):
        analyze(client, media / "broken.png")
    correct(client, found["job"])
    with pytest.raises(AppError):
        correct(client, found["job"], "Joy")
    assert httpx.get(f"{page.url}/gradio_api/{CANARY}").status_code == 404
    wait_until(page, lambda checks: checks["publish"]["published"] == 1)
    assert httpx.get(f"{page.url}/healthz").json()["status"] == "ok"
    header = {"authorization": f"Bearer {MONITOR}"}
    metrics = httpx.get(f"{page.url}/metrics", headers=header).text
    assert 'hsemotion_jobs_total{kind="clip",state="done"} 1.0' in metrics
    # a minute has not passed: only the end of the server publishes this one
    correct(client, found["job"], "Anger")
    client.close()


def test_a_server_connects_to_its_hub_alone_logs_no_names_and_ends_in_order(
    tmp_path: Path, media: Path
) -> None:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "connections.txt"
    with FakeHub(token=TOKEN) as hub:
        environ = environment(hub, tmp_path / "hf") | {
            "HF_TOKEN": TOKEN, "HSEMOTION_FEEDBACK_REPO": "faces/said", "HSEMOTION_FEEDBACK_SECRET": SECRET,
            "HSEMOTION_METRICS_TOKEN": MONITOR, "WATCH_LOG": str(log),
            "PYTHONPATH": f"{tmp_path / 'watch'}:{ROOT}",
        }  # fmt: skip
        with start_page(tmp_path, environ, [CANARY, TOKEN, SECRET, MONITOR]) as page:
            use_server(page, hub, media)
            own, theirs = page.port, int(hub.url.rpartition(":")[2])
        assert (
            len([path for path in hub.files("faces/said", kind="dataset") if path.endswith(".parquet")]) == 2
        )
    check_log((tmp_path / "printed.txt").read_text("utf-8"))
    places = {line for line in log.read_text().splitlines() if not line.startswith(("'/", "b'"))}
    ports = {int(line.rpartition(", ")[2].rstrip(")")) for line in places if line.startswith("(")}
    names = {line for line in places if not line.startswith("(")}
    assert ports <= {own, theirs} and theirs in ports, "it connects to the Hub and, at its start, to itself"
    assert {line.split("'")[1] for line in places} <= {"127.0.0.1"} and names <= {"'127.0.0.1'"}


def check_log(printed: str) -> None:
    """Check that there is one line for each job and each refusal, in JSON, and that nothing else is told."""
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    others = [line for line in printed.splitlines() if not line.startswith("{")]
    assert [line for line in others if not line.startswith("HSEmotion Space is running on ")] == []
    assert len([line for line in lines if "message" in line]) >= 4, "one sentence for each check at the start"
    events = [line for line in lines if "event" in line]
    assert all(line.keys() <= EVENT_FIELDS | {"time", "level", "logger", "event"} for line in events)
    jobs = [(line["kind"], line["state"]) for line in events if line["event"] == "job"]
    assert sorted(jobs) == [("clip", "done"), ("image", "done"), ("image", "failed")]
    assert [line["code"] for line in events if line.get("state") == "failed"] != [""]
    refusals = {
        (line["where"], line.get("code", line.get("status"))) for line in events if line["event"] == "refusal"
    }
    assert {("other", 404)} < refusals and "feedback" in {where for where, _ in refusals}
    assert not re.search(r"127[.]0[.]0[.]1(?!, port|:\d+$)|[0-9a-f]{32}", "\n".join(map(json.dumps, events)))


@pytest.fixture
def installed() -> Iterator[Path]:
    """A folder with the application as an image has it, closed to changes, and a folder for its data."""
    folder = Path(tempfile.mkdtemp(prefix="installed"))
    folder.chmod(0o755)
    for name in ("hsemotion_space", "checkpoints", "examples"):
        shutil.copytree(
            ROOT / name, folder / "app" / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi")
        )
    shutil.copy(ROOT / "app.py", folder / "app")
    (folder / "data").mkdir()
    for path in [folder / "app", *(folder / "app").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def drop_capabilities() -> None:
    """Make root an ordinary owner of its files, whom their modes bind; others are that already."""
    if os.geteuid() == 0:
        for number in range(64):
            ctypes.CDLL(None).prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP


def dockerfile_environment(data: Path, port: int) -> dict[str, str]:
    """Return what the image sets, with its data elsewhere."""
    [block] = re.findall(
        r"^ENV (.*?[^\\])\n", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    pairs = dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())
    return {name: value.replace("/var/lib/hsemotion", str(data)) for name, value in pairs.items()} | {
        "HSEMOTION_HOST": "127.0.0.1", "HSEMOTION_PORT": str(port), "PATH": os.environ["PATH"]
    }  # fmt: skip


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")
    }


def test_an_unprivileged_user_serves_a_read_only_application(
    installed: Path, media: Path, tmp_path: Path
) -> None:
    before, data, port = state_of(installed / "app"), installed / "data", free_port()
    environ = dockerfile_environment(data, port)
    for restart in range(2):
        with serve(
            [str(installed / "app" / "app.py")],
            port,
            tmp_path,
            environ,
            cwd=installed / "app",
            preexec_fn=drop_capabilities,
        ) as page:
            wait_for(page.url, "/readyz")
            client = client_of(page)
            found = analyze(client, media / f"{CANARY}.png")
            correct(client, found["job"], ("Fear", "Anger")[restart])
            wait_until(page, lambda checks, count=restart + 1: checks["store"]["records"] == count)
            client.close()
        assert not list(data.glob("hsemotion-space-*")), "what visitors added must be gone"
    assert state_of(installed / "app") == before
    assert {path.name for path in data.iterdir()} >= {"cache", "feedback"}
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (data / "feedback").iterdir())


def replicas(stack: ExitStack, folder: Path, environ: Mapping[str, str]) -> list[Page]:
    pages = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        pages.append(stack.enter_context(start_page(folder / name, environ, [SECRET])))
    return pages


def test_replicas_share_corrections_and_not_results(tmp_path: Path, media: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server())
        if not server:
            pytest.skip(MISSING)
        url = stack.enter_context(fresh_schema(server))
        environ = {"HSEMOTION_FEEDBACK_DATABASE": url, "HSEMOTION_FEEDBACK_SECRET": SECRET}
        pages = replicas(stack, tmp_path, environ)
        one, other = clients = [client_of(page) for page in pages]
        for page in pages:
            assert wait_for(page.url, "/readyz").json()["checks"]["workers"]["status"] == "ok"
        found = analyze(one, media / f"{CANARY}.png")
        code = correct(one, found["job"])["receipt_code"]
        with pytest.raises(AppError, match="no longer available"):
            correct(other, found["job"], "Anger", code)  # so a proxy must send a visitor to one replica
        again = analyze(other, media / f"{CANARY}.png")
        later = correct(other, again["job"], "Anger", code)
        assert later["receipt_code"] == code and later["created"], "the other replica knows the code"
        for page in pages:
            wait_until(page, lambda checks: checks["store"].get("records") == 2)
            assert wait_for(page.url, "/healthz").json()["checks"]["store"]["database"] == "postgresql"
        for client in clients:
            client.close()
