"""Make checkpoints that are ready to be published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from checkpoint_makers import HEADS, change_manifest, manifest_text
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from hsemotion_space.hub.manifest import MANIFEST, read_manifest
from hsemotion_space.hub.publish import Publication, prepare
from hsemotion_space.vision.backbones import Backbone, create_model

REPO = "someone/some-model"
REVISION = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
license: other
license_name: research-use-only
library_name: timm
pipeline_tag: image-classification
tags: [facial-expression-recognition]
model-index:
- name: starter
  results:
  - task: {type: image-classification, name: Facial expression}
    dataset: {name: posed, type: posed}
    metrics:
    - {type: accuracy, value: 0.8}
---
# A card
"""
TRAINED = """
[[heads]]
task = "action_units"
kind = "linear"
provenance = "trained"
"""
# architecture, family, side of the picture in px, options of the architecture
FAMILIES = [
    ("mobilefacenet_small", "MobileFaceNet", 64, {"img_size": 64}),
    ("ddamfn", "DDAMFN", 32, {"img_size": 32}),
    ("mobilevitv2_050", "MobileViT", 64, {"output_stride": 16}),
    ("tf_efficientnet_b0", "EfficientNet", 64, {"output_stride": 16}),
]


def make_starter(folder: Path, arch: str, family: str, size: int, args: Mapping[str, int]) -> Publication:
    """Write a checkpoint in half precision, with its card and heads, and prepare it."""
    torch.manual_seed(0)
    backbone = Backbone(create_model(arch, 10, **args))
    for name, tensor in backbone.model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    weights = save(
        {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in backbone.model.state_dict().items()
        }
    )
    rng = np.random.default_rng(0)
    layers = {
        "action_units.0.weight": rng.normal(size=(12, backbone.dim)),
        "action_units.0.bias": rng.normal(size=12),
    }
    heads = save_arrays({name: array.astype(np.float16) for name, array in layers.items()})
    folder.mkdir(parents=True)
    for name, content in (
        ("model.safetensors", weights),
        ("heads.safetensors", heads),
        ("README.md", CARD.encode()),
    ):
        (folder / name).write_bytes(content)
    (folder / "recipe.toml").write_text("steps = 1\n", "utf-8")
    text = manifest_text(
        folder.name, hashlib.sha256(weights).hexdigest(), arch, size, backbone.dim, 10, HEADS + TRAINED
    )
    (folder / MANIFEST).write_text(text.replace(f"args = {{ img_size = {size} }}\n", ""), "utf-8")
    options = ", ".join(f"{key} = {value}" for key, value in args.items())
    change_manifest(
        folder,
        ('family = "MobileFaceNet"', f'family = "{family}"'),
        ("outputs = 10\n", f"outputs = 10\nargs = {{ {options} }}\n"),
        ("[backbone]", f'heads_sha256 = "{hashlib.sha256(heads).hexdigest()}"\n\n# what it is\n[backbone]'),
    )
    return prepare(read_manifest(folder), weights, heads)


def with_files(publication: Publication, **changes: bytes) -> Publication:
    """Return a publication with other files; `README_md` is README.md."""
    return replace(
        publication,
        files={
            **publication.files,
            **{name.replace("_", ".", 1): content for name, content in changes.items()},
        },
    )
