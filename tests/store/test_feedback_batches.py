"""Batches; ``test_feedback_store_model.py`` has the rules of what is sealed, replaced and erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from feedback_makers import ANNA, BEN, CARL, NOW_S, hash_of, make_crop, make_record, refused
from store_makers import encode

from hsemotion_space.feedback.erase import (
    apply_tombstones,
    complete_erasure,
    erase_locally,
    pending_erasures,
    tombstones,
)
from hsemotion_space.feedback.record import FeedbackRecord
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of


def test_create_batch_gives_pictures_to_the_encoder(store: FeedbackStore) -> None:
    store.add(replace(make_record(1), crop=make_crop(1)))
    given: list[FeedbackRecord] = []
    batch = store.create_batch(10, lambda stored: given.extend(stored) or encode(stored))
    assert batch is not None
    assert [one.crop for one in given] == [make_crop(1)]
    assert (batch.rows, batch.created_s, batch.path) == (1, NOW_S, f"data/2025/06/15/{batch.id}.parquet")
    with refused("not_stale"):
        store.replace_batch(batch.id, encode)
    with refused("no_batch"):
        store.mark_pushed("none", "oid")
    store.mark_pushed(batch.id, "a" * 40)
    store.mark_verified(batch.id)
    assert store.batch(batch.id).verified_s == NOW_S


def test_create_batch_without_bytes_seals_nothing(store: FeedbackStore) -> None:
    def fail(_: Sequence[FeedbackRecord]) -> bytes:
        raise RuntimeError("no bytes")

    store.add(make_record(1))
    with pytest.raises(RuntimeError, match="no bytes"):
        store.create_batch(10, fail)
    assert store.batches() == []
    assert store.counts()["received"] == 1
    assert store.create_batch(10, encode) is not None


def test_erase_locally_again_keeps_the_batches(store: FeedbackStore) -> None:
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


def test_apply_tombstones_of_many_rows(store: FeedbackStore) -> None:
    names = [hash_of(str(number)) for number in range(1100)]
    apply_tombstones(store, [tombstone_of(name) for name in names])
    apply_tombstones(store, [tombstone_of(name) for name in names[:3]])
    apply_tombstones(store, [])
    assert len(tombstones(store)) == 1100
    with refused("erased"):
        store.add(make_record(1, record_id=names[1]))


def test_publish_lock_of_two_replicas(store: FeedbackStore, url: str) -> None:
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
