"""The cache of converted networks on disks that fail, and with files that are damaged: it saves time and
changes nothing else."""

from __future__ import annotations

import errno
import io
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from hsemotion_space.types import FloatArray
from hsemotion_space.vision import engine
from hsemotion_space.vision.engine import EngineOptions, load

CODES = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO)
STEPS = [(os, "mkdir"), (os, "open"), (os, "replace"), (os, "rmdir"), (os, "lstat"), (io, "open")]
"""What the cache asks of the system, with a path first."""
FLIPS = 20
FACES = np.random.default_rng(0).normal(0, 1, (2, 3, 16, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def told_anew() -> None:
    engine._warn_uncached.cache_clear()


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 2, 3)).eval()


def outputs(cache: Path | None, seed: int = 0) -> FloatArray:
    return load(lambda: net(seed), f"net {seed}", FACES[:1], EngineOptions("openvino", cache, 1))(FACES)[0]


@pytest.fixture(scope="module")
def fresh() -> FloatArray:
    return outputs(None)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows by one whenever a network is converted; the same one is converted really once,
    as that takes long."""
    made: list[object] = []
    convert, models = openvino.convert_model, {}

    def counted(module: nn.Module, **options: object) -> Any:
        made.append(module)
        key = float(next(module.parameters()).sum())
        if key not in models:
            models[key] = convert(module, **options)
        return models[key].clone()

    monkeypatch.setattr(openvino, "convert_model", counted)
    return made


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Return the only file of a cache that has the network."""
    outputs(tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    return file


@pytest.mark.parametrize("place", ["file", "file/below", "/dev/null", "/dev/null/below", "/proc/below"])
def test_a_cache_that_cannot_be_is_told_once_and_costs_nothing_but_time(
    place: str, tmp_path: Path, fresh: FloatArray, conversions: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    for count in (1, 2, 3):
        assert np.array_equal(outputs(tmp_path / place), fresh)
        assert len(conversions) == count
    [message] = caplog.messages
    assert message.startswith(f"Converted networks cannot be kept in {tmp_path / place} (")
    assert "HSEMOTION_CACHE" in message
    assert (tmp_path / "file").read_text() == "in the way"


class Broken:
    """The system calls below a folder, of which the one with a number fails."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.done, self.failing, self.code = str(folder), 0, -1, 0
        for module, name in STEPS:
            patch.setattr(module, name, self._guarded(getattr(module, name)))

    def _guarded(self, call: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: Any, **options: Any) -> object:
            if isinstance(args[0], str | Path) and str(args[0]).startswith(self.folder):
                self.done += 1
                if self.done == self.failing:
                    raise OSError(self.code, os.strerror(self.code), str(args[0]))
            return call(*args, **options)

        return guarded


@pytest.mark.usefixtures("conversions")
def test_no_step_may_fail_the_analysis(
    tmp_path: Path, fresh: FloatArray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        broken, failing = Broken(tmp_path, patch), 0
        while failing <= broken.done:
            failing += 1
            broken.done, broken.failing, broken.code = 0, failing, CODES[failing % len(CODES)]
            cache = tmp_path / str(failing)
            assert np.array_equal(outputs(cache), fresh), failing
            broken.failing = -1
            assert np.array_equal(outputs(cache), fresh), failing
            assert len(list(cache.glob("*.network"))) == 1
        assert failing > 8, "too few steps were seen"
    assert len(caplog.messages) >= failing - 3, (
        "all but reading what is not there yet, and cleaning up, are told"
    )


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Fail whatever makes a file larger, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_any_byte_leaves_a_whole_file_or_none(
    stored: Path, tmp_path: Path, fresh: FloatArray, conversions: list[object]
) -> None:
    whole = stored.stat().st_size
    limits = sorted({0, 1, 500, *range(whole - 40, whole + 2, 8), *random.Random(0).sample(range(whole), 6)})
    for limit in limits:
        cache = tmp_path / f"limit {limit}"
        with file_limit(limit):
            assert np.array_equal(outputs(cache), fresh), limit
        kept = [file.name for file in cache.rglob("*")]
        assert kept in ([], [stored.name]), limit
        conversions.clear()
        assert np.array_equal(outputs(cache), fresh), limit
        assert len(conversions) == (0 if kept else 1)
    assert kept, "the last limit was no limit"


def damages(whole: bytes) -> Iterator[bytes]:
    """Yield what a file may be found as."""
    chance = random.Random(1)
    for place in (0, 31, 32, 39, 40, len(whole) - 1, *chance.sample(range(len(whole)), FLIPS)):
        yield whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :]
    yield from (whole[:size] for size in (0, 1, 32, 40, len(whole) // 2, len(whole) - 1))
    yield from (whole + b"\0", bytes(len(whole)), whole[32:], whole * 2)


def test_a_damaged_file_is_noticed_replaced_and_never_computed_with(
    stored: Path, fresh: FloatArray, conversions: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    whole = stored.read_bytes()
    for number, damaged in enumerate(damages(whole), 1):
        stored.write_bytes(damaged)
        assert np.array_equal(outputs(stored.parent), fresh), number
        assert len(conversions) == number
        assert len(caplog.messages) == number
        assert len(list(stored.parent.iterdir())) == 1
        assert stored.read_bytes() != damaged
    assert np.array_equal(outputs(stored.parent), fresh)
    assert len(conversions) == number, "the last one was healed"


def test_files_that_changed_places_are_noticed(
    stored: Path, fresh: FloatArray, conversions: list[object]
) -> None:
    other_fresh = outputs(None, seed=1)
    outputs(stored.parent, seed=1)
    (other,) = set(stored.parent.iterdir()) - {stored}
    ours, theirs = stored.read_bytes(), other.read_bytes()
    stored.write_bytes(theirs)
    other.write_bytes(ours)
    conversions.clear()
    for _ in range(2):
        assert np.array_equal(outputs(stored.parent), fresh)
        assert np.array_equal(outputs(stored.parent, seed=1), other_fresh)
    assert len(conversions) == 2


def test_a_folder_in_place_of_the_file_is_told(
    stored: Path, fresh: FloatArray, caplog: pytest.LogCaptureFixture
) -> None:
    stored.unlink()
    (stored / "below").mkdir(parents=True)
    assert np.array_equal(outputs(stored.parent), fresh)
    assert "cannot be kept" in caplog.text


def test_weights_that_openvino_cannot_read_are_converted_again(
    stored: Path, fresh: FloatArray, conversions: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engine, "_digest", lambda _file, body: stored.read_bytes()[:32] if len(body) < 50 else bytes(32)
    )
    stored.write_bytes(stored.read_bytes()[:32] + (4).to_bytes(8) + b"junk")
    assert np.array_equal(outputs(stored.parent), fresh)
    assert len(conversions) == 1
