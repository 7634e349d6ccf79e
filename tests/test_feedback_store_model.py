"""The store does what a simple model of it does, whatever is asked of it in whatever order."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest
from feedback_makers import ANNA, BEN, NOW_S, make_crop, make_record, refused
from feedback_postgres import MISSING, fresh_schema, postgres_server
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hsemotion_space.feedback.erase import complete_erasure, erase_locally, pending_erasures, tombstones
from hsemotion_space.feedback.record import FeedbackRecord, Review, State, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of

PEOPLE = st.sampled_from([ANNA, BEN])


@dataclass
class Row:
    record: FeedbackRecord
    crop: bytes
    state: State = "received"
    batch: str = ""
    review: Review = ""
    reverted: bool = False


@dataclass
class Parcel:
    body: bytes
    oid: str = ""
    stale: bool = False
    replaced_by: str = ""


def encode(stored: Sequence[FeedbackRecord]) -> bytes:
    return b"\n".join(one.id.encode() for one in stored)


class StoreMachine(RuleBasedStateMachine):
    """Rules act on a store and on lists of rows and parcels, in the order of arrival."""

    server = ""

    @initialize()
    def start(self) -> None:
        self.stack = ExitStack()
        if self.server:
            self.url = self.stack.enter_context(fresh_schema(self.server))
        else:
            self.url = f"sqlite:///{Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / 'feedback.sqlite'}"
        self.store = FeedbackStore(self.url, lambda: NOW_S)
        self.rows: list[Row] = []
        self.parcels: dict[str, Parcel] = {}
        self.erased: set[str] = set()
        self.pending: dict[str, set[str]] = {}
        for number in range(8):  # so that there is something to act on from the start
            self.add([ANNA, BEN][number % 2], number // 4, number // 2, number != 3, number % 2 == 0)
            if number in (2, 5):
                self.create_batch(2)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.stack.close()

    def superseded(self, row: Row) -> bool:
        later = self.rows[self.rows.index(row) + 1 :]
        return any(
            (other.record.contributor, other.record.item) == (row.record.contributor, row.record.item)
            for other in later
        )

    @rule(
        who=PEOPLE, picture=st.integers(0, 1), top=st.integers(0, 5), public=st.booleans(), crop=st.booleans()
    )
    def add(self, who: str, picture: int, top: int, public: bool, crop: bool) -> None:
        scopes = ("labels", "crop", "publish") if public else ("labels",)
        record, png = (
            make_record(picture, contributor=who, top=top, scopes=scopes),
            make_crop(picture) if crop and public else b"",
        )
        known = [row for row in self.rows if row.record.id == record.id]
        if record.id in self.erased:
            with refused("erased"):
                self.store.add(replace(record, crop=png))
            return
        ack = self.store.add(replace(record, crop=png))
        assert (ack.created, ack.state) == (not known, known[0].state if known else "received")
        self.rows += [] if known else [Row(record, png)]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        assert self.store.add(row.record).created is False

    @rule(limit=st.integers(1, 4))
    def create_batch(self, limit: int) -> None:
        free = [
            row for row in self.rows
            if row.state == "received" and "publish" in row.record.consent_scopes
            and not row.reverted and row.review != "rejected" and not self.superseded(row)
        ][:limit]  # fmt: skip
        batch = self.store.create_batch(limit, encode)
        assert (batch is None) == (not free)
        if batch is not None:
            self.take(free, batch.id, batch.body)

    def take(self, rows: Sequence[Row], batch: str, body: bytes) -> None:
        assert body.decode().split() == [row.record.id for row in rows]
        self.parcels[batch] = Parcel(body)
        for row in rows:
            row.state, row.batch = "sealed", batch

    def draw_batch(self, data: st.DataObject, stale: bool = False) -> str:
        # other ones in every run
        names = [batch for batch, parcel in self.parcels.items() if parcel.stale or not stale]
        return names[data.draw(st.integers(0, len(names) - 1))]

    @precondition(lambda self: self.parcels)
    @rule(data=st.data(), verify=st.booleans())
    def push(self, data: st.DataObject, verify: bool) -> None:
        batch = self.draw_batch(data)
        self.store.mark_pushed(batch, "a" * 40)
        if verify:
            self.store.mark_verified(batch)
        self.parcels[batch].oid = "a" * 40
        for row in self.rows:
            if row.batch == batch:
                row.state = "verified" if verify else "pushed"

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), decision=st.sampled_from(["", "approved", "rejected"]))
    def review(self, data: st.DataObject, decision: Review) -> None:
        row = data.draw(st.sampled_from(self.rows))
        self.store.review(row.record.id, decision, "Carla")
        row.review = decision

    @rule(who=PEOPLE)
    def revert(self, who: str) -> None:
        theirs = [row for row in self.rows if row.record.contributor == who and not row.reverted]
        assert self.store.revert(who) == len(theirs)
        for row in theirs:
            row.reverted = True

    @rule(who=PEOPLE)
    def erase(self, who: str) -> None:
        theirs = [row for row in self.rows if row.record.contributor == who]
        touched = {row.batch for row in theirs if row.batch}
        if theirs or tombstone_of(who) in self.pending:  # who gave nothing leaves nothing to do
            self.pending.setdefault(tombstone_of(who), set()).update(touched)
        erased = erase_locally(self.store, who)
        assert erased.records == tuple(row.record.id for row in theirs)
        assert erased.pictures == sum(bool(row.crop) for row in theirs)
        assert set(erased.batches) == self.pending.get(tombstone_of(who), set())
        self.erased |= set(erased.records)
        self.rows = [row for row in self.rows if row not in theirs]
        for batch in touched:
            self.parcels[batch] = replace(self.parcels[batch], body=b"", stale=True)

    @rule(who=PEOPLE)
    def finish(self, who: str) -> None:
        complete_erasure(self.store, tombstone_of(who))
        self.pending.pop(tombstone_of(who), None)

    @precondition(lambda self: any(parcel.stale for parcel in self.parcels.values()))
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        old = self.draw_batch(data, stale=True)
        new = self.store.replace_batch(old, encode)
        last = old  # of the batches that took each other's place
        while self.parcels[last].replaced_by:
            last = self.parcels[last].replaced_by
        if not self.parcels[last].stale:
            assert new is not None
            assert new.id == last
            return
        left = [row for row in self.rows if row.batch == last]
        assert (new is None) == (not left)
        if new is not None:
            self.take(left, new.id, new.body)
            self.parcels[last].replaced_by = new.id

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = FeedbackStore(self.url, lambda: NOW_S)

    @invariant()
    def the_store_has_what_the_model_has(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {one.created_s for one in self.store.records()} <= {NOW_S}
        assert [
            (to_json(one), one.crop, one.state, one.batch, one.review, one.reverted, one.superseded)
            for one in self.store.records()
        ] == [
            (
                to_json(row.record),
                row.crop,
                row.state,
                row.batch,
                row.review,
                row.reverted,
                self.superseded(row),
            )
            for row in self.rows
        ]
        found = {
            one.id: Parcel(one.body, one.oid, one.stale, one.replaced_by) for one in self.store.batches()
        }
        assert found == self.parcels
        waiting = {batch for batch, parcel in self.parcels.items() if not parcel.oid and not parcel.stale}
        assert {one.id for one in self.store.batches(pushed=False)} == waiting
        assert {one.id for one in self.store.batches(pushed=True)} == {
            batch for batch, parcel in self.parcels.items() if parcel.oid
        }
        assert tombstones(self.store) == {tombstone_of(name) for name in self.erased}
        assert {one.contributor: set(one.batches) for one in pending_erasures(self.store)} == self.pending
        counts = Counter(row.state for row in self.rows)
        assert self.store.counts() == {state: counts[state] for state in get_args(State)}
        assert self.store.notices == ()


LONG = [pytest.param(name, 300, marks=pytest.mark.long) for name in ("sqlite", "postgresql")]


@pytest.mark.parametrize(("database", "examples"), [("sqlite", 15), ("postgresql", 5), *LONG])
def test_the_store_does_what_its_model_does(database: str, examples: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server()) if database == "postgresql" else ""
        if database == "postgresql" and not server:
            pytest.skip(MISSING)
        machine = type("Machine", (StoreMachine,), {"server": server})
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=checks
            ),
        )
