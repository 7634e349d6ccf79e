"""Changes of a manifest that keep its comments and order; an invalid result leaves it as it was."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tomlkit
from tomlkit import TOMLDocument

from hsemotion_space.hub.manifest import MANIFEST, read_manifest
from hsemotion_space.hub.weights import HEADS_FILE, load_heads


@contextmanager
def edited_manifest(folder: Path, files: Mapping[str, bytes] | None = None) -> Iterator[TOMLDocument]:
    """Yield the manifest of a checkpoint folder; the changed one takes its place at the end of the block.

    Args:
        folder: of the checkpoint.
        files: content by name, written together with the manifest.

    Raises:
        CheckpointError: if the manifest would be invalid, or heads among ``files`` would not fit it.
        OSError: of the disk.
    """
    document = tomlkit.parse((folder / MANIFEST).read_text("utf-8"))
    yield document
    contents = {**(files or {}), MANIFEST: tomlkit.dumps(document).encode()}
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        draft = Path(parent) / folder.name
        draft.mkdir()
        for name, content in contents.items():
            (draft / name).write_bytes(content)
        checkpoint = read_manifest(draft)
        if HEADS_FILE in contents:
            load_heads(checkpoint)
        for name in contents:
            (draft / name).replace(folder / name)
