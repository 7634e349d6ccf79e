"""How much one network, and all together, may upload and open within a time."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsemotion_space.ui.bodies import RequestError

MB: Final = 2**20
LEAST: Final = 64 * 1024  # what an upload counts at least: many small files fill a disk too
LOOK_EVERY_BYTES: Final = 4 * MB  # of an upload, between two looks at the free space
NO_SPACE: Final = (
    "The server has no room for files at the moment. Try again in a few minutes; corrections are still taken."
)


@dataclass(slots=True)
class Upload:
    """An upload while it arrives, then its weight until its file is deleted.

    Attributes:
        client: its network.
        started_s: when it began.
        bytes: what has arrived.
        looked_at: bytes that had arrived when the free space was looked at.
    """

    client: str
    started_s: float
    bytes: int = 0
    looked_at: int = -LOOK_EVERY_BYTES


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How much may be uploaded.

    Attributes:
        window_s: seconds after which the file of an upload is deleted for certain.
        per_client: bytes that one network may send within the window; several visitors can share one.
        together: bytes that everybody may send.
        floor: bytes that must stay free on the disk.
    """

    window_s: float
    per_client: int
    together: int
    floor: int


class UploadQuota:
    """Bytes that arrived within a window, by network and in all, whether or not anything became of them.

    Args:
        folder: where uploads are stored.
        limits: of what arrives.
        clock: seconds that never go back.
    """

    def __init__(
        self, folder: Path, limits: UploadLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.limits, self._clock = folder, limits, clock
        self._uploads: deque[Upload] = deque()
        self._by: Counter[str] = Counter()  # bytes by network
        self._lock = threading.Lock()

    def begin(self, client: str, expected: int) -> Upload:
        """Return a new upload, to which :meth:`add` counts.

        Args:
            client: its network.
            expected: bytes that it is said to have, 0 if that is not known.

        Raises:
            RequestError: if there is no room for so many.
        """
        with self._lock:
            upload = Upload(client, self._clock())
            self._check(upload, LEAST + expected)
            self._uploads.append(upload)
            self._count(upload, LEAST)
            return upload

    def add(self, upload: Upload, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            RequestError: if there is no room for them; they count all the same.
        """
        with self._lock:
            self._count(upload, size)
            self._check(upload, 0)

    def _count(self, upload: Upload, size: int) -> None:
        upload.bytes += size
        self._by[upload.client] += size

    def _check(self, upload: Upload, expected: int) -> None:
        limits, since_s = self.limits, self._clock() - self.limits.window_s
        while self._uploads and self._uploads[0].started_s <= since_s:
            old = self._uploads.popleft()
            self._count(old, -old.bytes)
        self._by += Counter()  # without networks that have nothing any more
        if self._by[upload.client] + expected > limits.per_client:
            first_s = next(
                (one.started_s for one in self._uploads if one.client == upload.client), self._clock()
            )
            text = (
                f"Your network has uploaded all that is taken in {limits.window_s / 60:.0f} minutes,"
                f" {limits.per_client // MB} MB."
            )
            raise RequestError(429, f"{text} Try again in {max(1, round((first_s - since_s) / 60))} minutes.")
        if self._by.total() + expected > limits.together:
            raise RequestError(507, NO_SPACE)
        if upload.bytes - upload.looked_at >= LOOK_EVERY_BYTES:
            upload.looked_at = upload.bytes
            if shutil.disk_usage(self.folder).free - expected < limits.floor:
                raise RequestError(507, NO_SPACE)


class SessionQuota:
    """Sessions that each network has opened within a window.

    A visitor invents the name of a session, and the server keeps state for each.

    Args:
        count: sessions of one network.
        window_s: seconds.
        clock: seconds that never go back.
    """

    def __init__(self, count: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.count, self.window_s, self._clock = count, window_s, clock
        self._seen: dict[str, dict[str, float]] = {}  # by network, by session, when it was first seen
        self._tidied_s = clock()
        self._lock = threading.Lock()

    def use(self, client: str, session: str) -> None:
        """Note a session.

        Raises:
            RequestError: if it is a new one and too many of its network are.
        """
        with self._lock:
            now_s = self._clock()
            if now_s - self._tidied_s > self.window_s:
                self._tidied_s = now_s
                self._seen = {
                    name: left for name, seen in self._seen.items() if (left := self._recent(seen, now_s))
                }
            seen = self._seen.setdefault(client, {})
            if session in seen:
                return
            if len(seen) >= self.count:
                seen = self._seen[client] = self._recent(seen, now_s)
            if len(seen) >= self.count:
                raise RequestError(429, "Your network has opened this page too often. Try again in an hour.")
            seen[session] = now_s

    def _recent(self, seen: dict[str, float], now_s: float) -> dict[str, float]:
        return {session: since_s for session, since_s in seen.items() if now_s - since_s < self.window_s}
