"""The model repository of a checkpoint on the Hub: its files, their checks, and the single commit."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import tomlkit
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.hf_api import RepoFile
from tomlkit import TOMLDocument
from tomlkit.items import Comment, Table, Whitespace

from hsemotion_space.hub import client
from hsemotion_space.hub.client import HubError
from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest
from hsemotion_space.hub.manifest_document import edited_manifest
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, read_source
from hsemotion_space.hub.timm_config import timm_config
from hsemotion_space.hub.weights import HEADS_FILE
from hsemotion_space.messages import Message

WEIGHTS_FILE: Final = "model.safetensors"
CONFIG: Final = "config.json"
CARD: Final = "README.md"
LICENSE: Final = "LICENSE"
OPTIONAL: Final = (LICENSE, "training.json", "recipe.toml")  # taken along if they lie beside the manifest
# other files of a repository are left alone
OURS: Final = {WEIGHTS_FILE, HEADS_FILE, CONFIG, MANIFEST, CARD, *OPTIONAL}
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
        raise _mismatch(checkpoint, WEIGHTS_FILE)
    if any(head.has_weights for head in checkpoint.heads):
        if not checkpoint.source.heads.matches(heads):
            raise _mismatch(checkpoint, HEADS_FILE)
        files[HEADS_FILE] = heads
    for name in (CARD, *OPTIONAL):
        if (checkpoint.folder / name).is_file():
            files[name] = (checkpoint.folder / name).read_bytes()
    if CARD not in files:
        raise CheckpointError(
            "{title} has no model card. Write {card} beside its manifest, then publish again.",
            code="no_card",
            title=checkpoint.title,
            card=CARD,
        )
    files.setdefault(LICENSE, TERMS.format(title=checkpoint.title, license=checkpoint.license).encode())
    files[CONFIG] = timm_config(checkpoint, weights).encode()
    files[MANIFEST] = _manifest(
        checkpoint, Digest.of(weights), Digest.of(heads) if HEADS_FILE in files else Digest()
    ).encode()
    return Publication(checkpoint, dict(sorted(files.items())))


def _mismatch(checkpoint: Checkpoint, name: str) -> CheckpointError:
    return CheckpointError(
        "{title}: {file} does not have the SHA-256 of the manifest. Nothing was prepared.",
        code="wrong_bytes",
        title=checkpoint.title,
        file=name,
    )


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
        raise CheckpointError(
            "The manifest of {id} has [source] in several places. Put them together.",
            code="split_source",
            id=name,
        )
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
    """Return what is wrong with a publication, checked without a request; empty if nothing is."""
    problems: list[str] = [
        Message("{file} is empty.", file=name) for name, content in publication.files.items() if not content
    ]
    source = read_source(tomllib.loads(publication.files[MANIFEST].decode())["source"])
    for name, digest in ((WEIGHTS_FILE, source.weights), (HEADS_FILE, source.heads)):
        if name in publication.files and not digest.matches(publication.files[name]):
            problems.append(Message("{file} does not have the SHA-256 of the manifest.", file=name))
    config = json.loads(publication.files[CONFIG])
    if len(config["label_names"]) != config["num_classes"]:
        problems.append(Message("{file} does not name every output.", file=CONFIG))
    return problems + _check_card(publication)


def _check_card(publication: Publication) -> list[str]:
    try:
        data = ModelCard(publication.files[CARD].decode()).data
    except Exception as error:  # noqa: BLE001  the parser of YAML and the client have many errors
        return [
            Message(
                "The metadata of {file} cannot be read: {reason}.",
                file=CARD,
                reason=str(error).splitlines()[0],
            )
        ]
    wanted = ("license", "library_name", "pipeline_tag", "tags")
    problems: list[str] = [
        Message("The metadata of {file} needs {key}.", file=CARD, key=key)
        for key in wanted
        if not data.get(key)
    ]
    if data.get("library_name") not in (None, "timm"):
        problems.append(
            Message(
                "library_name in {file} must be timm, got {name}.", file=CARD, name=data.get("library_name")
            )
        )
    if data.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license_name"))):
        problems.append(
            Message(
                "license: other in {file} needs a license_name of lower-case letters, digits, '-' and '.'.",
                file=CARD,
            )
        )
    return problems


def describe(publication: Publication, repo: str) -> str:
    """Return what would be published, for a person to read before it is.

    Args:
        publication: what :func:`prepare` returned.
        repo: ``owner/name``.
    """
    rows = [
        f"  {name:20} {len(content):>12,} bytes  SHA-256 {Digest.of(content).sha256}"
        for name, content in publication.files.items()
    ]
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
    """Write where a checkpoint was published into its manifest, keeping comments and order; return it reread.

    Args:
        folder: of the checkpoint.
        hub: where it was published.
        weights: what its ``model.safetensors`` is.
        heads: what its ``heads.safetensors`` is; unknown if it has none.

    Raises:
        CheckpointError: if the manifest is about other files by now, or cannot be changed; it stays as it was
            then.
    """
    place = f'{{ repo = "{hub.repo}", revision = "{hub.revision}", filename = "{hub.filename}" }}'
    try:
        with edited_manifest(folder) as document:
            source = _source(document, folder.name)
            for key, digest in (("sha256", weights), ("heads_sha256", heads)):
                if digest.known and source.get(key, digest.sha256) != digest.sha256:
                    raise CheckpointError(
                        "The manifest of {id} names other files than those that were published. It was not"
                        " changed.",
                        code="other_files",
                        id=folder.name,
                    )
            if isinstance(before := source.get("hub"), Table):
                before.update(asdict(hub))
            else:
                _set(source, {"hub": tomlkit.value(place)})
            _set(source, _digests(weights, heads))
    except OSError as error:
        raise CheckpointError(
            "The manifest of {id} cannot be changed ({reason}). Add to its [source] by hand: hub = {place}",
            code="disk",
            id=folder.name,
            reason=error.strerror or "",
            place=place,
        ) from error
    return read_manifest(folder)


def publish(publication: Publication, repo: str, token: str, private: bool = False) -> HubSource:
    """Commit a publication to a model repository, created if absent; return the commit's URL.

    If the repository holds just these files already, nothing is changed. A try that failed for a transient
    reason is repeated, at most twice, and never leads to a second commit.

    Args:
        publication: what :func:`prepare` returned.
        repo: ``owner/name``.
        token: of somebody who may write there; appears in no message.
        private: whether a new repository is private; one that exists stays as it is.

    Raises:
        CheckpointError: saying what is wrong and what to do.
    """
    if problems := check(publication):
        raise CheckpointError(
            "{title} cannot be published. {problems}",
            code="not_publishable",
            title=publication.checkpoint.title,
            problems=Message.joined(problems),
        )
    HubSource(repo, "0" * 40, WEIGHTS_FILE)  # refuses what is not owner/name
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise CheckpointError(
            (
                "The token is empty or has invalid characters. Copy it again from"
                " huggingface.co/settings/tokens."
            ),
            code="bad_token",
        )
    try:
        api = HfApi(token=token)
        revision = client.retry(lambda: _commit(publication, repo, api, private), client.UPLOAD_TIMEOUT_S)
    except (HubError, OSError) as error:
        raise refusal(error, repo) from error
    return HubSource(repo, revision, WEIGHTS_FILE)


def _commit(publication: Publication, repo: str, api: HfApi, private: bool) -> str:
    """Commit what is not there yet, check what is there then, and return the commit.

    Doing it again does no harm.
    """
    files = publication.files
    try:
        ModelCard(files[CARD].decode()).validate()
    except ValueError as error:
        raise CheckpointError(
            "The Hub does not accept the metadata of {file}: {reason}",
            code="card_refused",
            file=CARD,
            reason=_validation_reasons(str(error)),
        ) from error
    api.create_repo(repo, private=private, exist_ok=True)
    info = api.model_info(repo)
    stale = OURS.intersection(file.rfilename for file in info.siblings or []) - files.keys()
    adding = [CommitOperationAdd(name, content) for name, content in files.items()]
    commit = api.create_commit(
        repo,
        [*adding, *(CommitOperationDelete(name) for name in sorted(stale))],
        commit_message=(
            f"{publication.checkpoint.title}: weights {Digest.of(files[WEIGHTS_FILE]).sha256[:12]}"
        ),
        parent_commit=info.sha,  # a try that is carried out late, after the next one, is refused
    )
    rows = api.list_repo_tree(repo, recursive=True, revision=commit.oid)
    there = {item.path: item for item in rows if isinstance(item, RepoFile)}
    if wrong := [
        name for name, content in files.items() if name not in there or not _is_same(there[name], content)
    ]:
        raise CheckpointError(
            (
                "{repo} does not contain the uploaded bytes ({files}). Publish again; do not use commit"
                " {commit}."
            ),
            code="wrong_bytes",
            repo=repo,
            files=", ".join(wrong),
            commit=commit.oid[:12],
        )
    return commit.oid


def _is_same(file: RepoFile, content: bytes) -> bool:
    lfs = file.lfs
    sent = (
        Digest(lfs.sha256, size_bytes=lfs.size)
        if lfs
        else Digest(git_blob_sha1=file.blob_id, size_bytes=file.size)
    )
    return sent.matches(content)


def _validation_reasons(answer: str) -> str:
    try:
        return " ".join(f"{row['message']}." for row in json.loads(answer)["errors"])
    except (ValueError, KeyError, TypeError):
        return answer[:200]


def refusal(error: HubError | OSError, repo: str) -> CheckpointError:
    """Return why a repository could not be written, and what to do."""
    status, reason, code = 0, str(error), "disk"
    if isinstance(error, HubError):
        status, reason, code = (0 if error.transient else error.status), error.message, error.code
    templates = {
        401: (
            "The Hub does not accept the token. Make one that may write to {repo} at"
            " huggingface.co/settings/tokens."
        ),
        402: (
            "This hardware needs a paid plan. A free account can host a Space only on zero-a10g,"
            " which is ZeroGPU."
        ),
        403: "The token may not write to {repo}. Use one with write permission for {owner}.",
        404: "There is no {repo} on the Hub, or the token may not see it.",
    }
    if status:
        template = templates.get(status, "The Hub refuses the files for {repo} (status {status}).")
        return CheckpointError(
            template, code="refused", repo=repo, owner=repo.partition("/")[0], status=status
        )
    if code in ("offline", "bad_name"):
        return CheckpointError(
            "{repo} could not be published: {reason}.", code=code, repo=repo, reason=reason
        )
    template = (
        "{repo} could not be published: {reason}. Try again in a few minutes; uploaded files are"
        " not sent again."
    )
    return CheckpointError(template, code=code, repo=repo, reason=reason)
