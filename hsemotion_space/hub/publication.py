"""What goes into the model repository of a checkpoint: made, checked and shown without a request."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import tomlkit
from huggingface_hub import ModelCard
from tomlkit import TOMLDocument
from tomlkit.items import Comment, Table, Whitespace

from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.resolve import HEADS_FILE
from hsemotion_space.hub.source import Digest, HubSource, read_source
from hsemotion_space.hub.timm_config import timm_config

WEIGHTS_FILE: Final = "model.safetensors"
CONFIG: Final = "config.json"
CARD: Final = "README.md"
LICENSE: Final = "LICENSE"
OPTIONAL: Final = (LICENSE, "training.json", "recipe.toml")  # taken along if they lie beside the manifest
OURS: Final = {WEIGHTS_FILE, HEADS_FILE, CONFIG, MANIFEST, CARD, *OPTIONAL}  # other files of a repository are left alone
TERMS = """Terms of the weights of {title}: {license}.

README.md says on which data they were trained and what they must not be used for.
"""


@dataclass(frozen=True, slots=True)
class Publication:
    """Everything that goes into the model repository of a checkpoint.

    Attributes:
        checkpoint: as its folder describes it.
        files: content by name.
    """

    checkpoint: Checkpoint
    files: Mapping[str, bytes]


def prepare(checkpoint: Checkpoint, weights: bytes, heads: bytes) -> Publication:
    """Collect and make the files of a repository, without a request.

    Args:
        checkpoint: its manifest.
        weights: content of the weights file.
        heads: content of the file of heads; not looked at if no head has weights of its own.

    Raises:
        CheckpointError: if a file is missing or is not what the manifest says.
    """
    files = {WEIGHTS_FILE: weights}
    if checkpoint.source.weights.known and not checkpoint.source.weights.matches(weights):
        raise CheckpointError(f"{checkpoint.title}: these are not the weights that its manifest means; nothing was prepared.")
    if any(head.has_weights for head in checkpoint.heads):
        if not checkpoint.source.heads.matches(heads):
            raise CheckpointError(f"{checkpoint.title}: these are not the heads that its manifest means; nothing was prepared.")
        files[HEADS_FILE] = heads
    for name in (CARD, *OPTIONAL):
        if (checkpoint.folder / name).is_file():
            files[name] = (checkpoint.folder / name).read_bytes()
    if CARD not in files:
        raise CheckpointError(f"{checkpoint.title} has no model card; write {CARD} beside its manifest before it is published.")
    files.setdefault(LICENSE, TERMS.format(title=checkpoint.title, license=checkpoint.license).encode())
    files[CONFIG] = timm_config(checkpoint, weights).encode()
    files[MANIFEST] = _manifest(checkpoint, Digest.of(weights), Digest.of(heads) if HEADS_FILE in files else Digest()).encode()
    return Publication(checkpoint, dict(sorted(files.items())))


def _manifest(checkpoint: Checkpoint, weights: Digest, heads: Digest) -> str:
    """Return the manifest for a folder into which the repository was downloaded: the files lie beside it."""
    document = tomlkit.parse((checkpoint.folder / MANIFEST).read_text("utf-8"))
    source = _source(document, checkpoint.id)
    source.pop("hub", None)
    _set(source, {"bundled": WEIGHTS_FILE, **_digests(weights, heads)})
    return tomlkit.dumps(document)


def _digests(weights: Digest, heads: Digest) -> dict[str, object]:
    known = {"heads_sha256": heads.sha256, "heads_bytes": heads.size_bytes} if heads.known else {}
    return {"sha256": weights.sha256, "bytes": weights.size_bytes, **known}


def _source(document: TOMLDocument, name: str) -> Table:
    source = document["source"]
    if not isinstance(source, Table):
        raise CheckpointError(f"The manifest of {name} has [source] in several places; put them together.")
    return source


def _set(table: Table, values: Mapping[str, object]) -> None:
    """Change keys, or add them before the blank lines and comments that lead over to the next table."""
    body, trailing = table.value.body, []
    while body and isinstance(body[-1][1], Comment | Whitespace):
        trailing.append(body.pop()[1])
    for key, value in values.items():
        table[key] = value
    for item in reversed(trailing):
        table.add(cast("Comment | Whitespace", item))


def check(publication: Publication) -> list[str]:
    """Return what is wrong with a publication, as far as can be told without a request; empty if nothing is."""
    problems = [f"{name} is empty." for name, content in publication.files.items() if not content]
    source = read_source(tomllib.loads(publication.files[MANIFEST].decode())["source"])
    for name, digest in ((WEIGHTS_FILE, source.weights), (HEADS_FILE, source.heads)):
        if name in publication.files and not digest.matches(publication.files[name]):
            problems.append(f"{name} is not the file that {MANIFEST} means.")
    config = json.loads(publication.files[CONFIG])
    if len(config["label_names"]) != config["num_classes"]:
        problems.append(f"{CONFIG} names {len(config['label_names'])} of {config['num_classes']} outputs.")
    return problems + _check_card(publication)


def _check_card(publication: Publication) -> list[str]:
    try:
        data = ModelCard(publication.files[CARD].decode()).data
    except Exception as error:  # noqa: BLE001  the parser of YAML and the client have many errors
        return [f"The metadata of {CARD} cannot be read: {str(error).splitlines()[0]}."]
    wanted = ("license", "library_name", "pipeline_tag", "tags")
    problems = [f"The metadata of {CARD} lacks {key}." for key in wanted if not data.get(key)]
    if data.get("library_name") not in (None, "timm"):
        problems.append(f"library_name in {CARD} must be timm, for which {CONFIG} is made, got {data.get('library_name')}.")
    if data.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license_name"))):
        problems.append(
            f"The metadata of {CARD} says license: other, so it needs a license_name of lower-case letters, digits, '-' and '.'."
        )
    return problems


def describe(publication: Publication, repo: str) -> str:
    """Return what would be published, for a person to read before it is.

    Args:
        publication: what :func:`prepare` returned.
        repo: ``owner/name``.
    """
    rows = [f"  {name:20} {len(content):>12,} bytes  SHA-256 {Digest.of(content).sha256}" for name, content in publication.files.items()]
    metadata = publication.files[CARD].decode("utf-8", "replace").partition("---\n")[2].partition("\n---")[0]
    problems = [f"  {problem}" for problem in check(publication)] or ["  none"]
    return "\n".join(
        [
            f"{publication.checkpoint.id} to {repo} on the Hugging Face Hub, in one commit",
            *("", "Files", *rows, ""),
            *("Metadata of the card", *(f"  {line}" for line in metadata.splitlines()), ""),
            *(CONFIG, *(f"  {line}" for line in publication.files[CONFIG].decode().splitlines()), ""),
            *("Problems", *problems),
        ]
    )


def write_back(folder: Path, hub: HubSource, weights: Digest, heads: Digest) -> Checkpoint:
    """Write where a checkpoint was published into its manifest, which keeps its comments and its order, and return it as it is read now.

    Args:
        folder: of the checkpoint.
        hub: where it was published.
        weights: what its ``model.safetensors`` is.
        heads: what its ``heads.safetensors`` is; unknown if it has none.

    Raises:
        CheckpointError: if the manifest is about other files by now, or cannot be changed; it stays as it was then.
    """
    document = tomlkit.parse((folder / MANIFEST).read_text("utf-8"))
    source = _source(document, folder.name)
    for key, digest in (("sha256", weights), ("heads_sha256", heads)):
        if digest.known and source.get(key, digest.sha256) != digest.sha256:
            raise CheckpointError(f"The manifest of {folder.name} names other files than those that were published; it was not changed.")
    place = f'{{ repo = "{hub.repo}", revision = "{hub.revision}", filename = "{hub.filename}" }}'
    if isinstance(before := source.get("hub"), Table):
        before.update({"repo": hub.repo, "revision": hub.revision, "filename": hub.filename})
    else:
        _set(source, {"hub": tomlkit.value(place)})
    _set(source, _digests(weights, heads))
    try:
        with tempfile.TemporaryDirectory(dir=folder) as room:
            draft = Path(room) / folder.name
            draft.mkdir()
            (draft / MANIFEST).write_text(tomlkit.dumps(document), "utf-8")
            read_manifest(draft)
            (draft / MANIFEST).replace(folder / MANIFEST)
    except OSError as error:
        raise CheckpointError(
            f"The manifest of {folder.name} cannot be changed ({error.strerror}). Add to its [source] by hand: hub = {place}"
        ) from error
    return read_manifest(folder)
