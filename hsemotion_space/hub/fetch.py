"""Downloads: every byte is checked against the manifest before anyone sees it, at most three tries, resumed where they broke off."""

from __future__ import annotations

import errno
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import httpx2
from filelock import FileLock
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, UpstreamSource

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in total, 0 if not known; what it raises stops the download."""

TRIES: Final = 3
TIMEOUT_S: Final = 15.0  # without a byte
LONGEST_WAIT_S: Final = 30.0
SILENT: Final = "the server does not answer"
CHUNK: Final = 2**18
sleep = time.sleep  # replaced in tests
log = logging.getLogger(__name__)


def silent(_done: int, _total: int) -> None:
    """Report to nobody."""


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids requests."""
    return constants.is_offline_mode()


class _Failed(Exception):  # noqa: N818  never leaves this module
    """One try failed; another one may do better after ``wait_s``."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def cached_on_hub(source: HubSource, filename: str) -> Path | None:
    """Return where the Hub client keeps a file, or None; makes no request and does not look into the file."""
    with suppress(OSError):  # a cache that cannot be read has nothing
        found = try_to_load_from_cache(source.repo, filename, revision=source.revision)
        return Path(found) if isinstance(found, str) else None
    return None


def is_here(file: Path) -> bool:
    """Whether a file is there; one that cannot be reached is not."""
    try:
        return file.is_file()
    except OSError:
        return False


def from_hub(title: str, source: HubSource, filename: str, digest: Digest, report: Report = silent) -> bytes:
    """Return a file of a model repository; a good copy in the client's cache is returned without a request.

    Raises:
        CheckpointError: telling why the file cannot be had; wrong bytes are never returned.
    """
    content = _kept(cached := cached_on_hub(source, filename), digest)
    if content is not None:
        return content
    _refuse_offline(title, damaged=cached is not None)
    stale = cached is not None
    place = f"{filename} of {source.repo} on the Hugging Face Hub"
    meter = _meter(report, digest.size_bytes)

    def once() -> bytes:
        nonlocal stale
        report(0, digest.size_bytes)
        with _refusals_end_the_try(title, place):
            _ask(source, filename)
            try:
                path = hf_hub_download(source.repo, filename, revision=source.revision, token=False, force_download=stale, tqdm_class=meter)
            except (LocalEntryNotFoundError, ValueError) as error:  # it answered a moment ago
                raise _Failed(SILENT) from error
        stale = True
        return Path(path).read_bytes()

    try:
        return _persist(title, place, digest.matches, once)
    except OSError as error:
        _disk(title, Path(constants.HF_HUB_CACHE), error)


def _kept(file: Path | None, digest: Digest) -> bytes | None:
    """Return the content of a file of this machine if it is the right one; one that cannot be read is not."""
    with suppress(OSError):
        if file is not None and file.is_file() and digest.matches(content := file.read_bytes()):
            return content
    return None


def _ask(source: HubSource, filename: str) -> None:
    """Ask once for the file's head; the download asks again, but would go on for minutes and then hide what it met."""
    head = get_hf_file_metadata(hf_hub_url(source.repo, filename, revision=source.revision), token=False, timeout=TIMEOUT_S)
    if head.commit_hash != source.revision:
        raise _Failed("what answers is not the Hub")


@contextmanager
def _refusals_end_the_try(title: str, place: str) -> Iterator[None]:
    """End a try when the server is busy or fails; the Hub client would wait for as long as it is told, be it hours."""
    thread = threading.get_ident()

    def hear(response: httpx2.Response) -> None:
        if threading.get_ident() == thread and _may_pass(response.status_code):
            raise _refusal(title, place, response)

    listeners = get_session().event_hooks["response"]
    listeners.append(hear)
    try:
        yield
    finally:
        listeners.remove(hear)


