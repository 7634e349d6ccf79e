"""Where the files of a checkpoint come from, and their digests: the ``[source]`` table of a manifest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from hsemotion_space.messages import MessageError

# the names that the Hub accepts
REPO = re.compile(r"(?!.*(--|\.\.|\.git$))\b[\w.-]+\b/\b[\w.-]{1,96}\b", re.ASCII)

KINDS: Final[Mapping[type, str]] = {str: "a text", int: "a number of bytes", dict: "a table"}
T = TypeVar("T")


class CheckpointError(MessageError, ValueError):
    """A checkpoint cannot be used; the message names it and says what to do."""


def invalid(key: str, expected: str, value: object) -> CheckpointError:
    """Return the error for a value of a manifest, with the ``key`` among its values."""
    return CheckpointError(
        "{key} must be {expected}, got {value}.",
        code="invalid_value",
        key=key,
        expected=expected,
        value=repr(value),
    )


@dataclass(frozen=True, slots=True)
class Digest:
    """The identity of a file; empty parts are not known.

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
                raise invalid(name, f"{digits} lower-case hexadecimal digits", getattr(self, name))
        if self.size_bytes < 0:
            raise invalid("bytes", "a number of bytes", self.size_bytes)

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """Return the digest of a file with this content."""
        return cls(hashlib.sha256(content).hexdigest(), size_bytes=len(content))

    @property
    def known(self) -> bool:
        """Whether the bytes of the file are fixed."""
        return bool(self.sha256 or self.git_blob_sha1)

    def matches(self, content: bytes) -> bool:
        """Whether a file has this content; never true if no digest is known."""
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
            raise invalid("[source] hub repo", "owner/name, as the Hub accepts it", self.repo)
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise invalid("[source] hub revision", "a commit of 40 hexadecimal digits", self.revision)


@dataclass(frozen=True, slots=True)
class UpstreamSource:
    """The file that the authors of a network published, to be converted.

    Attributes:
        filename: its name there.
        url: its address at one commit; empty if it must be downloaded by hand.
        page: where a reader finds it.
        digest: of the file, as far as known.
    """

    filename: str
    url: str = ""
    page: str = ""
    digest: Digest = Digest()

    @property
    def pinned(self) -> bool:
        """Whether it can be downloaded without asking, because the address and the bytes are fixed."""
        return bool(self.url) and self.digest.known


@dataclass(frozen=True, slots=True)
class Source:
    """The ``[source]`` table: places are tried in the order bundled, Hub, upstream.

    Attributes:
        bundled: name of the weights file beside the manifest; empty if there is none.
        weights, heads: of ``model.safetensors`` and ``heads.safetensors``; ``heads`` is not known if no head
            has weights.
        hub: None if the checkpoint is not on the Hub.
        upstream: None if it does not come from a published file.
    """

    bundled: str
    weights: Digest
    heads: Digest
    hub: HubSource | None
    upstream: UpstreamSource | None


def _value(table: Mapping[str, object], key: str, kind: type[T]) -> T:
    """Return a value of the ``[source]`` table, an empty one if it is missing."""
    value = table.get(key, kind())
    if type(value) is not kind:
        raise invalid(f"[source] {key}", KINDS[kind], value)
    return value


def _file(table: Mapping[str, object], key: str) -> str:
    name = _value(table, key, str)
    if name and not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise invalid(f"[source] {key}", "a plain file name", name)
    return name


def _digest(table: Mapping[str, object], prefix: str = "") -> Digest:
    return Digest(_value(table, f"{prefix}sha256", str), size_bytes=_value(table, f"{prefix}bytes", int))


def _hub(table: Mapping[str, object]) -> HubSource:
    return HubSource(_value(table, "repo", str), _value(table, "revision", str), _file(table, "filename"))


def _upstream(table: Mapping[str, object]) -> UpstreamSource:
    digest = replace(_digest(table), git_blob_sha1=_value(table, "git_blob_sha1", str))
    return UpstreamSource(
        _file(table, "filename"), _value(table, "url", str), _value(table, "page", str), digest
    )


def read_source(table: Mapping[str, object]) -> Source:
    """Check the ``[source]`` table of a manifest.

    Raises:
        CheckpointError: naming the key that is wrong.
    """
    hub, upstream = _value(table, "hub", dict), _value(table, "upstream", dict)
    source = Source(
        _file(table, "bundled"),
        _digest(table),
        _digest(table, "heads_"),
        _hub(hub) if hub else None,
        _upstream(upstream) if upstream else None,
    )
    if (source.bundled or source.hub) and not source.weights.known:
        raise CheckpointError("[source] needs the sha256 of the weights.", code="no_digest")
    if not (source.bundled or source.hub or source.upstream):
        raise CheckpointError(
            "[source] must name bundled weights, a repository of the Hub or a published file.",
            code="no_source",
        )
    if (source.hub and not source.hub.filename) or (source.upstream and not source.upstream.filename):
        raise CheckpointError("[source] hub and upstream need a filename.", code="no_filename")
    return source
