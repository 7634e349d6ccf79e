"""The schema's version: made, raised step by step and never lowered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import Column, Connection, DefaultClause, delete, insert, inspect, select, update

from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord
from hsemotion_space.feedback.tables import (
    BATCHES,
    COPIES,
    CROPS,
    ERASURES,
    META,
    METADATA,
    RECORDS,
    digest_of,
    row_of,
)

Pseudonym: TypeAlias = Callable[[str], str]


def _index_items(connection: Connection, _: Pseudonym) -> None:
    """Let what was said about an item be found without reading everything."""
    next(index for index in RECORDS.indexes if index.name == "feedback_of_item").create(
        connection, checkfirst=True
    )


def _one_record(connection: Connection, pseudonym: Pseudonym) -> None:
    """Store records flat with the published pseudonym; drop the index of Hub rows, restored instead."""
    for name in ("attempts", "next_try_s", "error", "pushed_s"):
        connection.exec_driver_sql(f"ALTER TABLE {BATCHES.name} DROP COLUMN {name}")
    for column in (RECORDS.c.verdict, RECORDS.c.consent_version, RECORDS.c.type):
        _add_column(connection, column)
    rows = select(RECORDS, CROPS.c.png).join_from(
        RECORDS, CROPS, CROPS.c.record == RECORDS.c.id, isouter=True
    )
    for row in connection.execute(rows).mappings().all():
        # what is damaged stays so
        if digest_of(row["body"], row["created_s"], row["png"] or b"") == row["digest"]:
            record = replace(_flat(json.loads(row["body"]), row["item"], pseudonym), crop=row["png"] or b"")
            values = {
                name: value for name, value in row_of(record, row["created_s"]).items() if name != "state"
            }
            connection.execute(update(RECORDS).where(RECORDS.c.number == row["number"]).values(values))
    pending = connection.exec_driver_sql(
        "SELECT contributor, alias, batches, files FROM feedback_erasures"
    ).all()
    for contributor, alias, batches, files in pending:
        named = [*json.loads(batches), *(PurePosixPath(file).stem for file in json.loads(files))]
        changed = {"contributor": alias or contributor, "batches": json.dumps(named)}
        connection.execute(update(ERASURES).where(ERASURES.c.contributor == contributor).values(changed))
    for name in ("alias", "files"):
        connection.exec_driver_sql(f"ALTER TABLE {ERASURES.name} DROP COLUMN {name}")
    connection.exec_driver_sql("DROP TABLE feedback_foreign")
    connection.execute(delete(META).where(META.c.key == "publish.head"))
    COPIES.create(connection)


def _name_types(connection: Connection, _: Pseudonym) -> None:
    """Tell corrections from traces; a database that comes from version 2 has the column already."""
    if RECORDS.c.type.name not in {one["name"] for one in inspect(connection).get_columns(RECORDS.name)}:
        _add_column(connection, RECORDS.c.type)


def _add_column(connection: Connection, column: Column[Any]) -> None:
    """Add a column of today's table with its default."""
    kind, default = column.type.compile(connection.dialect), cast("DefaultClause", column.server_default).arg
    connection.exec_driver_sql(
        f"ALTER TABLE {RECORDS.name} ADD COLUMN {column.name} {kind} NOT NULL DEFAULT '{default}'"
    )


def _flat(body: Mapping[str, Any], item: str, pseudonym: Pseudonym) -> FeedbackRecord:
    """Return a record of the first two versions, which had parts of their own, and a list of predictions."""
    subject, predicted, consent = body["subject"], body["predicted"], body["consent"]
    return FeedbackRecord(
        body["id"], pseudonym(body["contributor"]), item, subject["kind"], subject["face"],
        tuple(subject["box_xyxy"]), tuple(subject["span_s"]),
        predicted["checkpoint"], predicted["checkpoint_sha256"], predicted["heads_sha256"],
        predicted["preprocessing"],
        {one["task"]: one["values"] for one in predicted["tasks"]},
        {one["task"]: one["provenance"] for one in predicted["tasks"]},
        body["verdict"], body["corrected"], consent["version"], tuple(consent["scopes"]),
        "adult_and_permitted" if consent["adult_and_permitted"] else "adult", body["comment"],
        body.get("blind", False),
    )  # fmt: skip


MIGRATIONS: tuple[Callable[[Connection, Pseudonym], None], ...] = (_index_items, _one_record, _name_types)
"""Element ``k`` raises version ``k + 1`` to ``k + 2``; a new database is made at the newest version at once.
"""
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
            "The feedback database has version {version}; this program supports version {known}. "
            "Update the program; the database was not changed.",
            code="database_newer", version=version, known=newest(),
        )  # fmt: skip
    return version


def migrate(connection: Connection, pseudonym: Pseudonym) -> None:
    """Bring a database to the newest version, inside the transaction of the caller.

    Args:
        connection: that writes.
        pseudonym: of the owner of a receipt code, who stands in older databases; ``Keys.pseudonym``.
    """
    version = version_of(connection)
    if version == 0:
        METADATA.create_all(connection)
    for step in MIGRATIONS[version - 1 :] if version else ():
        step(connection, pseudonym)
    if version == newest():
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {newest()}")
    else:
        connection.execute(delete(META).where(META.c.key == VERSION_KEY))
        connection.execute(insert(META).values(key=VERSION_KEY, value=str(newest())))
