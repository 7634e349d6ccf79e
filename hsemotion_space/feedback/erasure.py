"""Erasing what somebody gave: here at once, then in the published files, their history and the Hub's store of large files."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
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
WORDS: Final = {
    "none": "Nothing of {them} was published.",
    "gone": "{They} also gone from the published dataset, from its history and from its store of files.",
    "absent": "The published dataset was searched and has nothing more of {them}.",
    "pending": "What was published of {them} is NOT gone yet: {reason}. This is tried again until it is done.",
}
DOWNLOADED: Final = "Copies that others have downloaded cannot be called back; the dataset tells them which rows to remove."


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a wish to be erased.

    Attributes:
        records: how many were erased here.
        published: ``none`` of them, or whether all that was published is ``gone`` or still ``pending``; ``absent`` if the Hub was searched
            for rows that this database does not know, and had none.
        reason: why it is pending.
    """

    records: int
    published: Literal["none", "gone", "absent", "pending"]
    reason: str = ""

    @property
    def words(self) -> str:
        """Sentences for who asked."""
        one = self.records == 1
        here = f"{self.records} {'statement is' if one else 'statements are'} erased here, with {'its picture' if one else 'the pictures'}."
        they, them = ("It is", "it") if one else ("They are", "them")
        there = WORDS[self.published].format(They=they, them=them, reason=self.reason.rstrip("."))
        return " ".join([here, there, *([DOWNLOADED] if self.published in ("gone", "pending") else [])])


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
        alias: SHA-256 of the published pseudonym, if the Hub may have rows that this database does not know, because it was lost once.
        wait_s: how long to wait for the Hub.

    Raises:
        FeedbackError: if it could not be erased even here.
    """
    erased = store.erase(contributor, alias)
    count = len(erased.records)
    if not erased.batches and not erased.alias:
        store.finish_erasure(erased.contributor)
        return Erasure(count, "none")
    reason = NOT_HERE if publisher is None else publisher.settle(wait_s)
    if any(one.contributor == erased.contributor for one in store.pending_erasures()):
        return Erasure(count, "pending", reason or "another server is changing the dataset at the moment")
    return Erasure(count, "gone" if erased.batches or (publisher and erased.contributor in publisher.searched_out) else "absent")


def foreign_files(store: FeedbackStore, remote: Repository, head: str) -> list[str]:
    """Return the paths of published files that this database does not know, because it was lost once or others publish there too."""
    known = {batch.path for batch in store.batches()}
    return sorted(path for path in remote.listing("data", head, recursive=True) if path.endswith(".parquet") and path not in known)


def erase_remotely(
    store: FeedbackStore, remote: Repository, encode: Encode, texts: Mapping[str, str]
) -> tuple[list[Batch], Collection[str]]:
    """Finish the pending erasures on the Hub; doing it again does no harm.

    Files with an erased row are replaced in one commit, their bytes are deleted for good, and the history is squashed.

    Args:
        store: its stale batches are replaced.
        remote: repository, within its session.
        encode: makes the bytes of a batch.
        texts: consent texts by version.

    Returns:
        The batches that took the place of others on the Hub, to be read back, and the contributors (as in ``Erased``) of whom rows were
        found that this database did not know.

    Raises:
        FeedbackError: if something is left to do; the erasures stay pending then.
    """
    pending = store.pending_erasures()
    names = sorted({batch for one in pending for batch in one.batches})
    aliases = {one.alias for one in pending if one.alias}
    replaced = {name: store.replace_batch(name, encode) for name in names}
    fresh = {new.id: new for new in replaced.values() if new is not None}
    old = [store.batch(name) for name in names]
    found: set[str] = set()
    if (names or aliases) and (head := remote.head()):
        unknown = _search(store, remote, head, pending) if aliases else []
        there = {path for folder in {batch.path.rpartition("/")[0] for batch in old} for path in remote.listing(folder, head)}
        gone = [batch.path for batch in old if batch.path in there]
        if gone or unknown:
            swaps = [*unknown, *(_Swap(path, "", b"") for path in gone)]
            new = [batch for batch in fresh.values() if gone and batch.path not in there]
            oid = _replace(store, remote, texts, swaps, new, head=head)
            for batch in new:
                store.mark_pushed(batch.id, oid)
        noted = {one.contributor: one.files for one in store.pending_erasures()}
        found = {contributor for contributor, files in noted.items() if files}
        if names or found:
            paths = {batch.path for batch in old}.union(*noted.values())
            remote.forget({batch.sha256 for batch in old}, paths, "Erase rows at the request of their contributors")
    for one in pending:
        store.finish_erasure(one.contributor)
    return [batch for batch in map(store.batch, fresh) if batch.oid and not batch.verified_s], found


def _search(store: FeedbackStore, remote: Repository, head: str, pending: Sequence[Erased]) -> list[_Swap]:
    """Find files that this database does not know with rows to be erased, and note their paths for the case of a crash."""
    swaps, found = [], {one.contributor: set[str]() for one in pending}
    for path in foreign_files(store, remote, head):
        body = remote.read(path, head)
        there = {tombstone_of(row.contributor) for row in rows_of(body)}
        theirs = [one for one in pending if one.alias in there]
        if theirs:
            aliases = {one.alias for one in theirs}
            store.bury([row.id for row in rows_of(body) if tombstone_of(row.contributor) in aliases])
            left = without(body, lambda contributor, aliases=aliases: tombstone_of(contributor) in aliases)  # type: ignore[misc]
            swaps.append(_Swap(path, f"{path.rpartition('/')[0]}/{uuid.uuid4().hex}.parquet" if left else "", left))
            for one in theirs:
                found[one.contributor].add(path)
    for one in pending:
        if found[one.contributor]:
            store.note_files(one, found[one.contributor])
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
