"""Downloads: bytes are checked against the manifest before use; broken ones resume where they stopped."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from filelock import FileLock
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from tqdm import tqdm

from hsemotion_space.hub import client
from hsemotion_space.hub.client import HubError, is_offline
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, UpstreamSource
from hsemotion_space.messages import Message

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in total, 0 if not known; what it raises stops the download."""

CHUNK: Final = 2**18
log = logging.getLogger(__name__)


def silent(_done: int, _total: int) -> None:
    """Report to nobody."""


def cached_on_hub(source: HubSource, filename: str) -> Path | None:
    """Return where the Hub client keeps a file, or None; makes no request and does not look into the file."""
    with suppress(OSError):  # a cache that cannot be read has nothing
        found = try_to_load_from_cache(source.repo, filename, revision=source.revision)
        return Path(found) if isinstance(found, str) else None
    return None


def file_exists(file: Path) -> bool:
    """Whether a file is there; one that cannot be reached is not."""
    try:
        return file.is_file()
    except OSError:
        return False


def from_hub(title: str, source: HubSource, filename: str, digest: Digest, report: Report = silent) -> bytes:
    """Return a file of a model repository; a good copy in the client's cache is returned without a request.

    Raises:
        CheckpointError: if the file cannot be downloaded; wrong bytes are never returned.
    """
    content = _cached(cached := cached_on_hub(source, filename), digest)
    if content is not None:
        return content
    _refuse_offline(title, damaged=cached is not None)
    stale = cached is not None
    meter = _meter(report, digest.size_bytes)

    def once() -> bytes:
        nonlocal stale
        report(0, digest.size_bytes)
        _ask(source, filename)
        path = hf_hub_download(
            source.repo,
            filename,
            revision=source.revision,
            token=False,
            force_download=stale,
            tqdm_class=meter,
        )
        stale = True
        return Path(path).read_bytes()

    place = Message("{file} of {repo} on the Hugging Face Hub", file=filename, repo=source.repo)
    with _disk_errors(title, Path(constants.HF_HUB_CACHE)):
        return _download(title, place, digest.matches, once)


def _cached(file: Path | None, digest: Digest) -> bytes | None:
    """Return the content of a file of this machine if it is the right one; one that cannot be read is not."""
    with suppress(OSError):
        if file is not None and file.is_file() and digest.matches(content := file.read_bytes()):
            return content
    return None


def _ask(source: HubSource, filename: str) -> None:
    """Request the file's head once; the download itself would retry for minutes and hide the failure."""
    url = hf_hub_url(source.repo, filename, revision=source.revision)
    if get_hf_file_metadata(url, token=False, timeout=client.TIMEOUT_S).commit_hash != source.revision:
        raise HubError("the answer does not come from the Hub", code="not_the_hub")


