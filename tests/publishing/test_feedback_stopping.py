"""Whoever stops publishes first what waits, in the time there is; the thread outlives faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault, environment
from feedback_publishing import REPO, TOKEN, Server, published_ids

from hsemotion_space.feedback import publish


def test_the_thread_pushes_what_waits_when_it_is_stopped(server: Server, hub: FakeHub) -> None:
    ids = server.say(1)
    server.publisher.start()
    while not server.store.counts()["verified"]:
        time.sleep(0.005)
    ids += server.say(5)
    assert len(published_ids(hub)) == 1
    server.publisher.stop(8)
    assert not server.publisher._thread.is_alive()
    assert published_ids(hub) == dict.fromkeys(ids, 1)


SERVER = f"""
import signal, sys, threading
from feedback_makers import make_record
from feedback_publishing import TEXTS
from hsemotion_space.feedback.publish import Publisher
from hsemotion_space.feedback.store import FeedbackStore

store = FeedbackStore("sqlite:///" + sys.argv[1], reserve_bytes=0)
publisher = Publisher(store, "{REPO}", "{TOKEN}", TEXTS)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
publisher.start()
ids = [store.add(make_record(0)).id]
while not store.counts()["verified"]:
    ended.wait(0.01)
print(*ids, *(store.add(make_record(number)).id for number in range(1, 7)), flush=True)
ended.wait()
publisher.stop(8)
store.close()
"""


def test_a_process_that_is_asked_to_end_pushes_first_and_ends_soon(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = TOKEN
    paths = {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "feedback.sqlite")]
    with subprocess.Popen(
        command,
        env=os.environ | environment(hub, tmp_path / "home") | paths,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            ids = process.stdout.readline().split()
            assert len(published_ids(hub)) == 1
            started_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert time.monotonic() - started_s < 8
    assert len(ids) == 7
    assert published_ids(hub) == dict.fromkeys(ids, 1)
    assert TOKEN not in out + errors


def test_a_publisher_that_was_never_started_pushes_when_it_is_stopped(server: Server, hub: FakeHub) -> None:
    ids = server.say(2)
    server.publisher.stop(8)
    assert published_ids(hub) == dict.fromkeys(ids, 1)


def test_stopping_takes_no_longer_than_it_may_and_loses_nothing(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("hang", "/api/datasets", count=None))
    ids = server.say(2)
    started_s = time.monotonic()
    server.publisher.stop(0.2)
    assert time.monotonic() - started_s < 1
    hub.clear_faults()
    server.publisher._thread.join(5)
    assert not server.publisher._thread.is_alive()
    server.crash()
    server.drain()
    assert published_ids(hub) == dict.fromkeys(ids, 1)


def test_flushing_publishes_everything_without_a_break(
    server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "COMMIT_BATCHES", 1)
    server.say(250)
    status = server.publisher.flush()
    assert (status.saved, status.sealed, status.published) == (0, 0, 250)
    assert server.commits == 3


def test_a_fault_of_the_program_does_not_end_the_thread(
    server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = publish.encode
    broken = threading.Event()

    def fail(_: object) -> bytes:
        broken.set()
        raise ZeroDivisionError(TOKEN)

    monkeypatch.setattr(publish, "encode", fail)
    server.say(2)
    server.publisher.start()
    assert broken.wait(5)
    while not server.publisher.status().error:
        time.sleep(0.005)
    assert (
        server.publisher.status().error == "Publishing failed because of a program error (ZeroDivisionError)."
    )
    monkeypatch.setattr(publish, "encode", encode)
    server.publisher.stop(8)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
