"""Published files become checkpoints of this machine."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_makers import make_checkpoint, manifest_text
from error_codes import raises_code
from fake_hub import FakeHub, environment, use

from hsemotion_space.hub.imports import Imported, ImportRequest, import_checkpoint
from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.source import Digest
from hsemotion_space.hub.weights import locate, resolve
from hsemotion_space.inference.network import load_network
from hsemotion_space.vision.backbones import create_model, load_backbone
from hsemotion_space.vision.engine import EngineOptions

BUNDLED = 'bundled = "model.safetensors"\nsha256 = "'


def network_file(outputs: int = 10, seed: int = 0) -> tuple[bytes, torch.nn.Module]:
    """Return a state dict as ``torch.save`` writes it, and the network."""
    torch.manual_seed(seed)
    model = create_model("mobilefacenet_small", outputs, img_size=32).eval()
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    return stream.getvalue(), model


def publish(root: Path, name: str, upstream: str) -> Checkpoint:
    """Add a checkpoint that comes from a published file."""
    (root / name).mkdir(parents=True)
    text = manifest_text(name, "", "mobilefacenet_small", 32).replace(
        f'{BUNDLED}"', f"upstream = {{ {upstream} }}"
    )
    (root / name / MANIFEST).write_text(text, "utf-8")
    (root / name / "README.md").write_text("card", "utf-8")
    return read_manifest(root / name)


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    publish(tmp_path / "project", "small_mtl", 'filename = "small_mtl.pt", page = "https://example.org"')
    return tmp_path / "project", tmp_path / "cache" / "checkpoints"


def strict(checkpoint: Checkpoint) -> object:
    return load_network(checkpoint, EngineOptions("torch", threads=1))


def bring_in(roots: tuple[Path, Path], what: str | Path, **options: str) -> Imported:
    return import_checkpoint(ImportRequest(str(what), **options), roots, roots[1].parent, strict)


def test_import_checkpoint_of_a_file(roots: tuple[Path, Path], tmp_path: Path) -> None:
    content, model = network_file()
    (tmp_path / "small_mtl.pt").write_bytes(content)
    before = find_checkpoint(roots, "small_mtl")
    assert locate(before, tmp_path).place == "import"
    with raises_code(CheckpointError, "not_here"):
        resolve(before, tmp_path)
    imported = bring_in(roots, tmp_path / "small_mtl.pt")
    checkpoint = find_checkpoint(roots, "small_mtl")
    assert checkpoint == imported.checkpoint
    assert (locate(checkpoint, tmp_path).place, checkpoint.heads) == ("here", before.heads)
    assert checkpoint.source.upstream.digest == Digest.of(content)
    assert (checkpoint.folder / "README.md").read_text() == "card"
    assert checkpoint.summary == "Imported from a file that nobody has confirmed to be the published one."
    told = str(imported)
    assert (
        hashlib.sha256(content).hexdigest() in told
        and "nobody has confirmed" in told
        and "10 outputs from 512" in told
    )
    faces = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    from safetensors.torch import load

    converted = load_backbone(
        checkpoint.arch,
        checkpoint.arch_args,
        checkpoint.dim,
        checkpoint.outputs,
        load(resolve(checkpoint, tmp_path)),
    )
    with torch.no_grad():
        assert np.array_equal(converted(faces)[1].numpy(), model(faces).numpy())


def test_import_checkpoint_again_replaces_it(roots: tuple[Path, Path], tmp_path: Path) -> None:
    for seed in range(2):
        content, _ = network_file(seed=seed)
        (tmp_path / "small_mtl.pt").write_bytes(content)
        imported = bring_in(roots, tmp_path / "small_mtl.pt")
        assert find_checkpoint(roots, "small_mtl").source.upstream.digest == Digest.of(content)
        assert imported.checkpoint.weights_bytes > 1_000_000
    assert [path.name for path in roots[1].iterdir()] == ["small_mtl"]


def test_import_checkpoint_does_not_change_the_default(roots: tuple[Path, Path], tmp_path: Path) -> None:
    make_checkpoint(roots[0] / "zebra", size=32)
    (tmp_path / "small_mtl.pt").write_bytes(network_file()[0])
    bring_in(roots, tmp_path / "small_mtl.pt", new_id="alpha")
    assert [checkpoint.id for checkpoint in list_checkpoints(roots)] == ["zebra", "alpha", "small_mtl"]
    assert find_checkpoint(roots, "").id == "zebra"


def test_import_checkpoint_of_weights_that_do_not_fit(roots: tuple[Path, Path], tmp_path: Path) -> None:
    content, _ = network_file(outputs=8)
    (tmp_path / "small_mtl.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"fc.weight has shape \(8, 512\) instead of \(10, 512\)"):
        bring_in(roots, tmp_path / "small_mtl.pt")
    (tmp_path / "small_mtl.pt").write_bytes(b"<html>not found</html>")
    with raises_code(CheckpointError, "web_page"):
        bring_in(roots, tmp_path / "small_mtl.pt")
    assert not list(roots[1].glob("*"))
    assert find_checkpoint(roots, "small_mtl").source.bundled == ""


def test_import_checkpoint_finds_its_manifest(roots: tuple[Path, Path], tmp_path: Path) -> None:
    content, _ = network_file()
    (tmp_path / "mine.pt").write_bytes(content)
    assert bring_in(roots, tmp_path / "mine.pt", new_id="mine").checkpoint.id == "mine"
    publish(roots[0], "other_mtl", 'filename = "other_mtl.pt"')
    with raises_code(CheckpointError, "ambiguous") as caught:
        bring_in(roots, tmp_path / "mine.pt")
    assert caught.value.message.values["choice"].values["ids"] == "other_mtl, small_mtl"
    made = bring_in(roots, tmp_path / "mine.pt", like="other_mtl", new_id="mine.2").checkpoint
    assert (made.id, made.title) == ("mine.2", "Test other_mtl as mine.2")
    with raises_code(CheckpointError, "unknown_checkpoint"):
        bring_in(roots, tmp_path / "mine.pt", like="third")
    for bad in ("../x", ".x", "a/b", "a b"):
        with raises_code(CheckpointError, "invalid_value", key="--id"):
            bring_in(roots, tmp_path / "mine.pt", like="other_mtl", new_id=bad)
    (tmp_path / "eight.pt").write_bytes(network_file(outputs=8)[0])
    with raises_code(CheckpointError, "no_such_network"):
        bring_in(roots, tmp_path / "eight.pt")
    with raises_code(CheckpointError, "unreadable") as caught:
        bring_in(roots, tmp_path / "nowhere.pt")
    assert str(tmp_path) not in str(caught.value)


def test_import_checkpoint_with_a_known_digest(tmp_path: Path) -> None:
    content, _ = network_file()
    roots = tmp_path / "project", tmp_path / "cache" / "checkpoints"
    publish(
        roots[0],
        "small_mtl",
        f'filename = "small_mtl.pt", sha256 = "{hashlib.sha256(content).hexdigest()}", bytes ='
        f" {len(content)}",
    )
    (tmp_path / "small_mtl.pt").write_bytes(network_file(seed=1)[0])
    with raises_code(CheckpointError, "wrong_bytes"):
        bring_in(roots, tmp_path / "small_mtl.pt")
    (tmp_path / "small_mtl.pt").write_bytes(content)
    imported = bring_in(roots, tmp_path / "small_mtl.pt")
    assert "which the project knew" in str(imported)
    assert imported.checkpoint.summary == ""


def test_import_checkpoint_without_a_cache(roots: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "small_mtl.pt").write_bytes(network_file()[0])
    (tmp_path / "cache").write_text("in the way")
    with raises_code(CheckpointError, "disk"):
        bring_in(roots, tmp_path / "small_mtl.pt")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as fake, use(fake, monkeypatch, tmp_path / "hf"):
        yield fake


def test_import_checkpoint_by_name(hub: FakeHub, tmp_path: Path) -> None:
    content, _ = network_file()
    url = hub.add_raw("0" * 40 + "/small_mtl.pt", content)
    roots = tmp_path / "project", tmp_path / "cache" / "checkpoints"
    publish(roots[0], "small_mtl", f'filename = "small_mtl.pt", url = "{url}"')
    publish(
        roots[0],
        "pinned_mtl",
        f'filename = "pinned.pt", url = "{url}", sha256 = "{hashlib.sha256(content).hexdigest()}"',
    )
    assert not bring_in(roots, "small_mtl").known
    assert bring_in(roots, "pinned_mtl").known
    hub.add_raw("0" * 40 + "/small_mtl.pt", network_file(seed=1)[0])
    with raises_code(CheckpointError, "changed"):
        bring_in(roots, "small_mtl")
    publish(roots[0], "by_hand", 'filename = "hand.pt", page = "https://example.org"')
    with raises_code(CheckpointError, "no_address"):
        bring_in(roots, "by_hand")


def test_command_imports_and_lists(hub: FakeHub, tmp_path: Path) -> None:
    content, _ = network_file()
    url = hub.add_raw("1/small_mtl.pt", content)
    publish(tmp_path / "project", "small_mtl", f'filename = "small_mtl.pt", url = "{url}"')
    env = {
        **os.environ, **environment(hub, tmp_path / "hf"), "HSEMOTION_CHECKPOINTS": str(tmp_path / "project"),
        "HSEMOTION_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def command(*words: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "hsemotion_space", "checkpoints", *words],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert "not installed; get it with `hsemotion-space checkpoints import small_mtl`" in command("list")
    assert "small_mtl is ready" in command("import", "small_mtl")
    assert "MB" in command("list")
    assert "verified" in command("fetch", "small_mtl")
