"""How often corrections may be sent, and codes and tokens tried, by one network and by all together."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.messages import Message

Entry: TypeAlias = tuple[float, str]
"""When, and by which client."""

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86400


@dataclass(frozen=True, slots=True)
class Rule:
    """At most ``count`` within any ``window_s`` seconds, which are at most a day."""

    count: int
    window_s: int


PER_CLIENT: Final = (Rule(5, MINUTE_S), Rule(50, DAY_S))
TOTAL: Final = (Rule(600, HOUR_S),)
ANSWERS_PER_CLIENT: Final = (Rule(40, MINUTE_S), Rule(600, DAY_S))
ANSWERS_TOTAL: Final = (Rule(3000, HOUR_S),)
"""For answers of annotators, who give many under one receipt code; a code that is new is counted by the rules
above besides."""
ATTEMPTS_PER_CLIENT: Final = (Rule(10, MINUTE_S), Rule(60, HOUR_S))
ATTEMPTS_TOTAL: Final = (Rule(1000, HOUR_S),)
"""For receipt codes and tokens that are not right; a client alone takes at most 6 % of what all may try."""

CORRECTION_LIMIT: Final = (
    "Your network has reached the limit for corrections.",
    "The server is receiving too many corrections.",
)
CODE_LIMIT: Final = (
    "Your network has sent too many invalid codes.",
    "The server is receiving too many invalid codes.",
)
"""Messages for a client over its limit, and for everybody over the common limit."""
UNITS: Final = ((HOUR_S, "{count} hour", "{count} hours"), (MINUTE_S, "{count} minute", "{count} minutes"))
SECONDS: Final = (1, "{count} second", "{count} seconds")


class Limits:
    """Counts what is sent. At most a day of it is remembered, which the rule for all together bounds.

    Args:
        clock: seconds that never go back, whatever is done to the time of day.
        per_client, total: rules.
        messages: for a client over its limit, and for everybody over the common limit.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        per_client: Sequence[Rule] = PER_CLIENT,
        total: Sequence[Rule] = TOTAL,
        messages: tuple[str, str] = CORRECTION_LIMIT,
    ) -> None:
        self._clock, self._per_client, self._total, self._messages = clock, per_client, total, messages
        self._all: deque[Entry] = deque()
        self._of: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()

    def acquire(self, client: str) -> float:
        """Count one; return its time, by which it can be given back.

        Raises:
            FeedbackError: if it is one too many, which is not counted; the message says when to try again.
        """
        with self._lock:
            now = self._clock()
            self._expire(now - DAY_S)
            _check(self._of.get(client, []), self._per_client, now, self._messages[0])
            _check(self._all, self._total, now, self._messages[1])
            self._of.setdefault(client, []).append((now, client))
            self._all.append((now, client))
            return now

    def release(self, client: str, taken: float) -> None:
        """Take back what :meth:`acquire` counted."""
        with self._lock:
            if (taken, client) in self._of.get(client, []):
                self._all.remove((taken, client))
                self._remove((taken, client))

    def __len__(self) -> int:
        """Return the number of entries in memory."""
        return len(self._all)

    def _expire(self, before: float) -> None:
        while self._all and self._all[0][0] <= before:
            self._remove(self._all.popleft())

    def _remove(self, entry: Entry) -> None:
        _, client = entry
        self._of[client].remove(entry)
        if not self._of[client]:
            del self._of[client]


def _check(entries: Sequence[Entry], rules: Sequence[Rule], now: float, message: str) -> None:
    waits = [entries[-rule.count][0] + rule.window_s - now for rule in rules if len(entries) >= rule.count]
    if waits and max(waits) > 0:
        raise FeedbackError(
            "{limit} Try again in {time}.", code="limit", limit=Message(message), time=_duration(max(waits))
        )


def _duration(wait_s: float) -> Message:
    """Return a time rounded up to whole units, the largest that it is longer than."""
    size, singular, plural = next((unit for unit in UNITS if wait_s > unit[0]), SECONDS)
    count = math.ceil(wait_s / size)
    return Message(singular if count == 1 else plural, count=count)


UNKNOWN: Final = "unknown"
"""Stands for everything that is no address, so that inventing some makes nobody a new client."""
CUSTOMER_BITS: Final = 64
"""Length of the prefix that one customer of IPv6 has at least to themselves."""


def network_of(address: str) -> str:
    """Return the network of an address: an IPv4 address itself, also if mapped into IPv6; else its /64.

    A zone (``%eth0``) is left out, a network stays what it is, and everything else is ``UNKNOWN``.
    """
    try:
        parsed = ip_address(address.strip().partition("%")[0].partition("/")[0])
    except ValueError:
        return UNKNOWN
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), CUSTOMER_BITS), strict=False))