def from_upstream(title: str, source: UpstreamSource, folder: Path, report: Report = silent) -> bytes:
    """Return a file that its authors published, from ``folder`` or from its address.

    Raises:
        CheckpointError: telling why the file cannot be had; wrong bytes are never returned.
    """
    target = upstream_file(source, folder)
    if (content := _kept(target, source.digest)) is not None:
        return content
    _refuse_offline(title, damaged=is_here(target))
    report(0, source.digest.size_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if (content := _kept(target, source.digest)) is not None:
                return content  # another process was faster
            content = _persist(title, _place(source), source.digest.matches, lambda: _get(title, source, _partial(target), report))
            _partial(target).replace(target)
            return content
    except OSError as error:
        _disk(title, folder, error)


def from_upstream_unchecked(title: str, source: UpstreamSource, folder: Path, report: Report = silent) -> bytes:
    """Download a published file whose digest nobody knows, for a person who asked for it; it is not kept.

    Only its length is checked here; what reads it must check the rest.

    Raises:
        CheckpointError: telling why the file cannot be had.
    """
    _refuse_offline(title, damaged=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return _persist(title, _place(source), bool, lambda: _get(title, source, Path(place) / "download", report))
    except OSError as error:
        _disk(title, folder, error)


def _place(source: UpstreamSource) -> str:
    return f"{source.filename} at {source.page or source.url}"


def upstream_file(source: UpstreamSource, folder: Path) -> Path:
    """Return where a published file is kept: under its digest, so that another version gets another name."""
    return folder / f"{source.digest.sha256 or source.digest.git_blob_sha1}-{source.filename}"


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _get(title: str, source: UpstreamSource, partial: Path, report: Report) -> bytes:
    """Download into the partial file, after what is there already, and return its content."""
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    timeout = httpx2.Timeout(TIMEOUT_S)
    with get_session().stream("GET", source.url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        if response.status_code == 416:  # the partial file is as long as the whole one, or longer
            partial.unlink(missing_ok=True)
            raise _Failed("the partial file did not fit")
        if response.status_code not in (200, 206):
            raise _refusal(title, _place(source), response)
        with partial.open("ab" if response.status_code == 206 else "wb") as file:
            _pour(response, file, source.digest.size_bytes, report)
    content = partial.read_bytes()
    if source.digest.known and not source.digest.matches(content):
        partial.unlink()
    return content


def _pour(response: httpx2.Response, file: BinaryIO, expected: int, report: Report) -> None:
    done = file.tell()
    total = expected or done + int(response.headers.get("Content-Length", 0))
    report(done, total)
    for chunk in response.iter_bytes(CHUNK):
        file.write(chunk)
        done += len(chunk)
        report(done, total)
        if expected and done > expected:
            break  # cannot be the file; its digest will tell
    file.flush()
    os.fsync(file.fileno())


def _persist(title: str, place: str, is_good: Callable[[bytes], bool], once: Callable[[], bytes]) -> bytes:
    """Try until the right bytes arrive; the last reason is told."""
    for attempt in range(1, TRIES + 1):
        try:
            content = _attempt(title, place, once)
            if is_good(content):
                return content
            raise _Failed("what arrived is not what the manifest says, so nothing of it was loaded")
        except _Failed as failure:
            reason, wait_s = str(failure), max(failure.wait_s, 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
        if attempt < TRIES:
            sleep(min(wait_s, LONGEST_WAIT_S))
    raise CheckpointError(f"{title}: {place} could not be had: {reason}. Try again in a few minutes, or pick another checkpoint.")


def _attempt(title: str, place: str, once: Callable[[], bytes]) -> bytes:
    """Run one try; what cannot get better by trying again becomes a CheckpointError, or stays the OSError of a disk."""
    try:
        return once()
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _nowhere(title, place) from error
    except HfHubHTTPError as error:
        raise _refusal(title, place, error.response) from error
    except httpx2.TimeoutException as error:
        raise _Failed(SILENT) from error
    except httpx2.HTTPError as error:
        raise _Failed(f"the connection broke ({type(error).__name__})") from error
    except OSError as error:
        if error.errno is None:  # the client's own check of the length
            raise _Failed("the file arrived incomplete") from error
        raise


def _may_pass(status: int) -> bool:
    return status == 429 or status >= 500


def _refusal(title: str, place: str, response: httpx2.Response) -> Exception:
    """Return the failure of a try that may be repeated, or the error of one that may not."""
    status, retry_after = response.status_code, response.headers.get("Retry-After", "")
    if _may_pass(status):
        return _Failed(f"the server answers {status}", float(retry_after) if retry_after.isdecimal() else 0.0)
    if status == 404:
        return _nowhere(title, place)
    return CheckpointError(f"{title}: {place} answers {status}. Correct [source] in its manifest, or pick another checkpoint.")


def _nowhere(title: str, place: str) -> CheckpointError:
    return CheckpointError(f"{title}: there is no {place}, or it is private. Correct [source] in its manifest.")


def _disk(title: str, folder: Path, error: OSError) -> NoReturn:
    """Say what to do; only the log names the folder, as visitors of the page read the sentence too."""
    log.error("Downloads cannot be kept in %s: %s", folder, error.strerror or type(error).__name__)
    words = "there is no room left on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"{error.strerror or 'it fails'}"
    raise CheckpointError(
        f"{title}: the file cannot be kept in the cache ({words}). Make room there, or set HSEMOTION_CACHE and HF_HOME to another folder."
    ) from error


def _refuse_offline(title: str, damaged: bool) -> None:
    if is_offline():
        state = "is damaged on this machine" if damaged else "is not on this machine"
        raise CheckpointError(f"{title} {state}, and HF_HUB_OFFLINE=1 forbids downloads. Unset it, or pick another checkpoint.")


def _meter(report: Report, expected: int) -> type[tqdm]:
    """Return a progress bar class for the Hub client that draws nothing and reports."""

    class Meter(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *_args: object, **options: object) -> None:
            super().__init__(disable=True)
            self.done, self.whole = int(str(options.get("initial") or 0)), int(str(options.get("total") or expected))
            report(self.done, self.whole)

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            report(self.done, self.whole)
            return None

    return Meter
