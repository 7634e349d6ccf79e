"""Send a publication to the Hugging Face Hub: everything in one commit, and only reported done when it is there."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, get_session, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

from hsemotion_space.hub.publication import CARD, OURS, WEIGHTS_FILE, Publication, check, describe, prepare, write_back
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource

__all__ = ["Publication", "check", "describe", "prepare", "publish", "write_back"]

TRIES: Final = 3
TIMEOUT_S = 60.0  # without a byte
LONGEST_WAIT_S: Final = 30.0
sleep = time.sleep  # replaced in tests


def publish(publication: Publication, repo: str, token: str, private: bool = False) -> HubSource:
    """Put a publication into a model repository, which is made if there is none, and return the commit that holds it.

    If the repository holds just these files already, nothing is changed. A try that failed for a passing reason is repeated, at most
    twice, and never leads to a second commit.

    Args:
        publication: what :func:`prepare` returned.
        repo: ``owner/name``.
        token: of somebody who may write there; appears in no message.
        private: whether a new repository is private; one that exists stays as it is.

    Raises:
        CheckpointError: saying what is wrong and what to do.
    """
    if problems := check(publication):
        raise CheckpointError(f"{publication.checkpoint.title} cannot be published: {' '.join(problems)}")
    HubSource(repo, "0" * 40, WEIGHTS_FILE)  # refuses what is not owner/name
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise CheckpointError("The token is empty or has characters that no token has. Copy it again from huggingface.co/settings/tokens.")
    with _limited_waits():
        revision = _persist(lambda: _attempt(publication, repo, HfApi(token=token), private), repo)
    return HubSource(repo, revision, WEIGHTS_FILE)


@contextmanager
def _limited_waits() -> Iterator[None]:
    """Let no request of the client library wait for ever, as a commit that is never answered does by default."""
    session = get_session()
    hooks, usual = session.event_hooks, session.timeout

    def use(timeout: httpx2.Timeout) -> None:
        set_client_factory(lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=timeout))

    use(httpx2.Timeout(TIMEOUT_S))
    try:
        yield
    finally:
        use(usual)


def _attempt(publication: Publication, repo: str, api: HfApi, private: bool) -> str:
    """Commit what is not there yet, look at what is there then, and return the commit. Doing it again does no harm."""
    files = publication.files
    try:
        ModelCard(files[CARD].decode()).validate()
    except ValueError as error:
        raise CheckpointError(f"The Hub does not accept the metadata of {CARD}: {_validator_words(str(error))}") from error
    api.create_repo(repo, private=private, exist_ok=True)
    info = api.model_info(repo)
    stale = OURS.intersection(file.rfilename for file in info.siblings or []) - files.keys()
    adding = [CommitOperationAdd(name, content) for name, content in files.items()]
    commit = api.create_commit(
        repo,
        [*adding, *(CommitOperationDelete(name) for name in sorted(stale))],
        commit_message=f"{publication.checkpoint.title}: weights {Digest.of(files[WEIGHTS_FILE]).sha256[:12]}",
        parent_commit=info.sha,  # a try that is carried out late, after the next one, is refused
    )
    there = {item.path: item for item in api.list_repo_tree(repo, recursive=True, revision=commit.oid) if isinstance(item, RepoFile)}
    if wrong := [name for name, content in files.items() if name not in there or not _is_same(there[name], content)]:
        raise CheckpointError(
            f"{repo} does not hold what was sent ({', '.join(wrong)}). Publish again; do not use commit {commit.oid[:12]}."
        )
    return commit.oid


def _is_same(file: RepoFile, content: bytes) -> bool:
    sent = Digest(file.lfs.sha256, size_bytes=file.lfs.size) if file.lfs else Digest(git_blob_sha1=file.blob_id, size_bytes=file.size)
    return sent.matches(content)


def _validator_words(answer: str) -> str:
    try:
        return " ".join(f"{row['message']}." for row in json.loads(answer)["errors"])
    except (ValueError, KeyError, TypeError):
        return answer[:200]


def _persist(once: Callable[[], str], repo: str) -> str:
    """Try until it is done; the last reason is told."""
    for attempt in range(1, TRIES + 1):
        try:
            return once()
        except CheckpointError:
            raise
        except HFValidationError as error:
            raise CheckpointError(f"{repo!r} is no name for a repository of the Hub.") from error
        except OfflineModeIsEnabled as error:
            raise CheckpointError("HF_HUB_OFFLINE=1 forbids requests. Unset it to publish.") from error
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
            cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # an upload in a thread
            reason, wait_s = _passing_reason(cause, repo)
        if attempt < TRIES:
            sleep(min(max(wait_s, 2 ** (attempt - 1) * random.uniform(0.5, 1)), LONGEST_WAIT_S))  # noqa: S311
    raise CheckpointError(
        f"{repo} could not be published in {TRIES} tries: {reason}. Try again in a few minutes; what is there already is not sent again."
    )


def _passing_reason(error: BaseException, repo: str) -> tuple[str, float]:
    """Return why a try failed and how long the Hub asks to wait; raise the CheckpointError if another try cannot help."""
    if isinstance(error, HfHubHTTPError):
        status, after = error.response.status_code, error.response.headers.get("Retry-After", "")
        if status in (408, 412, 429) or status >= 500:
            return f"the Hub answers {status}", float(after) if after.isdecimal() else 0.0
        raise CheckpointError(_refusal(status, repo)) from error
    if isinstance(error, PermissionError):  # how the client's uploader of large files says it
        raise CheckpointError(_refusal(403, repo)) from error
    if isinstance(error, httpx2.TimeoutException):
        return "the Hub does not answer", 0.0
    if isinstance(error, ValueError | KeyError):
        return "the Hub answers with something that is not understood", 0.0
    return f"the connection broke ({type(error).__name__})", 0.0


def _refusal(status: int, repo: str) -> str:
    owner = repo.partition("/")[0]
    words = {
        401: f"The Hub does not accept the token. Make one that may write to {repo} at huggingface.co/settings/tokens.",
        403: f"The token may not write to {repo}. Use one with write permission for {owner}.",
        404: f"There is no {repo} on the Hub, or the token may not see it.",
    }
    return words.get(status, f"The Hub refuses the files for {repo} (answer {status}).")
