"""The one client of the Hugging Face Hub and other web servers: limited waits, one retry policy."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import httpx2
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hsemotion_space.messages import MessageError

T = TypeVar("T")
TRIES: Final = 3
TIMEOUT_S = 15.0  # without a byte
UPLOAD_TIMEOUT_S = 60.0  # of a commit, or of a request of the library's own uploading threads
LONGEST_WAIT_S: Final = 30.0
TRANSIENT: Final = (408, 412, 429)  # and every status from 500
ANSWER: Final = "the server answers {status}"
ABSENT: Final = (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)
FAILURES: Final = (  # the first that fits is the reason
    ((LocalEntryNotFoundError, httpx2.TimeoutException), "no_answer", "the server does not respond"),
    (ABSENT, "not_found", "it does not exist, or it is private"),
    (OfflineModeIsEnabled, "offline", "HF_HUB_OFFLINE=1 forbids requests"),
    (HFValidationError, "bad_name", "the Hub does not accept this name"),
    (httpx2.HTTPError, "connection", "the connection broke ({kind})"),
    (OSError, "incomplete", "the file arrived incomplete"),  # the client's own check of the length
    (BaseException, "not_understood", "the server's answer is not valid"),
)
sleep = time.sleep  # replaced in tests
_thread = threading.local()
_installing = threading.Lock()


class HubError(MessageError):
    """A request failed; the message is the reason, as a part of a sentence.

    Args:
        template, code, values: as for every MessageError.
        status: of HTTP; 404 for whatever does not exist or is private, 0 if there was no answer.
        wait_s: how long the server asks to wait.
        transient: whether another try may succeed.
    """

    def __init__(
        self,
        template: str,
        *,
        code: str,
        status: int = 0,
        wait_s: float = 0.0,
        transient: bool = True,
        **values: object,
    ) -> None:
        super().__init__(template, code=code, status=status, **values)
        self.status, self.wait_s, self.transient = status, wait_s, transient


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids requests."""
    return constants.is_offline_mode()


@contextmanager
def session(timeout_s: float = 0.0) -> Iterator[None]:
    """Limit every wait of the client library within the block.

    The library by itself waits for a commit that is never answered for ever, and for a busy server as long as
    it is told to, be it hours. Requests of this thread end after ``timeout_s`` without a byte, and with a
    HubError if the server is busy or fails; those of other threads, among them the library's own uploads,
    only get a time limit if they have none.

    Args:
        timeout_s: TIMEOUT_S if it is 0.
    """
    with _installing:
        usual = get_session()
        if _limit not in usual.event_hooks["request"]:
            before, timeout = usual.event_hooks, usual.timeout
            hooks: dict[str, list[Callable[..., object]]] = {
                "request": [*before["request"], _limit],
                "response": [*before["response"], _stop_waiting],
            }
            set_client_factory(
                lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=timeout)
            )
    outside = _timeout_s()
    _thread.timeout_s = timeout_s or TIMEOUT_S
    try:
        yield
    finally:
        _thread.timeout_s = outside


def _timeout_s() -> float:
    """Return the limit of this thread, 0 outside of a session."""
    return float(getattr(_thread, "timeout_s", 0.0))


def _limit(request: httpx2.Request) -> None:
    asked = request.extensions.get("timeout", {}).get("read")
    if _timeout_s() or asked is None:
        request.extensions["timeout"] = httpx2.Timeout(_timeout_s() or UPLOAD_TIMEOUT_S).as_dict()


def _stop_waiting(response: httpx2.Response) -> None:
    if _timeout_s() and _is_transient(response.status_code):
        raise refusal(response)


def _is_transient(status: int) -> bool:
    return status in TRANSIENT or status >= 500


def refusal(response: httpx2.Response) -> HubError:
    """Return the error for an answer that is not a success."""
    status, after = response.status_code, response.headers.get("Retry-After", "")
    wait_s = float(after) if after.isdecimal() else 0.0
    return HubError(
        "the server answers {status}",
        code="status",
        status=status,
        wait_s=wait_s,
        transient=_is_transient(status),
    )


def retry(once: Callable[[], T], timeout_s: float = 0.0) -> T:
    """Return what ``once`` returns; a try that fails for a transient reason is repeated, at most twice.

    Args:
        once: one try, each within a session.
        timeout_s: of the session.

    Raises:
        HubError: the reason of the last try.
        OSError: of the disk.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with session(timeout_s):
                return once()
        except HubError as error:
            failure = error
        except MessageError:
            raise
        except (httpx2.HTTPError, EntryNotFoundError, OSError, RuntimeError, ValueError, KeyError) as error:
            failure = failure_of(error)
        if not failure.transient or attempt == TRIES:
            break
        sleep(min(max(failure.wait_s, 2 ** (attempt - 1) * random.uniform(0.5, 1)), LONGEST_WAIT_S))  # noqa: S311
    raise failure


def failure_of(error: BaseException) -> HubError:
    """Return the failure that an exception of the client library stands for.

    Raises:
        OSError: the error itself if it is one of the disk.
    """
    if isinstance(error, RuntimeError) and error.__cause__:  # an upload in a thread of the library
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, HfHubHTTPError):
        raise error
    if isinstance(error, PermissionError):  # how the client's uploader of large files says it
        failure = HubError(ANSWER, code="status", status=403, transient=False)
    elif isinstance(error, HfHubHTTPError | httpx2.HTTPStatusError) and not isinstance(error, ABSENT):
        failure = refusal(error.response)
    else:
        code, template = next(
            (code, template) for kinds, code, template in FAILURES if isinstance(error, kinds)
        )
        status, transient = (
            404 if code == "not_found" else 0,
            code not in ("not_found", "offline", "bad_name"),
        )
        failure = HubError(template, code=code, status=status, transient=transient, kind=type(error).__name__)
    failure.__cause__ = error
    return failure
