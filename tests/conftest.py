from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from markers import markers_of

SLOW = {"torch", "browser", "process"}
STARTS = {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run what needs no torch, no browser and no process")
    parser.addoption("--long", action="store_true", help="run the long form of the catalogues too")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
    few = 15 if config.getoption("--fast") else 40
    # the same on every run
    settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=few)
    settings.register_profile("long", deadline=None)
    settings.load_profile("long" if config.getoption("--long") else "repeatable")


def pytest_collection(session: pytest.Session) -> None:
    if session.config.getoption("--fast"):  # after pytest-xdist has started its processes, in each of them
        sys.addaudithook(refuse_slow)


def refuse_slow(event: str, arguments: tuple[object, ...]) -> None:
    """Fail what was selected as fast and is not; ``uname`` is asked by the module ``platform``."""
    if event == "import" and arguments[0] in ("torch", "multiprocessing.popen_spawn_posix"):
        raise RuntimeError(f"a fast test imports {arguments[0]}; see tests/markers.py")
    if event in STARTS and arguments[1:2] != (["uname", "-p"],):
        raise RuntimeError(f"a fast test starts a process ({event}); see tests/markers.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield
    assert not item.config.getoption("--fast") or "torch" not in sys.modules, "a fast test imports torch"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what is not fast, if only that is wanted."""
    wanted = not config.getoption("--fast") or not SLOW & markers_of(collection_path)
    return None if wanted else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for marker in markers_of(item.path):
            item.add_marker(marker)
    # last, as the one browser stays open until the end
    items.sort(key=lambda item: "browser" in names_of_markers(item))
    left_out = ({"long"} if not config.getoption("--long") else set()) | (
        SLOW if config.getoption("--fast") else set()
    )
    dropped = [item for item in items if left_out & names_of_markers(item)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not left_out & names_of_markers(item)]


def names_of_markers(item: pytest.Item) -> set[str]:
    return {marker.name for marker in item.iter_markers()}


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    patch.setenv("XDG_DATA_HOME", str(home / ".local"))
    patch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give what is shared by several tests a home that is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(autouse=True)
def isolated_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home of its own, so that no state of the user is read or written."""
    home = tmp_path_factory.mktemp("home")
    isolate(monkeypatch, home)
    return home
