from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from safetensors.numpy import save

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.resolve import load_heads, resolve
from hsemotion_space.hub.source import Digest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return make_checkpoint(tmp_path / "small", size=32)


def test_good_weights_come_back_as_they_are(checkpoint: Checkpoint, tmp_path: Path) -> None:
    content = resolve(checkpoint, tmp_path)
    assert content == (checkpoint.folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == checkpoint.sha256


def test_a_flipped_byte_is_noticed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = checkpoint.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"Test small: checkpoints/small/model\.safetensors is not the file .* not loaded") as caught:
        resolve(checkpoint, tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_missing_weights_are_told_without_a_path(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (checkpoint.folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"Restore checkpoints/small/model\.safetensors or pick") as caught:
        resolve(checkpoint, tmp_path)
    assert str(tmp_path) not in str(caught.value)


HEAD = """
[[heads]]
task = "action_units"
kind = "mlp"
provenance = "trained"
"""


def with_heads(folder: Path, tensors: dict[str, np.ndarray], heads: str = HEAD) -> Checkpoint:
    """Make a checkpoint with a file of heads."""
    make_checkpoint(folder, size=32)
    content = save(tensors)
    (folder / "heads.safetensors").write_bytes(content)
    digest = f'heads_sha256 = "{hashlib.sha256(content).hexdigest()}"'
    change_manifest(folder, ("[backbone]", f"{digest}\n[backbone]"), ('[[heads]]\ntask = "compound', f'{heads}[[heads]]\ntask = "compound'))
    return read_manifest(folder)


def tensors(*shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for number, shape in enumerate(shapes):
        made[f"action_units.{number}.weight"] = rng.normal(0, 1, shape).astype(np.float16)
        made[f"action_units.{number}.bias"] = rng.normal(0, 1, shape[0]).astype(np.float16)
    return made


def test_heads_come_from_their_own_file_in_the_order_of_their_layers(tmp_path: Path) -> None:
    given = tensors((16, 512), (12, 16))
    layers = load_heads(with_heads(tmp_path / "small", given))["action_units"]
    assert [weight.dtype for weight, _ in layers] == [np.float32] * 2
    for number, (weight, bias) in enumerate(layers):
        assert np.array_equal(weight, given[f"action_units.{number}.weight"])
        assert np.array_equal(bias, given[f"action_units.{number}.bias"])
    assert load_heads(make_checkpoint(tmp_path / "plain", size=32)) == {}


@pytest.mark.parametrize("shapes", [(), ((16, 512),), ((12, 511),), ((16, 512), (12, 17)), ((16, 512, 1), (12, 16))], ids=str)
def test_layers_that_do_not_fit_are_refused(tmp_path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    checkpoint = with_heads(tmp_path / "small", {**tensors(*shapes), "other.0.weight": np.zeros((1, 1), np.float32)})
    with pytest.raises(CheckpointError, match=r"action_units\.\* do not fit a head of kind mlp from 512 numbers to 12"):
        load_heads(checkpoint)


def test_a_linear_head_has_one_layer(tmp_path: Path) -> None:
    checkpoint = with_heads(tmp_path / "small", tensors((16, 10), (12, 16)), HEAD.replace('"mlp"', '"linear"\nreads = "scores"'))
    with pytest.raises(CheckpointError, match="do not fit a head of kind linear from 10 numbers"):
        load_heads(checkpoint)


def test_damaged_or_missing_heads_are_told(tmp_path: Path) -> None:
    checkpoint = with_heads(tmp_path / "small", tensors((12, 512)))
    file = tmp_path / "small" / "heads.safetensors"
    file.write_bytes(b"x" + file.read_bytes())
    with pytest.raises(CheckpointError, match=r"checkpoints/small/heads\.safetensors is not the file"):
        load_heads(checkpoint)
    with pytest.raises(CheckpointError, match=r"heads\.safetensors cannot be read"):
        load_heads(replace(checkpoint, source=replace(checkpoint.source, heads=Digest(hashlib.sha256(file.read_bytes()).hexdigest()))))
    file.unlink()
    with pytest.raises(CheckpointError, match="weights file is missing"):
        load_heads(checkpoint)
