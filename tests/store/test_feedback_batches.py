"""Batches: what is sealed for publication, and what an erasure takes out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from feedback_makers import ANNA, BEN, CARL, NOW_S, hash_of, make_crop, make_record, refused
from store_makers import encode, ids

from hsemotion_space.feedback.erase import (
    apply_tombstones,
    complete_erasure,
    erase_locally,
    pending_erasures,
    tombstones,
)
from hsemotion_space.feedback.record import FeedbackRecord
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import PendingErasure, tombstone_of


def test_only_what_may_be_published_is_sealed_and_only_once(store: FeedbackStore) -> None:
    fine, private, old = make_record(1), make_record(2, scopes=("labels", "crop")), make_record(3)
    new, rejected, reverted = (
        make_record(3, verdict="correct"),
        make_record(4),
        make_record(5, contributor=BEN),
    )
    for record in (fine, private, old, new, rejected, reverted):
        store.add(replace(record, crop=make_crop(1)))
    store.review(rejected.id, "rejected", "Carla")
    store.revert(BEN)
    given: list[FeedbackRecord] = []
    batch = store.create_batch(10, lambda stored: given.extend(stored) or encode(stored))
    assert batch is not None
    assert batch.body.decode().split() == [fine.id, new.id]
    assert [one.crop for one in given] == [make_crop(1)] * 2
    assert (batch.rows, batch.created_s, batch.path) == (2, NOW_S, f"data/2025/06/15/{batch.id}.parquet")
    assert store.batches() == store.batches(pushed=False) == [batch]
    assert store.create_batch(10, encode) is None
    assert store.counts()["received"] == 4


def test_bytes_of_a_batch_are_frozen(store: FeedbackStore, url: str) -> None:
    store.add(make_record(1))
    batch = store.create_batch(10, encode)
    assert batch is not None
    store.add(make_record(1, verdict="correct"))
    store.review(make_record(1).id, "rejected", "Carla")
    store.revert(ANNA)
    store.close()
    with FeedbackStore(url) as again:
        assert again.batch(batch.id) == batch


def test_nothing_is_sealed_if_the_bytes_cannot_be_made(store: FeedbackStore) -> None:
    def fail(_: Sequence[FeedbackRecord]) -> bytes:
        raise RuntimeError("no bytes")

    store.add(make_record(1))
    with pytest.raises(RuntimeError, match="no bytes"):
        store.create_batch(10, fail)
    assert store.batches() == []
    assert store.counts()["received"] == 1
    assert store.create_batch(10, encode) is not None


def test_a_batch_keeps_what_became_of_it(store: FeedbackStore) -> None:
    for number in range(3):
        store.add(make_record(number))
    first, second = store.create_batch(2, encode), store.create_batch(2, encode)
    assert first is not None
    assert second is not None
    store.mark_pushed(first.id, "a" * 40)
    pushed = store.batch(first.id)
    assert (pushed.oid, pushed.verified_s) == ("a" * 40, 0)
    assert (store.batches(pushed=True), store.batches(pushed=False)) == ([pushed], [second])
    assert store.counts() == {"received": 0, "sealed": 1, "pushed": 2, "verified": 0}
    store.mark_verified(first.id)
    assert store.batch(first.id).verified_s == NOW_S
    assert store.counts() == {"received": 0, "sealed": 1, "pushed": 0, "verified": 2}
    with refused("no_batch"):
        store.mark_pushed("none", "oid")


def test_an_erasure_takes_rows_and_bytes_and_leaves_a_tombstone(store: FeedbackStore, url: str) -> None:
    own, other = [make_record(number) for number in range(3)], make_record(0, contributor=BEN)
    store.add(replace(own[0], crop=make_crop(0)))
    store.add(replace(other, crop=make_crop(1)))
    batch = store.create_batch(10, encode)
    assert batch is not None
    store.add(own[1])
    store.add(own[2])
    store.review(own[1].id, "approved", "Carla")
    erased = erase_locally(store, ANNA)
    assert erased == PendingErasure(
        tombstone_of(ANNA), NOW_S, (batch.id,), tuple(record.id for record in own), pictures=1
    )
    assert ids(store.records()) == [other.id]
    assert tombstones(store) == {tombstone_of(record.id) for record in own}
    stale = store.batch(batch.id)
    assert (stale.stale, stale.body, stale.path) == (True, b"", batch.path)
    assert store.batches(pushed=False) == []
    for record in own:
        with refused("erased"):
            store.add(record)
    assert store.add(make_record(9)).created  # the same person may say something new
    store.close()
    with FeedbackStore(url) as again:
        assert pending_erasures(again) == [replace(erased, records=(), pictures=0)]
        with refused("erased"):
            again.add(own[0])


def test_an_erasure_that_is_asked_for_again_keeps_its_batches_until_it_is_finished(
    store: FeedbackStore,
) -> None:
    store.add(make_record(1))
    batch = store.create_batch(10, encode)
    assert batch is not None
    erase_locally(store, ANNA)
    store.add(make_record(2))
    again = erase_locally(store, ANNA)
    assert (again.batches, again.records) == ((batch.id,), (make_record(2).id,))
    erase_locally(store, BEN)  # who gave nothing
    erase_locally(store, CARL, elsewhere=True)
    assert [one.contributor for one in pending_erasures(store)] == sorted(
        [tombstone_of(ANNA), tombstone_of(CARL)]
    )
    complete_erasure(store, tombstone_of(ANNA))
    complete_erasure(store, pending_erasures(store)[0].contributor)
    assert pending_erasures(store) == []


def test_the_rest_of_a_stale_batch_becomes_one_new_batch(store: FeedbackStore) -> None:
    for number in range(3):
        store.add(make_record(number, contributor=(ANNA, BEN, CARL)[number]))
    old = store.create_batch(10, encode)
    assert old is not None
    with refused("not_stale"):
        store.replace_batch(old.id, encode)
    store.mark_pushed(old.id, "a" * 40)
    erase_locally(store, ANNA)
    new = store.replace_batch(old.id, encode)
    assert new is not None
    assert new.body.decode().split() == [
        make_record(1, contributor=BEN).id,
        make_record(2, contributor=CARL).id,
    ]
    assert store.replace_batch(old.id, encode) == new  # after a crash it is asked for again
    assert store.batches(pushed=False) == [new]
    assert [one.id for one in store.batches(pushed=True)] == [old.id]
    assert {one.batch for one in store.records()} == {new.id}
    assert store.counts()["sealed"] == 2
    store.mark_pushed(old.id, "b" * 40)  # a push that was under way ends now
    assert store.counts()["sealed"] == 2
    erase_locally(store, BEN)
    erase_locally(store, CARL)
    assert store.replace_batch(new.id, encode) is None


def test_what_was_found_elsewhere_can_be_buried(store: FeedbackStore) -> None:
    names = [hash_of(str(number)) for number in range(1100)]
    apply_tombstones(store, [tombstone_of(name) for name in names])
    apply_tombstones(store, [tombstone_of(name) for name in names[:3]])
    apply_tombstones(store, [])
    assert len(tombstones(store)) == 1100
    with refused("erased"):
        store.add(make_record(1, record_id=names[1]))


def test_of_several_replicas_only_one_changes_the_hub_at_a_time(store: FeedbackStore, url: str) -> None:
    with store.publish_lock() as mine:
        assert mine
        if url.startswith("postgresql"):
            with FeedbackStore(url) as replica, replica.publish_lock() as theirs:
                assert not theirs
    with store.publish_lock() as mine:
        assert mine
    if url.startswith("postgresql"):
        with FeedbackStore(url) as replica, replica.publish_lock() as theirs:
            assert theirs
