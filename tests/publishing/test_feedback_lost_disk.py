"""A server whose disk was emptied at a restart, as on a Space: what was published before can still be listed
and erased by receipt code."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
from fake_hub import FakeHub, Fault
from feedback_makers import make_crop, make_record, refused
from feedback_publishing import (
    REPO,
    TOKEN,
    Clock,
    Server,
    batches_on,
    counts_of,
    everything_on,
    published_ids,
)

from hsemotion_space.feedback.card import CARD, ERASED, read_counts
from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.erase import erase_everywhere, erase_locally, pending_erasures, tombstones
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.service import NOT_RESTORED, Feedback, open_feedback
from hsemotion_space.feedback.tables import tombstone_of
from hsemotion_space.settings import Settings

TIMEOUT_S = 2.0
Emptied: TypeAlias = tuple[Feedback, list[str], list[str]]
SECRET = "a secret of forty characters, more or less"
KEYS = Keys(SECRET.encode())
ANNAS, BENS = KEYS.code("Anna"), KEYS.code("Ben")


def start(folder: Path, token: str = TOKEN) -> Feedback:
    return open_feedback(Settings(feedback_data=folder, feedback_repo=REPO, feedback_secret=SECRET), token)


def say(feedback: Feedback, code: str, numbers: range, crop: bool = True) -> list[str]:
    ids = []
    for number in numbers:
        record = make_record(number, contributor=KEYS.contributor(code))
        ids.append(feedback.store.add(replace(record, crop=make_crop(number) if crop else b"")).id)
    return ids


@pytest.fixture
def empty(hub: FakeHub, tmp_path: Path) -> Iterator[Emptied]:
    """Yield a server without a disk's memory, and the ids of what Anna and Ben had published from it, in one
    file and in one of Ben."""
    before = start(tmp_path / "before")
    annas, bens = say(before, ANNAS, range(3)), say(before, BENS, range(3, 5))
    before.publisher.flush()
    bens += say(before, BENS, range(5, 7))
    before.publisher.flush()
    before.close()
    assert published_ids(hub) == dict.fromkeys([*annas, *bens], 1)
    after = start(tmp_path / "after")
    after.publisher.step()
    yield after, annas, bens
    after.close(0.1)


def pictures(hub: FakeHub, numbers: range) -> list[bytes]:
    return [
        crop for number in numbers if any((crop := make_crop(number)) in blob for blob in everything_on(hub))
    ]


def test_contributions_that_only_the_hub_has(hub: FakeHub, empty: Emptied) -> None:
    feedback, annas, _ = empty
    records, missing = feedback.contributions(ANNAS)
    assert (sorted(one.id for one in records), missing) == (sorted(annas), "")
    assert {(one.state, one.comment, one.created_s % 3600) for one in records} == {("verified", "", 0)}
    crops = {one.id: one.crop for one in records}
    assert [crops[name] for name in annas] == [make_crop(number) for number in range(3)]
    assert feedback.contributions(KEYS.code("Carl")) == ([], "")
    assert feedback.publisher.check() == []


def test_erase_what_only_the_hub_has(hub: FakeHub, empty: Emptied) -> None:
    feedback, annas, bens = empty
    assert len(pictures(hub, range(3))) == 3
    bens_own = [body for body in batches_on(hub).values() if {row.id for row in decode(body)} <= set(bens)]
    report = feedback.erase(ANNAS)
    assert (report.records, report.published) == (3, "gone")
    assert published_ids(hub) == dict.fromkeys(bens, 1)
    assert pictures(hub, range(3)) == []
    pseudonym = KEYS.contributor(ANNAS).encode()
    assert not [blob for blob in everything_on(hub) if pseudonym in blob]
    assert len(hub.commits(REPO, kind="dataset")) == 1
    assert (
        set(hub.lfs_objects(REPO, kind="dataset").values()) == set(batches_on(hub).values()) > set(bens_own)
    )
    files = hub.files(REPO, kind="dataset")
    assert set(files[ERASED].decode().split()) == {tombstone_of(name) for name in annas}
    rows = [row for body in batches_on(hub).values() for row in decode(body)]
    assert read_counts(files[CARD].decode()) == counts_of(rows)
    assert not pending_erasures(feedback.store)
    assert tombstones(feedback.store) == {tombstone_of(name) for name in annas}
    assert feedback.contributions(ANNAS) == ([], "")


def test_erase_rows_here_and_rows_only_there(hub: FakeHub, empty: Emptied) -> None:
    feedback, _, bens = empty
    say(feedback, ANNAS, range(10, 12))
    feedback.publisher.flush()
    say(feedback, ANNAS, range(12, 13))
    report = feedback.erase(ANNAS)
    assert (report.records, report.published) == (6, "gone")
    assert published_ids(hub) == dict.fromkeys(bens, 1)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", "/tree/", status=403), Fault("truncate", r"/resolve/.*parquet"), Fault("status", "/commit/main"),
        Fault("lost_response", "/commit/main"), Fault("status", "lfs-files", status=403), Fault("lost_response", "/super-squash/"),
    ],
    ids=["listing", "reading", "commit", "commit, answer lost", "large files", "squash, answer lost"],
)  # fmt: skip
def test_erase_with_a_fault_on_the_way(hub: FakeHub, empty: Emptied, fault: Fault, tmp_path: Path) -> None:
    feedback, _, bens = empty
    hub.fail(fault)
    report = feedback.erase(ANNAS)
    assert fault.hits
    assert report.published == "pending"
    feedback.store.close()
    again = start(tmp_path / "after")
    assert pending_erasures(again.store)
    again.publisher.flush()
    assert not pending_erasures(again.store), again.publisher.status()
    assert published_ids(hub) == dict.fromkeys(bens, 1)
    assert pictures(hub, range(3)) == []
    assert len(hub.commits(REPO, kind="dataset")) == 1
    again.close(0.1)


def test_erase_of_a_stranger(hub: FakeHub, empty: Emptied) -> None:
    feedback, _, _ = empty
    before = [commit.oid for commit in hub.commits(REPO, kind="dataset")]
    report = feedback.erase(KEYS.code("Carl"))
    assert (report.records, report.published) == (0, "none")
    assert [commit.oid for commit in hub.commits(REPO, kind="dataset")] == before
    assert not pending_erasures(feedback.store)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", "/tree/", status=403),
        Fault("truncate", r"/resolve/.*parquet"),
        Fault("reset", f"{REPO}$"),
    ],
    ids=["listing", "reading", "head"],
)
def test_erase_before_it_is_known_what_was_published(
    hub: FakeHub, empty: Emptied, fault: Fault, tmp_path: Path
) -> None:
    feedback = start(tmp_path / "third")
    hub.fail(fault)
    report = feedback.erase(ANNAS)
    assert report.published == "unknown"
    assert feedback.contributions(BENS)[1] == NOT_RESTORED
    feedback.publisher.flush()
    assert pictures(hub, range(3)) == []
    assert not pending_erasures(feedback.store)
    assert feedback.contributions(BENS)[1] == ""
    feedback.close(0.1)


def test_restore_many_files_before_anything_is_published(
    hub: FakeHub, empty: Emptied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback, annas, bens = start(tmp_path / "third"), *empty[1:]
    with monkeypatch.context() as patch:
        patch.setattr("hsemotion_space.feedback.sync.RESTORE_S", -1.0)
        assert say(feedback, ANNAS, range(3)) == annas  # before it is known that they are published
        [new] = say(feedback, ANNAS, range(20, 21))
        assert not feedback.publisher.step()
        assert not feedback.publisher.restored
        assert sum(feedback.store.counts().values()) in (4 + len(bens[2:]), 4 + len(bens[:2]))
        assert feedback.contributions(ANNAS)[1]
    feedback.publisher.flush()
    assert published_ids(hub) == dict.fromkeys([new, *annas, *bens], 1)
    assert feedback.store.counts() == {"received": 0, "sealed": 0, "pushed": 0, "verified": 8}
    assert [one.superseded for one in feedback.store.records()] == [False] * 8
    feedback.close(0.1)


def test_restore_the_same_statement_once(hub: FakeHub, empty: Emptied) -> None:
    feedback, annas, bens = empty
    assert say(feedback, ANNAS, range(3)) == annas
    assert feedback.store.counts()["verified"] == 7
    feedback.publisher.flush()
    assert published_ids(hub) == dict.fromkeys([*annas, *bens], 1)
    assert len(feedback.contributions(ANNAS)[0]) == 3
    assert feedback.erase(ANNAS).published == "gone"
    assert set(published_ids(hub)) == set(bens)


def test_restore_into_an_old_copy(hub: FakeHub, tmp_path: Path) -> None:
    first = start(tmp_path / "first")
    ids = say(first, ANNAS, range(3))
    first.store.close()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    first = start(tmp_path / "first")
    first.publisher.flush()
    first.close(0.1)
    copy = start(tmp_path / "copy")
    assert copy.store.counts()["received"] == 3
    copy.publisher.flush()
    assert published_ids(hub) == dict.fromkeys(ids, 1)
    assert copy.store.counts()["verified"] == 3
    assert copy.publisher.check() == []
    assert copy.erase(ANNAS).published == "gone"
    assert not published_ids(hub)
    copy.close(0.1)


def test_restore_after_an_erasure(hub: FakeHub, empty: Emptied, tmp_path: Path) -> None:
    feedback, _, bens = empty
    feedback.erase(ANNAS)
    feedback.store.close()
    third = start(tmp_path / "third")  # which does not know what was erased
    say(third, ANNAS, range(1))
    new = say(third, ANNAS, range(30, 32))
    third.publisher.flush()
    third.publisher.flush()
    assert published_ids(hub) == dict.fromkeys([*bens, *new], 1)
    assert {one.id for one in third.store.records()} == {*bens, *new}
    with refused("erased"):
        say(third, ANNAS, range(1, 2))
    third.close(0.1)


def test_pending_erasure_does_not_stop_publishing(hub: FakeHub, tmp_path: Path) -> None:
    server = Server(hub, tmp_path / "here", Clock())
    server.say(2, KEYS.contributor(ANNAS))
    left = server.say(1, KEYS.contributor(BENS))
    server.pass_time(61)
    hub.fail(Fault("status", "/super-squash/", status=403, count=None))
    assert server.erase(KEYS.contributor(ANNAS)).published == "pending"
    left += server.say(3, KEYS.contributor(BENS))
    for _ in range(4):
        server.pass_time(61)
    assert published_ids(hub) == dict.fromkeys(left, 1)
    assert "is pending" in server.publisher.status().message
    hub.clear_faults()
    server.drain(1)
    assert not pending_erasures(server.store)
    server.store.close()


def test_erasures_of_strangers_do_not_stop_publishing(hub: FakeHub, empty: Emptied) -> None:
    feedback, annas, bens = empty
    new = []
    for number in range(5):
        new += say(feedback, BENS, range(40 + number, 41 + number))
        feedback.erase(KEYS.code(f"stranger {number}"))
    feedback.publisher.step()
    assert published_ids(hub) == dict.fromkeys([*annas, *bens, *new], 1)


def test_erasures_use_one_thread(hub: FakeHub, empty: Emptied, tmp_path: Path) -> None:
    feedback = start(tmp_path / "third")
    hub.fail(Fault("hang", f"{REPO}$", count=None, wait_s=3.0))
    before = threading.active_count()
    for number in range(8):
        finish_erasures = partial(feedback.publisher.finish_erasures, wait_s=0.05)
        erase_everywhere(
            feedback.store,
            KEYS.contributor(KEYS.code(str(number))),
            finish_erasures,
            publishes=True,
            restored=False,
        )
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("feedback")]
    assert len(ours) <= 1, before
    feedback.store.close()


def test_erase_in_a_repository_of_this_server(hub: FakeHub, tmp_path: Path) -> None:
    feedback = start(tmp_path / "here")
    say(feedback, ANNAS, range(1))
    feedback.publisher.flush()
    hub.requests.clear()
    assert feedback.erase(BENS).published == "none"
    assert len(feedback.contributions(ANNAS)[0]) == 1
    assert not hub.requests
    feedback.close(0.1)


def test_erase_without_a_token(hub: FakeHub, empty: Emptied, tmp_path: Path) -> None:
    without = start(tmp_path / "without", token="")
    assert without.erase(ANNAS).published == "unknown"
    without.close()
    again = start(tmp_path / "without")
    again.publisher.flush()
    assert pictures(hub, range(3)) == []
    again.close(0.1)


def test_open_feedback_without_a_lasting_secret(tmp_path: Path) -> None:
    settings = Settings(feedback_data=tmp_path, feedback_repo=REPO)
    with refused("no_secret"):
        open_feedback(settings, TOKEN)
    open_feedback(settings).close()  # without a token nothing is published, so nothing can be out of reach


def test_erase_does_not_name_the_rows_of_others(hub: FakeHub, tmp_path: Path) -> None:
    server = Server(hub, tmp_path / "here", Clock())
    server.say(1, KEYS.contributor(ANNAS))
    (left,) = server.say(1, KEYS.contributor(BENS))
    server.pass_time(61)
    erase_locally(server.store, KEYS.contributor(ANNAS))
    server.drain(1)
    assert published_ids(hub) == {left: 1}
    assert left not in hub.files(REPO, kind="dataset")[ERASED].decode()
    assert tombstone_of(left) not in hub.files(REPO, kind="dataset")[ERASED].decode()
    server.store.close()
