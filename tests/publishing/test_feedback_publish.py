"""Publishing of feedback where the Hub does what it should; for the rest see test_feedback_faults.py."""

from __future__ import annotations

import logging
import math
import traceback
from itertools import pairwise
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault
from feedback_publishing import (
    REPO,
    TEXTS,
    TOKEN,
    Clock,
    Server,
    batches_on,
    everything_in,
    everything_on,
    published_ids,
)
from huggingface_hub import constants, get_session

from hsemotion_space.feedback import repository
from hsemotion_space.feedback.backoff import BREAK_AFTER
from hsemotion_space.feedback.card import CARD, read_counts
from hsemotion_space.feedback.dataset import encode, record_ids
from hsemotion_space.feedback.publish import Publisher
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.hub import client


def card_of(hub: FakeHub) -> str:
    return hub.files(REPO, kind="dataset")[CARD].decode()


def test_publisher_publishes_at_once_and_reads_back(server: Server, hub: FakeHub) -> None:
    server.pass_time(1)
    assert not hub.has_repo(REPO, kind="dataset")
    ids = server.say(3)
    assert server.pass_time(1)
    assert published_ids(hub) == dict.fromkeys(ids, 1)
    (path,) = batches_on(hub)
    assert path.startswith("data/2025/06/15/")
    assert server.store.counts()["verified"] == 3
    assert server.store.batch(Path(path).stem).oid == hub.commits(REPO, kind="dataset")[-1].oid


def test_publisher_collects_the_statements_of_a_minute(server: Server, hub: FakeHub) -> None:
    ids = server.say(1)
    assert server.pass_time(1)
    hub.requests.clear()
    for _ in range(5):
        ids += server.say(5)
        assert not server.pass_time(10)
    assert not hub.requests
    assert server.store.counts()["sealed"] == 0
    assert server.pass_time(10)
    assert published_ids(hub) == dict.fromkeys(ids, 1)
    assert sorted(len(record_ids(body)) for body in batches_on(hub).values()) == [1, 25]


def test_publisher_without_anything_new(server: Server, hub: FakeHub) -> None:
    server.say(1)
    server.pass_time(61)
    hub.requests.clear()
    for _ in range(10):
        server.pass_time(61)
    assert not hub.requests
    assert server.commits == 1


def test_publisher_keeps_private_statements_here(server: Server, hub: FakeHub) -> None:
    server.say(25, scopes=("labels", "crop"))
    server.pass_time(61)
    assert not hub.has_repo(REPO, kind="dataset")
    (open_one,) = server.say(1)
    server.pass_time(61)
    assert set(published_ids(hub)) == {open_one}
    assert server.store.counts()["received"] == 25


@pytest.mark.parametrize("restarts", [False, True])
def test_publisher_commits_at_most_once_a_minute(server: Server, restarts: bool) -> None:
    times_s = []
    for _ in range(20 if restarts else 120):
        server.say(3)
        if restarts:
            server.crash()
        if server.pass_time(11 if restarts else 7):
            times_s.append(server.clock.now_s)
    assert len(times_s) >= (3 if restarts else 10)
    assert min(later - earlier for earlier, later in pairwise(times_s)) >= 60
    assert server.commits == len(times_s)


@pytest.mark.parametrize("jump_s", [-86400.0, 10 * 365 * 86400.0])
def test_publisher_with_a_clock_that_jumps(server: Server, hub: FakeHub, jump_s: float) -> None:
    server.say(1)
    server.pass_time(61)
    hub.fail(Fault("status", "/commit/"))
    server.say(1)
    server.pass_time(61)
    server.clock.now_s += jump_s
    server.drain(0.1)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_publisher_makes_a_private_repository(server: Server, hub: FakeHub) -> None:
    server.say(1)
    server.pass_time(61)
    assert hub._repositories["dataset", REPO].private
    assert [request.path for request in hub.seen("PUT", "settings")] == [f"/api/datasets/{REPO}/settings"]
    hub._repositories["dataset", REPO].private = False
    server.say(1)
    server.pass_time(61)
    assert not hub._repositories["dataset", REPO].private
    assert len(hub.seen("POST", "repos/create")) == len(hub.seen("PUT", "settings")) == 1


def test_publisher_overwrites_no_file(server: Server, hub: FakeHub) -> None:
    hub.add_repo(REPO, {"data/2025/06/15/other.parquet": b"foreign"}, kind="dataset")
    server.say(2)
    batch = server.store.create_batch(100, encode)
    hub.commit(REPO, {batch.path: b"somebody else's"}, kind="dataset")
    server.pass_time(61)
    assert batches_on(hub)[batch.path] == b"somebody else's"
    assert server.publisher.status().error.code == "path_taken"


def test_publishers_of_two_servers(server: Server, hub: FakeHub, tmp_path: Path) -> None:
    other = Server(hub, tmp_path / "there", server.clock)
    for _ in range(12):
        server.say(3)
        other.say(2)
        server.pass_time(40)
        other.pass_time(0)
    server.drain()
    other.drain()
    other.store.close()
    said = [*server.said, *other.said]
    assert published_ids(hub) == dict.fromkeys(said, 1)
    assert read_counts(card_of(hub)).records == len(said) == 60


