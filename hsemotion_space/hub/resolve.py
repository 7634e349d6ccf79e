"""From a manifest to a verified weights file and to the small heads beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec
from hsemotion_space.types import FloatArray

Layers: TypeAlias = tuple[tuple[FloatArray, FloatArray], ...]
"""Fully connected layers in their order: weight (out, in), bias (out,)."""
HeadWeights: TypeAlias = Mapping[str, Layers]
"""Layers by the name of the task."""
HEADS_FILE = "heads.safetensors"
_cache: dict[str, HeadWeights] = {}  # by digests of the file and of what is read from it; a head is some hundred kilobytes


def resolve(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of the weights file, read once and verified, so that what is loaded is what was checked.

    Raises:
        CheckpointError: if the file is missing or its digest differs from the manifest's.
    """
    return _verified(checkpoint, checkpoint.bundled, checkpoint.sha256)


def _verified(checkpoint: Checkpoint, name: str, sha256: str) -> bytes:
    file = checkpoint.folder / name
    shown = f"checkpoints/{checkpoint.id}/{name or 'model.safetensors'}"  # does not tell where the project lies
    if not name or not file.is_file():
        raise CheckpointError(f"{checkpoint.title}: the weights file is missing. Restore {shown} or pick another checkpoint.")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise CheckpointError(
            f"{checkpoint.title}: {shown} has the SHA-256 {digest[:12]}… but the manifest says {sha256[:12] or 'nothing'}…; "
            "the file was not loaded. Restore it from the repository."
        )
    return content


def load_heads(checkpoint: Checkpoint) -> HeadWeights:
    """Return the layers of every head that has any, as float32; they lie in a small file of their own beside the manifest.

    Raises:
        CheckpointError: if the file cannot be used, or a head's tensors are missing or do not fit its inputs and labels.
    """
    wanted = [head for head in checkpoint.heads if head.has_weights]
    if not wanted:
        return {}
    key = f"{checkpoint.folder} {checkpoint.heads_sha256} {wanted}"
    if key not in _cache:
        try:
            tensors = load(_verified(checkpoint, HEADS_FILE, checkpoint.heads_sha256))
        except SafetensorError as error:
            raise CheckpointError(f"{checkpoint.title}: {HEADS_FILE} cannot be read ({error}).") from error
        _cache[key] = {head.task.name: _layers(checkpoint, head, tensors) for head in wanted}
    return _cache[key]


def _layers(checkpoint: Checkpoint, head: HeadSpec, tensors: Mapping[str, np.ndarray]) -> Layers:
    name = head.task.name
    layers: list[tuple[FloatArray, FloatArray]] = []
    while f"{name}.{len(layers)}.weight" in tensors:
        weight, bias = (tensors.get(f"{name}.{len(layers)}.{part}", np.zeros(0)).astype(np.float32) for part in ("weight", "bias"))
        layers.append((weight, bias))
    widths = {"scores": checkpoint.outputs, "embeddings": checkpoint.dim, "both": checkpoint.dim + checkpoint.outputs}
    width = widths[head.reads] * (4 if head.kind == "clip_statistics" else 1)
    count = len(head.task.labels)
    fits = (
        bool(layers)
        and all(weight.ndim == 2 and bias.shape == weight.shape[:1] for weight, bias in layers)
        and layers[0][0].shape[1] == width
        and layers[-1][0].shape[0] == count
        and all(before[0].shape[0] == after[0].shape[1] for before, after in pairwise(layers))
        and (head.kind != "linear" or len(layers) == 1)
    )
    if not fits:
        shapes = ", ".join(f"{weight.shape} and {bias.shape}" for weight, bias in layers) or "none"
        raise CheckpointError(
            f"{checkpoint.title}: the tensors {name}.* do not fit a head of kind {head.kind} from {width} numbers to {count}; "
            f"weights and biases found: {shapes}."
        )
    return tuple(layers)
