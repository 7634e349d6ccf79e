"""Erasure: here at once, then in the published files, their history and the Hub's large-file store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from sqlalchemy import delete, select

from hsemotion_space.feedback.card import CARD, ERASED, dataset_card
from hsemotion_space.feedback.dataset import encode, record_ids
from hsemotion_space.feedback.queries import (
    add_tombstones,
    discard_batches,
    erasures,
    mark_stale,
    put_erasure,
    remove,
)
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.repository import Repository
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import (
    BATCHES,
    ERASURES,
    RECORDS,
    TOMBSTONES,
    Batch,
    PendingErasure,
    batch_of,
    tombstone_of,
)
from hsemotion_space.messages import Message

NO_ACCESS: Final = Message(
    "This server has no access to the dataset; its operator completes the erasure with "
    "`hsemotion-space feedback erase` and a token in HF_TOKEN."
)
OTHER_SERVER: Final = Message("Another server is changing the dataset.")
NO_CORRECTIONS: Final = Message("No corrections were saved with this code.")
CORRECTIONS: Final = ("no corrections", "{count} correction", "{count} corrections")
IMAGES: Final = ("no images", "{count} image", "{count} images")
ERASED_COUNTS: Final = "{records} and {images} were erased from this server."
RETRIES: Final = "The server retries until the erasure is complete."
OUTCOMES: Final = {
    "none": ("Nothing was published.",),
    "gone": ("The published rows were also erased from the dataset, its history and its file storage.",),
    "pending": ("The published rows are NOT erased yet. {reason}", RETRIES),
    "unknown": ("It is NOT known yet whether rows were published. {reason}", RETRIES),
}
DOWNLOADED: Final = "Downloaded copies cannot be recalled; the dataset lists the rows to remove from them."


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a wish to be erased.

    Attributes:
        records, pictures: how many were erased here.
        published: ``none`` of them, or whether all that was published is ``gone`` or still ``pending``;
            ``unknown`` if the Hub could not be asked yet.
        reason: why it is pending or unknown.
    """

    records: int
    pictures: int
    published: Literal["none", "gone", "pending", "unknown"]
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.published in ("none", "gone")

    @property
    def message(self) -> Message:
        """Sentences for who asked."""
        if not self.records and self.published == "none":
            return NO_CORRECTIONS
        count = Message(
            ERASED_COUNTS, records=_count(self.records, CORRECTIONS), images=_count(self.pictures, IMAGES)
        )
        published = [Message(template, reason=self.reason) for template in OUTCOMES[self.published]]
        downloaded = [Message(DOWNLOADED)] if self.published in ("gone", "pending") else []
        return Message.joined([count if self.records else NO_CORRECTIONS, *published, *downloaded])


def _count(count: int, templates: tuple[str, str, str]) -> Message:
    return Message(templates[min(count, 2)], count=count)


def erase_locally(store: FeedbackStore, contributor: str, *, elsewhere: bool = False) -> PendingErasure:
    """Remove everything of a contributor, so that no byte of it is left in the files of this database.

    Batches with a row of theirs lose their bytes and become stale. Asked again, it does again what may not
    have been finished.

    Args:
        store: where it is kept.
        contributor: pseudonym.
        elsewhere: whether the Hub may have rows that this database does not know yet; the erasure stays
            pending then.

    Raises:
        FeedbackError: if it could not be done.
    """
    key = tombstone_of(contributor)
    with store.database.writing() as connection:
        theirs = select(RECORDS.c.id).where(RECORDS.c.contributor == contributor).order_by(RECORDS.c.number)
        records = tuple(connection.scalars(theirs))
        batches, pictures = remove(connection, records)
        mark_stale(connection, batches)
        earlier = next((erasure for erasure in erasures(connection) if erasure.contributor == key), None)
        erased = earlier or PendingErasure(key, float(store.clock()), ())
        erased = replace(erased, batches=tuple(sorted(batches.union(erased.batches))))
        if records or earlier or elsewhere:
            put_erasure(connection, erased, scrubbed=not records)
    store.database.scrub_pending()
    return replace(erased, records=records, pictures=pictures)


def pending_erasures(store: FeedbackStore) -> list[PendingErasure]:
    """Return the erasures that are not finished on the Hub, the oldest first."""
    with store.database.reading() as connection:
        return erasures(connection)


def complete_erasure(store: FeedbackStore, key: str) -> None:
    """Note that an erasure is finished everywhere; ``key`` is ``PendingErasure.contributor``."""
    store.database.scrub_pending()
    with store.database.writing() as connection:
        connection.execute(delete(ERASURES).where(ERASURES.c.contributor == key))


def tombstones(store: FeedbackStore) -> frozenset[str]:
    """Return what is kept of the ids of erased records: :func:`tombstone_of` each."""
    with store.database.reading() as connection:
        return frozenset(connection.scalars(select(TOMBSTONES.c.digest)))


