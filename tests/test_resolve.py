from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_makers import make_checkpoint

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.hub.resolve import resolve


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return make_checkpoint(tmp_path / "small", size=32)


def test_good_weights_come_back_as_they_are(checkpoint: Checkpoint) -> None:
    content = resolve(checkpoint)
    assert content == (checkpoint.folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == checkpoint.sha256


def test_a_flipped_byte_is_noticed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = checkpoint.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"Test small: checkpoints/small/model\.safetensors has the SHA-256 .* not loaded") as caught:
        resolve(checkpoint)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("bundled", ["", "gone.safetensors"])
def test_missing_weights_are_told_without_a_path(checkpoint: Checkpoint, tmp_path: Path, bundled: str) -> None:
    with pytest.raises(CheckpointError, match=f"Restore checkpoints/small/{bundled or 'model.safetensors'} or pick") as caught:
        resolve(replace(checkpoint, bundled=bundled))
    assert str(tmp_path) not in str(caught.value)
