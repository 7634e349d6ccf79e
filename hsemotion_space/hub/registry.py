"""The checkpoints of this machine: each manifest is parsed once, and again only when its file changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest
from hsemotion_space.hub.source import CheckpointError
from hsemotion_space.messages import Message

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registry:
    """The checkpoints of this machine.

    Attributes:
        checkpoints: that can be used: recommended ones first, then bundled, then imported ones, then the
            others; by id among equals.
        faults: what is wrong with each of the others, by the name of its folder.
    """

    checkpoints: tuple[Checkpoint, ...]
    faults: Mapping[str, str]


def read_registry(roots: Sequence[Path]) -> Registry:
    """Return every checkpoint; what is wrong with one manifest does not keep the others from being used.

    Args:
        roots: folders of checkpoint folders. The first one is the project's; later ones hold what was
            imported, and win over the same id before them.
    """
    found: dict[str, Checkpoint] = {}
    faults: dict[str, str] = {}
    ours: set[str] = set()
    for root in roots:
        for folder in _folders(root):
            read = _parsed(folder, _stamp(folder / MANIFEST))
            if isinstance(read, CheckpointError):
                faults[folder.name] = read.message
            else:
                found[folder.name] = read
        if root == roots[0]:
            ours = {name for name, item in found.items() if item.weights_bytes}
    order = sorted(
        found.values(),
        key=lambda item: (not item.recommended, item.id not in ours, not item.weights_bytes, item.id),
    )
    return Registry(tuple(order), faults)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(file.parent for file in root.glob(f"*/{MANIFEST}"))
    except OSError as error:
        _warn(root, error.strerror or "")
        return []


@lru_cache
def _warn(root: Path, reason: str) -> None:
    """Log once why a folder is left out, although it is read again and again."""
    log.warning("%s cannot be read: %s", root, reason)


def _stamp(file: Path) -> tuple[int, ...]:
    """Return what differs after every change of a file; nothing if it cannot be reached."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


@lru_cache(maxsize=1024)
def _parsed(folder: Path, _version: tuple[int, ...]) -> Checkpoint | CheckpointError:
    """Return a checkpoint, or what is wrong with it, which is logged once."""
    try:
        return read_manifest(folder)
    except CheckpointError as error:
        log.warning("%s is left out: %s", folder, error)
        return error


def list_checkpoints(roots: Sequence[Path]) -> tuple[Checkpoint, ...]:
    """Return every checkpoint that can be used, in the order of :class:`Registry`.

    Args:
        roots: as :func:`read_registry`.

    Raises:
        CheckpointError: if there is none, with all that is wrong.
    """
    registry = read_registry(roots)
    if registry.checkpoints:
        return registry.checkpoints
    if registry.faults:
        raise CheckpointError(
            "No checkpoint can be used. {faults}",
            code="none_usable",
            faults=Message.joined(registry.faults.values()),
        )
    raise CheckpointError(
        (
            "There is no checkpoint in {folder}/. Set HSEMOTION_CHECKPOINTS to the folder with the"
            " checkpoints."
        ),
        code="none",
        folder=roots[0].name,
    )


def find_checkpoint(roots: Sequence[Path], checkpoint_id: str) -> Checkpoint:
    """Return one checkpoint by id; an empty id takes the first one whose weights are bundled.

    Raises:
        CheckpointError: if there is no such checkpoint, or what is wrong with it.
    """
    checkpoints = list_checkpoints(roots)
    for checkpoint in checkpoints:
        if checkpoint.id == checkpoint_id or (not checkpoint_id and checkpoint.weights_bytes):
            return checkpoint
    if fault := read_registry(roots).faults.get(checkpoint_id):
        raise CheckpointError(fault)
    raise CheckpointError(
        "There is no checkpoint {id}. Available: {known}.",
        code="unknown_checkpoint",
        id=repr(checkpoint_id),
        known=", ".join(checkpoint.id for checkpoint in checkpoints),
    )