def apply_tombstones(store: FeedbackStore, digests: Collection[str]) -> None:
    """Erase what tombstones from elsewhere name, so that it cannot come back; this store may be old."""
    with store.database.writing() as connection:
        new = add_tombstones(connection, digests)
        deleted = (
            [name for name in connection.scalars(select(RECORDS.c.id)) if tombstone_of(name) in new]
            if new
            else []
        )
        batches, _ = remove(connection, deleted)
        discard_batches(connection, batches)
    if deleted:
        store.database.scrub()


def erase_everywhere(
    store: FeedbackStore,
    contributor: str,
    finish_erasures: Callable[[str], tuple[str, bool]] | None,
    *,
    publishes: bool,
    restored: bool,
) -> Erasure:
    """Erase everything of a contributor here, and on the Hub as far as that can be done now.

    What cannot be done now stays pending and is repeated by the publisher.

    Args:
        store: where it is kept.
        contributor: pseudonym.
        finish_erasures: finishes the pending erasure of a key on the Hub, as ``Publisher.finish_erasures``;
            None without access.
        publishes: whether anything was ever published from here or is to be.
        restored: whether this database knows everything that is published.

    Raises:
        FeedbackError: if it could not be erased even here.
    """
    erased = erase_locally(store, contributor, elsewhere=publishes and not restored)
    count, pictures, key = len(erased.records), erased.pictures, erased.contributor
    if not erased.batches and (restored or not publishes):
        complete_erasure(store, key)
        return Erasure(count, pictures, "none")
    reason, found = finish_erasures(key) if finish_erasures is not None else (NO_ACCESS, False)
    left = [erasure for erasure in pending_erasures(store) if erasure.contributor == key]
    there = found or bool(erased.batches or (left and left[0].batches))
    if left:
        return Erasure(count, pictures, "pending" if there else "unknown", reason or OTHER_SERVER)
    return Erasure(count, pictures, "gone" if there else "none")


def erase_on_hub(
    store: FeedbackStore, remote: Repository, texts: Mapping[str, str], head: str
) -> tuple[list[Batch], str]:
    """Finish the pending erasures on the Hub; doing it again does no harm.

    Files with an erased row are replaced in one commit, their bytes are deleted for good, and the history is
    squashed.

    Args:
        store: knows the published files as of ``head``; its stale batches are replaced.
        remote: repository, within its session.
        texts: consent texts by version.
        head: newest commit; empty if there is no repository.

    Returns:
        The batches that took the place of others on the Hub, to be read back, and the commit that was made,
        empty if none was.

    Raises:
        FeedbackError: if something is left to do; the erasures stay pending then.
    """
    pending = pending_erasures(store)
    names = {batch for erasure in pending for batch in erasure.batches}
    old = [batch for batch in _stale(store) if batch.id in names]
    replaced = [store.replace_batch(batch.id, encode) for batch in old]
    fresh, oid = {new.id: new for new in replaced if new is not None}, ""
    if head and names:
        folders = {batch.path.rpartition("/")[0] for batch in [*old, *fresh.values()]}
        there = {path for folder in folders for path in remote.listing(folder, head)}
        if deleted := [batch.path for batch in old if batch.path in there]:
            new = [batch for batch in fresh.values() if batch.path not in there]
            oid = _replace(store, remote, texts, deleted, new, head=head)
            for batch in new:
                store.mark_pushed(batch.id, oid)
        remote.delete_permanently(
            {batch.sha256 for batch in old},
            {batch.path for batch in old},
            "Erase rows at the request of their contributors",
        )
    for erasure in pending:
        complete_erasure(store, erasure.contributor)
    return [batch for batch in map(store.batch, fresh) if batch.oid and not batch.verified_s], oid


def _stale(store: FeedbackStore) -> list[Batch]:
    """Return the batches with erased rows, in the order of sealing."""
    with store.database.reading() as connection:
        rows = connection.execute(select(BATCHES).where(BATCHES.c.stale).order_by(BATCHES.c.number))
        return [batch_of(row) for row in rows.mappings()]


def _replace(
    store: FeedbackStore,
    remote: Repository,
    texts: Mapping[str, str],
    deleted: Collection[str],
    fresh: Collection[Batch],
    *,
    head: str,
) -> str:
    """Take files away and put others in their place, all in one commit; return its id."""
    before = {tombstone_of(name) for path in deleted for name in _ids_in(remote.read(path, head))}
    listed = set(remote.read(ERASED, head).decode(errors="replace").split()) | (before & tombstones(store))
    files = {batch.path: batch.body for batch in fresh}
    files |= {
        CARD: dataset_card(remote.repo, store.published([batch.id for batch in fresh]), texts).encode(),
        ERASED: "".join(f"{digest}\n" for digest in sorted(listed)).encode(),
    }
    return remote.commit(head, f"Erase rows of {len(deleted)} files", files, deleted)


def _ids_in(body: bytes) -> Collection[str]:
    """Return the ids in a file of the repository; none if somebody put something else there."""
    try:
        return record_ids(body)
    except FeedbackError:
        return ()
