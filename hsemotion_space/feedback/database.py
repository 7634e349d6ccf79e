"""The open database of the store: checked and migrated at the start, one writer, every commit on the disk."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, func, not_, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from hsemotion_space.feedback.connection import (
    BUSY_TIMEOUT_S,
    CANNOT_OPEN,
    back_up,
    is_damage,
    make_engine,
    parse,
    reason_of,
    remove_copies,
    set_aside,
    take,
)
from hsemotion_space.feedback.migrations import Pseudonym, migrate, newest, version_of
from hsemotion_space.feedback.private import sync
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.tables import ERASURES, METADATA
from hsemotion_space.messages import Message

WRITER_LOCK: Final = 0x68736665
"""Number of the lock by which replicas on PostgreSQL write one after the other."""
HUB_LOCK: Final = WRITER_LOCK + 1
"""Number of the lock by which they change the Hub one at a time."""
NOT_SAVED: Final = "Saving failed: {reason}. Try again later."
FAILURES: Final = (SQLAlchemyError, sqlite3.Error, OSError)


class Database:
    """Connections for reading and for the one writer.

    Attributes:
        notices: what the operator must know, for example that a damaged file was set aside.
    """

    def __init__(
        self, url: str, clock: Callable[[], float], read_only: bool, pseudonym: Pseudonym | None
    ) -> None:
        address = parse(url)
        self.notices: list[str] = []
        self._clock, self._read_only, self._closed, self._pseudonym = clock, read_only, False, pseudonym
        self._file = Path(address.database or "") if address.get_backend_name() == "sqlite" else None
        self._mutex = threading.Lock()
        self._file_lock = None if self._file is None or read_only else take(self._file)
        try:
            self._engine = make_engine(address, self._file, read_only)
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """Check and migrate; a damaged SQLite file makes way for a new one."""
        try:
            version = self._check_or_set_aside()
            if self._read_only and version < newest():
                raise FeedbackError(
                    "The feedback database has an older version. Start the server once to update it.",
                    code="database_older",
                )
            if version == newest():
                return
            if self._file is not None and version > 0:
                back_up(self._file, f"backup-v{version}-{self._moment()}")
            with self._begin_writing() as connection:
                migrate(connection, self._pseudonym or _no_key)
            if self._file is not None:
                sync(self._file.parent)
        except FAILURES as error:
            raise FeedbackError(CANNOT_OPEN, code="database_open", reason=reason_of(error)) from error

    def _check_or_set_aside(self) -> int:
        """Return the version of the database, 0 for the new one that follows a damaged one."""
        try:
            return self._check()
        except (SQLAlchemyError, sqlite3.Error) as error:
            if self._file is None or self._read_only or not is_damage(error):
                raise
        self._engine.dispose()
        name = set_aside(self._file, self._moment())
        self.notices.append(
            Message(
                "The feedback database was damaged. It was renamed to {name}, and a new database was"
                " created.",
                name=name,
            )
        )
        return self._check()

    def _check(self) -> int:
        """Return the version of a database that is whole, as far as a quick check tells."""
        with self._engine.connect() as connection:
            if self._file is not None:
                found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                if found != "ok":
                    raise sqlite3.DatabaseError(found)
            version = version_of(connection)
            for table in METADATA.sorted_tables if version == newest() else ():
                connection.execute(select(table).limit(0))
        return version

    @contextmanager
    def _begin_writing(self) -> Iterator[Connection]:
        with (
            self._engine.connect().execution_options(begin="BEGIN IMMEDIATE") as connection,
            connection.begin(),
        ):
            if self._file is None:
                connection.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database.

        Raises:
            FeedbackError: if it cannot be read.
        """
        self._check_open()
        try:
            with self._engine.connect() as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise FeedbackError(
                "The feedback database cannot be read: {reason}.",
                code="database_read",
                reason=reason_of(error),
            ) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the single writer's connection; changes are on disk when the block ends without an error.

        Raises:
            FeedbackError: if it could not be saved; nothing of it is to be acknowledged then.
        """
        self._check_writable()
        with self._mutex:
            try:
                with self._begin_writing() as connection:
                    yield connection
            except (SQLAlchemyError, sqlite3.Error) as error:
                self._engine.dispose()
                raise FeedbackError(NOT_SAVED, code="not_saved", reason=reason_of(error)) from error

    @contextmanager
    def publish_lock(self) -> Iterator[bool]:
        """Hold the lock of who changes the Hub, if nobody else has it; a SQLite file has one writer anyway.

        Raises:
            FeedbackError: if the server of the database cannot be reached.
        """
        self._check_writable()
        if self._file is not None:
            yield True
            return
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                acquired = bool(connection.scalar(select(func.pg_try_advisory_lock(HUB_LOCK))))
                try:
                    yield acquired
                finally:
                    if acquired:
                        connection.scalar(select(func.pg_advisory_unlock(HUB_LOCK)))
        except SQLAlchemyError as error:
            raise FeedbackError(
                "The feedback database cannot be queried: {reason}.",
                code="database_ask",
                reason=reason_of(error),
            ) from error

    def check_space(self, reserve_bytes: int) -> None:
        """Refuse to go on if the disk is nearly full, or has no room to rewrite the file for an erasure.

        Raises:
            FeedbackError: if less than ``reserve_bytes``, or twice its size, are free where a SQLite file
                lies; 0 switches this off.
        """
        if self._file is None:
            return
        try:
            free = shutil.disk_usage(self._file.parent).free
            needed = max(reserve_bytes, 2 * self._file.stat().st_size if reserve_bytes else 0)
        except OSError as error:
            raise FeedbackError(NOT_SAVED, code="not_saved", reason=reason_of(error)) from error
        if free < needed:
            raise FeedbackError(NOT_SAVED, code="not_saved", reason=Message("the disk is nearly full"))

    def scrub(self) -> None:
        """Overwrite deleted data: rewrite the tables, empty the write-ahead log, remove old file copies.

        Copies are backups from before a migration, and damaged files that were set aside: nobody can tell
        what is in them.

        On PostgreSQL the tables are rewritten; how long its write-ahead log and its backups are kept is for
        its operator to say.

        Raises:
            FeedbackError: if it must be repeated, because of a full disk or somebody who reads for long.
        """
        self._check_writable()
        with self._mutex:
            try:
                with self._engine.connect().execution_options(
                    isolation_level="AUTOCOMMIT", begin=""
                ) as connection:
                    if self._file is None:
                        for table in METADATA.sorted_tables:
                            connection.execute(text(f"VACUUM FULL {table.name}"))
                        return
                    connection.exec_driver_sql("VACUUM")
                    _empty_log(connection)
                remove_copies(self._file)
            except FAILURES as error:
                self._engine.dispose()
                raise FeedbackError(
                    "The rows are deleted, but their bytes could not be overwritten: {reason}. "
                    "Repeat the erasure.",
                    code="not_scrubbed", reason=reason_of(error),
                ) from error  # fmt: skip

    def scrub_pending(self) -> None:
        """Overwrite what was deleted by erasures, if that has not been done yet.

        Raises:
            FeedbackError: if it could not be done; it is tried again at the next start and with the next
                erasure.
        """
        with self.reading() as connection:
            keys = list(connection.scalars(select(ERASURES.c.contributor).where(not_(ERASURES.c.scrubbed))))
        if keys:
            self.scrub()
            with self.writing() as connection:
                connection.execute(
                    update(ERASURES).where(ERASURES.c.contributor.in_(keys)).values(scrubbed=True)
                )

    def notice(self, sentence: str) -> None:
        """Note what the operator must know, once."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    def close(self) -> None:
        """Close the connections and make place for another writer."""
        if self._closed:
            return
        self._closed = True
        engine: Engine | None = getattr(self, "_engine", None)
        with self._mutex:
            if engine is not None:
                engine.dispose()
            if self._file_lock is not None:
                self._file_lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise FeedbackError("The feedback database is closed.", code="closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise FeedbackError("The feedback database is open for reading only.", code="read_only")

    def _moment(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y%m%dT%H%M%SZ")


def _no_key(_: str) -> str:
    raise FeedbackError(
        "The feedback database has an older version, and its update requires the secret of this server.",
        code="database_key",
    )


def _empty_log(connection: Connection) -> None:
    """Move the write-ahead log into the file and truncate it, waiting for readers as long as for a writer."""
    until_s = time.monotonic() + BUSY_TIMEOUT_S
    while connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one():
        if time.monotonic() > until_s:
            raise OSError(0, "another process is reading the database")
        time.sleep(0.05)
