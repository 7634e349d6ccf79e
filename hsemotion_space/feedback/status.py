"""How publishing goes, in numbers and in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from hsemotion_space.messages import Message


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """How publishing goes.

    Attributes:
        repo: where to.
        saved, sealed, published: records that are here only, on their way, and on the Hub.
        last_commit_s: UTC in seconds since 1970; 0 if there was none.
        error: why the last try failed; empty if it did not.
        next_try_s: UTC in seconds since 1970; 0 if nothing holds it up.
        erasures: that are not finished on the Hub.
    """

    repo: str
    saved: int
    sealed: int
    published: int
    last_commit_s: float
    error: str
    next_try_s: float
    erasures: int

    @property
    def message(self) -> Message:
        """Sentences for the page and the command line."""
        template = "{saved} saved on this server, {sealed} being uploaded to {repo}, {published} published."
        parts = [
            Message(template, saved=self.saved, sealed=self.sealed, repo=self.repo, published=self.published)
        ]
        parts += (
            [Message("Last commit: {time}.", time=_moment(self.last_commit_s))] if self.last_commit_s else []
        )
        if self.error:
            parts.append(Message("Publishing fails: {reason}", reason=self.error))
            parts.append(
                Message(
                    "Unpublished corrections stay on this server; next attempt: {time}.",
                    time=_moment(self.next_try_s),
                )
            )
        if self.erasures:
            template = "{count} erasure is pending on the Hub."
            if self.erasures > 1:
                template = "{count} erasures are pending on the Hub."
            parts.append(Message(template, count=self.erasures))
        return Message.joined(parts)


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
