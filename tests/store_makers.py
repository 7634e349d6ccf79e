"""A format of batches, and a migration, for tests of the store."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from hsemotion_space.feedback.record import FeedbackRecord


def encode(stored: Sequence[FeedbackRecord]) -> bytes:
    return b"\n".join(one.id.encode() for one in stored)


def ids(stored: Sequence[FeedbackRecord]) -> list[str]:
    return [one.id for one in stored]


def add_a_column(connection: Connection, _: object) -> None:
    connection.execute(text("ALTER TABLE feedback_meta ADD COLUMN note VARCHAR(20)"))
