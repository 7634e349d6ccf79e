"""Tables of the store, what its methods return, and rows that are checked on their way in and out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
)

from hsemotion_space.feedback.records import (
    FeedbackError,
    FeedbackRecord,
    Json,
    State,
    StoredRecord,
    canonical,
    check_statement,
    read_corrected,
    record_from_json,
    to_json,
)
from hsemotion_space.tasks import get_task

MOST_CROP_BYTES: Final = 256 * 1024
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
RECORD_ID: Final = re.compile(r"[0-9a-f]{32}")
CONTRIBUTOR: Final = re.compile(r"[\w-]{8,128}", re.ASCII)

METADATA: Final = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

BATCHES: Final = Table(
    "feedback_batches", METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("created_s", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_try_s", Double, nullable=False, default=0.0),
    Column("oid", String(64), nullable=False, default=""),
    Column("pushed_s", Double, nullable=False, default=0.0),
    Column("verified_s", Double, nullable=False, default=0.0),
    Column("error", Text, nullable=False, default=""),
    Column("path", String(100), nullable=False),
    Column("stale", Boolean, nullable=False, default=False),
    Column("replaced_by", String(32), nullable=False, default=""),
    sqlite_autoincrement=True,
)  # fmt: skip

RECORDS: Final = Table(
    "feedback_records", METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("contributor", String(128), nullable=False),
    Column("item", String(32), nullable=False),
    Column("created_s", Double, nullable=False),
    Column("state", String(8), nullable=False),
    Column("batch", String(32), ForeignKey(BATCHES.c.id), nullable=True, index=True),
    Column("review", String(8), nullable=False, default=""),
    Column("reverted", Boolean, nullable=False, default=False),
    Column("gold", Boolean, nullable=False, default=False),
    Column("publish", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    CheckConstraint("state IN ('received', 'sealed', 'pushed', 'verified')", name="feedback_state"),
    CheckConstraint("review IN ('', 'approved', 'rejected')", name="feedback_review"),
    Index("feedback_by_item", "contributor", "item", "number"),
    Index("feedback_by_state", "state", "number"),
    Index("feedback_of_item", "item", "number"),
    sqlite_autoincrement=True,
)  # fmt: skip

CROPS: Final = Table(
    "feedback_crops", METADATA,
    Column("record", String(32), ForeignKey(RECORDS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("png", LargeBinary, nullable=False),
)  # fmt: skip

REVIEWS: Final = Table(
    "feedback_reviews", METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("record", String(32), ForeignKey(RECORDS.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("decision", String(8), nullable=False),
    Column("reviewer", String(100), nullable=False),
    Column("created_s", Double, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip

TOMBSTONES: Final = Table("feedback_tombstones", METADATA, Column("digest", String(64), primary_key=True))
ERASURES: Final = Table(
    "feedback_erasures", METADATA,
    Column("contributor", String(64), primary_key=True),
    Column("requested_s", Double, nullable=False),
    Column("batches", Text, nullable=False),
    Column("alias", String(64), nullable=False, default=""),
    Column("files", Text, nullable=False, default="[]"),
    Column("scrubbed", Boolean, nullable=False, default=False),
)  # fmt: skip
FOREIGN: Final = Table(
    "feedback_foreign", METADATA,
    Column("path", String(200), primary_key=True),
    Column("record", String(64), primary_key=True),
    Column("alias", String(64), nullable=False, index=True),
)  # fmt: skip
"""Rows that are published and not in this database, because it was lost once or others publish there too: SHA-256 of id and pseudonym."""
META: Final = Table("feedback_meta", METADATA, Column("key", String(100), primary_key=True), Column("value", Text, nullable=False))


@dataclass(frozen=True, slots=True)
class Ack:
    """What the store answers to a record: ``created`` is False if it had it already."""

    id: str
    created: bool
    state: State


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are published together, as the bytes of one file that never change.

    Attributes:
        id: 32 hexadecimal digits.
        body: the file; empty once the batch is stale.
        sha256: of the file as it was sealed.
        attempts, next_try_s, error: of pushing it; UTC in seconds since 1970.
        oid: commit that it was pushed with, empty before.
        pushed_s, verified_s: 0 before.
        path: in the repository.
        stale: whether a row of it was erased; it must not be pushed any more, and is to be removed where it was.
        replaced_by: id of the batch that has the rows left of a stale one; empty if there is none.
    """

    id: str
    created_s: float
    body: bytes
    sha256: str
    rows: int
    attempts: int
    next_try_s: float
    oid: str
    pushed_s: float
    error: str
    path: str
    verified_s: float = 0.0
    stale: bool = False
    replaced_by: str = ""


