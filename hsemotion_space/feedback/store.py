"""The store of corrections: append-only, durable when it answers, erasable without a trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, get_args

from sqlalchemy import ColumnElement, Connection, func, insert, not_, select, update

from hsemotion_space.feedback.database import Database
from hsemotion_space.feedback.forgetting import Forgetting
from hsemotion_space.feedback.queries import (
    AT_ONCE,
    PUBLISHABLE,
    STORED,
    SUPERSEDED,
    find_batch,
    freeze,
    parts,
    put,
)
from hsemotion_space.feedback.records import FeedbackError, FeedbackRecord, Review, State, StoredRecord
from hsemotion_space.feedback.tables import (
    BATCHES,
    CROPS,
    FOREIGN,
    META,
    RECORDS,
    REVIEWS,
    TOMBSTONES,
    Ack,
    Batch,
    batch_of,
    check_crop,
    check_record,
    row_of,
    stored_of,
    tombstone_of,
)

Encode: TypeAlias = Callable[[Sequence[StoredRecord]], bytes]

RESERVE_BYTES: Final = 100 * 2**20  # so that pushing and erasing still work when nothing is accepted any more
ERROR_LENGTH: Final = 500


class FeedbackStore(Forgetting):
    """Records, their batches and what was erased, in a SQLite file or in PostgreSQL.

    Every method that changes something has it on the disk when it returns, and raises FeedbackError if it could not be saved.

    Args:
        url: for SQLAlchemy, ``sqlite:///FILE`` or ``postgresql://...``.
        clock: UTC in seconds since 1970.
        read_only: do not take the place of the one writer; everything that changes something is refused.
        reserve_bytes: nothing is accepted while less is free on the disk of a SQLite file.

    Raises:
        FeedbackError: if it cannot be opened, has another writer, or is newer than this program.
    """

    def __init__(
        self, url: str, clock: Callable[[], float] = time.time, *, read_only: bool = False, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        super().__init__(Database(url, clock, read_only), clock)
        self._reserve_bytes = reserve_bytes
        if not read_only:
            try:
                self._scrub()
            except FeedbackError as error:
                self._notice(str(error))

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """What the operator must know, for example that a damaged file was set aside."""
        return tuple(self._database.notices)

    def close(self) -> None:
        """Close the database and make place for another writer."""
        self._database.close()

    def add(self, record: FeedbackRecord, crop: bytes = b"") -> Ack:
        """Save a record; one that is there already is left as it is.

        Args:
            record: checked anew.
            crop: PNG of at most MOST_CROP_BYTES, or empty.

        Raises:
            FeedbackError: if it is not valid, was erased before, or could not be saved.
        """
        clean = check_record(record)
        check_crop(crop)
        self._database.check_space(self._reserve_bytes)
        with self._database.writing() as connection:
            if connection.scalar(select(TOMBSTONES.c.digest).where(TOMBSTONES.c.digest == tombstone_of(clean.id))):
                raise FeedbackError("This correction was erased on request and cannot be added again.")
            state = connection.scalar(select(RECORDS.c.state).where(RECORDS.c.id == clean.id))
            if state is not None:
                return Ack(clean.id, False, state)
            published = connection.scalar(select(FOREIGN.c.path).where(FOREIGN.c.record == tombstone_of(clean.id)).limit(1))
            arrived: State = "verified" if published else "received"
            connection.execute(insert(RECORDS).values({**row_of(clean, crop, float(self._clock())), "state": arrived}))
            if crop:
                connection.execute(insert(CROPS).values(record=clean.id, png=crop))
        return Ack(clean.id, True, arrived)

    def records(
        self,
        *,
        contributor: str = "",
        batch: str = "",
        states: Collection[State] = (),
        waiting: bool = False,
        after: int = 0,
        limit: int = 0,
    ) -> list[StoredRecord]:
        """Return records in the order of arrival; damaged ones are left out and noticed.

        Args:
            contributor: only of this one, of all if empty.
            batch: only of this one, of all if empty.
            states: only in these, in all if empty.
            waiting: only those that wait for a review.
            after: only those with a higher number.
            limit: at most so many, 0 for all.
        """
        where = [RECORDS.c.number > after]
        if contributor:
            where.append(RECORDS.c.contributor == contributor)
        if batch:
            where.append(RECORDS.c.batch == batch)
        if states:
            where.append(RECORDS.c.state.in_(states))
        if waiting:
            where += [RECORDS.c.review == "", not_(RECORDS.c.reverted), not_(SUPERSEDED)]
        with self._database.reading() as connection:
            return self._read(connection, where, limit)

    def about(self, items: Collection[str]) -> list[StoredRecord]:
        """Return the records about some items (``Subject.item``) in the order of arrival, found by an index."""
        with self._database.reading() as connection:
            found = [one for part in parts(tuple(items)) for one in self._read(connection, [RECORDS.c.item.in_(part)], 0)]
        return sorted(found, key=lambda one: one.number)

    def knows(self, contributor: str) -> bool:
        """Return whether there is a record of a contributor."""
        with self._database.reading() as connection:
            return connection.execute(select(RECORDS.c.id).where(RECORDS.c.contributor == contributor).limit(1)).first() is not None

    def _read(self, connection: Connection, where: Collection[ColumnElement[bool]], limit: int) -> list[StoredRecord]:
        found: list[StoredRecord] = []
        with connection.execute(STORED.where(*where), execution_options={"yield_per": AT_ONCE}) as rows:
            for row in rows.mappings():
                try:
                    found.append(stored_of(row))
                except FeedbackError as error:
                    self._notice(str(error))
                if limit and len(found) == limit:
                    break
        return found

    def _notice(self, sentence: str) -> None:
        if sentence not in self._database.notices:
            self._database.notices.append(sentence)

    def counts(self) -> Mapping[State, int]:
        """Return the number of records in every state."""
        with self._database.reading() as connection:
            rows = connection.execute(select(RECORDS.c.state, func.count()).group_by(RECORDS.c.state))
            found = {str(state): int(count) for state, count in rows}
        return {state: found.get(state, 0) for state in get_args(State)}

    def waits(self) -> bool:
        """Return whether something could be pushed: records that may be published, or sealed batches."""
        sealed = select(BATCHES.c.id).where(BATCHES.c.oid == "", not_(BATCHES.c.stale))
        with self._database.reading() as connection:
            return any(connection.execute(query.limit(1)).first() for query in (sealed, select(RECORDS.c.id).where(PUBLISHABLE)))

    def seal(self, limit: int, encode: Encode) -> Batch | None:
        """Freeze the oldest records that may be published, and whose contributor said nothing newer, as the bytes of a batch.

        Args:
            limit: at most so many.
            encode: makes the bytes; if it raises, nothing is sealed.

        Returns:
            None if there is nothing to seal.
        """
        with self._database.writing() as connection:
            stored = self._read(connection, [PUBLISHABLE], limit)
            return freeze(connection, stored, encode(stored), float(self._clock())) if stored else None

    def batches(self, pushed: bool | None = None) -> list[Batch]:
        """Return batches in the order of sealing; damaged ones are left out and noticed.

        Args:
            pushed: those that are on the Hub, or those that are to be pushed (without stale ones); None for all.
        """
        query = select(BATCHES).order_by(BATCHES.c.number)
        if pushed is not None:
            query = query.where(BATCHES.c.oid != "") if pushed else query.where(BATCHES.c.oid == "", not_(BATCHES.c.stale))
        found = []
        with self._database.reading() as connection:
            for row in connection.execute(query).mappings():
                try:
                    found.append(batch_of(row))
                except FeedbackError as error:
                    self._notice(str(error))
        return found

    def batch(self, batch: str) -> Batch:
        """Return one batch.

        Raises:
            FeedbackError: if there is none of this id, or it is damaged.
        """
        with self._database.reading() as connection:
            return find_batch(connection, batch)

    def batch_paths(self) -> frozenset[str]:
        """Return the paths of all batches, stale ones included."""
        with self._database.reading() as connection:
            return frozenset(connection.scalars(select(BATCHES.c.path)))

    def unverified(self) -> list[Batch]:
        """Return the batches that were pushed and not read back yet."""
        with self._database.reading() as connection:
            rows = connection.execute(select(BATCHES).where(BATCHES.c.oid != "", BATCHES.c.verified_s == 0, not_(BATCHES.c.stale)))
            return [batch_of(row) for row in rows.mappings()]

    def last_of(self, batch: str) -> str:
        """Return the id of the batch that has the rows of this one now, itself if none took its place."""
        with self._database.reading() as connection:
            found = find_batch(connection, batch)
            while found.replaced_by:
                found = find_batch(connection, found.replaced_by)
            return found.id

    def mark_pushed(self, batch: str, oid: str) -> None:
        """Note the commit with which a batch reached the Hub."""
        self._mark(batch, "pushed", oid=oid, pushed_s=float(self._clock()), error="")

    def mark_verified(self, batch: str) -> None:
        """Note that a batch was read back from the Hub."""
        self._mark(batch, "verified", verified_s=float(self._clock()))

    def mark_failed(self, batch: str, error: str, next_try_s: float) -> None:
        """Note that a batch could not be pushed, and when to try again."""
        self._mark(batch, None, attempts=BATCHES.c.attempts + 1, error=error[:ERROR_LENGTH], next_try_s=next_try_s)

    def _mark(self, batch: str, state: State | None, **values: object) -> None:
        with self._database.writing() as connection:
            find_batch(connection, batch)
            connection.execute(update(BATCHES).where(BATCHES.c.id == batch).values(values))
            if state is not None:
                connection.execute(update(RECORDS).where(RECORDS.c.batch == batch).values(state=state))

    def replace_batch(self, old: str, encode: Encode) -> Batch | None:
        """Seal the rows that an erasure left of a stale batch as a new one; asked again, return the same.

        Returns:
            None if none are left.

        Raises:
            FeedbackError: if the batch is not stale.
        """
        with self._database.writing() as connection:
            batch = find_batch(connection, old)
            if not batch.stale:
                raise FeedbackError(f"Batch {old} contains no erased row.")
            while batch.replaced_by:  # whose rows may have been erased in turn
                batch = find_batch(connection, batch.replaced_by)
            if not batch.stale:
                return batch
            stored = self._read(connection, [RECORDS.c.batch == batch.id], 0)
            if not stored:
                return None
            new = freeze(connection, stored, encode(stored), float(self._clock()))
            connection.execute(update(BATCHES).where(BATCHES.c.id == batch.id).values(replaced_by=new.id))
            return new

    def review(self, record: str, decision: Review, reviewer: str) -> None:
        """Note the decision of a reviewer, who may change it; all decisions are kept.

        Raises:
            FeedbackError: if there is no such record or decision.
        """
        if decision not in get_args(Review):
            raise FeedbackError("A review is approved, rejected, or empty.")
        with self._database.writing() as connection:
            if not connection.execute(update(RECORDS).where(RECORDS.c.id == record).values(review=decision)).rowcount:
                raise FeedbackError("There is no such correction.")
            values = {"record": record, "decision": decision, "reviewer": reviewer[:100], "created_s": float(self._clock())}
            connection.execute(insert(REVIEWS).values(values))

    def mark_gold(self, record: str, gold: bool) -> None:
        """Say whether what a record states is a known answer, by which contributors are judged.

        Raises:
            FeedbackError: if there is no such record.
        """
        with self._database.writing() as connection:
            if not connection.execute(update(RECORDS).where(RECORDS.c.id == record).values(gold=gold)).rowcount:
                raise FeedbackError("There is no such correction.")

    def revert(self, contributor: str) -> int:
        """Set aside everything that a contributor said so far; return how many records this changed."""
        theirs = RECORDS.c.contributor == contributor
        with self._database.writing() as connection:
            return connection.execute(update(RECORDS).where(theirs, not_(RECORDS.c.reverted)).values(reverted=True)).rowcount

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Tell whether it is this process's turn to change the Hub; of several on one database it is only one's at a time."""
        with self._database.turn() as mine:
            yield mine

    def get_meta(self, key: str) -> str:
        """Return a note by its key, empty if there is none."""
        with self._database.reading() as connection:
            return connection.scalar(select(META.c.value).where(META.c.key == key)) or ""

    def set_meta(self, key: str, value: str) -> None:
        """Keep a note."""
        with self._database.writing() as connection:
            put(connection, META, {"key": key}, {"value": value})
