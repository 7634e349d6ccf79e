"""From a manifest to verified bytes: bundled, then the caches of this machine, then the Hub, then the authors' published file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hsemotion_space.hub.fetch import Report, cached_on_hub, from_hub, from_upstream, is_here, silent, upstream_file
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec
from hsemotion_space.hub.source import Digest
from hsemotion_space.hub.upstream import read_upstream
from hsemotion_space.types import FloatArray

Layers: TypeAlias = tuple[tuple[FloatArray, FloatArray], ...]
"""Fully connected layers in their order: weight (out, in), bias (out,)."""
HeadWeights: TypeAlias = Mapping[str, Layers]
"""Layers by the name of the task."""
HEADS_FILE = "heads.safetensors"
_cache: dict[str, HeadWeights] = {}  # by digests of the file and of what is read from it; a head is some hundred kilobytes


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """How the weights of a checkpoint can be had, as far as can be told without reading or asking for them.

    Attributes:
        place: ``here``, or what must be done first: ``download`` (by itself, when first used), ``import`` (by the operator) or ``missing``.
        size_bytes: size of what would be downloaded, 0 if not known.
        words: what a user reads beside the name; empty if they are here.
    """

    place: Literal["here", "download", "import", "missing"]
    size_bytes: int = 0
    words: str = ""


def published_files(cache: Path) -> Path:
    """Return the folder below the cache for files as their authors published them."""
    return cache / "upstream"


def locate(checkpoint: Checkpoint, cache: Path) -> Whereabouts:
    """Tell where the weights are, without a request.

    Args:
        checkpoint: its manifest.
        cache: the cache folder of the settings.
    """
    source = checkpoint.source
    if source.bundled:
        words = f"checkpoints/{checkpoint.id}/{source.bundled} is missing; restore it from the repository"
        return Whereabouts("here") if checkpoint.weights_bytes else Whereabouts("missing", words=words)
    if source.hub:
        here = cached_on_hub(source.hub, source.hub.filename) is not None
        return (
            Whereabouts("here")
            if here
            else Whereabouts("download", source.weights.size_bytes, _size("downloaded when first used", source.weights))
        )
    if source.upstream and source.upstream.pinned:
        here = is_here(upstream_file(source.upstream, published_files(cache)))
        words = _size("downloaded from its authors when first used", source.upstream.digest)
        return Whereabouts("here") if here else Whereabouts("download", source.upstream.digest.size_bytes, words)
    what, first = checkpoint.id, "get it with"
    if source.upstream and not source.upstream.url:
        what, first = source.upstream.filename, f"download {source.upstream.filename} from {source.upstream.page}, then run"
    return Whereabouts("import", words=f"not here yet; {first} `hsemotion-space checkpoints import {what}`")


def _size(words: str, digest: Digest) -> str:
    return f"{words}, {digest.size_bytes / 1e6:.0f} MB" if digest.size_bytes else words


def resolve(checkpoint: Checkpoint, cache: Path, report: Report = silent) -> bytes:
    """Return the weights as safetensors, read once and verified, so that what is loaded is what was checked.

    Args:
        checkpoint: its manifest.
        cache: the cache folder of the settings.
        report: called with bytes done and bytes in total while something is downloaded.

    Raises:
        CheckpointError: if the file cannot be had, or differs from what the manifest says.
    """
    source = checkpoint.source
    if source.bundled:
        return _bundled(checkpoint, source.bundled, source.weights)
    if source.hub:
        return from_hub(checkpoint.title, source.hub, source.hub.filename, source.weights, report)
    if source.upstream and source.upstream.pinned:
        content = from_upstream(checkpoint.title, source.upstream, published_files(cache), report)
        return save(dict(read_upstream(content, source.upstream.filename).tensors))
    raise CheckpointError(f"{checkpoint.title} is {locate(checkpoint, cache).words}, or pick another checkpoint.")


def _bundled(checkpoint: Checkpoint, name: str, digest: Digest) -> bytes:
    file = checkpoint.folder / name
    shown = f"checkpoints/{checkpoint.id}/{name}"  # does not tell where the project lies
    if not file.is_file():
        raise CheckpointError(f"{checkpoint.title}: the weights file is missing. Restore {shown} or pick another checkpoint.")
    try:
        content = file.read_bytes()
    except OSError as error:  # its own text holds the path
        raise CheckpointError(f"{checkpoint.title}: {shown} cannot be read ({error.strerror}).") from error
    if not digest.matches(content):
        raise CheckpointError(
            f"{checkpoint.title}: {shown} is not the file that the manifest means (SHA-256 {digest.sha256[:12]}…); it was not loaded. "
            "Restore it from the repository."
        )
    return content


def heads_file(checkpoint: Checkpoint, report: Report = silent) -> bytes:
    """Return the file of heads, which lies beside the manifest or beside the weights on the Hub.

    Raises:
        CheckpointError: if the file cannot be had, or differs from what the manifest says.
    """
    source = checkpoint.source
    if source.hub and not (checkpoint.folder / HEADS_FILE).is_file():
        return from_hub(checkpoint.title, source.hub, HEADS_FILE, source.heads, report)
    return _bundled(checkpoint, HEADS_FILE, source.heads)


def load_heads(checkpoint: Checkpoint) -> HeadWeights:
    """Return the layers of every head that has any, as float32; they lie in a small file of their own.

    Raises:
        CheckpointError: if the file cannot be used, or a head's tensors are missing or do not fit its inputs and labels.
    """
    wanted = [head for head in checkpoint.heads if head.has_weights]
    if not wanted:
        return {}
    key = f"{checkpoint.folder} {checkpoint.heads_sha256} {wanted}"
    if key not in _cache:
        try:
            tensors = load(heads_file(checkpoint))
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
