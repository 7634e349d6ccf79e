"""Repositories of a stand-in for the Hugging Face Hub: commits, files and large files in memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

DATE = "2026-01-01T00:00:00.000Z"
LFS_SUFFIXES = {
    ".safetensors",
    ".bin",
    ".pt",
    ".onnx",
    ".parquet",
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".mp4",
    ".zip",
    ".npy",
    ".npz",
}
LFS_BYTES = 10 * 1024 * 1024
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
_counter = itertools.count()

Row = dict[str, object]


class RefusedError(Exception):
    """An answer that is not a success: HTTP status, message, the Hub's own code and the commit it is about."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.commit = commit


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of a repository: 40 hex digits, the message, and all files by path."""

    oid: str
    message: str
    files: Mapping[str, bytes]


def new_commit(message: str, files: Mapping[str, bytes]) -> Commit:
    """Return a commit whose id depends on its content and differs from every id before."""
    digest = hashlib.sha1(f"{next(_counter)}\n{message}\n".encode())
    for path in sorted(files):
        digest.update(path.encode() + hashlib.sha256(files[path]).digest())
    return Commit(digest.hexdigest(), message, dict(files))


def is_lfs(path: str, size: int) -> bool:
    """Tell whether the Hub keeps a file of this name and size beside git. Empty files always lie in git."""
    return size > 0 and (PurePosixPath(path).suffix.lower() in LFS_SUFFIXES or size > LFS_BYTES)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pointer_to(content: bytes) -> bytes:
    return POINTER.format(sha256=sha256_of(content), size=len(content)).encode()


def blob_id(content: bytes) -> str:
    """Return the name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lost(path: str, content: bytes) -> bool:
    """Tell whether only the pointer to a permanently deleted large file is left."""
    return PurePosixPath(path).suffix.lower() in LFS_SUFFIXES and content.startswith(POINTER[:30].encode())


def etag_of(path: str, content: bytes) -> str:
    """Return what identifies the content of a file to the client: SHA-256 for large files, git's name for
    others."""
    return sha256_of(content) if is_lfs(path, len(content)) else blob_id(content)


def file_row(path: str, content: bytes) -> Row:
    """Return a file as `tree` lists it."""
    if not is_lfs(path, len(content)):
        return {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    pointer = pointer_to(content)
    lfs = {"oid": sha256_of(content), "size": len(content), "pointerSize": len(pointer)}
    return {"type": "file", "path": path, "size": len(content), "oid": blob_id(pointer), "lfs": lfs}


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
        content = commit.files.get(path)
        if content is None or is_lost(path, content):
            raise RefusedError(404, "Entry not found", "EntryNotFound", commit.oid)
        return commit, content

    def keep(self, content: bytes) -> None:
        self.lfs[sha256_of(content)] = content

    def commit(self, message: str, files: Mapping[str, bytes], delete: Iterable[str] = ()) -> str:
        """Add one commit on `main` and return its id; a path to delete that ends in `/` is a folder."""
        state = dict(self.commits[-1].files) if self.commits else {}
        for path in delete:
            gone = [name for name in state if name == path or (path.endswith("/") and name.startswith(path))]
            if not gone:
                raise RefusedError(
                    404, f"A file with this name doesn't exist: {path}", "EntryNotFound", self.commits[-1].oid
                )
            for name in gone:
                del state[name]
        for path, content in files.items():
            state[path] = content
            if is_lfs(path, len(content)):
                self.keep(content)
                self.lfs_names[sha256_of(content)] = path
        self.commits.append(new_commit(message, state))
        return self.commits[-1].oid

    def squash(self, message: str) -> str:
        """Replace the history by one commit; large files stay stored until they are deleted permanently."""
        self.commits = [new_commit(message, self.commits[-1].files)]
        return self.commits[-1].oid

    def forget(self, sha256s: Sequence[str], *, rewrite_history: bool) -> None:
        """Delete large files; with `rewrite_history` no commit names them any more, without it their pointers
        stay."""
        gone = set(sha256s)
        changed = False
        for place, commit in enumerate(self.commits):
            files = dict(commit.files)
            for path, content in commit.files.items():
                if is_lfs(path, len(content)) and sha256_of(content) in gone:
                    if rewrite_history:
                        del files[path]
                    else:
                        files[path] = pointer_to(content)
            changed = changed or files.keys() != commit.files.keys()
            self.commits[place] = (
                new_commit(commit.message, files) if changed else Commit(commit.oid, commit.message, files)
            )
        for sha256 in gone:
            self.lfs.pop(sha256, None)
            self.lfs_names.pop(sha256, None)

    def tree(self, revision: str, folder: str, *, recursive: bool) -> list[Row]:
        """Return files and folders below a folder, `""` being the root."""
        files = self.at(revision).files
        start = f"{folder}/" if folder else ""
        inside = {path: content for path, content in files.items() if path.startswith(start)}
        folders = {str(parent) for path in inside for parent in PurePosixPath(path).parents} - {".", folder}
        folders = {name for name in folders if name.startswith(start)}
        rows: list[Row] = [
            {"type": "directory", "path": name, "size": 0, "oid": blob_id(name.encode())}
            for name in sorted(folders)
        ]
        rows += [file_row(path, inside[path]) for path in sorted(inside)]
        return rows if recursive else [row for row in rows if "/" not in str(row["path"])[len(start) :]]

    def info(self, revision: str, *, blobs: bool) -> Row:
        commit = self.at(revision)
        siblings: list[Row] = []
        for path, content in sorted(commit.files.items()):
            row = file_row(path, content)
            lfs = (
                {"sha256": sha256_of(content), "size": len(content), "pointerSize": len(pointer_to(content))}
                if "lfs" in row
                else None
            )
            siblings.append(
                {"rfilename": path, "size": row["size"], "blobId": row["oid"], "lfs": lfs}
                if blobs
                else {"rfilename": path}
            )
        times: Row = {"createdAt": DATE, "lastModified": DATE}
        return {
            "id": self.name,
            "sha": commit.oid,
            "private": self.private,
            "siblings": siblings,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        } | times

    def lfs_rows(self) -> list[Row]:
        return [
            {
                "fileOid": sha256,
                "oid": sha256,
                "filename": self.lfs_names.get(sha256, ""),
                "size": len(content),
                "pushedAt": DATE,
                "ref": "main",
            }
            for sha256, content in self.lfs.items()
        ]
