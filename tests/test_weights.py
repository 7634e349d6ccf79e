from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from error_codes import raises_code
from safetensors.numpy import load, save
from upstream_makers import small

from hsemotion_space.hub import weights
from hsemotion_space.hub.convert import read_upstream
from hsemotion_space.hub.download import upstream_file
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.source import Digest, Source, UpstreamSource
from hsemotion_space.hub.weights import load_heads, resolve


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return make_checkpoint(tmp_path / "small", size=32)


def test_resolve_returns_the_weights_as_they_are(checkpoint: Checkpoint, tmp_path: Path) -> None:
    content = resolve(checkpoint, tmp_path)
    assert content == (checkpoint.folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == checkpoint.sha256


def test_resolve_refuses_flipped_or_missing_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = checkpoint.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for code in ("wrong_bytes", "missing"):
        with raises_code(CheckpointError, code, file="checkpoints/small/model.safetensors") as caught:
            resolve(checkpoint, tmp_path)
        assert str(tmp_path) not in str(caught.value)
        file.unlink(missing_ok=True)


def test_resolve_converts_a_published_file_once(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, converted = small(), []
    source = UpstreamSource("small.pt", "https://nowhere.invalid", "", Digest.of(published))
    pinned = replace(checkpoint, source=Source("", Digest(), Digest(), None, source))
    (tmp_path / "upstream").mkdir()
    upstream_file(source, tmp_path / "upstream").write_bytes(published)
    monkeypatch.setattr(
        weights, "read_upstream", lambda *args: converted.append(args) or read_upstream(*args)
    )
    first = resolve(pinned, tmp_path)
    assert [resolve(pinned, tmp_path) for _ in range(2)] == [first, first]
    assert len(converted) == 1
    assert load(first)["fc.bias"].tolist() == [1, 1.25]
    (kept,) = (tmp_path / "upstream").glob("*.safetensors")
    kept.write_bytes(first[:-1] + b"!")
    assert resolve(pinned, tmp_path) == first == kept.read_bytes()
    assert len(converted) == 2


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
    change_manifest(
        folder,
        ("[backbone]", f"{digest}\n[backbone]"),
        ('[[heads]]\ntask = "compound', f'{heads}[[heads]]\ntask = "compound'),
    )
    return read_manifest(folder)


def tensors(*shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for number, shape in enumerate(shapes):
        made[f"action_units.{number}.weight"] = rng.normal(0, 1, shape).astype(np.float16)
        made[f"action_units.{number}.bias"] = rng.normal(0, 1, shape[0]).astype(np.float16)
    return made


def test_load_heads_in_the_order_of_their_layers(tmp_path: Path) -> None:
    given = tensors((16, 512), (12, 16))
    layers = load_heads(with_heads(tmp_path / "small", given))["action_units"]
    assert [weight.dtype for weight, _ in layers] == [np.float32] * 2
    for number, (weight, bias) in enumerate(layers):
        assert np.array_equal(weight, given[f"action_units.{number}.weight"])
        assert np.array_equal(bias, given[f"action_units.{number}.bias"])
    assert load_heads(make_checkpoint(tmp_path / "plain", size=32)) == {}


@pytest.mark.parametrize(
    ("shapes", "heads"),
    [
        *((shapes, HEAD) for shapes in ((), ((16, 512),), ((12, 511),), ((16, 512), (12, 17)))),
        (((16, 512, 1), (12, 16)), HEAD),
        (((16, 10), (12, 16)), HEAD.replace('"mlp"', '"linear"\nreads = "scores"')),  # has one layer
    ],
    ids=str,
)
def test_load_heads_refuses_layers_that_do_not_fit(
    tmp_path: Path, shapes: tuple[tuple[int, ...], ...], heads: str
) -> None:
    made = {**tensors(*shapes), "other.0.weight": np.zeros((1, 1), np.float32)}
    with raises_code(CheckpointError, "heads_do_not_fit"):
        load_heads(with_heads(tmp_path / "small", made, heads))


def test_load_heads_of_damaged_or_missing_files(tmp_path: Path) -> None:
    checkpoint = with_heads(tmp_path / "small", tensors((12, 512)))
    file = tmp_path / "small" / "heads.safetensors"
    file.write_bytes(b"x" + file.read_bytes())
    with raises_code(CheckpointError, "wrong_bytes"):
        load_heads(checkpoint)
    other = replace(checkpoint, source=replace(checkpoint.source, heads=Digest.of(file.read_bytes())))
    with raises_code(CheckpointError, "unreadable"):
        load_heads(other)
    file.unlink()
    with raises_code(CheckpointError, "missing"):
        load_heads(checkpoint)
