"""Access to a database: addresses, connection settings, the writer's lock, damaged files and copies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from hsemotion_space.feedback.keys import SECRET_FILE
from hsemotion_space.feedback.mounts import network_type
from hsemotion_space.feedback.private import FILE_MODE, make_file, make_folder, sync, tighten
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.messages import Message

BUSY_TIMEOUT_S: Final = 10
CANNOT_OPEN: Final = "The feedback database cannot be opened: {reason}."
NOT_A_DATABASE: Final = (
    "The feedback database must be the URL of a SQLite file, such as sqlite:///feedback.sqlite, or of a"
    " PostgreSQL database."
)
ON_NETWORK: Final = (
    "The feedback database {name} lies on a network mount ({kind}), where SQLite loses data. Set"
    " HSEMOTION_FEEDBACK_DATA to a folder on a local disk, or HSEMOTION_FEEDBACK_DATABASE to a PostgreSQL"
    " database."
)
DAMAGED: Final = Message("the database is damaged")
FAILED: Final = Message("the database failed")
SQLITE_REASONS: Final = {
    sqlite3.SQLITE_FULL: Message("the disk is full"),
    sqlite3.SQLITE_READONLY: Message("the database is read-only"),
    sqlite3.SQLITE_IOERR: Message("the disk reports an error"),
    sqlite3.SQLITE_CANTOPEN: Message("the database file cannot be opened"),
    sqlite3.SQLITE_BUSY: Message("the database is busy"),
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
PRAGMAS: Final = ("foreign_keys=ON", "trusted_schema=OFF", "secure_delete=ON", "synchronous=FULL")


def parse(url: str) -> URL:
    """Return an address that is known to be of a SQLite file or of PostgreSQL.

    Raises:
        FeedbackError: if it is of neither.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise FeedbackError(NOT_A_DATABASE, code="database_address") from error
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite+pysqlite", query={})
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise FeedbackError(NOT_A_DATABASE, code="database_address")


def take(file: Path) -> FileLock:
    """Become the one writer of a file, until the lock is released or the process ends.

    Raises:
        FeedbackError: if there is another one, or the file system has no locks that can be relied on.
    """
    if kind := network_type(file.parent):
        raise FeedbackError(ON_NETWORK, code="database_on_network", name=file.name, kind=kind)
    lock = FileLock(f"{file}.lock", timeout=0, thread_local=False, mode=FILE_MODE)
    try:
        make_folder(file.parent)
        lock.acquire()
        tighten(file.parent, [file.name, SECRET_FILE])
        make_file(file)  # SQLite would let everybody read it, and gives its logs the same mode
    except Timeout as error:
        raise FeedbackError(
            "Another process writes to the feedback database {name}. Stop that process, or open the "
            "database for reading only.",
            code="database_locked", name=file.name,
        ) from error  # fmt: skip
    except OSError as error:
        lock.release()
        raise FeedbackError(CANNOT_OPEN, code="database_open", reason=reason_of(error)) from error
    return lock


def make_engine(url: URL, file: Path | None, read_only: bool) -> Engine:
    """Return an engine whose connections are set up for durability; it has not connected yet.

    Raises:
        FeedbackError: if there is nothing to read, or the driver of PostgreSQL is missing.
    """
    if file is None:
        return _postgresql(url, read_only)
    if read_only and not file.exists():
        raise FeedbackError(
            "The feedback database {name} does not exist.", code="no_database", name=file.name
        )
    path = "".join(f"%{ord(letter):02X}" if letter in "%?#" else letter for letter in str(file.resolve()))
    address = url.set(database=f"file:{path}", query={"mode": "ro" if read_only else "rwc", "uri": "true"})
    engine = create_engine(
        address, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where the event below says so
        connection.text_factory = _text
        try:
            with closing(connection.cursor()) as cursor:
                for pragma in (*PRAGMAS, *([] if read_only else ["journal_mode=WAL"])):
                    cursor.execute(f"PRAGMA {pragma}")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            connection.close()
            raise (
                error if isinstance(error, sqlite3.Error) else sqlite3.DatabaseError("unreadable names")
            ) from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if statement := connection.get_execution_options().get("begin", "BEGIN"):
            connection.exec_driver_sql(statement)

    return engine


def _text(value: bytes) -> str:
    """Read a text whose bytes may be damaged, which its digest tells."""
    return value.decode("utf-8", "replace")


def _postgresql(url: URL, read_only: bool) -> Engine:
    given = url.query.get("options", "")
    options = [given] if isinstance(given, str) else list(given)
    options += ["-c synchronous_commit=on", f"-c lock_timeout={BUSY_TIMEOUT_S}s"]
    options += ["-c default_transaction_read_only=on"] if read_only else []
    address = url.difference_update_query(["options"])
    try:
        return create_engine(
            address, hide_parameters=True, pool_pre_ping=True,
            connect_args={"connect_timeout": BUSY_TIMEOUT_S, "options": " ".join(options).strip()},
        )  # fmt: skip
    except (ImportError, NoSuchModuleError) as error:
        raise FeedbackError(
            "PostgreSQL requires the package psycopg. Install it with: pip install 'psycopg[binary]'.",
            code="no_psycopg",
        ) from error


def _code(error: BaseException) -> tuple[object, int | None]:
    """Return the error of the driver and SQLite's primary code."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(origin, "sqlite_errorcode", None)
    return origin, None if code is None else code & 0xFF


def is_damage(error: BaseException) -> bool:
    """Return whether the check of an existing SQLite file found it damaged, rather than the disk failing."""
    origin, code = _code(error)
    return isinstance(origin, sqlite3.Error) and code in (
        None,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
    )


def reason_of(error: BaseException) -> str:
    """Return in a few words why a database failed, without paths, addresses or values."""
    origin, code = _code(error)
    if code is not None:
        return SQLITE_REASONS.get(code, FAILED)
    if isinstance(origin, OSError):
        return origin.strerror.lower() if origin.strerror else Message("the disk failed")
    if isinstance(origin, sqlite3.Error):
        return DAMAGED
    return (
        Message("the database server cannot be reached or refuses the connection")
        if isinstance(error, DBAPIError)
        else FAILED
    )


def set_aside(file: Path, moment: str) -> str:
    """Rename a damaged file together with its log and put an empty one in its place; return its new name."""
    name, number = f"{file.name}.corrupt-{moment}", 1
    while any(file.with_name(name + suffix).exists() for suffix in ("", "-wal", "-shm")):
        number += 1
        name = f"{file.name}.corrupt-{moment}-{number}"
    for suffix in ("-wal", "-shm", ""):
        part = file.with_name(file.name + suffix)
        if part.exists():
            part.replace(file.with_name(name + suffix))
    make_file(file)
    sync(file.parent)
    return name


def back_up(file: Path, name: str) -> None:
    """Copy a SQLite file as it is before a migration; ``name`` is put after its own.

    Raises:
        sqlite3.Error: if there is no room.
    """
    target = file.with_name(f"{file.name}.{name}")
    target.unlink(missing_ok=True)
    make_file(target)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("VACUUM INTO ?", [str(target)])
    sync(target)
    sync(file.parent)


def remove_copies(file: Path) -> None:
    """Remove the backups of a file and those that were set aside."""
    for copy in file.parent.iterdir():
        if copy.name.startswith((f"{file.name}.backup-", f"{file.name}.corrupt-")):
            copy.unlink()
    sync(file.parent)
