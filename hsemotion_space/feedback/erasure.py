"""Erasing what somebody gave: here at once, then in the published files, their history and the Hub's store of large files."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from hsemotion_space.feedback.card import CARD, ERASED, Counts, counts_in, dataset_card, rows_of
from hsemotion_space.feedback.remote import Repository
from hsemotion_space.feedback.rows import Row, without
from hsemotion_space.feedback.store import Encode, FeedbackStore
from hsemotion_space.feedback.tables import Batch, Erased, tombstone_of

if TYPE_CHECKING:
    from hsemotion_space.feedback.publish import Publisher

WAIT_S: Final = 20.0
NOT_HERE: Final = "this server may not publish at present; `hsemotion-space feedback erase` with a token in HF_TOKEN finishes it"
NOTHING: Final = "Nothing was kept here under this code."
WORDS: Final = {
    "none": "Nothing of it was published.",
    "gone": "What was published of it is gone too: from the dataset, from its history and from its store of files.",
    "pending": "What was published of it is NOT gone yet: {reason}. This is tried again until it is done.",
    "unknown": "Whether something of it was published could NOT be found out yet: {reason}. This is tried again until it is done.",
}
DOWNLOADED: Final = "Copies that others have downloaded cannot be called back; the dataset tells them which rows to remove."


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a wish to be erased.

    Attributes:
        records, pictures: how many were erased here.
        published: ``none`` of them, or whether all that was published is ``gone`` or still ``pending``; ``unknown`` if the Hub could not be
            asked yet.
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
    def words(self) -> str:
        """Sentences for who asked."""
        here = f"{_many(self.records, 'statement')} and {_many(self.pictures, 'picture')} were erased here." if self.records else NOTHING
        if not self.records and self.published == "none":
            return here
        there = WORDS[self.published].format(reason=self.reason.rstrip("."))
        return " ".join([here, there, *([DOWNLOADED] if self.published in ("gone", "pending") else [])])


def _many(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


class _Swap(NamedTuple):
    """A file on the Hub and what takes its place: nothing if ``new`` is empty."""

    old: str
    new: str
    body: bytes


def erase(store: FeedbackStore, contributor: str, publisher: Publisher | None = None, alias: str = "", wait_s: float = WAIT_S) -> Erasure:
    """Erase everything of a contributor here, and on the Hub as far as that can be done now.

    What cannot be done now stays pending and is repeated by the publisher.

    Args:
        store: where it is kept.
        contributor: pseudonym, as in the records.
        publisher: has access to the published dataset; None if there is none.
        alias: SHA-256 of the published pseudonym, if anything was ever published from here or is to be.
        wait_s: how long to wait for the Hub.

    Raises:
        FeedbackError: if it could not be erased even here.
    """
    knows = not alias or (publisher is not None and publisher.knows)
    there = bool(alias) and bool(store.foreign_paths(alias))
    erased = store.erase(contributor, alias if there or not knows else "")
    count, pictures = len(erased.records), erased.pictures
    if not erased.batches and not erased.alias:
        store.finish_erasure(erased.contributor)
        return Erasure(count, pictures, "none")
    reason = NOT_HERE if publisher is None else publisher.settle(erased.contributor, wait_s)
    there = there or bool(erased.batches or erased.files)
    if any(one.contributor == erased.contributor for one in store.pending_erasures()):
        return Erasure(count, pictures, "pending" if there else "unknown", reason or "another server is changing the dataset")
    there = there or (publisher is not None and erased.contributor in publisher.found_there)
    return Erasure(count, pictures, "gone" if there else "none")


def erase_remotely(
    store: FeedbackStore, remote: Repository, encode: Encode, texts: Mapping[str, str], head: str
) -> tuple[list[Batch], str]:
    """Finish the pending erasures on the Hub; doing it again does no harm.

    Files with an erased row are replaced in one commit, their bytes are deleted for good, and the history is squashed.

    Args:
        store: knows the published files as of ``head``; its stale batches are replaced.
        remote: repository, within its session.
        encode: makes the bytes of a batch.
        texts: consent texts by version.
        head: newest commit; empty if there is no repository.

    Returns:
        The batches that took the place of others on the Hub, to be read back, and the commit that was made, empty if none was.

    Raises:
        FeedbackError: if something is left to do; the erasures stay pending then.
    """
    pending = store.pending_erasures()
    names = sorted({batch for one in pending for batch in one.batches})
    replaced = {name: store.replace_batch(name, encode) for name in names}
    fresh = {new.id: new for new in replaced.values() if new is not None}
    old, oid = [store.batch(name) for name in names], ""
    if head:
        unknown = _search(store, remote, head, pending)
        there = {path for folder in {batch.path.rpartition("/")[0] for batch in old} for path in remote.listing(folder, head)}
        gone = [batch.path for batch in old if batch.path in there]
        if gone or unknown:
            swaps = [*unknown, *(_Swap(path, "", b"") for path in gone)]
            new = [batch for batch in fresh.values() if gone and batch.path not in there]
            oid = _replace(store, remote, texts, swaps, new, head=head)
            for batch in new:
                store.mark_pushed(batch.id, oid)
        paths = {batch.path for batch in old}.union(*(one.files for one in store.pending_erasures()))
        if paths:
            remote.forget({batch.sha256 for batch in old}, paths, "Erase rows at the request of their contributors")
    for one in pending:
        store.finish_erasure(one.contributor)
    return [batch for batch in map(store.batch, fresh) if batch.oid and not batch.verified_s], oid


def _search(store: FeedbackStore, remote: Repository, head: str, pending: Sequence[Erased]) -> list[_Swap]:
    """Find rows to be erased in files that this database does not know, and note the paths for the case of a crash."""
    aliases = {one.alias for one in pending if one.alias}
    swaps = []
    for one in pending:
        if one.alias and (paths := store.foreign_paths(one.alias)):
            store.note_files(one, paths)
    for path in sorted(frozenset[str]().union(*(store.foreign_paths(alias) for alias in aliases))):
        body = remote.read(path, head)
        left = without(body, lambda contributor: tombstone_of(contributor) in aliases)
        store.bury([tombstone_of(row.id) for row in rows_of(body) if tombstone_of(row.contributor) in aliases])
        swaps.append(_Swap(path, f"{path.rpartition('/')[0]}/{uuid.uuid4().hex}.parquet" if left else "", left))
    return swaps


def _replace(
    store: FeedbackStore, remote: Repository, texts: Mapping[str, str], swaps: Sequence[_Swap], fresh: Sequence[Batch], *, head: str
) -> str:
    """Take files away and put others in their place, all in one commit; return its id."""
    before = [row for swap in swaps for row in rows_of(remote.read(swap.old, head))]
    files = {**{swap.new: swap.body for swap in swaps if swap.new}, **{batch.path: batch.body for batch in fresh}}
    after = [row for body in files.values() for row in rows_of(body)]
    lost = {row.contributor for row in before} - {row.contributor for row in after}
    counts = counts_in(remote, head).changed(Counts.of(after), Counts.of(before), -len(lost))
    listed = set(remote.read(ERASED, head).decode(errors="replace").split()) | _erased(store, before)
    files |= {
        CARD: dataset_card(remote.repo, counts, texts).encode(),
        ERASED: "".join(f"{digest}\n" for digest in sorted(listed)).encode(),
    }
    return remote.commit(head, f"Erase rows of {len(swaps)} files", files, [swap.old for swap in swaps])


def _erased(store: FeedbackStore, rows: Sequence[Row]) -> set[str]:
    """Return the tombstones of those rows that were erased; the others come back in other files."""
    return {tombstone_of(row.id) for row in rows} & store.tombstones()
