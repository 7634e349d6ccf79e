"""A Hub that answers as it should, and a server that publishes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, use
from feedback_publishing import Server

from hsemotion_space.feedback import repository


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(repository, "TIMEOUT_S", 0.3)
    with FakeHub() as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=1):
        yield hub


@pytest.fixture
def server(hub: FakeHub, tmp_path: Path) -> Iterator[Server]:
    server = Server(hub, tmp_path / "here")
    yield server
    server.publisher.stop(2)
    server.store.close()
