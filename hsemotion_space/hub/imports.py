"""Imports a published file as a checkpoint in the cache, checked before it takes its place."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import tomlkit
from safetensors.numpy import save
from tomlkit.items import Table

from hsemotion_space.hub.convert import Upstream, read_upstream
from hsemotion_space.hub.download import Report, from_upstream, silent
from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.source import CheckpointError, Digest, UpstreamSource, invalid
from hsemotion_space.hub.weights import published_files
from hsemotion_space.messages import Message

CARD = "README.md"
WEIGHTS_FILE = "model.safetensors"
MOST_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Imported:
    """A converted checkpoint and what was found in the published file.

    Attributes:
        checkpoint: as it is listed from now on.
        upstream: what the file contained.
        filename, sha256, size_bytes: of the published file.
        known: whether the digest was known before, and so proves that the file is the published one.
    """

    checkpoint: Checkpoint
    upstream: Upstream
    filename: str
    sha256: str
    size_bytes: int
    known: bool

    def __str__(self) -> str:
        checkpoint, weights = self.checkpoint, self.checkpoint.source.weights
        proof = (
            "which the project knew"
            if self.known
            else "which nobody has confirmed; it is fixed in the new manifest from now on"
        )
        return (
            f"{self.filename}: {self.upstream.layout}, {len(self.upstream.tensors)} tensors,"
            f" {self.upstream.outputs} outputs from {self.upstream.dim} numbers\n  published file:"
            f" {self.size_bytes:,} bytes, SHA-256 {self.sha256}, {proof}\n  names in the file, none of which"
            f" was run or imported: {', '.join(self.upstream.classes)}\n  loads strictly into"
            f" {checkpoint.arch}\n  written: {weights.size_bytes:,} bytes of safetensors, SHA-256"
            f" {weights.sha256}\n{checkpoint.id} is ready: hsemotion-space analyze photo.jpg --checkpoint"
            f" {checkpoint.id}"
        )


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is to be imported: ``what`` is an id or a file; ``like`` and ``new_id`` may be empty."""

    what: str
    like: str = ""
    new_id: str = ""


def import_checkpoint(
    request: ImportRequest,
    roots: Sequence[Path],
    cache: Path,
    check: Callable[[Checkpoint], object],
    report: Report = silent,
) -> Imported:
    """Convert a published file and add it to the checkpoints of this machine, in the last of ``roots``.

    Args:
        request: what is to be imported.
        roots: folders of checkpoint folders.
        cache: the cache folder of the settings.
        check: raises a CheckpointError if the weights do not fit the architecture.
        report: called with bytes done and bytes in total during a download.

    Raises:
        CheckpointError: if the file cannot be had or read, or fits no manifest; nothing is changed then.
    """
    published = [checkpoint for checkpoint in list_checkpoints(roots[:1]) if checkpoint.source.upstream]
    model = next((checkpoint for checkpoint in published if checkpoint.id == request.what), None)
    if model is None:
        filename, content = _read(Path(request.what), [checkpoint.id for checkpoint in published])
        upstream = read_upstream(content, filename)
        model = _find_model(published, upstream, filename, request.like)
    else:
        filename, content = _download(model, cache, report)
        upstream = read_upstream(content, filename)
        _compare(find_checkpoint(roots, model.id), filename, content)
    known = cast("UpstreamSource", model.source.upstream).digest
    if known.known and not known.matches(content) and not (request.new_id and request.new_id != model.id):
        raise CheckpointError(
            "{file} does not have the digest in the manifest of {id}. If it is another file, name it with"
            " --id.",
            code="wrong_bytes",
            file=filename,
            id=model.id,
        )
    sha256 = hashlib.sha256(content).hexdigest()
    new_id, weights, card = request.new_id or model.id, save(dict(upstream.tensors)), model.folder / CARD
    manifest = _manifest(model, new_id, weights, (filename, sha256, len(content))).encode()
    files = {
        MANIFEST: manifest,
        WEIGHTS_FILE: weights,
        **({CARD: card.read_bytes()} if card.is_file() else {}),
    }
    checkpoint = _install(roots[-1] / new_id, files, check)
    return Imported(checkpoint, upstream, filename, sha256, len(content), known.matches(content))


