"""What tests of the store say of records."""

from __future__ import annotations

from collections.abc import Sequence

from hsemotion_space.feedback.records import StoredRecord


def encode(stored: Sequence[StoredRecord]) -> bytes:
    return b"\n".join(one.record.id.encode() for one in stored)


def ids(stored: Sequence[StoredRecord]) -> list[str]:
    return [one.record.id for one in stored]
