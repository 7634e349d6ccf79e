"""Make manifests of checkpoints, without weights and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest

HEADS = """
[[heads]]
task = "expression"
kind = "scores"
provenance = "trained"
columns = [0, 1, 2, 3, 4, 5, 6, 7]
[[heads]]
task = "valence_arousal"
kind = "scores"
provenance = "trained"
columns = [8, 9]
[[heads]]
task = "compound_expression"
kind = "pair_mean"
provenance = "rule"
source = "expression"
"""


def manifest_text(
    name: str,
    sha256: str,
    arch: str = "mobilefacenet_small",
    size: int = 64,
    dim: int = 512,
    outputs: int = 10,
    heads: str = HEADS,
) -> str:
    """Return a manifest that differs from the smallest valid one in these values alone."""
    args = f"args = {{ img_size = {size} }}\n" if arch.startswith("mobilefacenet") else ""
    return (
        f'id = "{name}"\ntitle = "Test {name}"\nfamily = "MobileFaceNet"\nlicense ='
        f' "Apache-2.0"\n[source]\nbundled = "model.safetensors"\nsha256 = "{sha256}"\n[backbone]\narch ='
        f' "{arch}"\ndim = {dim}\noutputs = {outputs}\n{args}[input]\nsize = {size}\ncrop = "square"\nmargin'
        f" = 0.1\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n{heads}"
    )


def make_manifest(folder: Path) -> Checkpoint:
    """Write the manifest of a checkpoint, whose weights file holds none, to a new ``folder``."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"no weights")
    (folder / MANIFEST).write_text(manifest_text(folder.name, "0" * 64), "utf-8")
    return read_manifest(folder)


def change_manifest(folder: Path, *changes: Sequence[str]) -> None:
    """Replace texts in a manifest; each (old, new) must be found."""
    file = folder / MANIFEST
    text = file.read_text("utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, "utf-8")