def test_publisher_that_was_overtaken_tries_again(
    server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.Repository.commit

    def overtaken(self: repository.Repository, *given: object) -> str:
        monkeypatch.setattr(repository.Repository, "commit", commit)
        hub.commit(REPO, {"notes.txt": b"by hand"}, kind="dataset")
        return commit(self, *given)

    monkeypatch.setattr(repository.Repository, "commit", overtaken)
    server.say(2)
    assert not server.pass_time(61)
    assert "in the meantime" in server.publisher.status().error
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
    assert "notes.txt" in hub.files(REPO, kind="dataset")


@pytest.mark.parametrize(("count", "hours"), [(1000, 6), pytest.param(10_000, 24, marks=pytest.mark.long)])
def test_publisher_after_a_long_outage(server: Server, hub: FakeHub, count: int, hours: int) -> None:
    hub.fail(Fault("reset", "/api/datasets", count=None))
    server.say(500)
    tries = 0
    while server.clock.now_s < Clock().now_s + hours * 3600:
        hub.requests.clear()
        server.pass_time(60)
        tries += bool(hub.requests)
    assert tries < hours * 3600 / 300 + 5
    assert server.publisher._pushes.failures >= BREAK_AFTER
    server.say(count - 500)
    hub.clear_faults()
    started_s = server.clock.now_s
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
    assert len(server.said) == count
    assert len(batches_on(hub)) == count // 100
    assert server.commits == math.ceil(count / 5000)
    assert server.clock.now_s - started_s < 1200


def test_publisher_leaves_other_timeouts_alone(server: Server) -> None:
    usual = get_session().timeout
    server.say(1)
    server.pass_time(61)
    assert get_session().timeout == usual
    # without which the hooks of the one client limit no request that has a limit
    assert client._timeout_s() == 0


def test_status_counts_what_is_saved_and_published(server: Server, hub: FakeHub) -> None:
    server.say(2, scopes=("labels",))
    server.say(1)
    status = server.publisher.status()
    assert status.message == f"3 saved on this server, 0 being uploaded to {REPO}, 0 published."
    server.pass_time(61)
    published = (
        f"2 saved on this server, 0 being uploaded to {REPO}, 1 published. Last commit: 2025-06-15 15:07:41"
        " UTC."
    )
    assert server.publisher.status().message == published
    hub.fail(Fault("status", "/commit/", status=503))
    server.say(1)
    server.pass_time(61)
    words = server.publisher.status().message
    assert f"2 saved on this server, 1 being uploaded to {REPO}, 1 published." in words
    assert (
        "Publishing fails: The Hub answers with status 503." in words
        and "next attempt: 2025-06-15 15:08:4" in words
    )


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_status_of_a_refusal(server: Server, hub: FakeHub, status: int) -> None:
    hub.fail(Fault("status", "/commit/", status=status))
    server.say(1)
    server.pass_time(61)
    assert server.publisher.status().error.code == f"hub_{status}"
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_status_offline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    server.say(1)
    server.pass_time(61)
    assert "HF_HUB_OFFLINE=1 forbids requests" in server.publisher.status().error


@pytest.mark.parametrize("token", ["", "hf_a\nb", "hf ä"])
@pytest.mark.parametrize("repo", [REPO, "feedback"])
def test_publisher_refuses_an_impossible_token_or_name(server: Server, token: str, repo: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        Publisher(server.store, repo, token, TEXTS)
    assert not token or token not in "".join(traceback.format_exception(caught.value))


def test_publisher_never_shows_the_token(
    server: Server, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = []
    for kind in ("status", "reset", "garbage", "hang", "lost_response"):
        for path in ("/commit/", "preupload", "/tree/", "/resolve/"):
            hub.fail(Fault(kind, path, wait_s=1))
            server.say(1)
            server.clock.now_s += 1000
            try:
                server.publisher._work(True, push=True, erase=False)
            except FeedbackError as error:
                seen.append("".join(traceback.format_exception(error)))
            server.publisher.step(last=True)
            seen.append(repr(server.publisher.status()) + server.publisher.status().message)
            hub.clear_faults()
    assert len(seen) > 25
    assert any("RepositoryError" in text for text in seen)
    blobs = [
        *everything_on(hub),
        *everything_in(server.folder),
        caplog.text.encode(),
        *(text.encode() for text in seen),
    ]
    assert not [blob for blob in blobs if TOKEN.encode() in blob]
    assert "huggingface" in caplog.text
    assert {request.headers.get("authorization") for request in hub.requests} == {None, "sent"}


def test_published_files_load_as_a_dataset(server: Server, hub: FakeHub, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    server.say(3, crop=True)
    server.pass_time(61)
    server.say(2, scopes=("labels", "publish"))
    server.pass_time(61)
    for path, body in hub.files(REPO, kind="dataset").items():
        file = tmp_path / "copy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    rows = datasets.load_dataset(str(tmp_path / "copy"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["id"]) == sorted(server.said)
    assert sum(picture is not None and picture.size == (32, 32) for picture in rows["image"]) == 3
