"""The dataset repository on the Hugging Face Hub: what publishing and erasing ask of it, every failure a sentence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.hub.source import Digest

KIND: Final = "dataset"
TIMEOUT_S = 30.0  # without a byte
CONNECT_S: Final = 5.0
LONGEST_ASKED_S: Final = 3600.0
REFUSALS: Final = {
    401: ("The Hub does not accept the token. Create a token with write access to {repo} at huggingface.co/settings/tokens."),
    403: "The token has no write access to {repo}. Use a token with write permission.",
    404: "{repo} does not exist on the Hub, or the token has no access to it.",
    409: "Another client is changing {repo}.",
    412: "Another client changed {repo} in the meantime.",
    429: "The Hub received too many requests and asks to wait.",
}


class HubFailure(FeedbackError):  # noqa: N818  it is a FeedbackError with one more fact
    """The Hub did not do what was asked; ``wait_s`` is how long it wants to be left alone."""

    def __init__(self, template: str, /, *, code: str = "", wait_s: float = 0.0, **values: object) -> None:
        super().__init__(template, code=code, **values)
        self.wait_s = wait_s


class Repository:
    """A dataset repository, whose token appears in no message.

    Every method raises HubFailure if the Hub does not do what is asked.

    Args:
        repo: ``owner/name``.
        token: of somebody who may write there.

    Raises:
        FeedbackError: if the name or the token cannot be one.
    """

    def __init__(self, repo: str, token: str) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise FeedbackError("The dataset repository must be owner/name, got {repo}.", code="repo_name", repo=repr(repo))
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise FeedbackError(
                "The token is empty or has invalid characters. Copy it again from huggingface.co/settings/tokens.", code="token"
            )
        self.repo = repo
        self._token = token
        self._api = HfApi(token=token)

    @contextmanager
    def session(self, timeout_s: float = 0.0) -> Iterator[None]:
        """Let no request of the client library wait for ever within the block, as a commit that is never answered does by default.

        Args:
            timeout_s: for every byte; TIMEOUT_S if it is 0.
        """
        usual = get_session()
        hooks, waits = usual.event_hooks, usual.timeout
        longest_s = timeout_s or TIMEOUT_S
        limit = httpx2.Timeout(longest_s, connect=min(CONNECT_S, longest_s)).as_dict()

        def hurry(request: httpx2.Request) -> None:
            request.extensions["timeout"] = limit  # some methods of the library ask for no limit, whatever the client has

        hurried = {**hooks, "request": [*hooks["request"], hurry]}
        set_client_factory(lambda: httpx2.Client(event_hooks=hurried, follow_redirects=True))
        try:
            yield
        finally:
            set_client_factory(lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=waits))

    def head(self, *, create: bool = False) -> str:
        """Return the newest commit; empty if there is no repository and none is to be made (private, with manual access)."""
        with self._sentences():
            try:
                return self._head()
            except RepositoryNotFoundError:
                if not create:
                    return ""
            self._api.create_repo(self.repo, repo_type=KIND, private=True, exist_ok=True)
            with suppress(HfHubHTTPError):  # it is private all the same
                self._api.update_repo_settings(self.repo, repo_type=KIND, gated="manual")
            return self._head()

    def _head(self) -> str:
        return str(self._api.dataset_info(self.repo).sha)

    def listing(self, folder: str, revision: str, *, recursive: bool = False) -> Mapping[str, Digest]:
        """Return what the files in a folder (empty: the uppermost one) are, by path; none if there is no such folder."""
        with self._sentences():
            try:
                found = list(self._api.list_repo_tree(self.repo, folder or None, recursive=recursive, revision=revision, repo_type=KIND))
            except EntryNotFoundError:
                return {}
        return {item.path: _digest(item) for item in found if isinstance(item, RepoFile)}

    def read(self, path: str, revision: str) -> bytes:
        """Return a file, checked, without a copy on this machine's disk; empty if there is none."""
        digest = self.listing(path.rpartition("/")[0], revision).get(path)
        if digest is None:
            return b""
        with self._sentences():
            url = hf_hub_url(self.repo, path, repo_type=KIND, revision=revision)
            response = get_session().get(url, headers={"Authorization": f"Bearer {self._token}"})
            response.raise_for_status()
        if not digest.matches(response.content):
            raise HubFailure("{path} of {repo} was not received completely.", code="hub_damaged", path=path, repo=self.repo)
        return response.content

    def commit(self, head: str, message: str, files: Mapping[str, bytes], gone: Collection[str] = ()) -> str:
        """Add and remove files in one commit and return its id; refused if somebody else was faster.

        Args:
            head: the commit that it follows, so that a request which is carried out late changes nothing.
            message: first line of the commit.
            files: content by path.
            gone: paths to remove.
        """
        with self._sentences():
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            removals = [CommitOperationDelete(path) for path in gone]
            made = self._api.create_commit(self.repo, [*operations, *removals], commit_message=message, repo_type=KIND, parent_commit=head)
            return made.oid

    def forget(self, digests: Collection[str], paths: Collection[str], message: str) -> None:
        """Delete the bytes of large files for good, and the history that could still name them or contain small ones.

        Those that no path of the newest commit names go with them: they were replaced, or sent and never committed.

        Args:
            digests: SHA-256 of files.
            paths: where they were.
            message: of the one commit that is left.
        """
        named = {digest.sha256 for digest in self.listing("", self.head(), recursive=True).values() if digest.sha256}
        with self._sentences():
            stored = list(self._api.list_lfs_files(self.repo, repo_type=KIND))
            if lost := [file for file in stored if _is_one(file, digests, paths) or getattr(file, "file_oid", "") not in named]:
                self._api.permanently_delete_lfs_files(self.repo, lost, rewrite_history=True, repo_type=KIND)
            self._api.super_squash_history(self.repo, commit_message=message, repo_type=KIND)
            if any(_is_one(file, digests, paths) for file in self._api.list_lfs_files(self.repo, repo_type=KIND)):
                raise HubFailure("{repo} still stores permanently deleted files.", code="hub_undeleted", repo=self.repo)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn whatever the client library raises into a sentence."""
        try:
            yield
        except FeedbackError:
            raise
        except HFValidationError as error:
            raise HubFailure("The dataset repository must be owner/name, got {repo}.", code="repo_name", repo=repr(self.repo)) from error
        except OfflineModeIsEnabled as error:
            raise HubFailure("HF_HUB_OFFLINE=1 forbids requests. Unset it to publish.", code="offline") from error
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # an upload in a thread
            raise self._failure(cause) from error

    def _failure(self, error: BaseException) -> HubFailure:
        if isinstance(error, HfHubHTTPError | httpx2.HTTPStatusError):
            status, after = error.response.status_code, error.response.headers.get("Retry-After", "")
            wait_s = min(float(after), LONGEST_ASKED_S) if after.isdecimal() else 0.0
            template = REFUSALS.get(status, "The Hub answers with status {status}.")
            return HubFailure(template, code=f"hub_{status}", wait_s=wait_s, repo=self.repo, status=status)
        if isinstance(error, httpx2.TimeoutException):
            return HubFailure("The Hub does not answer.", code="hub_silent")
        if isinstance(error, httpx2.HTTPError | OSError):
            return HubFailure("The connection to the Hub failed ({error}).", code="hub_broke", error=type(error).__name__)
        return HubFailure("The answer of the Hub is not valid.", code="hub_garbage")


def _digest(file: RepoFile) -> Digest:
    return Digest(file.lfs.sha256, size_bytes=file.lfs.size) if file.lfs else Digest(git_blob_sha1=file.blob_id, size_bytes=file.size)


def _is_one(file: object, digests: Collection[str], paths: Collection[str]) -> bool:
    return getattr(file, "file_oid", "") in digests or getattr(file, "filename", "") in paths
