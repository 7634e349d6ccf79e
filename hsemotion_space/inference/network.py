"""A checkpoint that is ready to run: verified weights on an engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from hsemotion_space import vision
from hsemotion_space.hub.download import silent
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.hub.weights import load_heads, resolve
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import Settings
from hsemotion_space.vision.engine import EngineError, EngineOptions, Runner, load

if TYPE_CHECKING:
    from hsemotion_space.vision.backbones import Backbone

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded checkpoint: ``run`` maps faces (B, 3, S, S) to embeddings (B, D) and scores (B, K)."""

    checkpoint: Checkpoint
    run: Runner


def load_network(
    checkpoint: Checkpoint, options: EngineOptions, cache: Path | None = None, report: Report = silent
) -> Network:
    """Load verified weights into the engine.

    Args:
        checkpoint: its manifest.
        options: of the engine.
        cache: the cache folder of the settings; the usual one if left out.
        report: called with bytes done and bytes in total while the weights are downloaded.

    Raises:
        CheckpointError: if the file cannot be had, is not what the manifest says, or does not fit its
            architecture.
        EngineError: if the engine cannot run it.
    """
    try:
        content = resolve(checkpoint, cache or Settings().cache, report)
    except CheckpointError as error:
        if checkpoint.title in str(error):
            raise
        raise _not_loaded(CheckpointError, checkpoint, error) from error  # the reader may have chosen several
    size = checkpoint.input.size
    try:
        run = load(
            lambda: _build(checkpoint, content), _network_key(checkpoint, content),
            np.zeros((2, 3, size, size), np.float32), options,
        )  # fmt: skip
    except (ValueError, SafetensorError) as error:
        raise _not_loaded(CheckpointError, checkpoint, error) from error
    except EngineError as error:
        raise _not_loaded(EngineError, checkpoint, error) from error
    load_heads(checkpoint)  # complains now rather than after a long clip
    return Network(checkpoint, run)


def _build(checkpoint: Checkpoint, content: bytes) -> Backbone:
    """Return the backbone with its weights, given as safetensors."""
    from safetensors.torch import load as load_tensors  # noqa: PLC0415  torch and timm take seconds

    from hsemotion_space.vision.backbones import load_backbone  # noqa: PLC0415

    state = load_tensors(content)
    return load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state)


def _network_key(checkpoint: Checkpoint, content: bytes) -> str:
    """Return what the outputs of a backbone depend on: architecture, its code, weights."""
    source = hashlib.sha256()
    for file in sorted((Path(vision.__file__).parent / "backbones").glob("*.py")):
        source.update(file.read_bytes())
    shape = f"{checkpoint.arch} {checkpoint.arch_args} {checkpoint.dim} {checkpoint.outputs}"
    weights = hashlib.sha256(content).hexdigest()
    return f"{shape} timm {version('timm')} {source.hexdigest()} {weights}"


def _not_loaded(
    kind: type[CheckpointError | EngineError], checkpoint: Checkpoint, error: Exception
) -> CheckpointError | EngineError:
    """Return an error that names the checkpoint, with the code of its cause."""
    code, reason = (error.code, error.message) if isinstance(error, MessageError) else ("", str(error))
    return kind(
        "{title} cannot be loaded: {reason}", code=code or "unloadable", title=checkpoint.title, reason=reason
    )
