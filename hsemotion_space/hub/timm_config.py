"""``config.json`` of a model repository in timm's format, for ``timm.create_model("hf-hub:owner/name")``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from hsemotion_space.hub.manifest import Checkpoint, Family
from hsemotion_space.hub.source import CheckpointError

POOLED: tuple[Family, ...] = ("EfficientNet", "MobileViT")  # timm's own; they average over the last map
# a kernel as large as the last map fixes the size of the picture
WHOLE_MAP: tuple[Family, ...] = ("MobileFaceNet", "DDAMFN")


def timm_config(checkpoint: Checkpoint, weights: bytes) -> str:
    """Return the config of a checkpoint as JSON.

    The names of the first and of the last layer are read from the weights. The picture is expected to be cut
    out already, so it is resized as a whole.

    Args:
        checkpoint: its manifest.
        weights: the safetensors file.

    Raises:
        CheckpointError: if the weights cannot be read or do not have the outputs that the manifest states.
    """
    try:
        tensors = load(weights)
    except SafetensorError as error:
        raise CheckpointError(
            "{title}: the weights cannot be read ({reason}).",
            code="unreadable",
            title=checkpoint.title,
            reason=str(error),
        ) from error
    size = checkpoint.input.size
    config = {
        "architecture": checkpoint.arch.partition(".")[0],  # without the tag of timm's own weights
        "num_classes": checkpoint.outputs,
        "num_features": checkpoint.dim,
        **({"global_pool": "avg"} if checkpoint.family in POOLED else {}),
        "label_names": list(_labels(checkpoint)),
        "model_args": dict(checkpoint.arch_args),
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": checkpoint.family in WHOLE_MAP,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(checkpoint.input.mean),
            "std": list(checkpoint.input.std),
            "num_classes": checkpoint.outputs,
            "pool_size": None,
            "first_conv": _only(checkpoint, tensors, "convolution of RGB pictures", (None, 3, None, None)),
            "classifier": (
                _only(checkpoint, tensors, "output layer", (checkpoint.outputs, checkpoint.dim))
                if checkpoint.outputs
                else None
            ),
            "license": checkpoint.license,
        },
    }
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _labels(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what each output means, or its number if no task reads it."""
    for column in range(checkpoint.outputs):
        heads = (head for head in checkpoint.heads if column in head.columns)
        yield next((head.task.label_names[head.columns.index(column)] for head in heads), f"output {column}")


def _only(
    checkpoint: Checkpoint, tensors: Mapping[str, np.ndarray], what: str, shape: tuple[int | None, ...]
) -> str:
    """Return the name of the only layer whose weight has a shape; None stands for any length."""
    names = [
        key.removesuffix(".weight")
        for key, tensor in tensors.items()
        if key.endswith(".weight")
        and tensor.ndim == len(shape)
        and all(want in (None, have) for want, have in zip(shape, tensor.shape, strict=True))
    ]
    if len(names) != 1:
        raise CheckpointError(
            "{title}: the weights must have one {layer}, found {names}.",
            code="bad_layers",
            title=checkpoint.title,
            layer=what,
            names=", ".join(sorted(names)[:3]) or "none",
        )
    return names[0]
