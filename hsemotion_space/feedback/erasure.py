"""Erasing what somebody gave: here at once, then in the published files, their history and the Hub's store of large files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from hsemotion_space.feedback.card import CARD, ERASED, Counts, counts_in, dataset_card, rows_of
from hsemotion_space.feedback.remote import Repository
from hsemotion_space.feedback.store import Encode, FeedbackStore
from hsemotion_space.feedback.tables import Batch, tombstone_of

if TYPE_CHECKING:
    from hsemotion_space.feedback.publish import Publisher

WAIT_S: Final = 20.0
NOT_HERE: Final = "this server may not publish at present; `hsemotion-space feedback erase` with a token in HF_TOKEN finishes it"
WORDS: Final = {
    "none": "Nothing of {them} was published.",
    "gone": "{They} also gone from the published dataset, from its history and from its store of files.",
    "pending": "What was published of {them} is NOT gone yet: {reason}. This is tried again until it is done.",
}
DOWNLOADED: Final = "Copies that others have downloaded cannot be called back; the dataset tells them which rows to remove."


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a wish to be erased.

    Attributes:
        records: how many were erased here.
        published: ``none`` of them, or whether all that was published is ``gone`` or still ``pending``.
        reason: why it is pending.
    """

    records: int
    published: Literal["none", "gone", "pending"]
    reason: str = ""

    @property
    def words(self) -> str:
        """Sentences for who asked."""
        one = self.records == 1
        here = f"{self.records} {'statement is' if one else 'statements are'} erased here, with {'its picture' if one else 'the pictures'}."
        they, them = ("It is", "it") if one else ("They are", "them")
        there = WORDS[self.published].format(They=they, them=them, reason=self.reason.rstrip("."))
        return " ".join([here, there] if self.published == "none" else [here, there, DOWNLOADED])


def erase(store: FeedbackStore, contributor: str, publisher: Publisher | None = None, wait_s: float = WAIT_S) -> Erasure:
    """Erase everything of a contributor here, and on the Hub as far as that can be done now.

    What cannot be done now stays pending and is repeated by the publisher.

    Args:
        store: where it is kept.
        contributor: pseudonym, as in the records.
        publisher: has access to the published dataset; None if there is none.
        wait_s: how long to wait for the Hub.

    Raises:
        FeedbackError: if it could not be erased even here.
    """
    erased = store.erase(contributor)
    count = len(erased.records)
    if not erased.batches:
        store.finish_erasure(erased.contributor)
        return Erasure(count, "none")
    reason = NOT_HERE if publisher is None else publisher.settle(wait_s)
    if any(one.contributor == erased.contributor for one in store.pending_erasures()):
        return Erasure(count, "pending", reason or "it was not this server's turn")
    return Erasure(count, "gone")


def erase_remotely(store: FeedbackStore, remote: Repository, encode: Encode, texts: Mapping[str, str]) -> list[Batch]:
    """Finish the pending erasures on the Hub; doing it again does no harm.

    Files with an erased row are replaced in one commit, their bytes are deleted for good, and the history is squashed.

    Args:
        store: its stale batches are replaced.
        remote: repository, within its session.
        encode: makes the bytes of a batch.
        texts: consent texts by version.

    Returns:
        The batches that took the place of others on the Hub, to be read back.

    Raises:
        FeedbackError: if something is left to do; the erasures stay pending then.
    """
    pending = store.pending_erasures()
    names = sorted({batch for one in pending for batch in one.batches})
    replaced = {name: store.replace_batch(name, encode) for name in names}
    pushed: list[Batch] = []
    if names and (head := remote.head()):
        old = [store.batch(name) for name in names]
        pushed = _replace(store, remote, texts, head, [(batch, replaced[batch.id]) for batch in old])
        remote.forget({batch.sha256 for batch in old}, {batch.path for batch in old}, "Erase rows at the request of their contributors")
    for one in pending:
        store.finish_erasure(one.contributor)
    return pushed


def _replace(
    store: FeedbackStore,
    remote: Repository,
    texts: Mapping[str, str],
    head: str,
    pairs: Sequence[tuple[Batch, Batch | None]],
) -> list[Batch]:
    """Put new files in the place of the old ones that are there, all in one commit."""
    there = {path for folder in {old.path.rpartition("/")[0] for old, _ in pairs} for path in remote.listing(folder, head)}
    found = [(old, new) for old, new in pairs if old.path in there]
    if not found:
        return []
    fresh = [new for _, new in found if new is not None and not new.stale and new.path not in there]
    before = [row for old, _ in found for row in rows_of(remote.read(old.path, head))]
    after = [row for new in fresh for row in rows_of(new.body)]
    lost = {row.contributor for row in before} - {row.contributor for row in after}
    counts = counts_in(remote, head).changed(Counts.of(after), Counts.of(before), -len(lost))
    listed = set(remote.read(ERASED, head).decode(errors="replace").split())
    listed |= {tombstone_of(name) for name in {row.id for row in before} - {row.id for row in after}}
    files = {
        **{new.path: new.body for new in fresh},
        CARD: dataset_card(remote.repo, counts, texts).encode(),
        ERASED: "".join(f"{digest}\n" for digest in sorted(listed)).encode(),
    }
    oid = remote.commit(head, f"Erase rows of {len(found)} files", files, [old.path for old, _ in found])
    for new in fresh:
        store.mark_pushed(new.id, oid)
    return fresh
