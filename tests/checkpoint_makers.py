"""Make checkpoint folders with random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from manifest_makers import HEADS, change_manifest, manifest_text
from safetensors.torch import save

from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.vision.backbones import Backbone, create_model

__all__ = ["HEADS", "change_manifest", "make_checkpoint", "manifest_text"]


def make_checkpoint(
    folder: Path,
    arch: str = "mobilefacenet_small",
    size: int = 64,
    *,
    seed: int = 0,
    heads: str = HEADS,
    settled: bool = False,
) -> Checkpoint:
    """Write manifest and weights to a new ``folder``; with one ``seed`` the weights are always the same.

    ``settled`` fits the batch normalization to random pictures, so that the outputs are of the order of one.
    """
    outputs = len(EXPRESSION.labels) + 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(
            create_model(arch, outputs, **({"img_size": size} if arch.startswith("mobilefacenet") else {}))
        )
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
    (folder / MANIFEST).write_text(
        manifest_text(folder.name, sha256, arch, size, backbone.dim, outputs, heads), "utf-8"
    )
    return read_manifest(folder)
