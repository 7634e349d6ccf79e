"""Erasing what somebody gave: no byte of it may be left here, at the head, in the history or among the large
files."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault
from feedback_makers import ANNA, BEN, CARL, hash_of, make_crop
from feedback_publishing import (
    REPO,
    TOKEN,
    PowerCutError,
    Server,
    batches_on,
    counts_of,
    everything_in,
    everything_on,
    published_ids,
)

from hsemotion_space.feedback import erase, publish, repository
from hsemotion_space.feedback.card import CARD, ERASED, read_counts
from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.erase import (
    DOWNLOADED,
    NO_ACCESS,
    NO_CORRECTIONS,
    RETRIES,
    Erasure,
    erase_locally,
    pending_erasures,
)
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of

DORA = hash_of("Dora")
TIMEOUT_S = 1.0


class Traces:
    """What Anna gave, as bytes that must be found before and not afterwards."""

    def __init__(self, server: Server, hub: FakeHub) -> None:
        self.hub, self.server = hub, server
        stored = server.store.records(contributor=ANNA)
        self.here = [
            ANNA.encode(),
            *(one.id.encode() for one in stored),
            *(one.crop for one in stored if one.crop),
        ]
        self.published = [ANNA.encode(), *self.here[1:]]
        bodies = [batch.body for batch in server.store.batches() if batch.body]
        self.bodies = [body for body in bodies if any(need in _open(body) for need in self.published)]

    def there(self) -> list[bytes]:
        """Return what of it the Hub stores."""
        blobs = everything_on(self.hub)
        return [need for need in [*self.published, *self.bodies] if any(need in blob for blob in blobs)]

    def left_here(self) -> list[bytes]:
        """Return what of it lies on this disk, also in a cache of the client library."""
        blobs = everything_in(self.server.folder.parent)
        return [need for need in [*self.here, *self.bodies] if any(need in blob for blob in blobs)]


def _open(body: bytes) -> bytes:
    return b"".join(repr((row.id, row.contributor)).encode() + row.crop for row in decode(body))


@pytest.fixture
def traces(server: Server, hub: FakeHub) -> Traces:
    """Publish two files with rows of Anna and Ben, and one of Carl alone; Dora has been erased before."""
    server.say(1, DORA)
    server.pass_time(61)
    server.erase(DORA)
    server.clock.now_s += 61
    for _ in range(2):
        server.say(2, ANNA, crop=True)
        server.say(3, BEN, crop=True)
        server.pass_time(61)
    server.say(2, CARL)
    server.pass_time(61)
    found = Traces(server, hub)
    assert found.there() == [*found.published, *found.bodies]
    assert set(found.left_here()) >= set(found.here[:5])
    return found


def others(server: Server) -> list[str]:
    return [one.id for name in (BEN, CARL) for one in server.store.records(contributor=name)]


def test_erase_leaves_nothing_of_one_and_all_of_the_others(
    server: Server, hub: FakeHub, traces: Traces
) -> None:
    carls = {(path, body) for path, body in batches_on(hub).items() if body not in traces.bodies}
    hub.requests.clear()
    report = server.erase(ANNA)
    assert report == Erasure(4, 4, "gone")
    assert len(hub.seen("POST", "/commit/main")) == 1  # for several files
    assert traces.there() == []
    assert traces.left_here() == []
    assert published_ids(hub) == dict.fromkeys(others(server), 1)
    assert carls <= set(batches_on(hub).items())
    assert set(hub.lfs_objects(REPO, kind="dataset").values()) == set(batches_on(hub).values())
    assert len(hub.commits(REPO, kind="dataset")) == 1
    assert pending_erasures(server.store) == []
    assert {row.state for row in server.store.records()} == {"verified"}


def test_erase_updates_the_card_and_the_list_of_erased_rows(
    server: Server, hub: FakeHub, traces: Traces
) -> None:
    ids = [one.id for one in server.store.records(contributor=ANNA)]
    server.erase(ANNA)
    files = hub.files(REPO, kind="dataset")
    assert files[ERASED].decode().split() == sorted(tombstone_of(name) for name in [*ids, server.said[0]])
    rows = [row for body in batches_on(hub).values() for row in decode(body)]
    assert read_counts(files[CARD].decode()) == counts_of(rows)
    server.erase(CARL)
    assert len(hub.files(REPO, kind="dataset")[ERASED].split()) == 7
    assert read_counts(hub.files(REPO, kind="dataset")[CARD].decode()).contributors == 1


def test_erase_from_files_that_replaced_others(server: Server, hub: FakeHub, traces: Traces) -> None:
    server.erase(ANNA)
    assert server.erase(BEN).published == "gone"
    assert set(published_ids(hub)) == {one.id for one in server.store.records(contributor=CARL)}
    assert not [blob for blob in everything_on(hub) if BEN.encode() in blob]
    assert len(batches_on(hub)) == 1


def test_erase_then_publish(server: Server, hub: FakeHub, traces: Traces) -> None:
    server.erase(ANNA)
    server.say(2, BEN)
    server.drain()
    assert published_ids(hub) == dict.fromkeys(others(server), 1)
    assert read_counts(hub.files(REPO, kind="dataset")[CARD].decode()).records == 10


STEPS = {
    "the repository is asked for": Fault("status", rf"/api/datasets/{REPO}$"),
    "the repository does not answer": Fault("hang", rf"/api/datasets/{REPO}$", wait_s=5),
    "files are listed": Fault("status", "/tree/", count=10),
    "an old file is read": Fault("truncate", r"/resolve/.*parquet"),
    "the list of erased rows is read": Fault("flip", "/resolve/.*erased"),
    "new files are announced": Fault("garbage", "preupload"),
    "new files are sent": Fault("status", "/lfs/", "PUT", count=20),
    "the commit is refused": Fault("status", "/commit/main", status=412),
    "the commit breaks": Fault("reset", "/commit/main"),
    "the answer to the commit is lost": Fault("lost_response", "/commit/main"),
    "the commit hangs": Fault("hang", "/commit/main", wait_s=2),
    "large files are listed": Fault("garbage", "/lfs-files$"),
    "large files are deleted": Fault("status", "/lfs-files/batch"),
    "the answer to deleting is lost": Fault("lost_response", "/lfs-files/batch"),
    "history is squashed": Fault("status", "/super-squash/"),
    "the answer to squashing is lost": Fault("lost_response", "/super-squash/"),
}


@pytest.mark.parametrize("fault", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("restart", [False, True], ids=["goes on", "restarts"])
def test_erase_that_fails_on_the_way_stays_pending(
    server: Server, hub: FakeHub, traces: Traces, fault: Fault, restart: bool
) -> None:
    fault.hits = 0
    hub.fail(fault)
    report = server.erase(ANNA)
    assert fault.hits
    assert (report.records, report.published) == (4, "pending")
    assert report.reason
    assert traces.left_here() == []
    hub.clear_faults()
    if restart:
        server.crash()
    assert server.publisher.status().erasures == 1
    assert server.drain(1).erasures == 0
    assert traces.there() == []
    assert published_ids(hub) == dict.fromkeys(others(server), 1)
    assert len(hub.files(REPO, kind="dataset")[ERASED].split()) == 5


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (FeedbackStore, "replace_batch"),
        (repository.Repository, "commit"),
        (FeedbackStore, "mark_pushed"),
        (repository.Repository, "delete_permanently"),
        (erase, "complete_erasure"),
    ],
)
def test_erase_after_a_crash_at_any_step(
    server: Server,
    hub: FakeHub,
    traces: Traces,
    monkeypatch: pytest.MonkeyPatch,
    place: type,
    name: str,
    after: bool,
) -> None:
    usual: Callable[..., object] = getattr(place, name)

    def cut(*given: object) -> None:
        if after:
            usual(*given)
        raise PowerCutError

    erase_locally(server.store, ANNA)
    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(place, name, cut)
        server.publisher.step()
    server.crash()
    server.drain(1)
    assert traces.there() == []
    assert traces.left_here() == []
    assert published_ids(hub) == dict.fromkeys(others(server), 1)


def test_erase_from_a_sealed_file(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("status", "/commit/main", count=None))
    hub.fail(Fault("status", "/super-squash/", status=403, count=None))
    server.say(2, ANNA, crop=True)
    server.say(2, BEN)
    server.pass_time(61)
    found = Traces(server, hub)
    assert len(found.bodies) == 1
    assert server.erase(ANNA).published == "pending"
    hub.clear_faults()
    server.drain(1)
    assert found.there() == found.left_here() == []
    assert published_ids(hub) == dict.fromkeys(others(server), 1)


def test_erase_bytes_that_were_never_committed(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("status", "/commit/main"))
    server.say(2, ANNA, crop=True)
    server.say(1, BEN)
    server.pass_time(61)
    found = Traces(server, hub)
    assert found.bodies == list(hub.lfs_objects(REPO, kind="dataset").values())
    assert server.erase(ANNA).published == "gone"
    server.drain(1)
    assert found.there() == found.left_here() == []
    assert published_ids(hub) == dict.fromkeys(others(server), 1)


def test_erase_what_the_server_does_not_know_is_published(
    server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise PowerCutError

    server.say(3, ANNA, crop=True)
    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(server.store, "mark_pushed", cut)
        server.pass_time(61)
    found = Traces(server, hub)
    server.crash()
    assert server.erase(ANNA) == Erasure(3, 3, "gone")
    assert found.there() == found.left_here() == []
    assert not batches_on(hub)


def test_erase_then_start_from_an_old_copy(server: Server, hub: FakeHub, tmp_path: Path) -> None:
    server.say(2, ANNA, crop=True)
    server.say(2, BEN)
    found = Traces(server, hub)
    found.bodies.clear()
    server.store.close()
    shutil.copytree(server.folder, tmp_path / "copy" / "here")
    server.start()
    server.pass_time(61)
    server.erase(ANNA)
    # so that Ben's rows may come from the copy
    server.hub.commit(REPO, {}, kind="dataset", delete=list(batches_on(hub)))
    copy = Server(hub, tmp_path / "copy" / "here", server.clock)
    copy.drain(1)
    assert {one.contributor for one in copy.store.records()} == {BEN}
    copy.store.close()
    assert found.there() == found.left_here() == []
    assert published_ids(hub) == dict.fromkeys(others(server), 1)


def test_erase_with_foreign_bytes_in_place_of_a_file(server: Server, hub: FakeHub, traces: Traces) -> None:
    path = next(path for path, body in batches_on(hub).items() if body in traces.bodies)
    hub.commit(REPO, {path: b"PAR1 damaged"}, kind="dataset")
    assert server.erase(ANNA).published == "gone"
    assert [need for need in traces.there() if need != b"PAR1 damaged"] == []


def test_erase_several_people_at_once(server: Server, hub: FakeHub, traces: Traces) -> None:
    for name in (ANNA, BEN, CARL):
        erase_locally(server.store, name)
    assert server.publisher.status().erasures == 3
    hub.requests.clear()
    assert server.publisher.finish_erasures(tombstone_of(CARL), 10) == ("", True)
    assert not pending_erasures(server.store)
    assert len(hub.seen("POST", "/commit/main")) == len(hub.seen("POST", "/super-squash/")) == 1
    assert not batches_on(hub)
    assert not hub.lfs_objects(REPO, kind="dataset")
    assert server.store.counts() == dict.fromkeys(server.store.counts(), 0)


def test_erase_two_people_of_one_file_while_the_hub_fails(server: Server, hub: FakeHub) -> None:
    server.say(1, ANNA)
    server.say(1, BEN)
    (left,) = server.say(1, CARL)
    server.pass_time(61)
    for name in (ANNA, BEN):
        hub.fail(Fault("status", "/commit/main"))
        assert server.erase(name).published == "pending"
    server.drain(1)
    assert published_ids(hub) == {left: 1}
    assert set(hub.lfs_objects(REPO, kind="dataset").values()) == set(batches_on(hub).values())


def test_erase_at_once_delays_the_next_commit(server: Server, hub: FakeHub, traces: Traces) -> None:
    server.clock.now_s += 100
    assert server.erase(ANNA).published == "gone"
    server.say(30, BEN)
    assert not server.pass_time(59)
    assert server.pass_time(1)


def test_erase_what_was_never_published(server: Server, hub: FakeHub) -> None:
    server.publisher.step()
    server.say(2, ANNA, crop=True, scopes=("labels", "crop"))
    crop = make_crop(0)
    assert any(crop in blob for blob in everything_in(server.folder))
    hub.requests.clear()
    report = server.erase(ANNA)
    assert report.message == "2 corrections and 2 images were erased from this server. Nothing was published."
    assert not any(crop in blob for blob in everything_in(server.folder))
    assert not hub.requests
    assert not pending_erasures(server.store)


def test_erase_without_access_to_the_hub(server: Server, hub: FakeHub, traces: Traces) -> None:
    report = server.erase(ANNA, alone=True)
    assert report.published == "pending"
    assert report.reason == NO_ACCESS
    assert traces.left_here() == []
    assert traces.there()
    assert server.erase(ANNA) == Erasure(0, 0, "gone")
    assert traces.there() == []


def test_erase_does_not_wait_for_a_hub_that_hangs(
    server: Server, hub: FakeHub, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "ERASE_TIMEOUT_S", 2.0)
    hub.fail(Fault("hang", f"/api/datasets/{REPO}$", wait_s=0.5))
    started_s = time.monotonic()
    report = server.erase(ANNA, wait_s=0.1)
    assert time.monotonic() - started_s < 0.4
    assert report == Erasure(4, 4, "pending", "The Hub is slow to answer.")
    until_s = time.monotonic() + 5
    while pending_erasures(server.store) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert traces.there() == []


def test_erase_reports_what_is_gone_and_what_is_not(server: Server, hub: FakeHub, traces: Traces) -> None:
    hub.fail(Fault("status", "/super-squash/", status=403))
    words = server.erase(ANNA).message
    assert words.startswith(
        "4 corrections and 4 images were erased from this server. The published rows are NOT erased yet. The"
        " token has no"
    )
    assert words.endswith(f"{RETRIES} {DOWNLOADED}")
    assert TOKEN not in words
    server.drain(1)
    assert (
        Erasure(1, 0, "gone").message
        == "1 correction and no images were erased from this server. The published rows were also erased"
        f" from the dataset, its history and its file storage. {DOWNLOADED}"
    )
    assert Erasure(0, 0, "none").message == NO_CORRECTIONS
    assert "is NOT known yet" in Erasure(0, 0, "unknown", "The Hub does not answer.").message


def test_erase_while_a_step_ends(
    server: Server, hub: FakeHub, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, asked = server.publisher._verify, threading.Event()

    def linger() -> None:
        asked.wait(10)  # Anna's erasure is finished, the step is not
        verify()

    monkeypatch.setattr(server.publisher, "_verify", linger)
    assert server.erase(ANNA).published == "gone"
    threading.Timer(0.2, asked.set).start()
    started_s = time.monotonic()
    assert server.erase(BEN).published == "gone"
    assert time.monotonic() - started_s < 15
