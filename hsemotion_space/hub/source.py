"""Where the files of a checkpoint come from, and what they must be: the ``[source]`` table of a manifest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from hsemotion_space.messages import MessageError

REPO = re.compile(r"(?!.*(--|\.\.|\.git$))\b[\w.-]+\b/\b[\w.-]{1,96}\b", re.ASCII)  # what the Hub takes for a name


class CheckpointError(MessageError, ValueError):
    """A checkpoint cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file must be; empty parts are not known.

    Attributes:
        sha256: 64 lower-case hexadecimal digits.
        git_blob_sha1: the id under which git stores the file, 40 lower-case hexadecimal digits.
        size_bytes: 0 if not known.
    """

    sha256: str = ""
    git_blob_sha1: str = ""
    size_bytes: int = 0

    def __post_init__(self) -> None:
        for name, digits in (("sha256", 64), ("git_blob_sha1", 40)):
            if not re.fullmatch(rf"([0-9a-f]{{{digits}}})?", getattr(self, name)):
                raise CheckpointError(f"{name} must be {digits} lower-case hexadecimal digits, got {getattr(self, name)!r}.")
        if self.size_bytes < 0:
            raise CheckpointError(f"bytes must not be negative, got {self.size_bytes}.")

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """Return what a file with this content must be."""
        return cls(hashlib.sha256(content).hexdigest(), size_bytes=len(content))

    @property
    def known(self) -> bool:
        """Whether the bytes of the file are fixed."""
        return bool(self.sha256 or self.git_blob_sha1)

    def matches(self, content: bytes) -> bool:
        """Whether these are the bytes that are meant; never true if no digest is known."""
        blob = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
        blob.update(content)
        return (
            self.known
            and self.size_bytes in (0, len(content))
            and self.sha256 in ("", hashlib.sha256(content).hexdigest())
            and self.git_blob_sha1 in ("", blob.hexdigest())
        )


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model repository of the Hugging Face Hub at one commit: 40 hexadecimal digits, never a branch."""

    repo: str
    revision: str
    filename: str

    def __post_init__(self) -> None:
        if not REPO.fullmatch(self.repo):
            raise CheckpointError(f"[source] hub repo must be owner/name, as the Hub takes it, got {self.repo!r}.")
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise CheckpointError(f"[source] hub revision must be a commit of 40 hexadecimal digits, got {self.revision!r}.")


@dataclass(frozen=True, slots=True)
class UpstreamSource:
    """The file that the authors of a network published, to be converted.

    Attributes:
        filename: its name there.
        url: from where it can be had at one commit; empty if it must be fetched by hand.
        page: where a reader finds it.
        digest: what it must be, as far as known.
    """

    filename: str
    url: str = ""
    page: str = ""
    digest: Digest = Digest()

    @property
    def pinned(self) -> bool:
        """Whether it can be fetched without asking, because the address and the bytes are fixed."""
        return bool(self.url) and self.digest.known


@dataclass(frozen=True, slots=True)
class Source:
    """The ``[source]`` table: places are tried in the order bundled, Hub, upstream.

    Attributes:
        bundled: name of the weights file beside the manifest; empty if there is none.
        weights, heads: what ``model.safetensors`` and ``heads.safetensors`` must be; ``heads`` is not known if no head has weights.
        hub: None if the checkpoint is not on the Hub.
        upstream: None if it does not come from published files.
    """

    bundled: str
    weights: Digest
    heads: Digest
    hub: HubSource | None
    upstream: UpstreamSource | None


def _text(table: Mapping[str, object], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise CheckpointError(f"[source] {key} must be a text, got {value!r}.")
    return value


def _file(table: Mapping[str, object], key: str) -> str:
    name = _text(table, key)
    if name and not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise CheckpointError(f"[source] {key} must be a plain file name, got {name!r}.")
    return name


def _bytes(table: Mapping[str, object], key: str) -> int:
    value = table.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"[source] {key} must be a number of bytes, got {value!r}.")
    return value


def _table(table: Mapping[str, object], key: str) -> Mapping[str, object] | None:
    value = table.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise CheckpointError(f"[source] {key} must be a table, got {value!r}.")
    return cast("Mapping[str, object] | None", value)


def read_source(table: Mapping[str, object]) -> Source:
    """Check the ``[source]`` table of a manifest.

    Raises:
        CheckpointError: naming the key that is wrong.
    """
    hub, upstream = _table(table, "hub"), _table(table, "upstream")
    source = Source(
        _file(table, "bundled"),
        Digest(_text(table, "sha256"), size_bytes=_bytes(table, "bytes")),
        Digest(_text(table, "heads_sha256"), size_bytes=_bytes(table, "heads_bytes")),
        None if hub is None else HubSource(_text(hub, "repo"), _text(hub, "revision"), _file(hub, "filename")),
        None
        if upstream is None
        else UpstreamSource(
            _file(upstream, "filename"),
            _text(upstream, "url"),
            _text(upstream, "page"),
            Digest(_text(upstream, "sha256"), _text(upstream, "git_blob_sha1"), _bytes(upstream, "bytes")),
        ),
    )
    if (source.bundled or hub is not None) and not source.weights.known:
        raise CheckpointError("[source] sha256 is missing, but there are weights that it must be checked against.")
    if not (source.bundled or hub is not None or upstream is not None):
        raise CheckpointError("[source] must name bundled weights, a repository of the Hub or a published file.")
    if (source.hub and not source.hub.filename) or (source.upstream and not source.upstream.filename):
        raise CheckpointError("[source] hub and upstream need a filename.")
    return source