def from_upstream(title: str, source: UpstreamSource, folder: Path, report: Report = silent) -> bytes:
    """Return a file that its authors published, from ``folder`` or from its address.

    A file whose digest nobody knows is not cached, and only its length is checked; what reads it must check
    the rest.

    Raises:
        CheckpointError: if the file cannot be downloaded; bytes that contradict a known digest are never
            returned.
    """
    target = upstream_file(source, folder)
    if (content := _cached(target, source.digest)) is not None:
        return content
    _refuse_offline(title, damaged=source.digest.known and file_exists(target))
    report(0, source.digest.size_bytes)
    place = Message("{file} at {page}", file=source.filename, page=source.page or source.url)
    with _disk_errors(title, folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not source.digest.known:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                return _download(title, place, bool, lambda: _get(source, Path(scratch) / "download", report))
        with FileLock(f"{target}.lock"):
            if (content := _cached(target, source.digest)) is not None:
                return content  # another process was faster
            partial = target.with_name(f"{target.name}.part")
            content = _download(title, place, source.digest.matches, lambda: _get(source, partial, report))
            partial.replace(target)
            return content


def upstream_file(source: UpstreamSource, folder: Path) -> Path:
    """Return where a published file is cached: under its digest, so that versions have different names."""
    return folder / f"{source.digest.sha256 or source.digest.git_blob_sha1}-{source.filename}"


def _get(source: UpstreamSource, partial: Path, report: Report) -> bytes:
    """Download into the partial file, after what is there already, and return its content."""
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    with get_session().stream("GET", source.url, headers=headers, follow_redirects=True) as response:
        if response.status_code == 416:  # the partial file is as long as the whole one, or longer
            partial.unlink(missing_ok=True)
            raise HubError("the partial file does not fit", code="bad_partial")
        if response.status_code not in (200, 206):
            raise client.refusal(response)
        with partial.open("ab" if response.status_code == 206 else "wb") as file:
            length = int(response.headers.get("Content-Length", 0))
            _write(response.iter_bytes(CHUNK), file, source.digest.size_bytes, length, report)
    content = partial.read_bytes()
    if source.digest.known and not source.digest.matches(content):
        partial.unlink()
    return content


def _write(chunks: Iterator[bytes], file: BinaryIO, expected: int, length: int, report: Report) -> None:
    done = file.tell()
    total = expected or done + length
    report(done, total)
    for chunk in chunks:
        file.write(chunk)
        done += len(chunk)
        report(done, total)
        if expected and done > expected:
            break  # cannot be the file; its digest will tell
    file.flush()
    os.fsync(file.fileno())


def _download(
    title: str, place: Message, is_right: Callable[[bytes], bool], once: Callable[[], bytes]
) -> bytes:
    """Try until the right bytes arrive."""

    def checked() -> bytes:
        if not is_right(content := once()):
            raise HubError("the downloaded bytes do not match the digest in the manifest", code="wrong_bytes")
        return content

    try:
        return client.retry(checked)
    except HubError as error:
        values = {"title": title, "place": place}
        if error.status == 404:
            raise CheckpointError(
                "{title}: {place} does not exist or is private. Correct [source] in its manifest.",
                code="not_found",
                **values,
            ) from error
        if not error.transient:
            raise CheckpointError(
                "{title}: {place} answers {status}. Correct [source] in its manifest, or select another"
                " checkpoint.",
                code="refused",
                status=error.status,
                **values,
            ) from error
        raise CheckpointError(
            "{title}: {place} could not be downloaded: {reason}. Try again in a few minutes, or select"
            " another checkpoint.",
            code=error.code,
            reason=error.message,
            **values,
        ) from error


@contextmanager
def _disk_errors(title: str, folder: Path) -> Iterator[None]:
    """Say what to do; only the log names the folder, as visitors of the page read the sentence too."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        log.error("Downloads cannot be saved in %s: %s", folder, error.strerror or type(error).__name__)
        raise CheckpointError(
            "{title}: the file cannot be saved in the cache ({reason}). Free some space, or set"
            " HSEMOTION_CACHE and HF_HOME to another folder.",
            code="disk",
            title=title,
            reason=Message("the disk is full") if full else error.strerror or type(error).__name__,
        ) from error


def _refuse_offline(title: str, damaged: bool) -> None:
    if is_offline():
        raise CheckpointError(
            (
                "{title} is damaged on this machine, and HF_HUB_OFFLINE=1 forbids downloads. Unset it, or"
                " select another checkpoint."
                if damaged
                else (
                    "{title} is not on this machine, and HF_HUB_OFFLINE=1 forbids downloads. Unset it, or"
                    " select another checkpoint."
                )
            ),
            code="damaged_offline" if damaged else "offline",
            title=title,
        )


def _meter(report: Report, expected: int) -> type[tqdm]:
    """Return a progress bar class for the Hub client that draws nothing and reports."""

    class Meter(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *_args: object, **options: object) -> None:
            super().__init__(disable=True)
            self.done, self.whole = (
                int(str(options.get("initial") or 0)),
                int(str(options.get("total") or expected)),
            )
            report(self.done, self.whole)

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            report(self.done, self.whole)
            return None

    return Meter
