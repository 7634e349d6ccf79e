"""What operators are told: the log, health, readiness and metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from feedback_makers import make_record
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.jobs.requests import WorkerStatus
from hsemotion_space.logs import EVENTS, JsonFormatter, TextFormatter, log_event, origin_of
from hsemotion_space.operations import health
from hsemotion_space.operations.health import Deployment
from hsemotion_space.operations.monitoring import Metrics
from hsemotion_space.operations.startup import check_start
from hsemotion_space.settings import Settings, SettingsError
from hsemotion_space.ui import probes
from hsemotion_space.ui.guard import Guard, GuardLimits
from hsemotion_space.ui.probes import Probes
from hsemotion_space.ui.protocol import SAFE_HEADERS

TOKEN = "token-of-the-monitor"
READY = WorkerStatus("ready", 1, 0, 2, True)


class Store:
    """A store that counts how often it is asked."""

    def __init__(self, error: str = "", takes_s: float = 0.0) -> None:
        self.error, self.takes_s, self.asked = error, takes_s, 0

    def counts(self) -> dict[str, int]:
        self.asked += 1
        time.sleep(self.takes_s)
        if self.error:
            raise FeedbackError(self.error)
        return {"received": 3, "pushed": 4}


def publishes(error: str = "", last_commit_s: float = 1e9) -> Any:
    status = SimpleNamespace(
        saved=2, sealed=1, published=4, last_commit_s=last_commit_s, error=error, erasures=0
    )
    return SimpleNamespace(status=lambda: status)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """A server with nothing wrong."""
    make_checkpoint(tmp_path / "checkpoints" / "random")
    settings = Settings(
        checkpoints=tmp_path / "checkpoints", cache=tmp_path / "cache", feedback_data=tmp_path / "data",
        free_mb=0, metrics_token=TOKEN,
    )  # fmt: skip
    runner: Any = SimpleNamespace(stopping=False, problems={}, workers=lambda: [READY, READY])
    feedback: Any = SimpleNamespace(store=Store(), publisher=publishes())
    return Deployment(settings, runner, tmp_path, feedback)


def client_of(deployment: Deployment, metrics: Metrics | None = None) -> TestClient:
    guard = Middleware(Guard, limits=GuardLimits(1024, hosts=frozenset({"space.test"})))
    app = Starlette(middleware=[Middleware(Probes, deployment=deployment, metrics=metrics), guard])
    return TestClient(app, base_url="http://10.0.0.7")  # a probe comes by address


def ask(deployment: Deployment) -> tuple[int, int, dict[str, dict[str, Any]]]:
    with client_of(deployment) as client:
        healthy, ready = client.get("/healthz"), client.get("/readyz")
    checks = healthy.json()["checks"]
    for answer in (healthy, ready):
        assert SAFE_HEADERS.items() <= dict(answer.headers).items()
        assert TOKEN not in answer.text and str(deployment.temporary) not in answer.text
    assert {check["status"] for check in checks.values()} <= {"ok", "starting", "failing", "off"}
    assert ready.json()["checks"].items() <= checks.items() or healthy.status_code != ready.status_code
    return healthy.status_code, ready.status_code, checks


def test_healthy_server(deployment: Deployment) -> None:
    healthy, ready, checks = ask(deployment)
    assert (healthy, ready) == (200, 200)
    assert set(checks) == {"page", "workers", "checkpoint", "store", "publish", "space"}
    assert checks["workers"] == {"status": "ok", "workers": 2, "ready": 2, "busy": 2, "waiting": 4}
    assert checks["store"] == {"status": "ok", "database": "sqlite", "records": 7}
    assert checks["publish"]["last_commit"] == "2001-09-09T01:46:40+00:00"
    assert checks["publish"]["waiting"] == 3


def broken(deployment: Deployment, part: str) -> Deployment:
    runner, feedback = deployment.runner, deployment.feedback
    assert feedback is not None
    match part:
        case "page":
            runner.stopping = True  # type: ignore[misc]
        case "workers":
            runner.workers = lambda: [READY, replace(READY, state="stopped")]  # type: ignore[method-assign]
        case "checkpoint":
            runner.problems["random"] = "The weights are damaged."
        case "store":
            feedback.store.error = "The database is away."  # type: ignore[attr-defined]
        case "publish":
            feedback.publisher = publishes("The Hub is away.")  # type: ignore[misc]
        case "space":
            return replace(deployment, settings=replace(deployment.settings, free_mb=10**6))
    return deployment


@pytest.mark.parametrize("part", ["page", "workers", "checkpoint", "store", "publish", "space"])
def test_each_part_that_fails_is_named_and_visitors_come_if_it_serves_them(
    deployment: Deployment, part: str
) -> None:
    healthy, ready, checks = ask(broken(deployment, part))
    assert healthy == 503
    assert ready == (200 if part in ("store", "publish") else 503)
    assert [name for name, check in checks.items() if check["status"] == "failing"] == [part]
    assert checks[part]["reason"].endswith(".")


def test_starting_is_not_ready_and_restarting_is(deployment: Deployment) -> None:
    for state, expected in (("starting", (200, 503)), ("restarting", (200, 200))):
        workers = [READY, replace(READY, state=state)]
        deployment.runner.workers = lambda workers=workers: workers  # type: ignore[method-assign]
        assert ask(deployment)[:2] == expected
    deployment.runner.workers = lambda: [replace(READY, state="starting")]  # type: ignore[method-assign]
    late = replace(deployment, started_s=time.monotonic() - health.START_LIMIT_S - 1)
    assert ask(late)[:2] == (503, 503), "it will never start"


def test_a_checkpoint_that_is_not_here_and_corrections_that_are_not_taken(deployment: Deployment) -> None:
    [folder] = deployment.settings.checkpoints.iterdir()
    (folder / "manifest.toml").unlink()
    healthy, ready, checks = ask(replace(deployment, feedback=None, problem="The key cannot be read."))
    assert (healthy, ready) == (503, 503)
    assert checks["store"] == {"status": "failing", "reason": "The key cannot be read."}
    assert checks["checkpoint"]["status"] == "failing"
    off = replace(deployment, feedback=None, settings=replace(deployment.settings, feedback="off"))
    assert ask(off)[2]["store"] == {"status": "off"}


def test_many_probes_ask_the_store_once_and_a_stuck_store_is_said(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PATIENCE_S", 0.1)
    store: Any = Store(takes_s=1.0)
    slow = replace(deployment, feedback=SimpleNamespace(store=store, publisher=None))  # type: ignore[arg-type]
    with client_of(slow) as client:  # one event loop
        answers = [client.get("/healthz") for _ in range(4)]
        assert {answer.status_code for answer in answers} == {503} and store.asked == 1
        time.sleep(1.2)
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200 and store.asked == 1


def test_other_methods_and_routes_are_for_the_guard(deployment: Deployment) -> None:
    with client_of(deployment) as client:
        for method, route in (("POST", "/healthz"), ("GET", "/healthz/"), ("GET", "/metrics"), ("GET", "/")):
            assert client.request(method, route).status_code == 403, "it does not answer to that name"
        assert client.head("/readyz").status_code == 200


@pytest.fixture
def metrics(deployment: Deployment) -> Iterator[Metrics]:
    EVENTS.setLevel(logging.DEBUG)
    made = Metrics(deployment)
    yield made
    made.stop()


def test_metrics_need_the_token_and_count_events(deployment: Deployment, metrics: Metrics) -> None:
    client = client_of(deployment, metrics)
    for header in ({}, {"authorization": TOKEN}, {"authorization": "Bearer x"}, {"authorization": "Bearer "}):
        assert client.get("/metrics", headers=header).status_code == 401
    log_event("job", kind="clip", state="done", waited_s=2.0, ran_s=8.0)
    log_event("job", logging.DEBUG, kind="frame", state="done", waited_s=0.0, ran_s=0.02)
    answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert (
        found["hsemotion_jobs_total", "clip", "done"] == found["hsemotion_jobs_total", "frame", "done"] == 1
    )
    assert found["hsemotion_job_run_seconds_sum", "clip"] == 8
    assert found["hsemotion_refusals_total", "401", "metrics"] == 4
    assert found["hsemotion_check", "store"] == 1 and found["hsemotion_worker_waiting", "0"] == 2
    assert found["hsemotion_store_records",] == 7 and found["process_open_fds",] > 0
    assert TOKEN not in answer.text


def test_log_lines_hold_nothing_that_has_no_field() -> None:
    with pytest.raises(ValueError, match="no field"):
        log_event("job", file="face.png")


@given(st.text(), st.text())
def test_every_record_is_one_line(message: str, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", (message,), (ValueError, error, None))
        place = origin_of(error)
    line = JsonFormatter().format(record)
    assert len(line.split("\n")) == 1 and json.loads(line)["message"] == message
    assert json.loads(line)["error"] == place and place.startswith("ValueError in test_every_record")
    assert not {"\n", "\r"} & set(TextFormatter().format(record))


def test_the_documented_backup_holds_the_store_of_a_running_server(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "operations.md").read_text("utf-8")
    [statement] = re.findall(r'python -c "(import sqlite3.*)"$', text, re.MULTILINE)
    record = make_record(1)
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}") as store, contextlib.chdir(tmp_path):
        store.add(record)
        exec(statement.replace('\\"', '"'))
        store.add(make_record(2))
    with FeedbackStore(f"sqlite:///{tmp_path / 'backup.sqlite'}") as restored:
        assert [one.id for one in restored.records()] == [record.id]
        assert restored.add(make_record(2)).created


def test_start_says_one_sentence_each(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    settings = Settings(
        checkpoints=tmp_path / "checkpoints", cache=tmp_path / "cache" / "deep",
        feedback_data=tmp_path / "data", port=0,
    )  # fmt: skip
    good = check_start(settings)
    assert set(good) == {"port", "checkpoints", "cache", "data"}
    assert {check.state for check in good.values()} == {"ok"}
    assert not (tmp_path / "cache").exists(), "nothing is written"
    (tmp_path / "checkpoints" / "bad").mkdir()
    (tmp_path / "checkpoints" / "bad" / "manifest.toml").write_text("x")
    blocked = tmp_path / "file"
    blocked.touch()
    bad = check_start(replace(settings, cache=blocked / "cache", feedback_data=blocked / "data"))
    assert {name for name, check in bad.items() if check.state == "failing"} == {
        "checkpoints",
        "cache",
        "data",
    }
    assert "bad" in bad["checkpoints"].reason
    with raises_code(SettingsError, "address"):
        check_start(replace(settings, host="192.0.2.1"))
