"""The store of corrections: append-only, durable when it answers, erasable without a trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, cast, get_args

from sqlalchemy import ColumnElement, Connection, delete, func, insert, not_, select, update

from hsemotion_space.feedback.database import Database
from hsemotion_space.feedback.queries import (
    AT_ONCE,
    PUBLISHABLE,
    STORED,
    SUPERSEDED,
    chunks,
    count_published,
    find_batch,
    insert_batch,
    put,
    put_record,
)
from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, Review, State
from hsemotion_space.feedback.tables import (
    BATCHES,
    CROPS,
    META,
    RECORDS,
    REVIEWS,
    TOMBSTONES,
    TYPES,
    Ack,
    Batch,
    Counts,
    Record,
    batch_of,
    check_crop,
    record_of,
    tombstone_of,
)
from hsemotion_space.feedback.trace import TraceRecord

Encode: TypeAlias = Callable[[Sequence[Record]], bytes]

RESERVE_BYTES: Final = 100 * 2**20  # so that pushing and erasing still work when nothing is accepted any more


class FeedbackStore:
    """Records, their batches and what was erased, in a SQLite file or in PostgreSQL.

    Every method that changes something has it on the disk when it returns, and raises FeedbackError if it
    could not be saved.

    Args:
        url: for SQLAlchemy, ``sqlite:///FILE`` or ``postgresql://...``.
        clock: UTC in seconds since 1970.
        read_only: do not take the place of the one writer; everything that changes something is refused.
        reserve_bytes: nothing is accepted while less is free on the disk of a SQLite file.
        pseudonym: of the owner of a receipt code, ``Keys.pseudonym``; a database of an earlier version needs
            it once.

    Attributes:
        database: what it is kept in.

    Raises:
        FeedbackError: if it cannot be opened, has another writer, or is newer than this program.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        *,
        read_only: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
        pseudonym: Callable[[str], str] | None = None,
    ) -> None:
        self.database = Database(url, clock, read_only, pseudonym)
        self.clock, self._reserve_bytes = clock, reserve_bytes
        if not read_only:
            try:
                self.database.scrub_pending()
            except FeedbackError as error:
                self.database.notice(error.message)

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """What the operator must know, for example that a damaged file was set aside."""
        return tuple(self.database.notices)

    def close(self) -> None:
        """Close the database and make place for another writer."""
        self.database.close()

    def add(self, record: Record) -> Ack:
        """Save what a record states, and its crop; one that is there already is left as it is.

        Raises:
            FeedbackError: if its crop is no small PNG, it was erased before, or it could not be saved.
        """
        check_crop(record.crop)
        self.database.check_space(self._reserve_bytes)
        with self.database.writing() as connection:
            if connection.scalar(
                select(TOMBSTONES.c.digest).where(TOMBSTONES.c.digest == tombstone_of(record.id))
            ):
                raise FeedbackError(
                    "This correction was erased on request and cannot be added again.", code="erased"
                )
            state = connection.scalar(select(RECORDS.c.state).where(RECORDS.c.id == record.id))
            if state is None:
                put_record(connection, record, float(self.clock()))
        return Ack(record.id, state is None, state or "received")

    def records(
        self,
        *,
        contributor: str = "",
        batch: str = "",
        states: Collection[State] = (),
        waiting: bool = False,
        after: int | None = None,
        limit: int = 0,
    ) -> list[FeedbackRecord]:
        """Return corrections in the order of arrival; damaged ones are left out and noticed.

        Args:
            contributor: only of this one, of all if empty.
            batch: only of this one, of all if empty.
            states: only in these, in all if empty.
            waiting: only those that wait for a review.
            after: only those with a higher number.
            limit: at most so many, 0 for all.
        """
        where = [RECORDS.c.type == "correction"]
        where += [] if after is None else [RECORDS.c.number > after]
        if contributor:
            where.append(RECORDS.c.contributor == contributor)
        if batch:
            where.append(RECORDS.c.batch == batch)
        if states:
            where.append(RECORDS.c.state.in_(states))
        if waiting:
            where += [RECORDS.c.review == "", not_(RECORDS.c.reverted), not_(SUPERSEDED)]
        with self.database.reading() as connection:
            return cast("list[FeedbackRecord]", self._read(connection, where, limit))

    def traces(self, *, contributor: str = "", clip: str = "") -> list[TraceRecord]:
        """Return traces in the order of arrival; of one contributor or about one face of a clip if named."""
        where = [RECORDS.c.type == "trace"]
        where += [RECORDS.c.contributor == contributor] if contributor else []
        with self.database.reading() as connection:
            found = cast("list[TraceRecord]", self._read(connection, where, 0))
        return [one for one in found if clip in ("", one.clip)]

    def records_of_items(self, items: Collection[str]) -> list[FeedbackRecord]:
        """Return the records about some items (``FeedbackRecord.item``) in order of arrival, by an index."""
        with self.database.reading() as connection:
            found = [
                one
                for part in chunks(tuple(items))
                for one in self._read(connection, [RECORDS.c.item.in_(part)], 0)
                if isinstance(one, FeedbackRecord)
            ]
        return sorted(found, key=lambda one: one.number)

    def has_contributor(self, contributor: str) -> bool:
        """Return whether there is a record of a contributor."""
        with self.database.reading() as connection:
            return (
                connection.execute(
                    select(RECORDS.c.id).where(RECORDS.c.contributor == contributor).limit(1)
                ).first()
                is not None
            )

    def _read(
        self, connection: Connection, where: Collection[ColumnElement[bool]], limit: int
    ) -> list[Record]:
        found: list[Record] = []
        with connection.execute(STORED.where(*where), execution_options={"yield_per": AT_ONCE}) as rows:
            for row in rows.mappings():
                try:
                    found.append(record_of(row))
                except FeedbackError as error:
                    self.database.notice(error.message)
                if limit and len(found) == limit:
                    break
        return found

    def counts(self) -> Mapping[State, int]:
        """Return the number of records in every state."""
        with self.database.reading() as connection:
            rows = connection.execute(select(RECORDS.c.state, func.count()).group_by(RECORDS.c.state))
            found = {str(state): int(count) for state, count in rows}
        return {state: found.get(state, 0) for state in get_args(State)}

    def has_pending(self) -> bool:
        """Return whether something could be pushed: records that may be published, or sealed batches."""
        sealed = select(BATCHES.c.id).where(BATCHES.c.oid == "", not_(BATCHES.c.stale))
        with self.database.reading() as connection:
            return any(
                connection.execute(query.limit(1)).first()
                for query in (sealed, select(RECORDS.c.id).where(PUBLISHABLE))
            )

    def create_batch(self, limit: int, encode: Encode) -> Batch | None:
        """Freeze the oldest publishable records of one type without a newer statement, as bytes of a batch.

        Args:
            limit: at most so many.
            encode: makes the bytes; if it raises, nothing is sealed.

        Returns:
            None if there is nothing to seal.
        """
        with self.database.writing() as connection:
            for kind in TYPES:
                if stored := self._read(connection, [PUBLISHABLE, RECORDS.c.type == kind], limit):
                    return insert_batch(connection, stored, encode(stored), float(self.clock()))
        return None

    def batches(self, pushed: bool | None = None) -> list[Batch]:
        """Return batches in the order of sealing; damaged ones are left out and noticed.

        Args:
            pushed: those that are on the Hub, or those that are to be pushed (without stale ones); None for
                all.
        """
        query = select(BATCHES).order_by(BATCHES.c.number)
        if pushed is not None:
            query = (
                query.where(BATCHES.c.oid != "")
                if pushed
                else query.where(BATCHES.c.oid == "", not_(BATCHES.c.stale))
            )
        found = []
        with self.database.reading() as connection:
            for row in connection.execute(query).mappings():
                try:
                    found.append(batch_of(row))
                except FeedbackError as error:
                    self.database.notice(error.message)
        return found

    def batch(self, batch: str) -> Batch:
        """Return one batch.

        Raises:
            FeedbackError: if there is none of this id, or it is damaged.
        """
        with self.database.reading() as connection:
            return find_batch(connection, batch)

    def batch_paths(self) -> frozenset[str]:
        """Return the paths of all batches, stale ones included."""
        with self.database.reading() as connection:
            return frozenset(connection.scalars(select(BATCHES.c.path)))

    def unverified(self) -> list[Batch]:
        """Return the batches that were pushed and not read back yet."""
        with self.database.reading() as connection:
            rows = connection.execute(
                select(BATCHES).where(BATCHES.c.oid != "", BATCHES.c.verified_s == 0, not_(BATCHES.c.stale))
            )
            return [batch_of(row) for row in rows.mappings()]

    def latest_replacement(self, batch: str) -> str:
        """Return the id of the batch that has the rows of this one now, itself if none took its place."""
        with self.database.reading() as connection:
            found = find_batch(connection, batch)
            while found.replaced_by:
                found = find_batch(connection, found.replaced_by)
            return found.id

    def mark_pushed(self, batch: str, oid: str) -> None:
        """Note the commit with which a batch reached the Hub."""
        self._mark(batch, "pushed", oid=oid)

    def mark_verified(self, batch: str) -> None:
        """Note that a batch was read back from the Hub."""
        self._mark(batch, "verified", verified_s=float(self.clock()))

    def _mark(self, batch: str, state: State, **values: object) -> None:
        with self.database.writing() as connection:
            find_batch(connection, batch)
            connection.execute(update(BATCHES).where(BATCHES.c.id == batch).values(values))
            connection.execute(update(RECORDS).where(RECORDS.c.batch == batch).values(state=state))

    def replace_batch(self, old: str, encode: Encode) -> Batch | None:
        """Seal the rows that an erasure left of a stale batch as a new one; asked again, return the same.

        Returns:
            None if none are left.

        Raises:
            FeedbackError: if the batch is not stale.
        """
        with self.database.writing() as connection:
            batch = find_batch(connection, old)
            if not batch.stale:
                raise FeedbackError("Batch {name} contains no erased row.", code="not_stale", name=old)
            while batch.replaced_by:  # whose rows may have been erased in turn
                batch = find_batch(connection, batch.replaced_by)
            if not batch.stale:
                return batch
            stored = self._read(connection, [RECORDS.c.batch == batch.id], 0)
            if not stored:
                return None
            new = insert_batch(connection, stored, encode(stored), float(self.clock()))
            connection.execute(update(BATCHES).where(BATCHES.c.id == batch.id).values(replaced_by=new.id))
            return new

    def review(self, record: str, decision: Review, reviewer: str) -> None:
        """Note the decision of a reviewer, who may change it; all decisions are kept.

        Raises:
            FeedbackError: if there is no such record or decision.
        """
        if decision not in get_args(Review):
            raise FeedbackError("A review must be approved, rejected or empty.", code="review")
        with self.database.writing() as connection:
            if not connection.execute(
                update(RECORDS).where(RECORDS.c.id == record).values(review=decision)
            ).rowcount:
                raise FeedbackError("The correction does not exist.", code="no_record")
            values = {
                "record": record,
                "decision": decision,
                "reviewer": reviewer[:100],
                "created_s": float(self.clock()),
            }
            connection.execute(insert(REVIEWS).values(values))

    def mark_gold(self, record: str, gold: bool) -> None:
        """Say whether what a record states is a known answer, by which contributors are judged.

        Raises:
            FeedbackError: if there is no such record.
        """
        with self.database.writing() as connection:
            if not connection.execute(
                update(RECORDS).where(RECORDS.c.id == record).values(gold=gold)
            ).rowcount:
                raise FeedbackError("The correction does not exist.", code="no_record")

    def revert(self, contributor: str) -> int:
        """Set aside everything that a contributor said so far; return how many records this changed."""
        theirs = RECORDS.c.contributor == contributor
        with self.database.writing() as connection:
            return connection.execute(
                update(RECORDS).where(theirs, not_(RECORDS.c.reverted)).values(reverted=True)
            ).rowcount

    def withdraw(self, record: str, contributor: str) -> bool:
        """Withdraw a record that is in no batch yet, with its picture; it can be submitted again.

        Args:
            record: id.
            contributor: whose it must be.

        Returns:
            Whether it was there to be taken back.
        """
        mine = (RECORDS.c.id == record, RECORDS.c.contributor == contributor, RECORDS.c.state == "received")
        with self.database.writing() as connection:
            if connection.scalar(select(RECORDS.c.number).where(*mine)) is None:
                return False
            connection.execute(delete(CROPS).where(CROPS.c.record == record))
            connection.execute(delete(RECORDS).where(RECORDS.c.id == record))
        return True

    def published(self, batches: Collection[str] = ()) -> Counts:
        """Count what the Hub has, and will have once some more batches are there."""
        with self.database.reading() as connection:
            return count_published(connection, batches)

    @contextmanager
    def publish_lock(self) -> Iterator[bool]:
        """Return whether this process may change the Hub now; only one process per database may."""
        with self.database.publish_lock() as mine:
            yield mine

    def get_meta(self, key: str) -> str:
        """Return a note by its key, empty if there is none."""
        with self.database.reading() as connection:
            return connection.scalar(select(META.c.value).where(META.c.key == key)) or ""

    def set_meta(self, key: str, value: str) -> None:
        """Keep a note."""
        with self.database.writing() as connection:
            put(connection, META, {"key": key}, {"value": value})
