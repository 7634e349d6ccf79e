"""The table and the published dataset: rows that only the Hub has are restored, and differences are found."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from sqlalchemy import Connection, func, insert, select, update

from hsemotion_space.feedback.card import CARD, ERASED, read_counts
from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.erase import apply_tombstones, tombstones
from hsemotion_space.feedback.queries import (
    add_tombstones,
    discard_batches,
    erasures,
    mark_stale,
    put_erasure,
    put_record,
)
from hsemotion_space.feedback.record import HEX, FeedbackError
from hsemotion_space.feedback.repository import Repository
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import (
    BATCHES,
    COPIES,
    RECORDS,
    TOMBSTONES,
    Record,
    is_crop,
    tombstone_of,
)
from hsemotion_space.messages import Message

HEAD: Final = "publish.head"
"""Note with the newest commit whose files the database knows, those of others included."""
RESTORE_S: Final = 5.0


def restore(store: FeedbackStore, remote: Repository, head: str) -> bool:
    """Bring the table up to date with the dataset as of a commit; return whether it is.

    A database that was lost comes back by it, without comments, exact times and reviews, and rows that other
    servers published come in. After the loss of a disk that are many files, so this goes on for ``RESTORE_S``
    at a time; nothing is published before it is done.

    Args:
        store: gets the rows.
        remote: repository, within its session.
        head: newest commit; empty if there is no repository.

    Raises:
        FeedbackError: if the Hub does not answer as it should, or the rows could not be saved.
    """
    if not head or head == store.get_meta(HEAD):
        return True
    apply_tombstones(store, remote.read(ERASED, head).decode(errors="replace").split())
    there = {path for path in remote.listing("data", head, recursive=True) if path.endswith(".parquet")}
    until_s = time.monotonic() + RESTORE_S
    # the newest first, as each row gets a lower number
    for path in sorted(there - store.batch_paths(), reverse=True):
        restore_file(store, path, remote.read(path, head), head, there)
        if time.monotonic() > until_s:
            return False
    store.set_meta(HEAD, head)
    return True


def restore_file(store: FeedbackStore, path: str, body: bytes, head: str, there: Collection[str]) -> None:
    """Take the rows of a published file into the table, as a batch of their own.

    Rows of those who wait to be erased make the batch stale instead. A row that is here already becomes a row
    of this batch, unless it is in another file too.

    Args:
        store: gets the rows.
        path: of the file.
        body: its bytes.
        head: a commit that has it.
        there: paths of all files.
    """
    rows, digest = readable_rows(body), hashlib.sha256(body).hexdigest()
    with store.database.writing() as connection:
        name = PurePosixPath(path).stem
        if not HEX.fullmatch(name) or connection.scalar(select(BATCHES.c.id).where(BATCHES.c.id == name)):
            name = hashlib.sha256(path.encode()).hexdigest()[:32]
        values = {
            "id": name,
            "created_s": float(store.clock()),
            "body": body,
            "sha256": digest,
            "rows": len(rows),
            "path": path,
        }
        connection.execute(
            insert(BATCHES).values({**values, "oid": head, "verified_s": float(store.clock())})
        )
        pending = {one.contributor: one for one in erasures(connection)}
        unwanted = {row.id: row for row in rows if tombstone_of(row.contributor) in pending}
        for key in {tombstone_of(row.contributor) for row in unwanted.values()}:
            put_erasure(
                connection,
                replace(pending[key], batches=tuple(sorted({*pending[key].batches, name}))),
                scrubbed=True,
            )
        new = add_tombstones(connection, [tombstone_of(row.id) for row in rows if row.id in unwanted])
        buried = select(TOMBSTONES.c.digest).where(
            TOMBSTONES.c.digest.in_([tombstone_of(row.id) for row in rows])
        )
        gone = new.union(connection.scalars(buried))
        if unwanted:
            mark_stale(connection, [name])
        number = min(connection.scalar(select(func.min(RECORDS.c.number))) or 0, 0)
        for row in sorted(rows, key=lambda row: row.created_s, reverse=True):
            if tombstone_of(row.id) not in gone:
                number -= 1
                _restore_row(connection, row, name, number, there)


def _restore_row(
    connection: Connection, row: Record, batch: str, number: int, there: Collection[str]
) -> None:
    place = select(RECORDS.c.state, RECORDS.c.batch, BATCHES.c.path, BATCHES.c.oid)
    place = place.join_from(RECORDS, BATCHES, BATCHES.c.id == RECORDS.c.batch, isouter=True).where(
        RECORDS.c.id == row.id
    )
    known = connection.execute(place).first()
    if known is None:
        crop = row.crop if is_crop(row.crop) else b""
        put_record(
            connection, replace(row, crop=crop), row.created_s, number=number, state="verified", batch=batch
        )
        return
    if known.oid and known.path in there:
        connection.execute(insert(COPIES).values(record=row.id, batch=batch))
        return
    connection.execute(update(RECORDS).where(RECORDS.c.id == row.id).values(state="verified", batch=batch))
    if known.batch and not known.oid:
        discard_batches(connection, [known.batch])


def readable_rows(body: bytes) -> Sequence[Record]:
    """Return the rows of a file in the repository; none if somebody put something else there."""
    try:
        return decode(body)
    except FeedbackError:
        return []


def verify_database(store: FeedbackStore) -> list[str]:
    """Return what is wrong with the records and batches of this database, each compared with its digest."""
    before = set(store.notices)
    kept: list[Record] = [*store.records(), *store.traces()]
    sealed = {batch.id for batch in store.batches()}
    lost = sum(bool(one.batch) and one.batch not in sealed for one in kept)
    problems = [notice for notice in store.notices if notice not in before or "damaged" in notice]
    return problems + ([Message("{count} records belong to a missing batch.", count=lost)] if lost else [])


def verify_dataset(store: FeedbackStore, remote: Repository) -> list[str]:
    """Return how the published dataset differs from what it should be.

    Args:
        store: its pushed batches must be there as they were sent.
        remote: repository, within its session.

    Raises:
        FeedbackError: if the Hub does not answer as it should.
    """
    head = remote.head()
    if not head:
        return (
            [Message("The dataset {repo} does not exist.", repo=remote.repo)]
            if store.batches(pushed=True)
            else []
        )
    found = remote.listing("data", head, recursive=True)
    problems: list[str] = []
    for batch in (batch for batch in store.batches(pushed=True) if not batch.stale):
        if batch.path not in found:
            problems.append(Message("{path} was published but is missing.", path=batch.path))
        elif not found[batch.path].matches(batch.body):
            problems.append(Message("{path} differs from the published file.", path=batch.path))
    rows = [(path, row) for path in sorted(found) for row in readable_rows(remote.read(path, head))]
    readable = {path for path, _ in rows}
    problems += [Message("{path} has no readable row.", path=path) for path in sorted(set(found) - readable)]
    gone = set(remote.read(ERASED, head).decode(errors="replace").split()) | tombstones(store)
    back, different = sum(tombstone_of(row.id) in gone for _, row in rows), {row.id: row for _, row in rows}
    problems += [Message("{count} erased rows are still published.", count=back)] if back else []
    twice = len(rows) - len(different)
    problems += [Message("{count} rows are published more than once.", count=twice)] if twice else []
    stated = read_counts(remote.read(CARD, head).decode(errors="replace"))
    crops = sum(bool(row.crop) for row in different.values())
    if stated is None or (stated.records, stated.with_crop) != (len(different), crops):
        problems.append(
            Message("The dataset card does not state the {count} published rows.", count=len(different))
        )
    return problems
