"""Tables of the store, what its methods return, and rows that are checked on their way in and out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

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

from hsemotion_space.feedback.record import (
    FeedbackError,
    FeedbackRecord,
    State,
    canonical,
    from_json,
    to_json,
)
from hsemotion_space.feedback.trace import TraceRecord

Record: TypeAlias = FeedbackRecord | TraceRecord
TYPES: Final[Mapping[str, type[Record]]] = {"correction": FeedbackRecord, "trace": TraceRecord}
"""The types of records by their name in the table."""
MOST_CROP_BYTES: Final = 256 * 1024
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

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
    Column("oid", String(64), nullable=False, default=""),
    Column("verified_s", Double, nullable=False, default=0.0),
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
    Column("verdict", String(12), nullable=False, server_default=""),
    Column("consent_version", String(40), nullable=False, server_default=""),
    Column("body", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("type", String(10), nullable=False, server_default="correction"),
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
    Column("scrubbed", Boolean, nullable=False, default=False),
)  # fmt: skip
COPIES: Final = Table(
    "feedback_copies", METADATA,
    Column("record", String(32), primary_key=True),
    Column("batch", String(32), ForeignKey(BATCHES.c.id), primary_key=True),
)  # fmt: skip
"""Rows of a batch that are rows of another one too."""
META: Final = Table(
    "feedback_meta",
    METADATA,
    Column("key", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)


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
        oid: commit that it was pushed with, empty before.
        verified_s: when it was read back; 0 before.
        path: in the repository.
        stale: whether a row of it was erased; it must not be pushed any more, and is to be removed where it
            was.
        replaced_by: id of the batch that has the rows left of a stale one; empty if there is none.
    """

    id: str
    created_s: float
    body: bytes
    sha256: str
    rows: int
    oid: str
    path: str
    verified_s: float = 0.0
    stale: bool = False
    replaced_by: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the published dataset contains.

    Attributes:
        records, with_crop: statements of every type, and those with a picture.
        contributors: different ones.
        verdicts: corrections by verdict.
        consent_versions: of the texts that occur, sorted.
    """

    records: int = 0
    with_crop: int = 0
    contributors: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    consent_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingErasure:
    """An erasure that is done here and pending on the Hub.

    Attributes:
        contributor: SHA-256 of the contributor, which is all that is kept of them.
        requested_s: UTC in seconds since 1970.
        batches: ids of the batches that contained rows.
        records: ids of the rows that this call removed; nobody can tell them afterwards.
        pictures: number of pictures that this call removed.
    """

    contributor: str
    requested_s: float
    batches: tuple[str, ...]
    records: tuple[str, ...] = ()
    pictures: int = 0


def tombstone_of(name: str) -> str:
    """Return the tombstone of an erased record or of an erased contributor's id: its SHA-256."""
    return hashlib.sha256(name.encode()).hexdigest()


def is_crop(crop: bytes) -> bool:
    """Return whether these bytes can be a picture of a face: a PNG of at most MOST_CROP_BYTES."""
    return isinstance(crop, bytes) and crop.startswith(PNG_SIGNATURE) and len(crop) <= MOST_CROP_BYTES


def check_crop(crop: bytes) -> None:
    """Check that a crop is a PNG of at most MOST_CROP_BYTES, or empty.

    Raises:
        FeedbackError: if it is not.
    """
    if crop and not is_crop(crop):
        raise FeedbackError(
            "The face image must be a PNG of at most {size} KiB.", code="crop", size=MOST_CROP_BYTES // 1024
        )


def digest_of(body: str, created_s: float, crop: bytes) -> str:
    """Return a SHA-256 by which a damaged row is noticed."""
    return hashlib.sha256(f"{body}\n{created_s!r}\n{hashlib.sha256(crop).hexdigest()}".encode()).hexdigest()


def row_of(record: Record, created_s: float) -> dict[str, object]:
    """Return the columns of a record that has arrived."""
    body = canonical(to_json(record))
    return {
        "id": record.id, "contributor": record.contributor, "item": record.item, "created_s": created_s,
        "state": "received",
        "type": next(name for name, kind in TYPES.items() if isinstance(record, kind)),
        "publish": "publish" in record.consent_scopes,
        "verdict": record.verdict if isinstance(record, FeedbackRecord) else "",
        "consent_version": record.consent_version,
        "body": body, "digest": digest_of(body, created_s, record.consented_crop),
    }  # fmt: skip


def record_of(row: RowMapping) -> Record:
    """Return a row with ``png`` and ``superseded`` as a record.

    Raises:
        FeedbackError: if it was damaged.
    """
    marks = {name: row[name] for name in ("number", "created_s", "state", "review")}
    marks |= {name: bool(row[name]) for name in ("superseded", "reverted", "gold")}
    try:
        kind, marks["batch"] = TYPES.get(row["type"], FeedbackRecord), row["batch"] or ""
        record: Record = from_json(
            cast("type[Any]", kind), json.loads(row["body"]), **marks, crop=row["png"] or b""
        )
        if digest_of(row["body"], record.created_s, record.crop) != row["digest"]:
            raise ValueError("other bytes")
        if any(
            getattr(record, name, "") != row[name]
            for name in ("id", "contributor", "item", "verdict", "consent_version")
        ):
            raise ValueError("other columns")
    except (TypeError, ValueError) as error:
        raise FeedbackError(
            "Correction {number} is damaged and is skipped.", code="damaged_record", number=row["number"]
        ) from error
    return record


def batch_of(row: RowMapping) -> Batch:
    """Return a row as a batch.

    Raises:
        FeedbackError: if its bytes were damaged.
    """
    batch = Batch(**{name: row[name] for name in Batch.__dataclass_fields__})
    # a flipped bit makes it a text
    whole = isinstance(batch.body, bytes) and hashlib.sha256(batch.body).hexdigest() == batch.sha256
    if not batch.stale and not whole:
        raise FeedbackError("Batch {name} is damaged.", code="damaged_batch", name=batch.id)
    return batch
