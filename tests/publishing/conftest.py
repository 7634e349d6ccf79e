"""A Hub that answers as it should, and a server that publishes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, use
from feedback_publishing import TOKEN, Server

from hsemotion_space.feedback import publish, repository


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Yield a Hub that is waited for as long as the ``TIMEOUT_S`` of the test module says."""
    timeout_s = getattr(request.module, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(repository, "TIMEOUT_S", timeout_s)
    monkeypatch.setattr(publish, "ERASE_TIMEOUT_S", timeout_s)
    with FakeHub(TOKEN) as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=1):
        yield hub


@pytest.fixture
def server(hub: FakeHub, tmp_path: Path) -> Iterator[Server]:
    server = Server(hub, tmp_path / "here")
    yield server
    if server.publisher._thread.is_alive():
        server.publisher.stop(2)
    server.store.close()
