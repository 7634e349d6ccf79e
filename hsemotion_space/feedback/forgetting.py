"""What a store forgets, and what it keeps so that the forgotten does not come back; published rows that it never knew."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from sqlalchemy import delete, insert, not_, select, update

from hsemotion_space.feedback.database import Database
from hsemotion_space.feedback.queries import bury, erasures, is_scrubbed, parts, put_erasure, remove
from hsemotion_space.feedback.tables import BATCHES, CROPS, ERASURES, FOREIGN, RECORDS, TOMBSTONES, Erased, tombstone_of


class Forgetting:
    """The part of a store that is about erasures.

    Args:
        database: open.
        clock: UTC in seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def erase(self, contributor: str, alias: str = "") -> Erased:
        """Remove everything of a contributor, so that no byte of it is left in the files of this database.

        Batches with a row of theirs lose their bytes and become stale. Asked again, it does again what may not have been finished.

        Args:
            contributor: pseudonym, as in the records.
            alias: as in :class:`Erased`.
        """
        key = tombstone_of(contributor)
        with self._database.writing() as connection:
            found = connection.execute(
                select(RECORDS.c.id, RECORDS.c.batch).where(RECORDS.c.contributor == contributor).order_by(RECORDS.c.number)
            ).all()
            earlier = next((one for one in erasures(connection) if one.contributor == key), None)
            erased = earlier or Erased(key, float(self._clock()), ())
            records, batches = tuple(row.id for row in found), {row.batch for row in found if row.batch}
            pictures = remove(connection, records)
            for batch in batches:
                connection.execute(update(BATCHES).where(BATCHES.c.id == batch).values(body=b"", stale=True, error=""))
            erased = replace(erased, batches=tuple(sorted(batches.union(erased.batches))), alias=alias or erased.alias)
            if records or earlier or alias:
                put_erasure(connection, erased, scrubbed=not records and (earlier is None or is_scrubbed(connection, key)))
        self._scrub()
        return replace(erased, records=records, pictures=pictures)

    def erase_records(self, records: Collection[str]) -> None:
        """Remove some records that their contributors erased elsewhere, before a push; the rest of their batches waits again."""
        with self._database.writing() as connection:
            named = tuple(records)
            batches = set(connection.scalars(select(RECORDS.c.batch).where(RECORDS.c.id.in_(named), RECORDS.c.batch.is_not(None))))
            remove(connection, named)
            for batch in batches:
                connection.execute(update(BATCHES).where(BATCHES.c.id == batch).values(body=b"", stale=True, error=""))
                connection.execute(update(RECORDS).where(RECORDS.c.batch == batch).values(state="received", batch=None))

    def withdraw(self, record: str, contributor: str) -> bool:
        """Take back a record that is in no batch yet, with its picture; the same statement can be made again, as there is no tombstone.

        Args:
            record: id.
            contributor: whose it must be.

        Returns:
            Whether it was there to be taken back.
        """
        mine = (RECORDS.c.id == record, RECORDS.c.contributor == contributor, RECORDS.c.state == "received")
        with self._database.writing() as connection:
            if connection.scalar(select(RECORDS.c.number).where(*mine)) is None:
                return False
            connection.execute(delete(CROPS).where(CROPS.c.record == record))
            connection.execute(delete(RECORDS).where(RECORDS.c.id == record))
        return True

    def _scrub(self) -> None:
        """Overwrite what was deleted, if that has not been done yet.

        Raises:
            FeedbackError: if it could not be done; it is tried again at the next start and with the next erasure.
        """
        unscrubbed = select(ERASURES.c.contributor).where(not_(ERASURES.c.scrubbed))
        with self._database.reading() as connection:
            keys = list(connection.scalars(unscrubbed))
        if keys:
            self._database.scrub()
            with self._database.writing() as connection:
                connection.execute(update(ERASURES).where(ERASURES.c.contributor.in_(keys)).values(scrubbed=True))

    def pending_erasures(self) -> list[Erased]:
        """Return the erasures that are not finished elsewhere, the oldest first."""
        with self._database.reading() as connection:
            return erasures(connection)

    def note_files(self, erased: Erased, files: Collection[str]) -> None:
        """Add paths to the files of a pending erasure, before they are replaced on the Hub."""
        with self._database.writing() as connection:
            files = tuple(sorted({*erased.files, *files}))
            put_erasure(connection, replace(erased, files=files), scrubbed=is_scrubbed(connection, erased.contributor))

    def finish_erasure(self, contributor: str) -> None:
        """Note that an erasure is finished everywhere; ``contributor`` is one, or the SHA-256 in an :class:`Erased`."""
        self._scrub()
        with self._database.writing() as connection:
            connection.execute(delete(ERASURES).where(ERASURES.c.contributor.in_([contributor, tombstone_of(contributor)])))

    def tombstones(self) -> frozenset[str]:
        """Return what is kept of the ids of erased records: :func:`tombstone_of` each."""
        with self._database.reading() as connection:
            return frozenset(connection.scalars(select(TOMBSTONES.c.digest)))

    def bury(self, tombstones: Collection[str]) -> None:
        """Add tombstones of records that were erased elsewhere, so that they cannot come back."""
        with self._database.writing() as connection:
            for part in parts(tuple(tombstones)):
                bury(connection, part)

    def foreign_paths(self, alias: str = "") -> frozenset[str]:
        """Return the published files that this database does not know, of one contributor (``Erased.alias``) or all."""
        query = select(FOREIGN.c.path).distinct()
        with self._database.reading() as connection:
            return frozenset(connection.scalars(query.where(FOREIGN.c.alias == alias) if alias else query))

    def index_foreign(self, path: str, rows: Collection[tuple[str, str]]) -> None:
        """Note the rows of a published file that this database does not know: id and published pseudonym of each."""
        hashed = {tombstone_of(record): tombstone_of(pseudonym) for record, pseudonym in rows} or {"": ""}
        with self._database.writing() as connection:
            connection.execute(delete(FOREIGN).where(FOREIGN.c.path == path))
            connection.execute(insert(FOREIGN), [{"path": path, "record": record, "alias": alias} for record, alias in hashed.items()])

    def forget_foreign(self, paths: Collection[str]) -> None:
        """Note that files are not there any more."""
        with self._database.writing() as connection:
            for part in parts(tuple(paths)):
                connection.execute(delete(FOREIGN).where(FOREIGN.c.path.in_(part)))

    def claim_published(self) -> None:
        """Mark waiting records as published that are in a file which this database does not know, as in an old copy of a database."""
        with self._database.writing() as connection:
            waiting = {tombstone_of(name): name for name in connection.scalars(select(RECORDS.c.id).where(RECORDS.c.state == "received"))}
            for part in parts(tuple(waiting)):
                there = connection.scalars(select(FOREIGN.c.record).where(FOREIGN.c.record.in_(part))).all()
                names = [waiting[tombstone] for tombstone in there]
                connection.execute(update(RECORDS).where(RECORDS.c.id.in_(names)).values(state="verified"))
