"""A store in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from feedback_makers import NOW_S
from feedback_postgres import MISSING, fresh_schema, postgres_server

from hsemotion_space.feedback.store import FeedbackStore


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'feedback.sqlite'}"
        return
    if not (address := request.getfixturevalue("server")):
        pytest.skip(MISSING)
    with fresh_schema(address) as schema:
        yield schema


@pytest.fixture
def store(url: str) -> Iterator[FeedbackStore]:
    with FeedbackStore(url, lambda: NOW_S) as opened:
        yield opened
