"""From a manifest to a verified weights file."""

from __future__ import annotations

import hashlib

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError


def resolve(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of the weights file, read once and verified, so that what is loaded is what was checked.

    Raises:
        CheckpointError: if the file is missing or its digest differs from the manifest's.
    """
    file = checkpoint.folder / checkpoint.bundled
    shown = f"checkpoints/{checkpoint.id}/{checkpoint.bundled or 'model.safetensors'}"  # does not tell where the project lies
    if not checkpoint.bundled or not file.is_file():
        raise CheckpointError(f"{checkpoint.title}: the weights file is missing. Restore {shown} or pick another checkpoint.")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != checkpoint.sha256:
        raise CheckpointError(
            f"{checkpoint.title}: {shown} has the SHA-256 {digest[:12]}… but the manifest says {checkpoint.sha256[:12]}…; "
            "the file was not loaded. Restore it from the repository."
        )
    return content
