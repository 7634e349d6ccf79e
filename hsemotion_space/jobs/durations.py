"""How long jobs of each kind take on this machine, as measured lately."""

from __future__ import annotations

from typing import Final

from hsemotion_space.jobs.requests import Kind

NEWEST_SHARE: Final = 0.3  # of the latest job in the average


class Durations:
    """Exponential averages of seconds by kind of job."""

    def __init__(self) -> None:
        self._average_s: dict[Kind, float] = {}

    def note(self, kind: Kind, seconds: float) -> None:
        """Take a job into account that came to its end."""
        before_s = self._average_s.get(kind, seconds)
        self._average_s[kind] = before_s + NEWEST_SHARE * (seconds - before_s)

    def usual_s(self, kind: Kind) -> float | None:
        """Return what a job of this kind takes; None before one was measured."""
        return self._average_s.get(kind)
