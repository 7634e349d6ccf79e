"""Publishing of feedback where the Hub does what it should; for the rest see tests/faults/test_publish_faults.py."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault, environment, use
from feedback_makers import ANNA, BEN, CARL
from feedback_publishing import REPO, TEXTS, TOKEN, Clock, Server, batches_on, everything_in, everything_on, published_ids
from huggingface_hub import DatasetCard, constants, get_session

from hsemotion_space.feedback import publish, remote
from hsemotion_space.feedback.card import CARD, Counts, dataset_card, read_counts
from hsemotion_space.feedback.columns import COLUMNS
from hsemotion_space.feedback.publish import Publisher
from hsemotion_space.feedback.records import FeedbackError
from hsemotion_space.feedback.rows import decode, record_ids


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.3)
    with FakeHub() as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=1):
        yield hub


@pytest.fixture
def server(hub: FakeHub, tmp_path: Path) -> Iterator[Server]:
    server = Server(hub, tmp_path / "here")
    yield server
    server.publisher.stop(2)
    server.store.close()


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


def test_the_repository_is_made_private_and_one_that_exists_stays_as_it_is(server: Server, hub: FakeHub) -> None:
    server.say(1)
    server.pass_time(61)
    assert hub._repositories["dataset", REPO].private
    assert [request.path for request in hub.seen("PUT", "settings")] == [f"/api/datasets/{REPO}/settings"]
    hub._repositories["dataset", REPO].private = False
    server.say(1)
    server.pass_time(61)
    assert not hub._repositories["dataset", REPO].private
    assert len(hub.seen("POST", "repos/create")) == len(hub.seen("PUT", "settings")) == 1


def test_a_batch_that_is_there_already_is_only_marked(server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
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
    batch = server.store.seal(100, server.publisher._encode)
    hub.commit(REPO, {batch.path: b"somebody else's"}, kind="dataset")
    server.pass_time(61)
    assert batches_on(hub)[batch.path] == b"somebody else's"
    assert server.store.batches(pushed=False)[0].error == "Another file lies in its place."


def test_a_restart_with_an_empty_disk_overwrites_nothing_and_makes_nothing_anew(server: Server, hub: FakeHub) -> None:
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


def test_a_server_that_was_overtaken_tries_again(server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = remote.Repository.commit

    def overtaken(self: remote.Repository, *given: object) -> str:
        monkeypatch.setattr(remote.Repository, "commit", commit)
        hub.commit(REPO, {"notes.txt": b"by hand"}, kind="dataset")
        return commit(self, *given)

    monkeypatch.setattr(remote.Repository, "commit", overtaken)
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
    assert server.publisher.status().breaker != "closed"
    server.say(count - 500)
    hub.clear_faults()
    started_s = server.clock.now_s
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
    assert len(server.said) == count
    assert len(batches_on(hub)) == count // 100
    assert server.commits == math.ceil(count / 5000)
    assert server.clock.now_s - started_s < 1200


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
from feedback_publishing import TEXTS, pseudonym
from hsemotion_space.feedback.publish import Publisher
from hsemotion_space.feedback.rows import encode
from hsemotion_space.feedback.store import FeedbackStore

store = FeedbackStore("sqlite:///" + sys.argv[1], reserve_bytes=0)
publisher = Publisher(store, "{REPO}", "{TOKEN}", lambda stored: encode(stored, pseudonym), TEXTS)
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
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "feedback.sqlite")]
    with subprocess.Popen(
        command, env=os.environ | environment(hub, tmp_path / "home") | paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def test_flushing_publishes_everything_without_a_break(server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "COMMIT_BATCHES", 1)
    server.say(250)
    status = server.publisher.flush()
    assert (status.saved, status.sealed, status.published) == (0, 0, 250)
    assert server.commits == 3


def test_a_fault_of_the_program_does_not_end_the_thread(server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = server.publisher._encode
    broken = threading.Event()

    def fail(_: object) -> bytes:
        broken.set()
        raise ZeroDivisionError(TOKEN)

    monkeypatch.setattr(server.publisher, "_encode", fail)
    server.say(2)
    server.publisher.start()
    assert broken.wait(5)
    while not server.publisher.status().error:
        time.sleep(0.005)
    assert server.publisher.status().error == "Publishing met a fault of this program (ZeroDivisionError)."
    monkeypatch.setattr(server.publisher, "_encode", encode)
    server.publisher.stop(8)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_other_users_of_the_client_library_keep_their_timeouts(server: Server) -> None:
    session = get_session()
    usual, hooks = session.timeout, session.event_hooks
    server.say(1)
    server.pass_time(61)
    assert get_session().timeout == usual
    assert get_session().event_hooks == hooks


def test_the_status_says_what_is_saved_here_and_what_is_published(server: Server, hub: FakeHub) -> None:
    server.say(2, scopes=("labels",))
    server.say(1)
    status = server.publisher.status()
    assert status.words == f"3 saved here, 0 on the way to {REPO}, 0 published."
    server.pass_time(61)
    assert server.publisher.status().words == (f"2 saved here, 0 on the way to {REPO}, 1 published. Last commit 2025-06-15 15:07:41 UTC.")
    hub.fail(Fault("status", "/commit/", status=503))
    server.say(1)
    server.pass_time(61)
    words = server.publisher.status().words
    assert f"2 saved here, 1 on the way to {REPO}, 1 published." in words
    assert "Publishing fails at present: The Hub answers 503. What waits stays saved here; next try 2025-06-15 15:08:4" in words


@pytest.mark.parametrize(
    ("status", "words"), [(401, "does not accept the token"), (403, "may not write"), (404, "There is no"), (429, "asks to wait")]
)
def test_refusals_say_what_to_do(server: Server, hub: FakeHub, status: int, words: str) -> None:
    hub.fail(Fault("status", "/commit/", status=status))
    server.say(1)
    server.pass_time(61)
    assert words in server.publisher.status().error
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_without_a_network_mode_it_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    server.say(1)
    server.pass_time(61)
    assert "HF_HUB_OFFLINE=1 forbids requests" in server.publisher.status().error


@pytest.mark.parametrize("token", ["", "hf_a\nb", "hf ä"])
@pytest.mark.parametrize("repo", [REPO, "feedback"])
def test_a_token_or_a_name_that_cannot_be_one_is_refused_without_showing_it(server: Server, token: str, repo: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        Publisher(server.store, repo, token, server.publisher._encode, TEXTS)
    assert not token or token not in "".join(traceback.format_exception(caught.value))


def test_the_token_is_in_no_log_status_error_commit_or_file(server: Server, hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = []
    for kind in ("status", "reset", "garbage", "hang", "lost_response"):
        for path in ("/commit/", "preupload", "/tree/", "/resolve/"):
            hub.fail(Fault(kind, path, wait_s=1))
            server.say(1)
            server.clock.now_s += 1000
            try:
                server.publisher._work(server.clock.now_s, last=True, push=True, erase=False)
            except FeedbackError as error:
                seen.append("".join(traceback.format_exception(error)))
            server.publisher.step(last=True)
            seen.append(repr(server.publisher.status()) + server.publisher.status().words)
            hub.clear_faults()
    assert len(seen) > 25
    assert any("HubFailure" in text for text in seen)
    blobs = [*everything_on(hub), *everything_in(server.folder), caplog.text.encode(), *(text.encode() for text in seen)]
    assert not [blob for blob in blobs if TOKEN.encode() in blob]
    assert "huggingface" in caplog.text
    assert {request.headers.get("authorization") for request in hub.requests} == {None, "sent"}


def test_counts_of_the_card_are_those_of_the_files(server: Server, hub: FakeHub) -> None:
    for turn in range(4):
        server.say(2, ANNA)
        server.say(turn, BEN, crop=True)
        server.say(1, CARL if turn == 3 else ANNA)
        server.pass_time(61)
        rows = [row for body in batches_on(hub).values() for row in decode(body)]
        assert read_counts(card_of(hub)) == Counts.of(rows).changed(Counts(), Counts(), 0)
    assert read_counts(card_of(hub)) == Counts(18, 6, 3, {"correct": 0, "wrong": 18, "cannot_tell": 0, "not_a_face": 0}, ("1",))
    assert "| with a picture | 6 |" in card_of(hub)


@pytest.mark.parametrize("spoiled", [None, b"# By hand\n", b"---\n[\n---\n", b"---\nfeedback_counts: {records: -1}\n---\n", b"\xff\xfe"])
def test_a_card_that_was_spoiled_is_counted_anew(server: Server, hub: FakeHub, spoiled: bytes | None) -> None:
    server.say(3, crop=True)
    server.pass_time(61)
    change = {"delete": [CARD]} if spoiled is None else {}
    hub.commit(REPO, {CARD: spoiled} if spoiled else {}, kind="dataset", **change)
    hub.commit(REPO, {"data/odd.parquet": b"no batch"}, kind="dataset")
    server.say(2, BEN)
    server.pass_time(61)
    counts = read_counts(card_of(hub))
    assert (counts.records, counts.with_crop, counts.contributors) == (5, 3, 2)


def test_the_card_has_metadata_that_the_hub_reads(hub: FakeHub) -> None:
    counts = Counts(1234, 200, 31, {"wrong": 1234}, ("1", "2"))
    card = DatasetCard(dataset_card(REPO, counts, TEXTS))
    card.validate(repo_type="dataset")
    data = card.data
    assert (data.license, data["license_name"], data.size_categories) == ("other", "research-only-consented-faces", ["1K<n<10K"])
    assert data["license_link"] == f"https://huggingface.co/datasets/{REPO}#terms-of-use"
    assert "## Terms of use" in card.text
    assert data["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/**/*.parquet"}]}]
    assert data.annotations_creators == ["crowdsourced", "machine-generated"]
    assert data["extra_gated_prompt"].startswith("These are corrections")
    assert set(data["extra_gated_fields"].values()) == {"text", "checkbox"}
    assert data.pretty_name
    assert data.task_categories == ["image-classification"]
    assert read_counts(str(card)) == counts.changed(Counts(), Counts(), 0)


@pytest.mark.parametrize(("records", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**5, "100K<n<1M"), (10**8, "10M<n<100M")])
def test_the_size_category_follows_from_the_counts(records: int, size: str) -> None:
    assert DatasetCard(dataset_card(REPO, Counts(records), TEXTS)).data.size_categories == [size]


def test_the_card_tells_columns_consent_and_erasure() -> None:
    text = dataset_card(REPO, Counts(1, consent_versions=("1", "2")), TEXTS)
    for name, column in COLUMNS.items():
        assert f"| `{name}` | {column.kind} | {column.about} |" in text
    assert "### Version 1\n\n> labels: Keep my correction.  \n> publish: Also publish it." in text
    assert "### Version 2\n\n> (not known to this server)" in text
    assert "receipt code" in text
    assert "erased.txt" in text


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


def test_the_last_error_of_each_batch_is_kept(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("status", "/commit/", status=429, headers={"Retry-After": "120"}, count=2))
    server.say(1)
    server.pass_time(61)
    (batch,) = server.store.batches(pushed=False)
    assert (batch.attempts, batch.error) == (1, "The Hub asks to wait, because there were too many requests.")
    assert batch.next_try_s == server.publisher.status().next_try_s == server.clock.now_s + 120
    assert json.dumps(batch.path).count("/") == 4
