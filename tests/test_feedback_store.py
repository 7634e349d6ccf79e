from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from feedback_makers import ANNA, BEN, CARL, NOW_S, hash_of, make_crop, make_record
from feedback_postgres import MISSING, fresh_schema, postgres_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from hsemotion_space.feedback import migrations
from hsemotion_space.feedback.records import FeedbackError, FeedbackRecord, StoredRecord
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import MOST_CROP_BYTES, PNG_SIGNATURE, Ack, Erased, tombstone_of
from hsemotion_space.tasks import TASKS


def encode(stored: Sequence[StoredRecord]) -> bytes:
    return b"\n".join(one.record.id.encode() for one in stored)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'feedback.sqlite'}"
        return
    if not (address := request.getfixturevalue("server")):
        pytest.skip(MISSING)
    with fresh_schema(address) as schema:
        yield schema


@pytest.fixture
def store(url: str) -> Iterator[FeedbackStore]:
    with FeedbackStore(url, lambda: NOW_S) as opened:
        yield opened


def ids(stored: Sequence[StoredRecord]) -> list[str]:
    return [one.record.id for one in stored]


def test_what_was_acknowledged_is_read_back_as_it_was(store: FeedbackStore, url: str) -> None:
    clip = make_record(2, kind="clip", span_s=(0.5, 1.25), comment="Größer 😀 than <b>", scopes=("labels",))
    assert store.add(make_record(1), make_crop(1)) == Ack(make_record(1).id, True, "received")
    assert store.add(clip) == Ack(clip.id, True, "received")
    store.close()
    with FeedbackStore(url) as again:
        first, second = again.records()
    assert (first.record, first.crop, first.created_s, first.gold) == (make_record(1), make_crop(1), NOW_S, False)
    assert (second.record, second.crop, second.state, second.batch, second.gold) == (clip, b"", "received", "", False)
    assert second.number > first.number


def test_a_replay_changes_nothing_and_is_told_the_state(store: FeedbackStore) -> None:
    store.add(make_record(1), make_crop(1))
    before = store.records()
    assert store.add(make_record(1), make_crop(2)) == Ack(make_record(1).id, False, "received")
    assert store.add(replace(make_record(1), comment="something else")).created is False
    assert store.records() == before
    store.seal(10, encode)
    assert store.add(make_record(1)).state == "sealed"


def test_a_newer_statement_supersedes_that_of_the_same_contributor_about_the_same_item(store: FeedbackStore) -> None:
    said = [
        make_record(1), make_record(1, contributor=BEN), make_record(2), make_record(1, face=2),
        make_record(1, verdict="correct"), make_record(1, verdict="cannot_tell"),
    ]  # fmt: skip
    for record in said:
        store.add(record)
    assert [one.superseded for one in store.records()] == [True, False, False, False, True, False]
    assert [one.record for one in store.records()] == said
    assert ids(store.records(contributor=BEN)) == [said[1].id]


