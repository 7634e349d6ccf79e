"""Statements that more than one method of the store uses."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.tables import (
    BATCHES,
    COPIES,
    CROPS,
    ERASURES,
    RECORDS,
    TOMBSTONES,
    Batch,
    Counts,
    PendingErasure,
    Record,
    batch_of,
    row_of,
    tombstone_of,
)
from hsemotion_space.feedback.trace import TraceRecord

AT_ONCE: Final = 500
"""Values in one statement, and rows that are fetched at a time."""
T = TypeVar("T")

_NEWER: Final = RECORDS.alias("newer")
SUPERSEDED: Final[ColumnElement[bool]] = exists().where(
    _NEWER.c.contributor == RECORDS.c.contributor,
    _NEWER.c.item == RECORDS.c.item,
    _NEWER.c.number > RECORDS.c.number,
)
STORED: Final = (
    select(RECORDS, CROPS.c.png, SUPERSEDED.label("superseded"))
    .join_from(RECORDS, CROPS, CROPS.c.record == RECORDS.c.id, isouter=True)
    .order_by(RECORDS.c.number)
)
"""What :func:`tables.record_of` reads."""
PUBLISHABLE: Final[ColumnElement[bool]] = and_(
    RECORDS.c.state == "received",
    RECORDS.c.publish,
    not_(RECORDS.c.reverted),
    RECORDS.c.review != "rejected",
    not_(SUPERSEDED),
)


def insert_batch(connection: Connection, stored: Sequence[Record], body: bytes, created_s: float) -> Batch:
    """Make a batch of records of one type and of the bytes that they became."""
    name, digest = uuid.uuid4().hex, hashlib.sha256(body).hexdigest()
    folder = "data/traces" if isinstance(stored[0], TraceRecord) else "data"
    path = datetime.fromtimestamp(created_s, UTC).strftime(f"{folder}/%Y/%m/%d/{name}.parquet")
    values = {
        "id": name,
        "created_s": created_s,
        "body": body,
        "sha256": digest,
        "rows": len(stored),
        "path": path,
    }
    connection.execute(insert(BATCHES).values(values))
    for part in chunks([one.number for one in stored]):
        connection.execute(
            update(RECORDS).where(RECORDS.c.number.in_(part)).values(state="sealed", batch=name)
        )
    return find_batch(connection, name)


def find_batch(connection: Connection, batch: str) -> Batch:
    """Return one batch.

    Raises:
        FeedbackError: if there is none of this id, or it is damaged.
    """
    row = connection.execute(select(BATCHES).where(BATCHES.c.id == batch)).mappings().first()
    if row is None:
        raise FeedbackError("Batch {name} does not exist.", code="no_batch", name=batch[:40])
    return batch_of(row)


def put(
    connection: Connection, table: Table, key: Mapping[str, object], values: Mapping[str, object]
) -> None:
    """Replace a row; there is one writer, so this needs no statement of its own in each dialect."""
    connection.execute(delete(table).filter_by(**key))
    connection.execute(insert(table).values({**key, **values}))


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a list into parts that fit into one statement."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


def put_record(connection: Connection, record: Record, created_s: float, **marks: object) -> None:
    """Insert a record with its crop, if agreed to; ``marks`` are columns that differ from a new record's."""
    connection.execute(insert(RECORDS).values({**row_of(record, created_s), **marks}))
    if record.consented_crop:
        connection.execute(insert(CROPS).values(record=record.id, png=record.consented_crop))


def count_published(connection: Connection, batches: Collection[str]) -> Counts:
    """Count the records that are on the Hub, and those of some batches."""
    there = or_(RECORDS.c.state.in_(("pushed", "verified")), RECORDS.c.batch.in_(tuple(batches)))
    verdicts = connection.execute(
        select(RECORDS.c.verdict, func.count()).where(there).group_by(RECORDS.c.verdict)
    ).all()
    crops = select(func.count()).select_from(RECORDS).join(CROPS, CROPS.c.record == RECORDS.c.id).where(there)
    return Counts(
        sum(count for _, count in verdicts),
        connection.scalar(crops) or 0,
        connection.scalar(select(func.count(RECORDS.c.contributor.distinct())).where(there)) or 0,
        {str(verdict): int(count) for verdict, count in verdicts if verdict},
        tuple(sorted(connection.scalars(select(RECORDS.c.consent_version).distinct().where(there)))),
    )


def mark_stale(connection: Connection, batches: Collection[str]) -> None:
    """Take the bytes of batches away, as a row of theirs is erased."""
    for part in chunks(tuple(batches)):
        connection.execute(update(BATCHES).where(BATCHES.c.id.in_(part)).values(body=b"", stale=True))


def discard_batches(connection: Connection, batches: Collection[str]) -> None:
    """Take the bytes of batches away; the records of those that were never pushed wait again."""
    mark_stale(connection, batches)
    for part in chunks(tuple(batches)):
        waiting = RECORDS.c.batch.in_(part), RECORDS.c.state == "sealed"
        connection.execute(update(RECORDS).where(*waiting).values(state="received", batch=None))


def remove(connection: Connection, records: Sequence[str]) -> tuple[set[str], int]:
    """Delete records and pictures and leave tombstones; return the affected batches and the picture count."""
    pictures, batches = 0, set[str]()
    for part in chunks(records):
        batches.update(
            connection.scalars(
                select(RECORDS.c.batch).where(RECORDS.c.id.in_(part), RECORDS.c.batch.is_not(None))
            )
        )
        batches.update(connection.scalars(select(COPIES.c.batch).where(COPIES.c.record.in_(part))))
        add_tombstones(connection, [tombstone_of(record) for record in part])
        pictures += connection.execute(delete(CROPS).where(CROPS.c.record.in_(part))).rowcount
        connection.execute(delete(RECORDS).where(RECORDS.c.id.in_(part)))
    connection.execute(delete(COPIES).where(COPIES.c.batch.in_(batches)))
    return batches, pictures


def add_tombstones(connection: Connection, tombstones: Collection[str]) -> set[str]:
    """Add the tombstones that are not there yet, and return them."""
    new = set(tombstones)
    for part in chunks(tuple(tombstones)):
        new -= set(connection.scalars(select(TOMBSTONES.c.digest).where(TOMBSTONES.c.digest.in_(part))))
    if new:
        connection.execute(insert(TOMBSTONES), [{"digest": digest} for digest in sorted(new)])
    return new


def erasures(connection: Connection) -> list[PendingErasure]:
    """Return pending erasures, the oldest first."""
    rows = connection.execute(select(ERASURES).order_by(ERASURES.c.requested_s, ERASURES.c.contributor))
    return [PendingErasure(row.contributor, row.requested_s, tuple(json.loads(row.batches))) for row in rows]


def put_erasure(connection: Connection, erased: PendingErasure, *, scrubbed: bool) -> None:
    """Store a pending erasure over its earlier state; ``scrubbed`` means overwritten in this database."""
    before = connection.scalar(
        select(ERASURES.c.scrubbed).where(ERASURES.c.contributor == erased.contributor)
    )
    values = {
        "requested_s": erased.requested_s,
        "batches": json.dumps(erased.batches),
        "scrubbed": scrubbed and before is not False,
    }
    put(connection, ERASURES, {"contributor": erased.contributor}, values)
