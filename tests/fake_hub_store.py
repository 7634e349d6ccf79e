"""Repositories of a stand-in for the Hugging Face Hub: commits, files and large files in memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

DATE = "2026-01-01T00:00:00.000Z"
LFS_SUFFIXES = {".safetensors", ".parquet", ".jpg", ".png"}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
_counter = itertools.count()

Row = dict[str, object]


class RefusedError(Exception):
    """An answer that is not a success: HTTP status, message, the Hub's own code and the commit it is about."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of a repository: 40 hex digits, the message, and all files by path."""

    oid: str
    message: str
    files: Mapping[str, bytes]


def new_commit(message: str, files: Mapping[str, bytes]) -> Commit:
    """Return a commit whose id differs from every id before."""
    oid = hashlib.sha1(f"{next(_counter)}\n{message}\n".encode()).hexdigest()
    return Commit(oid, message, dict(files))


def is_lfs(path: str, size: int) -> bool:
    """Tell whether the Hub keeps a file of this name and size beside git. Empty files always lie in git."""
    return size > 0 and PurePosixPath(path).suffix.lower() in LFS_SUFFIXES


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    """Return the name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag_of(path: str, content: bytes) -> str:
    """Return what identifies the content of a file: SHA-256 for large files, git's name for others."""
    return sha256_of(content) if is_lfs(path, len(content)) else blob_id(content)


def file_row(path: str, content: bytes) -> Row:
    """Return a file as `tree` lists it."""
    row: Row = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    if not is_lfs(path, len(content)):
        return row
    pointer = POINTER.format(sha256=sha256_of(content), size=len(content)).encode()
    lfs = {"oid": sha256_of(content), "size": len(content), "pointerSize": len(pointer)}
    return {**row, "oid": blob_id(pointer), "lfs": lfs}


@dataclass(slots=True)
class Repository:
    """One repository with the branch `main`: commits from the oldest to the newest, large files by SHA-256."""

    name: str
    kind: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    lfs: dict[str, bytes] = field(default_factory=dict)
    lfs_names: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        """Return a commit by its id, or the newest for `main`."""
        if revision == "main":
            return self.commits[-1]
        for commit in self.commits:
            if commit.oid == revision:
                return commit
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def file(self, revision: str, path: str) -> tuple[Commit, bytes]:
        commit = self.at(revision)
        if path not in commit.files:
            raise RefusedError(404, "Entry not found", "EntryNotFound", commit.oid)
        return commit, commit.files[path]

    def commit(self, message: str, files: Mapping[str, bytes], delete: Iterable[str] = ()) -> str:
        """Add one commit on `main` and return its id."""
        state = dict(self.commits[-1].files) if self.commits else {}
        for path in delete:
            if state.pop(path, None) is None:
                raise RefusedError(404, f"No such file: {path}", "EntryNotFound", self.commits[-1].oid)
        for path, content in files.items():
            state[path] = content
            if is_lfs(path, len(content)):
                self.lfs[sha256_of(content)] = content
                self.lfs_names[sha256_of(content)] = path
        self.commits.append(new_commit(message, state))
        return self.commits[-1].oid

    def squash(self, message: str) -> str:
        """Replace the history by one commit; large files stay stored until they are deleted permanently."""
        self.commits = [new_commit(message, self.commits[-1].files)]
        return self.commits[-1].oid

    def delete_lfs(self, sha256s: Sequence[str]) -> None:
        """Delete large files for good; the history is rewritten from the first commit that names one."""
        changed = False
        for place, commit in enumerate(self.commits):
            files = {path: body for path, body in commit.files.items() if sha256_of(body) not in sha256s}
            changed = changed or files != commit.files
            self.commits[place] = new_commit(commit.message, files) if changed else commit
        for sha256 in sha256s:
            self.lfs.pop(sha256, None)
            self.lfs_names.pop(sha256, None)

    def tree(self, revision: str, folder: str, *, recursive: bool) -> list[Row]:
        """Return the files in a folder, `""` being the root, and with `recursive` below it."""
        start = f"{folder}/" if folder else ""
        files = self.at(revision).files
        paths = sorted(path for path in files if path.startswith(start))
        return [file_row(path, files[path]) for path in paths if recursive or "/" not in path[len(start) :]]

    def info(self, revision: str) -> Row:
        commit = self.at(revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        times: Row = {"createdAt": DATE, "lastModified": DATE, "downloads": 0, "likes": 0, "tags": []}
        return {"id": self.name, "sha": commit.oid, "private": self.private, "siblings": siblings} | times

    def lfs_rows(self) -> list[Row]:
        common = {"pushedAt": DATE, "ref": "main"}
        return [
            {"fileOid": sha256, "oid": sha256, "filename": self.lfs_names.get(sha256, ""), "size": len(body)} | common
            for sha256, body in self.lfs.items()
        ]  # fmt: skip
