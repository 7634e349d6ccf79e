"""When to retry after a failure: random waits that grow with each one, and a break after several."""

from __future__ import annotations

import random
from typing import Final

from hsemotion_space.feedback.repository import MAX_RETRY_AFTER_S

SHORTEST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 900.0
BREAK_AFTER: Final = 5  # failures in a row
BREAK_S: Final = 300.0


class Backoff:
    """When to try again, and why.

    Attributes:
        failures: in a row.
        error: of the last try; empty if it succeeded.
        next_try_s: UTC in seconds since 1970; 0 if nothing holds it up.
    """

    def __init__(self) -> None:
        self.failures, self.error, self.next_try_s = 0, "", 0.0

    def allows(self, now_s: float) -> bool:
        """Return whether it is time for a try; a clock that was put back stops nothing."""
        return not 0 < self.next_try_s - now_s <= MAX_RETRY_AFTER_S

    def failed(self, error: str, now_s: float, retry_after_s: float) -> None:
        """Record a failure and draw the time of the next try, at least ``retry_after_s`` from now."""
        self.failures += 1
        self.error = error
        most_s = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2 ** min(self.failures, 20))
        least_s = BREAK_S if self.failures >= BREAK_AFTER else SHORTEST_WAIT_S
        self.next_try_s = now_s + max(random.uniform(0, most_s), least_s, retry_after_s)  # noqa: S311

    def succeeded(self) -> None:
        """Note that all is well."""
        self.failures, self.error, self.next_try_s = 0, "", 0.0
