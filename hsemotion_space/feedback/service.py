"""Everything that taking corrections needs, opened from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hsemotion_space.feedback.consent import TEXTS
from hsemotion_space.feedback.erasure import Erasure, erase
from hsemotion_space.feedback.intake import Intake
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.limits import ANSWERS_PER_CLIENT, ANSWERS_TOGETHER, Limits
from hsemotion_space.feedback.publish import HEAD, Publisher
from hsemotion_space.feedback.quality import known_answers, tiers
from hsemotion_space.feedback.records import FeedbackError, StoredRecord
from hsemotion_space.feedback.rows import Row, encode
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of
from hsemotion_space.settings import ENV_PREFIX, Settings

NO_SECRET = (
    f"To publish to {{repo}}, set {ENV_PREFIX}FEEDBACK_SECRET to some 40 random characters and keep them: with another secret nobody could "
    "erase what they gave any more."
)

NOT_SHARED = (
    f"With a database that several servers share, set {ENV_PREFIX}FEEDBACK_SECRET to the same 40 random characters on each: with different "
    "ones they would not know each other's receipt codes."
)


@dataclass(frozen=True, slots=True)
class Given:
    """What one contributor gave.

    Attributes:
        here: in the store.
        published: rows that only the Hub has, because a disk was lost.
        problem: why these could not be looked up; empty if they were.
    """

    here: Sequence[StoredRecord]
    published: Sequence[Row]
    problem: str = ""


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

    def given(self, code: str) -> Given:
        """Return everything given under a receipt code.

        Raises:
            FeedbackError: if the code is mistyped.
        """
        contributor = self.keys.contributor(code)
        here = self.store.records(contributor=contributor)
        try:
            rows = self.publisher.find(self.keys.pseudonym(contributor)) if self.publisher is not None else ()
        except FeedbackError as error:
            return Given(here, (), str(error))
        return Given(here, [row for row in rows if row.id not in {one.record.id for one in here}])

    def erase(self, code: str) -> Erasure:
        """Erase everything given under a receipt code, here and on the Hub.

        Raises:
            FeedbackError: if the code is mistyped, or it could not be erased even here.
        """
        contributor = self.keys.contributor(code)
        publishes = bool(self.settings.feedback_repo or self.store.get_meta(HEAD))
        return erase(self.store, contributor, self.publisher, tombstone_of(self.keys.pseudonym(contributor)) if publishes else "")

    def tiers(self, records: Sequence[StoredRecord]) -> Mapping[str, str]:
        """Return the tier of every record, by id; ``records`` are all of the store."""
        return tiers(records, known_answers(records))

    @property
    def words(self) -> str:
        """Sentences on how it goes, for the page and the command line."""
        notices = " ".join(self.store.notices)
        if self.publisher is not None:
            state = self.publisher.status().words
        elif self.settings.feedback_repo:
            state = f"{_kept(self.store)} Nothing is published to {self.settings.feedback_repo} at present, as there is no HF_TOKEN."
        else:
            state = f"{_kept(self.store)} Nothing is published from here."
        return f"{state} {notices}".strip()

    def close(self, deadline_s: float = 8.0) -> None:
        """Push what waits, as far as there is time, and close the store."""
        if self.publisher is not None:
            self.publisher.stop(deadline_s)
        self.store.close()


def _kept(store: FeedbackStore) -> str:
    count = sum(store.counts().values())
    return f"{count} saved here."


def open_feedback(settings: Settings, token: str = "", read_only: bool = False) -> Feedback:
    """Open the store of a deployment.

    Args:
        settings: of the deployment.
        token: of the Hub; without one, or without a repository in the settings, nothing is published.
        read_only: do not take the place of the one writer.

    Raises:
        FeedbackError: if the store cannot be opened, or publishing or sharing is asked for without a secret that
            outlives this machine.
    """
    if settings.feedback_repo and token and not settings.feedback_secret:
        raise FeedbackError(NO_SECRET.format(repo=settings.feedback_repo))
    if not database_url(settings).startswith("sqlite") and not settings.feedback_secret:
        raise FeedbackError(NOT_SHARED)
    keys = Keys.from_settings(settings)
    store = FeedbackStore(database_url(settings), read_only=read_only)
    publisher = None
    if settings.feedback_repo and token:
        publisher = Publisher(store, settings.feedback_repo, token, lambda stored: encode(stored, keys.pseudonym), TEXTS)
    answers = Limits(per_client=ANSWERS_PER_CLIENT, together=ANSWERS_TOGETHER)
    return Feedback(settings, keys, store, Intake(store, keys, Limits(), answers=answers), publisher)


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the store."""
    return settings.feedback_database or f"sqlite:///{settings.feedback_data / 'feedback.sqlite'}"
