"""Statements that more than one method of the store uses."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, insert, not_, select, update

from hsemotion_space.feedback.records import FeedbackError, StoredRecord
from hsemotion_space.feedback.tables import BATCHES, CROPS, ERASURES, RECORDS, TOMBSTONES, Batch, Erased, batch_of, tombstone_of

AT_ONCE: Final = 500
"""Values in one statement, and rows that are fetched at a time."""
T = TypeVar("T")

_NEWER: Final = RECORDS.alias("newer")
SUPERSEDED: Final[ColumnElement[bool]] = exists().where(
    _NEWER.c.contributor == RECORDS.c.contributor, _NEWER.c.item == RECORDS.c.item, _NEWER.c.number > RECORDS.c.number
)
STORED: Final = (
    select(RECORDS, CROPS.c.png, SUPERSEDED.label("superseded"))
    .join_from(RECORDS, CROPS, CROPS.c.record == RECORDS.c.id, isouter=True)
    .order_by(RECORDS.c.number)
)
"""What :func:`stored_of` reads."""
PUBLISHABLE: Final[ColumnElement[bool]] = and_(
    RECORDS.c.state == "received", RECORDS.c.publish, not_(RECORDS.c.reverted), RECORDS.c.review != "rejected", not_(SUPERSEDED)
)


def freeze(connection: Connection, stored: Sequence[StoredRecord], body: bytes, created_s: float) -> Batch:
    """Make a batch of records and of the bytes that they became."""
    name, digest = uuid.uuid4().hex, hashlib.sha256(body).hexdigest()
    path = datetime.fromtimestamp(created_s, UTC).strftime(f"data/%Y/%m/%d/{name}.parquet")
    values = {"id": name, "created_s": created_s, "body": body, "sha256": digest, "rows": len(stored), "path": path}
    connection.execute(insert(BATCHES).values(values))
    for part in parts([one.number for one in stored]):
        connection.execute(update(RECORDS).where(RECORDS.c.number.in_(part)).values(state="sealed", batch=name))
    return find_batch(connection, name)


def find_batch(connection: Connection, batch: str) -> Batch:
    """Return one batch.

    Raises:
        FeedbackError: if there is none of this id, or it is damaged.
    """
    row = connection.execute(select(BATCHES).where(BATCHES.c.id == batch)).mappings().first()
    if row is None:
        raise FeedbackError(f"There is no batch {batch[:40]}.")
    return batch_of(row)


def erasures(connection: Connection) -> list[Erased]:
    """Return pending erasures, the oldest first."""
    rows = connection.execute(select(ERASURES).order_by(ERASURES.c.requested_s, ERASURES.c.contributor))
    return [
        Erased(row.contributor, row.requested_s, tuple(json.loads(row.batches)), (), row.alias, tuple(json.loads(row.files)))
        for row in rows
    ]


def put_erasure(connection: Connection, erased: Erased, *, scrubbed: bool) -> None:
    """Keep a pending erasure, in the place of an earlier state of it; ``scrubbed`` says that the bytes are overwritten here."""
    values = {"requested_s": erased.requested_s, "batches": json.dumps(erased.batches), "alias": erased.alias}
    values |= {"files": json.dumps(erased.files), "scrubbed": scrubbed}
    put(connection, ERASURES, {"contributor": erased.contributor}, values)


def bury(connection: Connection, tombstones: Sequence[str]) -> None:
    """Add the tombstones that are not there yet."""
    digests = set(tombstones)
    digests -= set(connection.scalars(select(TOMBSTONES.c.digest).where(TOMBSTONES.c.digest.in_(digests))))
    if digests:
        connection.execute(insert(TOMBSTONES), [{"digest": digest} for digest in sorted(digests)])


def is_scrubbed(connection: Connection, contributor: str) -> bool:
    """Return whether the bytes of a pending erasure are overwritten here."""
    return bool(connection.scalar(select(ERASURES.c.scrubbed).where(ERASURES.c.contributor == contributor)))


def remove(connection: Connection, records: Sequence[str]) -> int:
    """Delete records with their pictures and leave tombstones; return the number of pictures."""
    pictures = 0
    for part in parts(records):
        bury(connection, [tombstone_of(record) for record in part])
        pictures += connection.execute(delete(CROPS).where(CROPS.c.record.in_(part))).rowcount
        connection.execute(delete(RECORDS).where(RECORDS.c.id.in_(part)))
    return pictures


def put(connection: Connection, table: Table, key: Mapping[str, object], values: Mapping[str, object]) -> None:
    """Replace a row; there is one writer, so this needs no statement of its own in each dialect."""
    connection.execute(delete(table).filter_by(**key))
    connection.execute(insert(table).values({**key, **values}))


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a list into parts that fit into one statement."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
