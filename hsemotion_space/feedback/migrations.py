"""The schema's version: made, raised step by step and never lowered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, delete, insert, inspect, select

from hsemotion_space.feedback.records import FeedbackError
from hsemotion_space.feedback.tables import META, METADATA, RECORDS


def _index_items(connection: Connection) -> None:
    """Let what was said about an item be found without reading everything."""
    next(index for index in RECORDS.indexes if index.name == "feedback_of_item").create(connection, checkfirst=True)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_index_items,)
"""Element ``k`` raises version ``k + 1`` to ``k + 2``; a new database is made at the newest version at once."""
VERSION_KEY: Final = "schema_version"


def newest() -> int:
    """Return the version that this program writes."""
    return 1 + len(MIGRATIONS)


def version_of(connection: Connection) -> int:
    """Return the version of a database, 0 for an empty one.

    Raises:
        FeedbackError: if it is newer than this program knows.
    """
    if connection.dialect.name == "sqlite":
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    elif inspect(connection).has_table(META.name):
        version = int(connection.scalar(select(META.c.value).where(META.c.key == VERSION_KEY)) or 0)
    else:
        version = 0
    if version > newest():
        raise FeedbackError(
            f"The feedback database has version {version}, this program knows {newest()}. Please update the program; nothing was changed."
        )
    return version


def migrate(connection: Connection) -> None:
    """Bring a database to the newest version, inside the transaction of the caller."""
    version = version_of(connection)
    if version == 0:
        METADATA.create_all(connection)
    for step in MIGRATIONS[version - 1 :] if version else ():
        step(connection)
    if version == newest():
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {newest()}")
    else:
        connection.execute(delete(META).where(META.c.key == VERSION_KEY))
        connection.execute(insert(META).values(key=VERSION_KEY, value=str(newest())))
