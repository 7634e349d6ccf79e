"""Everything that taking corrections needs, opened from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hsemotion_space.feedback.consent import texts
from hsemotion_space.feedback.erase import Erasure, erase_everywhere
from hsemotion_space.feedback.intake import Intake
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.limits import ANSWERS_PER_CLIENT, ANSWERS_TOTAL, Limits
from hsemotion_space.feedback.publish import Publisher
from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.sync import HEAD
from hsemotion_space.feedback.tables import Record
from hsemotion_space.feedback.trust import known_answers, tiers
from hsemotion_space.messages import Message
from hsemotion_space.settings import ENV_PREFIX, Settings

SECRET: Final = f"{ENV_PREFIX}FEEDBACK_SECRET"
NEEDS_KEY: Final = (
    "Publishing to {repo} requires a permanent secret. Set {name} to 40 random characters and keep "
    "them: with another secret, contributors cannot erase their rows."
)
NEEDS_SHARED_KEY: Final = (
    "A shared database requires a shared secret. Set {name} to the same 40 random characters on "
    "every server: with different secrets, a server does not recognize the receipt codes of the "
    "others."
)
NOT_RESTORED: Final = Message("The published rows cannot be read at the moment. Try again in a minute.")


@dataclass(frozen=True, slots=True)
class Feedback:
    """An open store with what stands around it.

    Attributes:
        settings: of the deployment.
        keys, store, intake: of this server.
        publisher: None if nothing is published from here.
    """

    settings: Settings
    keys: Keys
    store: FeedbackStore
    intake: Intake
    publisher: Publisher | None

    def contributions(self, code: str) -> tuple[list[Record], str]:
        """Return everything given under a receipt code, and why some of it may be missing, empty if none is.

        Raises:
            FeedbackError: if the code is mistyped.
        """
        contributor = self.keys.contributor(code)
        records: list[Record] = [*self.store.records(contributor=contributor)]
        records += self.store.traces(contributor=contributor)
        return records, "" if self.publisher is None or self.publisher.restored else NOT_RESTORED

    def erase(self, code: str) -> Erasure:
        """Erase everything given under a receipt code, here and on the Hub.

        Raises:
            FeedbackError: if the code is mistyped, or it could not be erased even here.
        """
        publisher = self.publisher
        return erase_everywhere(
            self.store,
            self.keys.contributor(code),
            publisher.finish_erasures if publisher is not None else None,
            publishes=bool(self.settings.feedback_repo or self.store.get_meta(HEAD)),
            restored=publisher is not None and publisher.restored,
        )

    def tiers(self, records: Sequence[FeedbackRecord]) -> Mapping[str, str]:
        """Return the tier of every record, by id; ``records`` are all of the store."""
        return tiers(records, known_answers(records))

    @property
    def message(self) -> Message:
        """Sentences on how it goes, for the page and the command line."""
        repo, count = self.settings.feedback_repo, sum(self.store.counts().values())
        if self.publisher is not None:
            state = [self.publisher.status().message]
        else:
            off = Message("This server does not publish corrections.")
            no_token = Message("Nothing is published to {repo}, because HF_TOKEN is not set.", repo=repo)
            state = [Message("{count} saved on this server.", count=count), no_token if repo else off]
        return Message.joined([*state, *self.store.notices])

    def close(self, deadline_s: float = 8.0) -> None:
        """Push what waits, as far as there is time, and close the store."""
        if self.publisher is not None:
            self.publisher.stop(deadline_s)
        self.store.close()


def open_feedback(settings: Settings, token: str = "", read_only: bool = False) -> Feedback:
    """Open the store of a deployment.

    Args:
        settings: of the deployment.
        token: of the Hub; without one, or without a repository in the settings, nothing is published.
        read_only: do not take the place of the one writer.

    Raises:
        FeedbackError: if the store cannot be opened, or publishing or sharing is asked for without a secret
            that outlives this machine.
    """
    if settings.feedback_repo and token and not settings.feedback_secret:
        raise FeedbackError(NEEDS_KEY, code="no_secret", name=SECRET, repo=settings.feedback_repo)
    if not database_url(settings).startswith("sqlite") and not settings.feedback_secret:
        raise FeedbackError(NEEDS_SHARED_KEY, code="no_secret", name=SECRET)
    keys = Keys.from_settings(settings)
    store = FeedbackStore(database_url(settings), read_only=read_only, pseudonym=keys.pseudonym)
    publisher = None
    if settings.feedback_repo and token:
        publisher = Publisher(store, settings.feedback_repo, token, texts())
    answers = Limits(per_client=ANSWERS_PER_CLIENT, total=ANSWERS_TOTAL)
    return Feedback(settings, keys, store, Intake(store, keys, Limits(), answers=answers), publisher)


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the store."""
    return settings.feedback_database or f"sqlite:///{settings.feedback_data / 'feedback.sqlite'}"
