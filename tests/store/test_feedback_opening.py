"""Opening a store: addresses, several processes, older versions."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from feedback_makers import ANNA, NOW_S, make_crop, make_record, refused
from sqlalchemy import Connection, text
from store_makers import add_a_column, encode, ids

from hsemotion_space.feedback import migrations
from hsemotion_space.feedback.erase import erase_locally
from hsemotion_space.feedback.store import FeedbackStore


def test_store_that_is_closed_is_refused(store: FeedbackStore) -> None:
    store.close()
    store.close()
    with refused("closed"):
        store.add(make_record(1))
    with refused("closed"):
        store.records()


def test_store_for_reading_sees_everything_and_changes_nothing(store: FeedbackStore, url: str) -> None:
    store.add(make_record(1))
    with FeedbackStore(url, read_only=True) as reader:
        assert ids(reader.records()) == [make_record(1).id]
        store.add(make_record(2))
        assert len(reader.records()) == 2
        for change in (
            lambda: reader.add(make_record(3)),
            lambda: reader.create_batch(5, encode),
            lambda: erase_locally(reader, ANNA),
        ):
            with refused("read_only"):
                change()


def test_store_with_a_second_writer_works_on_postgresql_alone(store: FeedbackStore, url: str) -> None:
    if url.startswith("postgresql"):  # replicas
        with FeedbackStore(url) as second:
            store.add(make_record(1))
            assert second.add(make_record(1)).created is False
            second.add(make_record(2))
            assert store.create_batch(10, encode) is not None
            assert second.create_batch(10, encode) is None
        return
    with refused("database_locked"):
        FeedbackStore(url)
    program = (
        f"from hsemotion_space.feedback.store import FeedbackStore\ntry: FeedbackStore({url!r})\nexcept"
        " ValueError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.startswith("Another process writes to the feedback database feedback.sqlite.")
    store.close()
    with FeedbackStore(url) as second:
        second.add(make_record(1))


@pytest.mark.parametrize(
    "address", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://host/name", "sqlite+aiosqlite://"]
)
def test_store_at_another_kind_of_address_is_refused(address: str) -> None:
    with refused("database_address"):
        FeedbackStore(address)


def test_store_at_an_absent_server_does_not_name_its_address() -> None:
    pytest.importorskip("psycopg")
    with refused("database_open") as caught:
        FeedbackStore("postgresql://user:secret@127.0.0.1:9/name")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_store_for_reading_is_not_created(tmp_path: Path) -> None:
    with refused("no_database"):
        FeedbackStore(f"sqlite:///{tmp_path / 'none.sqlite'}", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_store_in_a_file_with_special_characters_in_its_name(tmp_path: Path) -> None:
    file = tmp_path / "a #b%20?c" / "feed back.sqlite"
    with FeedbackStore(f"sqlite:///{str(file).replace('?', '%3F')}") as store:
        store.add(make_record(1))
    names = {path.name for path in tmp_path.rglob("*.sqlite")}
    assert names == {"feed back.sqlite"}


def test_store_connects_for_durability(tmp_path: Path) -> None:
    with (
        FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}") as store,
        store.database.reading() as connection,
    ):
        expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1,
                    "trusted_schema": 0, "busy_timeout": 10_000}  # fmt: skip
        for name, value in expected.items():
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() == value, name


def test_store_of_an_older_version_is_migrated_with_a_backup(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeedbackStore(url) as store:
        store.add(replace(make_record(1), crop=make_crop(1)))
        before = store.records()
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_a_column))
    with refused("database_older"):
        FeedbackStore(url, read_only=True)
    with FeedbackStore(url, lambda: NOW_S) as store:
        assert store.records() == before
        with store.database.reading() as connection:
            connection.execute(text("SELECT note FROM feedback_meta"))
    with FeedbackStore(url) as store:  # not again
        assert store.records() == before
    monkeypatch.undo()
    with refused("database_newer"):
        FeedbackStore(url)
    if url.startswith("sqlite"):
        (backup,) = tmp_path.glob("*.backup-*")
        assert backup.name == "feedback.sqlite.backup-v4-20250615T150640Z"
        with FeedbackStore(f"sqlite:///{backup}") as old:
            assert old.records() == before


def test_store_is_unchanged_by_a_migration_that_fails(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection, _: object) -> None:
        connection.execute(text("DELETE FROM feedback_records"))
        connection.execute(text("SELECT nothing FROM nowhere"))

    with FeedbackStore(url) as store:
        store.add(make_record(1))
        before = store.records()
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_a_column, fail))
    with refused("database_open"):
        FeedbackStore(url)
    monkeypatch.undo()
    with FeedbackStore(url) as store:
        assert store.records() == before
        assert store.notices == ()
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_store_that_is_new_has_the_newest_version(tmp_path: Path) -> None:
    FeedbackStore(f"sqlite:///{tmp_path / 'new.sqlite'}").close()
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    assert connection.execute("PRAGMA user_version").fetchone() == (migrations.newest(),)
    connection.close()
