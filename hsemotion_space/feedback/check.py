"""Reading everything again: what is kept here, and what is published, compared with each other."""

from __future__ import annotations

from hsemotion_space.feedback.card import CARD, ERASED, Counts, read_counts, rows_of
from hsemotion_space.feedback.remote import Repository
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of


def check_here(store: FeedbackStore) -> list[str]:
    """Return what is wrong with the records and batches of this database, each of which is read and compared with its digest."""
    before = set(store.notices)
    kept, sealed = store.records(), {batch.id for batch in store.batches()}
    lost = sum(bool(one.batch) and one.batch not in sealed for one in kept)
    problems = [notice for notice in store.notices if notice not in before or "damaged" in notice]
    return problems + ([f"{lost} records belong to a batch that is not there."] if lost else [])


def check_there(store: FeedbackStore, remote: Repository) -> list[str]:
    """Return how the published dataset differs from what it should be.

    Args:
        store: its pushed batches must be there as they were sent.
        remote: repository, within its session.

    Raises:
        FeedbackError: if the Hub does not answer as it should.
    """
    head = remote.head()
    if not head:
        return [f"There is no dataset {remote.repo}."] if store.batches(pushed=True) else []
    found = remote.listing("data", head, recursive=True)
    problems = []
    for batch in (batch for batch in store.batches(pushed=True) if not batch.stale):
        if batch.path not in found:
            problems.append(f"{batch.path} was published and is not there any more.")
        elif not found[batch.path].matches(batch.body):
            problems.append(f"{batch.path} is not what was published.")
    rows = [(path, row) for path in sorted(found) for row in rows_of(remote.read(path, head))]
    readable = {path for path, _ in rows}
    problems += [f"{path} has no row that can be read." for path in sorted(set(found) - readable)]
    gone = set(remote.read(ERASED, head).decode(errors="replace").split()) | store.tombstones()
    back = sum(tombstone_of(row.id) in gone for _, row in rows)
    problems += [f"{back} rows that were erased are there."] if back else []
    twice = len(rows) - len({row.id for _, row in rows})
    problems += [f"{twice} rows are there more than once."] if twice else []
    stated = read_counts(remote.read(CARD, head).decode(errors="replace"))
    counted = Counts.of([row for _, row in rows])
    if stated is None or (stated.records, stated.with_crop) != (counted.records, counted.with_crop):
        problems.append(f"The card does not state the {counted.records} rows that are there.")
    return problems
