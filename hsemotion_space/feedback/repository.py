"""The dataset repository on the Hugging Face Hub: requests for publishing and erasing, and their errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.hub import client
from hsemotion_space.hub.client import HubError, failure_of
from hsemotion_space.hub.source import Digest

KIND: Final = "dataset"
TIMEOUT_S = 30.0  # without a byte
MAX_RETRY_AFTER_S: Final = 3600.0
BAD_NAME: Final = "The dataset repository must be owner/name, got {repo}."
STATUSES: Final = {
    401: (
        "The Hub does not accept the token. Create a token with write access to {repo} at"
        " huggingface.co/settings/tokens."
    ),
    403: "The token has no write access to {repo}. Use a token with write permission.",
    404: "{repo} does not exist on the Hub, or the token has no access to it.",
    409: "Another client is changing {repo}.",
    412: "Another client changed {repo} in the meantime.",
    429: "The Hub received too many requests and asks to wait.",
}
FAILURES: Final = {
    "status": "The Hub answers with status {status}.",
    "no_answer": "The Hub does not answer.",
    "offline": "HF_HUB_OFFLINE=1 forbids requests. Unset it to publish.",
    "bad_name": BAD_NAME,
    "not_understood": "The answer of the Hub is not valid.",
}
NO_CONNECTION: Final = "The connection to the Hub failed ({error})."


class RepositoryError(FeedbackError):
    """The Hub did not do what was asked; ``wait_s`` is how long it wants to be left alone."""

    def __init__(self, template: str, /, *, code: str = "", wait_s: float = 0.0, **values: object) -> None:
        super().__init__(template, code=code, **values)
        self.wait_s = wait_s


class Repository:
    """A dataset repository, whose token appears in no message.

    Every method raises RepositoryError if the Hub does not do what is asked.

    Args:
        repo: ``owner/name``.
        token: with write access.

    Raises:
        FeedbackError: if the name or the token is not valid.
    """

    def __init__(self, repo: str, token: str) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise FeedbackError(BAD_NAME, code="hub_bad_name", repo=repr(repo))
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise FeedbackError(
                "The token is empty or has invalid characters. Copy it again from"
                " huggingface.co/settings/tokens.",
                code="token",
            )
        self.repo = repo
        self._token = token
        self._api = HfApi(token=token)

    def session(self, timeout_s: float = 0.0) -> AbstractContextManager[None]:
        """Limit every wait for the Hub in the block to ``timeout_s`` without a byte, TIMEOUT_S if it is 0."""
        return client.session(timeout_s or TIMEOUT_S)

    def head(self, *, create: bool = False) -> str:
        """Return the newest commit; empty if there is no repository and none is to be created (private)."""
        with self._hub_errors():
            try:
                return self._head()
            except RepositoryNotFoundError:
                if not create:
                    return ""
            self._api.create_repo(self.repo, repo_type=KIND, private=True, exist_ok=True)
            with suppress(HfHubHTTPError, HubError):  # it is private all the same
                self._api.update_repo_settings(self.repo, repo_type=KIND, gated="manual")
            return self._head()

    def _head(self) -> str:
        return str(self._api.dataset_info(self.repo).sha)

    def listing(self, folder: str, revision: str, *, recursive: bool = False) -> Mapping[str, Digest]:
        """Return the digests of the files in a folder by path (empty: the root); none if it is absent."""
        with self._hub_errors():
            try:
                found = list(
                    self._api.list_repo_tree(
                        self.repo, folder or None, recursive=recursive, revision=revision, repo_type=KIND
                    )
                )
            except EntryNotFoundError:
                return {}
        return {item.path: _digest(item) for item in found if isinstance(item, RepoFile)}

    def read(self, path: str, revision: str) -> bytes:
        """Return a file, checked, without a copy on this machine's disk; empty if there is none."""
        digest = self.listing(path.rpartition("/")[0], revision).get(path)
        if digest is None:
            return b""
        with self._hub_errors():
            url = hf_hub_url(self.repo, path, repo_type=KIND, revision=revision)
            response = get_session().get(url, headers={"Authorization": f"Bearer {self._token}"})
            response.raise_for_status()
        if not digest.matches(response.content):
            raise RepositoryError(
                "{path} of {repo} was not received completely.", code="hub_damaged", path=path, repo=self.repo
            )
        return response.content

    def commit(
        self, head: str, message: str, files: Mapping[str, bytes], deleted: Collection[str] = ()
    ) -> str:
        """Add and delete files in one commit and return its id; refused if another client was faster.

        Args:
            head: the commit that it follows, so that a request which is carried out late changes nothing.
            message: first line of the commit.
            files: content by path.
            deleted: paths to delete.
        """
        with self._hub_errors():
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            deletions = [CommitOperationDelete(path) for path in deleted]
            made = self._api.create_commit(
                self.repo,
                [*operations, *deletions],
                commit_message=message,
                repo_type=KIND,
                parent_commit=head,
            )
            return made.oid

    def delete_permanently(self, digests: Collection[str], paths: Collection[str], message: str) -> None:
        """Delete the bytes of large files, and the history that could still name them or contain small ones.

        Those that no path of the newest commit names go with them: they were replaced, or sent and never
        committed.

        Args:
            digests: SHA-256 of files.
            paths: where they were.
            message: of the one commit that is left.
        """
        named = {
            digest.sha256
            for digest in self.listing("", self.head(), recursive=True).values()
            if digest.sha256
        }
        with self._hub_errors():
            stored = list(self._api.list_lfs_files(self.repo, repo_type=KIND))
            if lost := [
                file
                for file in stored
                if _is_in(file, digests, paths) or getattr(file, "file_oid", "") not in named
            ]:
                self._api.permanently_delete_lfs_files(self.repo, lost, rewrite_history=True, repo_type=KIND)
            self._api.super_squash_history(self.repo, commit_message=message, repo_type=KIND)
            if any(
                _is_in(file, digests, paths) for file in self._api.list_lfs_files(self.repo, repo_type=KIND)
            ):
                raise RepositoryError(
                    "{repo} still stores permanently deleted files.", code="hub_undeleted", repo=self.repo
                )

    @contextmanager
    def _hub_errors(self) -> Iterator[None]:
        """Turn whatever the client library raises into a RepositoryError."""
        try:
            yield
        except FeedbackError:
            raise
        except (
            HubError,
            httpx2.HTTPError,
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> RepositoryError:
        try:
            failure = error if isinstance(error, HubError) else failure_of(error)
        except OSError as disk:
            return RepositoryError(NO_CONNECTION, code="hub_connection", error=type(disk).__name__)
        template = STATUSES.get(failure.status) or FAILURES.get(failure.code, NO_CONNECTION)
        return RepositoryError(
            template, code=f"hub_{failure.status or failure.code}",
            wait_s=min(failure.wait_s, MAX_RETRY_AFTER_S),
            repo=self.repo, status=failure.status, error=type(failure.__cause__ or failure).__name__,
        )  # fmt: skip


def _digest(file: RepoFile) -> Digest:
    return (
        Digest(file.lfs.sha256, size_bytes=file.lfs.size)
        if file.lfs
        else Digest(git_blob_sha1=file.blob_id, size_bytes=file.size)
    )


def _is_in(file: object, digests: Collection[str], paths: Collection[str]) -> bool:
    return getattr(file, "file_oid", "") in digests or getattr(file, "filename", "") in paths
