"""Publishing of feedback where the Hub does what it should; for the rest see
tests/faults/test_publish_faults.py."""

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


def test_what_was_said_is_published_at_once_and_read_back(server: Server, hub: FakeHub) -> None:
    server.pass_time(1)
    assert not hub.has_repo(REPO, kind="dataset")
    ids = server.say(3)
    assert server.pass_time(1)
    assert published_ids(hub) == dict.fromkeys(ids, 1)
    (path,) = batches_on(hub)
    assert path.startswith("data/2025/06/15/")
    assert server.store.counts()["verified"] == 3
    assert server.store.batch(Path(path).stem).oid == hub.commits(REPO, kind="dataset")[-1].oid


def test_what_comes_within_a_minute_of_a_commit_goes_together(server: Server, hub: FakeHub) -> None:
    ids = server.say(1)
    assert server.pass_time(1)
    for _ in range(5):
        ids += server.say(5)
        assert not server.pass_time(10)
    assert server.pass_time(10)
    assert published_ids(hub) == dict.fromkeys(ids, 1)
    assert sorted(len(record_ids(body)) for body in batches_on(hub).values()) == [1, 25]


def test_nothing_is_committed_when_there_is_nothing_new(server: Server, hub: FakeHub) -> None:
    server.say(1)
    server.pass_time(61)
    hub.requests.clear()
    for _ in range(10):
        server.pass_time(61)
    assert not hub.requests
    assert server.commits == 1


def test_what_nobody_agreed_to_publish_stays_here(server: Server, hub: FakeHub) -> None:
    server.say(25, scopes=("labels", "crop"))
    server.pass_time(61)
    assert not hub.has_repo(REPO, kind="dataset")
    (open_one,) = server.say(1)
    server.pass_time(61)
    assert set(published_ids(hub)) == {open_one}
    assert server.store.counts()["received"] == 25


def test_there_is_at_most_one_commit_a_minute(server: Server) -> None:
    times_s = []
    for _ in range(120):
        server.say(3)
        if server.pass_time(7):
            times_s.append(server.clock.now_s)
    assert len(times_s) > 10
    assert min(later - earlier for earlier, later in pairwise(times_s)) >= 60
    assert server.commits == len(times_s)


def test_between_two_commits_nothing_is_sealed_and_nothing_asked(server: Server, hub: FakeHub) -> None:
    server.say(1)
    server.pass_time(61)
    hub.requests.clear()
    server.say(30)
    server.pass_time(59)
    assert not hub.requests
    assert server.store.counts()["sealed"] == 0


def test_the_limit_of_one_commit_a_minute_survives_restarts(server: Server) -> None:
    times_s = []
    for _ in range(20):
        server.say(20)
        server.crash()
        if server.pass_time(11):
            times_s.append(server.clock.now_s)
    assert min(later - earlier for earlier, later in pairwise(times_s)) >= 60
    assert len(times_s) >= 3


@pytest.mark.parametrize("jump_s", [-86400.0, 10 * 365 * 86400.0])
def test_a_clock_that_jumps_stops_nothing(server: Server, hub: FakeHub, jump_s: float) -> None:
    server.say(1)
    server.pass_time(61)
    hub.fail(Fault("status", "/commit/"))
    server.say(1)
    server.pass_time(61)
    server.clock.now_s += jump_s
    server.drain(0.1)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_the_repository_is_made_private_and_one_that_exists_stays_as_it_is(
    server: Server, hub: FakeHub
) -> None:
    server.say(1)
    server.pass_time(61)
    assert hub._repositories["dataset", REPO].private
    assert [request.path for request in hub.seen("PUT", "settings")] == [f"/api/datasets/{REPO}/settings"]
    hub._repositories["dataset", REPO].private = False
    server.say(1)
    server.pass_time(61)
    assert not hub._repositories["dataset", REPO].private
    assert len(hub.seen("POST", "repos/create")) == len(hub.seen("PUT", "settings")) == 1


def test_a_batch_that_is_there_already_is_only_marked(
    server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.say(4)

    class PowerCutError(BaseException):
        """Nothing can catch this."""

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "mark_pushed", cut)
        with pytest.raises(PowerCutError):
            server.pass_time(61)
    assert server.store.counts()["sealed"] == 4
    before = hub.commits(REPO, kind="dataset")
    server.crash()
    assert not server.pass_time(60)
    assert server.store.counts()["verified"] == 4
    assert hub.commits(REPO, kind="dataset") == before
    server.say(2)
    assert server.pass_time(60)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_a_file_in_the_place_of_a_batch_is_never_overwritten(server: Server, hub: FakeHub) -> None:
    hub.add_repo(REPO, {"data/2025/06/15/other.parquet": b"foreign"}, kind="dataset")
    server.say(2)
    batch = server.store.create_batch(100, encode)
    hub.commit(REPO, {batch.path: b"somebody else's"}, kind="dataset")
    server.pass_time(61)
    assert batches_on(hub)[batch.path] == b"somebody else's"
    assert server.publisher.status().error.code == "path_taken"


def test_a_restart_with_an_empty_disk_overwrites_nothing_and_makes_nothing_anew(
    server: Server, hub: FakeHub
) -> None:
    first = server.say(3)
    server.pass_time(61)
    before = hub.files(REPO, kind="dataset")
    server.crash(lose_disk=True)
    for _ in range(5):
        server.pass_time(61)
    assert hub.files(REPO, kind="dataset") == before
    second = server.say(2)
    server.pass_time(61)
    assert before.items() - {(CARD, before[CARD])} <= hub.files(REPO, kind="dataset").items()
    assert published_ids(hub) == dict.fromkeys([*first, *second], 1)
    assert read_counts(card_of(hub)).records == 5


def test_two_servers_fill_one_repository(server: Server, hub: FakeHub, tmp_path: Path) -> None:
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


def test_a_server_that_was_overtaken_tries_again(
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
def test_statements_drain_after_a_long_outage(server: Server, hub: FakeHub, count: int, hours: int) -> None:
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


def test_other_users_of_the_client_library_keep_their_timeouts(server: Server) -> None:
    usual = get_session().timeout
    server.say(1)
    server.pass_time(61)
    assert get_session().timeout == usual
    # without which the hooks of the one client limit no request that has a limit
    assert client._timeout_s() == 0


def test_the_status_says_what_is_saved_here_and_what_is_published(server: Server, hub: FakeHub) -> None:
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
def test_refusals_say_what_to_do(server: Server, hub: FakeHub, status: int) -> None:
    hub.fail(Fault("status", "/commit/", status=status))
    server.say(1)
    server.pass_time(61)
    assert server.publisher.status().error.code == f"hub_{status}"
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_without_a_network_mode_it_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    server.say(1)
    server.pass_time(61)
    assert "HF_HUB_OFFLINE=1 forbids requests" in server.publisher.status().error


@pytest.mark.parametrize("token", ["", "hf_a\nb", "hf ä"])
@pytest.mark.parametrize("repo", [REPO, "feedback"])
def test_a_token_or_a_name_that_cannot_be_one_is_refused_without_showing_it(
    server: Server, token: str, repo: str
) -> None:
    with pytest.raises(FeedbackError) as caught:
        Publisher(server.store, repo, token, TEXTS)
    assert not token or token not in "".join(traceback.format_exception(caught.value))


def test_the_token_is_in_no_log_status_error_commit_or_file(
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


def test_the_files_load_as_a_dataset(server: Server, hub: FakeHub, tmp_path: Path) -> None:
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
