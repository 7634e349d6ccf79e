"""How publishing goes, in numbers and in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from hsemotion_space.feedback.pace import Breaker


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """How publishing goes.

    Attributes:
        repo: where to.
        saved, sealed, published: records that are here only, on their way, and on the Hub.
        last_commit_s: UTC in seconds since 1970; 0 if there was none.
        error: why the last try failed; empty if it did not.
        breaker: ``open`` while nothing is tried after many failures, ``half-open`` when the next try decides.
        next_try_s: UTC in seconds since 1970; 0 if nothing holds it up.
        erasures: that are not finished on the Hub.
    """

    repo: str
    saved: int
    sealed: int
    published: int
    last_commit_s: float
    error: str
    breaker: Breaker
    next_try_s: float
    erasures: int

    @property
    def words(self) -> str:
        """Sentences for the page and the command line."""
        parts = [f"{self.saved} saved here, {self.sealed} on the way to {self.repo}, {self.published} published."]
        parts += [f"Last commit {_moment(self.last_commit_s)}."] if self.last_commit_s else []
        if self.error:
            parts.append(f"Publishing fails at present: {self.error} What waits stays saved here; next try {_moment(self.next_try_s)}.")
        if self.erasures:
            parts.append(f"{self.erasures} {'erasure is' if self.erasures == 1 else 'erasures are'} not finished there yet.")
        return " ".join(parts)


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