def _read(file: Path, known: Sequence[str]) -> tuple[str, bytes]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise CheckpointError(
                "{file} is larger than {most} GiB; no published file is.",
                code="too_large",
                file=file.name,
                most=1,
            )
        return file.name, file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            "{file} is neither a published checkpoint ({known}) nor a file that can be read ({reason}).",
            code="unreadable",
            file=file.name,
            known=", ".join(known),
            reason=error.strerror or "",
        ) from error


def _download(model: Checkpoint, cache: Path, report: Report) -> tuple[str, bytes]:
    source = cast("UpstreamSource", model.source.upstream)
    if not source.url:
        raise CheckpointError(
            "{title} has no fixed address. Download {file} from {page} and import the file: hsemotion-space"
            " checkpoints import {name}",
            code="no_address",
            title=model.title,
            file=source.filename,
            page=source.page,
            name=source.filename,
        )
    return source.filename, from_upstream(model.title, source, published_files(cache), report)


def _compare(before: Checkpoint, filename: str, content: bytes) -> None:
    """A download must not differ from the one that was imported before."""
    known = before.source.upstream.digest if before.source.upstream else Digest()
    if known.known and not known.matches(content):
        raise CheckpointError(
            "{file} differs from the file that was imported before (SHA-256 {digest}); nothing was changed."
            " If you trust the new one, download it by hand and import the file.",
            code="changed",
            file=filename,
            digest=known.sha256,
        )


def _find_model(published: Sequence[Checkpoint], upstream: Upstream, filename: str, like: str) -> Checkpoint:
    """Return the checkpoint whose manifest describes the file: by id, file name, or the only match."""
    fitting = [item for item in published if (item.dim, item.outputs) == (upstream.dim, upstream.outputs)]
    for wanted in (like, Path(filename).stem):
        for item in published:
            if wanted == item.id or (
                not like and filename == cast("UpstreamSource", item.source.upstream).filename
            ):
                return item
        if like:
            raise CheckpointError(
                "There is no published checkpoint {id}. Available: {known}.",
                code="unknown_checkpoint",
                id=repr(like),
                known=", ".join(item.id for item in published),
            )
    if len(fitting) != 1:
        choice = Message("Select one with --like: {ids}.", ids=", ".join(item.id for item in fitting))
        raise CheckpointError(
            (
                "{file} has {outputs} outputs from {dim} features, and its name does not identify the"
                " network. {choice}"
            ),
            code="ambiguous" if fitting else "no_such_network",
            file=filename,
            outputs=upstream.outputs,
            dim=upstream.dim,
            choice=choice if fitting else Message("No published checkpoint matches it."),
        )
    return fitting[0]


def _manifest(model: Checkpoint, new_id: str, weights: bytes, published: tuple[str, str, int]) -> str:
    """Return the manifest of the new checkpoint; ``published`` is the source's name, SHA-256 and size."""
    if not re.fullmatch(r"[\w-][\w.-]*", new_id):
        raise invalid("--id", "made of letters, digits, '-', '_' and '.'", new_id)
    document = tomlkit.parse((model.folder / MANIFEST).read_text("utf-8"))
    document["id"] = new_id
    if new_id != model.id:
        document["title"] = f"{model.title} as {new_id}"
    if not cast("UpstreamSource", model.source.upstream).digest.known:
        document["summary"] = (
            f"{model.summary} Imported from a file that nobody has confirmed to be the published one.".strip()
        )
    source = cast("Table", document["source"])
    source["bundled"], source["sha256"], source["bytes"] = (
        WEIGHTS_FILE,
        hashlib.sha256(weights).hexdigest(),
        len(weights),
    )
    upstream = cast("Table", source["upstream"])
    upstream["filename"], upstream["sha256"], upstream["bytes"] = published
    return tomlkit.dumps(document)


def _install(folder: Path, files: Mapping[str, bytes], check: Callable[[Checkpoint], object]) -> Checkpoint:
    """Write a checkpoint beside its place, check it there, and move it in."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".import-") as place:
            draft = Path(place) / folder.name
            draft.mkdir()
            for name, content in files.items():
                (draft / name).write_bytes(content)
            check(read_manifest(draft))
            if folder.exists():
                folder.rename(Path(place) / "before")
            draft.rename(folder)
    except OSError as error:
        raise CheckpointError(
            "{id} cannot be written to {folder} ({reason}). Free some space, or set HSEMOTION_CACHE to"
            " another folder.",
            code="disk",
            id=folder.name,
            folder=folder.parent,
            reason=error.strerror or "",
        ) from error
    return read_manifest(folder)
