"""Make checkpoint folders with random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from hsemotion_space.backbones import Backbone, create_model
from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest
from hsemotion_space.tasks import EXPRESSION

HEADS = """
[[heads]]
task = "expression"
kind = "scores"
provenance = "trained"
columns = [0, 1, 2, 3, 4, 5, 6, 7]
[[heads]]
task = "valence_arousal"
kind = "scores"
provenance = "trained"
columns = [8, 9]
[[heads]]
task = "compound_expression"
kind = "pair_mean"
provenance = "rule"
source = "expression"
"""


def manifest_text(
    name: str, sha256: str, arch: str = "mobilefacenet_small", size: int = 64, dim: int = 512, outputs: int = 10, heads: str = HEADS
) -> str:
    """Return a manifest that differs from the smallest valid one in these values alone."""
    args = f"args = {{ img_size = {size} }}\n" if arch.startswith("mobilefacenet") else ""
    return (
        f'id = "{name}"\ntitle = "Test {name}"\nfamily = "MobileFaceNet"\nlicense = "Apache-2.0"\n'
        f'[source]\nbundled = "model.safetensors"\nsha256 = "{sha256}"\n'
        f'[backbone]\narch = "{arch}"\ndim = {dim}\noutputs = {outputs}\n{args}'
        f'[input]\nsize = {size}\ncrop = "square"\nmargin = 0.1\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n{heads}'
    )


def make_checkpoint(
    folder: Path, arch: str = "mobilefacenet_small", size: int = 64, *, seed: int = 0, heads: str = HEADS, settled: bool = False
) -> Checkpoint:
    """Write manifest and weights to a new ``folder``; with one ``seed`` the weights are always the same.

    ``settled`` fits the batch normalization to random pictures, so that the outputs are of the order of one.
    """
    outputs = len(EXPRESSION.labels) + 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(create_model(arch, outputs, **({"img_size": size} if arch.startswith("mobilefacenet") else {})))
        if settled:
            for module in backbone.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.momentum = None
            with torch.no_grad():
                backbone.train()(torch.rand(64, 3, size, size) * 2 - torch.rand(64, 3, 1, 1) * 2)
    content = save({key: tensor.contiguous() for key, tensor in backbone.model.state_dict().items()})
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / MANIFEST).write_text(manifest_text(folder.name, sha256, arch, size, backbone.dim, outputs, heads), "utf-8")
    return read_manifest(folder)


def change_manifest(folder: Path, *changes: Sequence[str]) -> None:
    """Replace texts in a manifest; each (old, new) must be found."""
    file = folder / MANIFEST
    text = file.read_text("utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, "utf-8")
