from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from safetensors.numpy import load, save
from upstream_makers import small

from hsemotion_space.hub import weights
from hsemotion_space.hub.convert import read_upstream
from hsemotion_space.hub.download import upstream_file
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.source import Digest, Source, UpstreamSource
from hsemotion_space.hub.weights import load_heads, resolve


def refused(action: Callable[[], object]) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        action()
    return caught.value


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return make_checkpoint(tmp_path / "small", size=32)


def test_resolve_returns_the_weights_as_they_are(checkpoint: Checkpoint, tmp_path: Path) -> None:
    content = resolve(checkpoint, tmp_path)
    assert content == (checkpoint.folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == checkpoint.sha256


def test_flipped_or_missing_weights_are_refused_without_a_path(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = checkpoint.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    error = refused(lambda: resolve(checkpoint, tmp_path))
    assert (error.code, error.message.values["file"]) == (
        "wrong_bytes",
        "checkpoints/small/model.safetensors",
    )
    file.unlink()
    missing = refused(lambda: resolve(checkpoint, tmp_path))
    assert missing.code == "missing"
    assert str(tmp_path) not in f"{error}{missing}"


def test_a_published_file_is_converted_once(
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


def test_heads_come_from_their_own_file_in_the_order_of_their_layers(tmp_path: Path) -> None:
    given = tensors((16, 512), (12, 16))
    layers = load_heads(with_heads(tmp_path / "small", given))["action_units"]
    assert [weight.dtype for weight, _ in layers] == [np.float32] * 2
    for number, (weight, bias) in enumerate(layers):
        assert np.array_equal(weight, given[f"action_units.{number}.weight"])
        assert np.array_equal(bias, given[f"action_units.{number}.bias"])
    assert load_heads(make_checkpoint(tmp_path / "plain", size=32)) == {}


@pytest.mark.parametrize(
    "shapes", [(), ((16, 512),), ((12, 511),), ((16, 512), (12, 17)), ((16, 512, 1), (12, 16))], ids=str
)
def test_layers_that_do_not_fit_are_refused(tmp_path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    checkpoint = with_heads(
        tmp_path / "small", {**tensors(*shapes), "other.0.weight": np.zeros((1, 1), np.float32)}
    )
    assert refused(lambda: load_heads(checkpoint)).code == "heads_do_not_fit"


def test_a_linear_head_has_one_layer(tmp_path: Path) -> None:
    checkpoint = with_heads(
        tmp_path / "small", tensors((16, 10), (12, 16)), HEAD.replace('"mlp"', '"linear"\nreads = "scores"')
    )
    assert refused(lambda: load_heads(checkpoint)).code == "heads_do_not_fit"


def test_damaged_or_missing_heads_are_refused(tmp_path: Path) -> None:
    checkpoint = with_heads(tmp_path / "small", tensors((12, 512)))
    file = tmp_path / "small" / "heads.safetensors"
    file.write_bytes(b"x" + file.read_bytes())
    assert refused(lambda: load_heads(checkpoint)).code == "wrong_bytes"
    other = replace(
        checkpoint,
        source=replace(checkpoint.source, heads=Digest(hashlib.sha256(file.read_bytes()).hexdigest())),
    )
    assert refused(lambda: load_heads(other)).code == "unreadable"
    file.unlink()
    assert refused(lambda: load_heads(checkpoint)).code == "missing"
