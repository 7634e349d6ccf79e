"""What tests of the store say of records."""

from __future__ import annotations

from collections.abc import Sequence

from hsemotion_space.feedback.record import FeedbackRecord


def encode(stored: Sequence[FeedbackRecord]) -> bytes:
    return b"\n".join(one.id.encode() for one in stored)


def ids(stored: Sequence[FeedbackRecord]) -> list[str]:
    return [one.id for one in stored]