BAD_RECORDS: dict[str, Callable[[FeedbackRecord], FeedbackRecord]] = {
    "id": lambda record: replace(record, id="x" * 32),
    "contributor": lambda record: replace(record, contributor="Anna\0"),
    "no contributor": lambda record: replace(record, contributor=""),
    "verdict": lambda record: replace(record, verdict="good"),  # type: ignore[arg-type]
    "label": lambda record: replace(record, corrected={"expression": {"Joyful": 1.0}}),
    "two labels": lambda record: replace(record, corrected={"expression": {"Anger": 1.0, "Fear": 1.0}}),
    "half a label": lambda record: replace(record, corrected={"expression": {"Anger": 0.5}}),
    "task": lambda record: replace(record, corrected={"mood": {"good": 1.0}}),
    "task that was not predicted": lambda record: replace(record, corrected={"mimicry_intensity": {"Joy": 0.5}}),
    "not a number": lambda record: replace(record, corrected={"action_units": {"AU1": math.nan}}),
    "range": lambda record: replace(record, corrected={"valence_arousal": {"Valence": 2.0, "Arousal": 0.0}}),
    "half a point": lambda record: replace(record, corrected={"valence_arousal": {"Valence": 0.5}}),
    "list": lambda record: replace(record, corrected={"action_units": [0.5]}),  # type: ignore[dict-item]
    "no correction": lambda record: replace(record, corrected={}),
    "correct and corrected": lambda record: replace(record, verdict="correct"),
    "comment": lambda record: replace(record, comment="a" * 501),
    "schema": lambda record: replace(record, schema_version=2),
    "subject": lambda record: replace(record, subject=object()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_what_is_not_valid_is_not_stored(store: FeedbackStore, case: str) -> None:
    with pytest.raises(FeedbackError):
        store.add(BAD_RECORDS[case](make_record(1)))
    assert store.records() == []


@pytest.mark.parametrize("crop", [b"GIF89a", b"\x89PNG", PNG_SIGNATURE + bytes(MOST_CROP_BYTES), "text"])
def test_a_crop_that_is_no_small_png_is_refused_with_its_record(store: FeedbackStore, crop: bytes) -> None:
    with pytest.raises(FeedbackError, match="256 KiB"):
        store.add(make_record(1), crop)
    assert store.records() == []
    store.add(make_record(1), PNG_SIGNATURE + bytes(MOST_CROP_BYTES - len(PNG_SIGNATURE)))
    assert len(store.records()[0].crop) == MOST_CROP_BYTES


@st.composite
def statements(draw: st.DrawFn) -> FeedbackRecord:
    """Any valid statement: a verdict, or values for any tasks."""
    verdict = draw(st.sampled_from(["wrong", "correct", "cannot_tell", "not_a_face"]))
    corrected = {}
    for task in draw(st.lists(st.sampled_from(TASKS), min_size=1, unique=True)) if verdict == "wrong" else []:
        some = draw(st.lists(st.sampled_from(task.label_names), min_size=1, unique=True))
        labels = {"one_of": some[:1], "continuous": task.label_names, "independent": [name for name in task.label_names if name in some]}
        numbers = st.just(1.0) if task.kind == "one_of" else st.floats(task.low, task.high)
        corrected[task.name] = {label: draw(numbers) for label in labels[task.kind]}
    number, contributor = draw(st.integers(0, 10**6)), draw(st.sampled_from([ANNA, BEN]))
    comment = draw(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=500))
    return make_record(number, kind="clip", verdict=verdict, corrected=corrected, contributor=contributor, comment=comment)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(record=statements())
def test_every_valid_statement_is_stored_exactly(store: FeedbackStore, record: FeedbackRecord) -> None:
    store.add(record)
    found = [one.record for one in store.records(contributor=record.contributor) if one.record.id == record.id]
    assert found == [record]


def test_records_are_chosen_by_contributor_batch_state_and_number(store: FeedbackStore) -> None:
    for number in range(6):
        store.add(make_record(number, contributor=BEN if number % 2 else ANNA))
    batch = store.seal(3, encode)
    assert batch is not None
    numbers = [one.number for one in store.records()]
    assert [one.number for one in store.records(batch=batch.id)] == numbers[:3]
    assert [one.number for one in store.records(states=["received"])] == numbers[3:]
    assert [one.number for one in store.records(states=["sealed", "received"], contributor=BEN)] == numbers[1::2]
    assert [one.number for one in store.records(after=numbers[1], limit=2)] == numbers[2:4]
    assert store.records(states=["pushed"]) == store.records(contributor=CARL) == []
    assert store.counts() == {"received": 3, "sealed": 3, "pushed": 0, "verified": 0}


def test_only_what_may_be_published_is_sealed_and_only_once(store: FeedbackStore) -> None:
    fine, private, old = make_record(1), make_record(2, scopes=("labels", "crop")), make_record(3)
    new, rejected, reverted = make_record(3, verdict="correct"), make_record(4), make_record(5, contributor=BEN)
    for record in (fine, private, old, new, rejected, reverted):
        store.add(record, make_crop(1))
    store.review(rejected.id, "rejected", "Carla")
    store.revert(BEN)
    given: list[StoredRecord] = []
    batch = store.seal(10, lambda stored: given.extend(stored) or encode(stored))
    assert batch is not None
    assert batch.body.decode().split() == [fine.id, new.id]
    assert [one.crop for one in given] == [make_crop(1)] * 2
    assert (batch.rows, batch.created_s, batch.path) == (2, NOW_S, f"data/2025/06/15/{batch.id}.parquet")
    assert store.batches() == store.batches(pushed=False) == [batch]
    assert store.seal(10, encode) is None
    assert store.counts()["received"] == 4


def test_bytes_of_a_batch_are_frozen(store: FeedbackStore, url: str) -> None:
    store.add(make_record(1))
    batch = store.seal(10, encode)
    assert batch is not None
    store.add(make_record(1, verdict="correct"))
    store.review(make_record(1).id, "rejected", "Carla")
    store.revert(ANNA)
    store.close()
    with FeedbackStore(url) as again:
        assert again.batch(batch.id) == batch


def test_nothing_is_sealed_if_the_bytes_cannot_be_made(store: FeedbackStore) -> None:
    def fail(_: Sequence[StoredRecord]) -> bytes:
        raise RuntimeError("no bytes")

    store.add(make_record(1))
    with pytest.raises(RuntimeError, match="no bytes"):
        store.seal(10, fail)
    assert store.batches() == []
    assert store.counts()["received"] == 1
    assert store.seal(10, encode) is not None


def test_a_batch_keeps_what_became_of_it(store: FeedbackStore) -> None:
    for number in range(3):
        store.add(make_record(number))
    first, second = store.seal(2, encode), store.seal(2, encode)
    assert first is not None
    assert second is not None
    store.mark_failed(first.id, "no connection " * 100, NOW_S + 5)
    store.mark_failed(first.id, "too many requests", NOW_S + 9)
    failed = store.batch(first.id)
    assert (failed.attempts, failed.error, failed.next_try_s, failed.oid) == (2, "too many requests", NOW_S + 9, "")
    store.mark_pushed(first.id, "a" * 40)
    pushed = store.batch(first.id)
    assert (pushed.oid, pushed.pushed_s, pushed.error, pushed.verified_s) == ("a" * 40, NOW_S, "", 0)
    assert (store.batches(pushed=True), store.batches(pushed=False)) == ([pushed], [second])
    assert store.counts() == {"received": 0, "sealed": 1, "pushed": 2, "verified": 0}
    store.mark_verified(first.id)
    assert store.batch(first.id).verified_s == NOW_S
    assert store.counts() == {"received": 0, "sealed": 1, "pushed": 0, "verified": 2}
    with pytest.raises(FeedbackError, match="no batch"):
        store.mark_pushed("none", "oid")


def test_a_review_can_be_changed_and_every_decision_is_kept(store: FeedbackStore) -> None:
    store.add(make_record(1))
    store.review(make_record(1).id, "approved", "Carla")
    assert store.records()[0].review == "approved"
    store.review(make_record(1).id, "", "Dora")
    assert store.records()[0].review == ""
    with store._database.reading() as connection:
        rows = connection.execute(text("SELECT decision, reviewer FROM feedback_reviews ORDER BY number")).all()
    assert [tuple(row) for row in rows] == [("approved", "Carla"), ("", "Dora")]
    with pytest.raises(FeedbackError, match="no such correction"):
        store.review(make_record(2).id, "approved", "Carla")
    with pytest.raises(FeedbackError, match="approved, rejected"):
        store.review(make_record(1).id, "fine", "Carla")  # type: ignore[arg-type]


def test_everything_of_one_contributor_is_reverted_at_once_and_stays(store: FeedbackStore) -> None:
    for number in range(3):
        store.add(make_record(number))
    store.add(make_record(0, contributor=BEN))
    assert store.revert(ANNA) == 3
    assert store.revert(ANNA) == 0
    store.add(make_record(7))
    assert [one.reverted for one in store.records()] == [True, True, True, False, False]


def test_an_erasure_takes_rows_and_bytes_and_leaves_a_tombstone(store: FeedbackStore, url: str) -> None:
    own, other = [make_record(number) for number in range(3)], make_record(0, contributor=BEN)
    store.add(own[0], make_crop(0))
    store.add(other, make_crop(1))
    batch = store.seal(10, encode)
    assert batch is not None
    store.add(own[1])
    store.add(own[2])
    store.review(own[1].id, "approved", "Carla")
    erased = store.erase(ANNA)
    assert erased == Erased(tombstone_of(ANNA), NOW_S, (batch.id,), tuple(record.id for record in own), pictures=1)
    assert ids(store.records()) == [other.id]
    assert store.tombstones() == {tombstone_of(record.id) for record in own}
    stale = store.batch(batch.id)
    assert (stale.stale, stale.body, stale.path) == (True, b"", batch.path)
    assert store.batches(pushed=False) == []
    for record in own:
        with pytest.raises(FeedbackError, match="erased"):
            store.add(record)
    assert store.add(make_record(9)).created  # the same person may say something new
    store.close()
    with FeedbackStore(url) as again:
        assert again.pending_erasures() == [replace(erased, records=(), pictures=0)]
        with pytest.raises(FeedbackError, match="erased"):
            again.add(own[0])


def test_an_erasure_that_is_asked_for_again_keeps_its_batches_until_it_is_finished(store: FeedbackStore) -> None:
    store.add(make_record(1))
    batch = store.seal(10, encode)
    assert batch is not None
    store.erase(ANNA)
    store.add(make_record(2))
    again = store.erase(ANNA)
    assert (again.batches, again.records) == ((batch.id,), (make_record(2).id,))
    store.erase(BEN)  # who gave nothing
    store.erase(CARL, "f" * 64)
    assert [one.contributor for one in store.pending_erasures()] == sorted([tombstone_of(ANNA), tombstone_of(CARL)])
    store.finish_erasure(ANNA)
    store.finish_erasure(store.pending_erasures()[0].contributor)
    assert store.pending_erasures() == []


def test_the_rest_of_a_stale_batch_becomes_one_new_batch(store: FeedbackStore) -> None:
    for number in range(3):
        store.add(make_record(number, contributor=(ANNA, BEN, CARL)[number]))
    old = store.seal(10, encode)
    assert old is not None
    with pytest.raises(FeedbackError, match="no erased row"):
        store.replace_batch(old.id, encode)
    store.mark_pushed(old.id, "a" * 40)
    store.erase(ANNA)
    new = store.replace_batch(old.id, encode)
    assert new is not None
    assert new.body.decode().split() == [make_record(1, contributor=BEN).id, make_record(2, contributor=CARL).id]
    assert store.replace_batch(old.id, encode) == new  # after a crash it is asked for again
    assert store.batches(pushed=False) == [new]
    assert [one.id for one in store.batches(pushed=True)] == [old.id]
    assert {one.batch for one in store.records()} == {new.id}
    assert store.counts()["sealed"] == 2
    store.mark_pushed(old.id, "b" * 40)  # a push that was under way ends now
    assert store.counts()["sealed"] == 2
    store.erase(BEN)
    store.erase(CARL)
    assert store.replace_batch(new.id, encode) is None


def test_what_was_found_elsewhere_can_be_buried(store: FeedbackStore) -> None:
    names = [hash_of(str(number)) for number in range(1100)]
    store.bury([tombstone_of(name) for name in names])
    store.bury([tombstone_of(name) for name in names[:3]])
    store.bury([])
    assert len(store.tombstones()) == 1100
    with pytest.raises(FeedbackError, match="erased"):
        store.add(make_record(1, record_id=names[1]))


def test_notes_are_kept(store: FeedbackStore, url: str) -> None:
    assert store.get_meta("cursor") == ""
    store.set_meta("cursor", "1")
    store.set_meta("cursor", "2 äß")
    store.close()
    with FeedbackStore(url) as again:
        assert again.get_meta("cursor") == "2 äß"


def test_the_order_is_that_of_arrival_whatever_the_clock_says(url: str) -> None:
    times = iter([NOW_S, NOW_S - 86400, NOW_S + 10 * 365 * 86400, 0.0])
    with FeedbackStore(url, lambda: next(times)) as store:
        records = [make_record(1, top=top) for top in range(4)]
        for record in records:
            store.add(record)
        assert ids(store.records()) == [record.id for record in records]
        assert [one.superseded for one in store.records()] == [True, True, True, False]


def test_threads_write_and_read_at_once(store: FeedbackStore) -> None:
    acks: list[Ack] = []
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(50):
                acks.append(store.add(make_record(number, contributor=hash_of(str(thread)))))
                if number % 10 == 0:
                    store.records(limit=5)
                    store.seal(20, encode)
        except BaseException as error:  # noqa: BLE001  # shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(ack.id for ack in acks) == sorted(ids(store.records()))
    assert len(set(ids(store.records()))) == 400
    sealed = [name for batch in store.batches() for name in batch.body.decode().split()]
    assert len(sealed) == len(set(sealed)) == store.counts()["sealed"] > 0


def test_a_closed_store_says_so(store: FeedbackStore) -> None:
    store.close()
    store.close()
    with pytest.raises(FeedbackError, match="closed"):
        store.add(make_record(1))
    with pytest.raises(FeedbackError, match="closed"):
        store.records()


def test_a_reader_sees_what_is_there_and_changes_nothing(store: FeedbackStore, url: str) -> None:
    store.add(make_record(1))
    with FeedbackStore(url, read_only=True) as reader:
        assert ids(reader.records()) == [make_record(1).id]
        store.add(make_record(2))
        assert len(reader.records()) == 2
        for change in (lambda: reader.add(make_record(3)), lambda: reader.seal(5, encode), lambda: reader.erase(ANNA)):
            with pytest.raises(FeedbackError, match="reading only"):
                change()


def test_two_writers_get_on_or_the_second_is_told(store: FeedbackStore, url: str) -> None:
    if url.startswith("postgresql"):  # replicas
        with FeedbackStore(url) as second:
            store.add(make_record(1))
            assert second.add(make_record(1)).created is False
            second.add(make_record(2))
            assert store.seal(10, encode) is not None
            assert second.seal(10, encode) is None
        return
    with pytest.raises(FeedbackError, match="Another process writes"):
        FeedbackStore(url)
    program = (
        f"from hsemotion_space.feedback.store import FeedbackStore\ntry: FeedbackStore({url!r})\nexcept ValueError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert result.stdout.startswith("Another process writes to the feedback database feedback.sqlite.")
    store.close()
    with FeedbackStore(url) as second:
        second.add(make_record(1))


@pytest.mark.parametrize("address", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://host/name", "sqlite+aiosqlite://"])
def test_an_address_of_something_else_is_refused(address: str) -> None:
    with pytest.raises(FeedbackError, match="feedback database"):
        FeedbackStore(address)


def test_a_server_that_is_not_there_is_a_sentence_without_its_address() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(FeedbackError, match="server cannot be reached") as caught:
        FeedbackStore("postgresql://user:secret@127.0.0.1:9/name")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_nothing_can_be_read_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(FeedbackError, match="no feedback database"):
        FeedbackStore(f"sqlite:///{tmp_path / 'none.sqlite'}", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_have_a_name_that_means_something_in_addresses(tmp_path: Path) -> None:
    file = tmp_path / "a #b%20?c" / "feed back.sqlite"
    with FeedbackStore(f"sqlite:///{str(file).replace('?', '%3F')}") as store:
        store.add(make_record(1))
    names = {path.name for path in tmp_path.rglob("*.sqlite")}
    assert names == {"feed back.sqlite"}


def test_connections_are_set_up_for_durability(tmp_path: Path) -> None:
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}") as store, store._database.reading() as connection:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "trusted_schema", "busy_timeout")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]
        assert values == ["wal", 2, 1, 1, 0, 10_000]


def add_a_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE feedback_meta ADD COLUMN note VARCHAR(20)"))


def test_an_older_database_is_brought_up_to_date_with_a_backup(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeedbackStore(url) as store:
        store.add(make_record(1), make_crop(1))
        before = store.records()
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_a_column))
    with pytest.raises(FeedbackError, match="older version"):
        FeedbackStore(url, read_only=True)
    with FeedbackStore(url, lambda: NOW_S) as store:
        assert store.records() == before
        with store._database.reading() as connection:
            connection.execute(text("SELECT note FROM feedback_meta"))
    with FeedbackStore(url) as store:  # not again
        assert store.records() == before
    monkeypatch.undo()
    with pytest.raises(FeedbackError, match="has version 3, this program knows 2"):
        FeedbackStore(url)
    if url.startswith("sqlite"):
        (backup,) = tmp_path.glob("*.backup-*")
        assert backup.name == "feedback.sqlite.backup-v2-20250615T150640Z"
        with FeedbackStore(f"sqlite:///{backup}") as old:
            assert old.records() == before


def test_a_migration_that_fails_changes_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(text("DELETE FROM feedback_records"))
        connection.execute(text("SELECT nothing FROM nowhere"))

    with FeedbackStore(url) as store:
        store.add(make_record(1))
        before = store.records()
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_a_column, fail))
    with pytest.raises(FeedbackError, match="cannot be opened"):
        FeedbackStore(url)
    monkeypatch.undo()
    with FeedbackStore(url) as store:
        assert store.records() == before
        assert store.notices == ()
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_the_tables_of_a_new_and_of_a_migrated_database_have_the_version(tmp_path: Path) -> None:
    FeedbackStore(f"sqlite:///{tmp_path / 'new.sqlite'}").close()
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    assert connection.execute("PRAGMA user_version").fetchone() == (migrations.newest(),)
    connection.close()


def test_of_several_replicas_only_one_changes_the_hub_at_a_time(store: FeedbackStore, url: str) -> None:
    with store.turn() as mine:
        assert mine
        if url.startswith("postgresql"):
            with FeedbackStore(url) as replica, replica.turn() as theirs:
                assert not theirs
    with store.turn() as mine:
        assert mine
    if url.startswith("postgresql"):
        with FeedbackStore(url) as replica, replica.turn() as theirs:
            assert theirs


def test_gold_is_marked_and_taken_back(store: FeedbackStore) -> None:
    name = store.add(make_record(1)).id
    for gold in (True, False):
        store.mark_gold(name, gold)
        assert [one.gold for one in store.records()] == [gold]
    with pytest.raises(FeedbackError, match="no such correction"):
        store.mark_gold("0" * 32, True)
