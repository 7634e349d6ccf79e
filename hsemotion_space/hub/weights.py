"""From a manifest to verified bytes: bundled, cached, from the Hub, or converted from the published file."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hsemotion_space.hub.convert import read_upstream
from hsemotion_space.hub.download import (
    Report,
    cached_on_hub,
    file_exists,
    from_hub,
    from_upstream,
    silent,
    upstream_file,
)
from hsemotion_space.hub.manifest import Checkpoint, HeadSpec
from hsemotion_space.hub.source import CheckpointError, Digest, UpstreamSource
from hsemotion_space.messages import Message
from hsemotion_space.types import FloatArray

Layers: TypeAlias = tuple[tuple[FloatArray, FloatArray], ...]
"""Fully connected layers in their order: weight (out, in), bias (out,)."""
HeadWeights: TypeAlias = Mapping[str, Layers]
"""Layers by the name of the task."""
HEADS_FILE = "heads.safetensors"
# by digests of the file and of what is read from it; a head is some hundred kilobytes
_cache: dict[str, HeadWeights] = {}


@dataclass(frozen=True, slots=True)
class Availability:
    """How the weights of a checkpoint can be had, as far as can be told without reading or requesting them.

    Attributes:
        place: ``here``, or what must be done first: ``download`` (by itself, when first used), ``import`` (by
            the operator) or ``missing``.
        size_bytes: size of the download, 0 if not known.
        message: what a user reads beside the name; empty if they are here.
    """

    place: Literal["here", "download", "import", "missing"]
    size_bytes: int = 0
    message: str = ""


def published_files(cache: Path) -> Path:
    """Return the folder below the cache for files as their authors published them."""
    return cache / "upstream"


def locate(checkpoint: Checkpoint, cache: Path) -> Availability:
    """Tell where the weights are, without a request.

    Args:
        checkpoint: its manifest.
        cache: the cache folder of the settings.
    """
    source = checkpoint.source
    if source.bundled:
        file = f"checkpoints/{checkpoint.id}/{source.bundled}"
        message = Message("{file} is missing; restore it from the repository", file=file)
        return Availability("here") if checkpoint.weights_bytes else Availability("missing", message=message)
    if source.hub:
        here = cached_on_hub(source.hub, source.hub.filename) is not None
        return Availability("here") if here else _download(source.weights, "downloaded when first used")
    if source.upstream and source.upstream.pinned:
        here = file_exists(upstream_file(source.upstream, published_files(cache)))
        digest = source.upstream.digest
        return (
            Availability("here") if here else _download(digest, "downloaded from its authors when first used")
        )
    if source.upstream and not source.upstream.url:
        message = Message(
            (
                "not installed; download {file} from {page}, then run `hsemotion-space checkpoints"
                " import {name}`"
            ),
            file=source.upstream.filename,
            page=source.upstream.page,
            name=source.upstream.filename,
        )
    else:
        message = Message(
            "not installed; get it with `hsemotion-space checkpoints import {name}`", name=checkpoint.id
        )
    return Availability("import", message=message)


def _download(digest: Digest, template: str) -> Availability:
    size = f"{digest.size_bytes / 1e6:.0f}"
    sized = Message(f"{template}, {{size}} MB", size=size) if digest.size_bytes else Message(template)
    return Availability("download", digest.size_bytes, sized)


def resolve(checkpoint: Checkpoint, cache: Path, report: Report = silent) -> bytes:
    """Return the weights as safetensors, read once and verified, so that what is loaded is what was checked.

    Args:
        checkpoint: its manifest.
        cache: the cache folder of the settings.
        report: called with bytes done and bytes in total during a download.

    Raises:
        CheckpointError: if the file cannot be read or downloaded, or has another digest than the manifest.
    """
    source = checkpoint.source
    if source.bundled:
        return _bundled(checkpoint, source.bundled, source.weights)
    if source.hub:
        return from_hub(checkpoint.title, source.hub, source.hub.filename, source.weights, report)
    if source.upstream and source.upstream.pinned:
        return _converted(checkpoint.title, source.upstream, published_files(cache), report)
    raise CheckpointError(
        "{title} is {state}, or select another checkpoint.",
        code="not_here",
        title=checkpoint.title,
        state=locate(checkpoint, cache).message,
    )


def _converted(title: str, source: UpstreamSource, folder: Path, report: Report) -> bytes:
    """Return a published file as safetensors, converted once and cached under a name with its SHA-256."""
    original = upstream_file(source, folder)
    with suppress(OSError):
        for file in folder.glob(f"{glob.escape(original.name)}.*.safetensors"):
            content = file.read_bytes()
            if file.suffixes[-2] == f".{hashlib.sha256(content).hexdigest()}":
                return content
    content = save(dict(read_upstream(from_upstream(title, source, folder, report), source.filename).tensors))
    with suppress(OSError):  # a full disk only costs another conversion
        draft = original.with_name(f"{original.name}.{os.getpid()}.tmp")
        draft.write_bytes(content)
        draft.replace(
            original.with_name(f"{original.name}.{hashlib.sha256(content).hexdigest()}.safetensors")
        )
    return content


def _bundled(checkpoint: Checkpoint, name: str, digest: Digest) -> bytes:
    file = checkpoint.folder / name
    # not where the project lies
    values = {"title": checkpoint.title, "file": f"checkpoints/{checkpoint.id}/{name}"}
    if not file.is_file():
        raise CheckpointError(
            "{title}: the weights file is missing. Restore {file} or select another checkpoint.",
            code="missing",
            **values,
        )
    try:
        content = file.read_bytes()
    except OSError as error:  # its own text holds the path
        raise CheckpointError(
            "{title}: {file} cannot be read ({reason}).",
            code="unreadable",
            reason=error.strerror or "",
            **values,
        ) from error
    if not digest.matches(content):
        raise CheckpointError(
            "{title}: {file} does not have the SHA-256 of the manifest ({digest}…), so it was not loaded."
            " Restore it from the repository.",
            code="wrong_bytes",
            digest=digest.sha256[:12],
            **values,
        )
    return content


def heads_file(checkpoint: Checkpoint, report: Report = silent) -> bytes:
    """Return the file of heads, which lies beside the manifest or beside the weights on the Hub.

    Raises:
        CheckpointError: if the file cannot be read or downloaded, or has another digest than the manifest.
    """
    source = checkpoint.source
    if source.hub and not (checkpoint.folder / HEADS_FILE).is_file():
        return from_hub(checkpoint.title, source.hub, HEADS_FILE, source.heads, report)
    return _bundled(checkpoint, HEADS_FILE, source.heads)


def load_heads(checkpoint: Checkpoint) -> HeadWeights:
    """Return the layers of every head that has any, as float32; they lie in a small file of their own.

    Raises:
        CheckpointError: if the file cannot be used, or a head's tensors are missing or do not fit its inputs
            and labels.
    """
    wanted = [head for head in checkpoint.heads if head.has_weights]
    if not wanted:
        return {}
    key = f"{checkpoint.folder} {checkpoint.heads_sha256} {wanted}"
    if key not in _cache:
        try:
            tensors = load(heads_file(checkpoint))
        except SafetensorError as error:
            raise CheckpointError(
                "{title}: {file} cannot be read ({reason}).",
                code="unreadable",
                title=checkpoint.title,
                file=HEADS_FILE,
                reason=str(error),
            ) from error
        _cache[key] = {head.task.name: _layers(checkpoint, head, tensors) for head in wanted}
    return _cache[key]


def _layers(checkpoint: Checkpoint, head: HeadSpec, tensors: Mapping[str, np.ndarray]) -> Layers:
    name = head.task.name
    layers: list[tuple[FloatArray, FloatArray]] = []
    while f"{name}.{len(layers)}.weight" in tensors:
        key = f"{name}.{len(layers)}"
        pair = [tensors.get(f"{key}.{part}", np.zeros(0)).astype(np.float32) for part in ("weight", "bias")]
        layers.append((pair[0], pair[1]))
    widths = {
        "scores": checkpoint.outputs,
        "embeddings": checkpoint.dim,
        "both": checkpoint.dim + checkpoint.outputs,
    }
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
        raise CheckpointError(
            "{title}: the tensors {name}.* do not fit a head of kind {kind} from {width} numbers to {count};"
            " weights and biases found: {shapes}.",
            code="heads_do_not_fit",
            title=checkpoint.title,
            name=name,
            kind=head.kind,
            width=width,
            count=count,
            shapes=", ".join(f"{weight.shape} and {bias.shape}" for weight, bias in layers) or "none",
        )
    return tuple(layers)