@dataclass(frozen=True, slots=True)
class Erased:
    """An erasure that is done here and pending elsewhere, until :meth:`FeedbackStore.finish_erasure`.

    Attributes:
        contributor: SHA-256 of the contributor, which is all that is kept of them.
        requested_s: UTC in seconds since 1970.
        batches: ids of the batches that contained rows.
        records: ids of the rows that this call removed; nobody can tell them afterwards.
        alias: SHA-256 of the published pseudonym, if the Hub may have rows that this database does not know; else empty.
        files: paths of files with such rows, noted before they are replaced.
        pictures: number of pictures that this call removed.
    """

    contributor: str
    requested_s: float
    batches: tuple[str, ...]
    records: tuple[str, ...] = ()
    alias: str = ""
    files: tuple[str, ...] = ()
    pictures: int = 0


def tombstone_of(name: str) -> str:
    """Return what is kept of the id of an erased record or of a contributor who asked for erasure: its SHA-256."""
    return hashlib.sha256(name.encode()).hexdigest()


def check_record(record: FeedbackRecord) -> FeedbackRecord:
    """Return a record as it will be read back, checked anew.

    Raises:
        FeedbackError: saying what is wrong with it.
    """
    try:
        value = to_json(record)
    except (TypeError, ValueError) as error:
        raise FeedbackError(f"This is no feedback record ({error}).") from error
    clean = record_from_json(value)
    if not RECORD_ID.fullmatch(clean.id) or not CONTRIBUTOR.fullmatch(clean.contributor):
        raise FeedbackError("A record needs an id of 32 hexadecimal digits and a contributor.")
    try:
        answers = {name: _answer(name, values) for name, values in clean.corrected.items()}
        corrected = read_corrected(answers, clean.predicted)
        check_statement(clean.verdict, corrected, clean.predicted)
        return replace(clean, corrected=corrected)
    except (AttributeError, TypeError, ValueError) as error:
        raise error if isinstance(error, FeedbackError) else FeedbackError(f"This is no feedback record ({error}).") from error


def _answer(name: str, values: Mapping[str, float]) -> object:
    """Return the values of one task in the form that a client sends."""
    if get_task(name).kind != "one_of":
        return values
    if list(values.values()) != [1.0]:
        raise FeedbackError(f"{get_task(name).title} must be one label.")
    return next(iter(values))


def check_crop(crop: bytes) -> None:
    """Check that a crop is a PNG of at most MOST_CROP_BYTES, or empty.

    Raises:
        FeedbackError: if it is not.
    """
    if crop and not (isinstance(crop, bytes) and crop.startswith(PNG_SIGNATURE) and len(crop) <= MOST_CROP_BYTES):
        raise FeedbackError(f"The picture of the face must be a PNG of at most {MOST_CROP_BYTES // 1024} KiB.")


def digest_of(body: str, created_s: float, crop: bytes) -> str:
    """Return a SHA-256 by which a damaged row is noticed."""
    return hashlib.sha256(f"{body}\n{created_s!r}\n{hashlib.sha256(crop).hexdigest()}".encode()).hexdigest()


def row_of(record: FeedbackRecord, crop: bytes, created_s: float) -> Mapping[str, object]:
    """Return the columns of a checked record that has arrived."""
    body = canonical(to_json(record))
    return {
        "id": record.id, "contributor": record.contributor, "item": record.subject.item, "created_s": created_s, "state": "received",
        "publish": "publish" in record.consent.scopes, "body": body, "digest": digest_of(body, created_s, crop),
    }  # fmt: skip


def stored_of(row: RowMapping) -> StoredRecord:
    """Return a row with ``png`` and ``superseded`` as a record, checked anew.

    Raises:
        FeedbackError: if it was damaged.
    """
    body, created_s, crop = row["body"], row["created_s"], row["png"] or b""
    try:
        record = check_record(record_from_json(cast("Json", json.loads(body))))
        if digest_of(body, created_s, crop) != row["digest"]:
            raise ValueError("other bytes")
        if (record.id, record.contributor, record.subject.item) != (row["id"], row["contributor"], row["item"]):
            raise ValueError("other columns")
    except (TypeError, ValueError) as error:
        raise FeedbackError(f"The correction with number {row['number']} is damaged and left out.") from error
    return StoredRecord(
        row["number"], record, created_s, row["state"], row["batch"] or "", bool(row["superseded"]),
        row["review"], bool(row["reverted"]), bool(row["gold"]), crop,
    )  # fmt: skip


def batch_of(row: RowMapping) -> Batch:
    """Return a row as a batch.

    Raises:
        FeedbackError: if its bytes were damaged.
    """
    batch = Batch(**{name: row[name] for name in Batch.__dataclass_fields__})
    if not batch.stale and hashlib.sha256(batch.body).hexdigest() != batch.sha256:
        raise FeedbackError(f"Batch {batch.id} is damaged.")
    return batch
