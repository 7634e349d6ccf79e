"""What breaks under the store: processes are killed, disks fill up, fail and lie, files are damaged, people
are forgotten."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from feedback_makers import ANNA, BEN, NOW_S, make_crop, make_record, refused
from feedback_postgres import MISSING, fresh_schema, postgres_server
from store_makers import add_a_column

from hsemotion_space.feedback import connection, migrations
from hsemotion_space.feedback.erase import complete_erasure, erase_locally, pending_erasures
from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import tombstone_of

TESTS = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    "OMP_NUM_THREADS": "1",
}
STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="needs strace to see and to fail system calls")


def encode(stored: Sequence[FeedbackRecord]) -> bytes:
    return b"\n".join(one.id.encode() + b" " + one.comment.encode() + one.crop for one in stored)


def writer(file: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(TESTS / "feedback_writer.py"), f"sqlite:///{file}", *map(str, arguments)]


def run_writer(
    file: Path, *arguments: object, strace: Sequence[str] = (), trace: object = "/dev/null"
) -> list[str]:
    """Return the lines that a writer printed; with options for ``strace``, its report is in ``trace``."""
    tracer = [str(STRACE), "-f", "-o", str(trace), *strace] if strace else []
    result = subprocess.run(
        [*tracer, *writer(file, *arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def acks(lines: Sequence[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith("ack ")]


def check_nothing_lost(file: Path, acknowledged: Sequence[str]) -> int:
    """Check that all of these are there, that the file is whole and that no record is in two batches; return
    the number of records."""
    with FeedbackStore(f"sqlite:///{file}") as store:
        there = {one.id for one in store.records()}
        sealed = [name for batch in store.batches() for name in batch.body.decode().split()]
        assert store.notices == ()
        assert sum(store.counts().values()) == len(there)
    assert len(set(acknowledged) - there) == 0
    assert len(sealed) == len(set(sealed))
    assert set(sealed) <= there
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return len(there)


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.long)])
def test_add_loses_no_acknowledged_record_when_the_process_is_killed(tmp_path: Path, kills: int) -> None:
    file, rng, acknowledged = tmp_path / "feedback.sqlite", random.Random(kills), list[str]()
    for turn in range(kills):
        with subprocess.Popen(
            writer(file, "threads", turn), env=ENVIRONMENT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            acknowledged += acks((first + process.stdout.read()).decode().splitlines())
            assert process.wait() == -signal.SIGKILL
    check_nothing_lost(file, acknowledged)
    assert len(set(acknowledged)) == len(acknowledged) >= kills


@needs_strace
def test_add_acknowledges_after_a_sync(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = ["-y", "-s", "64", "-e", "trace=pwrite64,write,fsync,fdatasync"]
    lines = run_writer(tmp_path / "feedback.sqlite", "count", 100, strace=calls, trace=trace)
    written, unsynced, good = False, set[str](), 0
    for line in trace.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\(\d+<([^>]*)>", line)
        if call is None:
            continue
        name, path = call.groups()
        if name == "pwrite64" and path.endswith(("feedback.sqlite", "feedback.sqlite-wal")):
            written = True
            unsynced.add(path)
        elif name in ("fsync", "fdatasync") and line.endswith("= 0"):
            unsynced.discard(path)
        elif name == "write" and '"ack ' in line:
            good += written and not unsynced
            written = False
    assert len(acks(lines)) == good == 100


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    ("call", "every"), [("pwrite64", 97), ("pwrite64", 131), ("fdatasync,fsync", 7), ("fdatasync,fsync", 4)]
)
def test_add_on_a_failing_disk_gives_no_false_acknowledgment(
    tmp_path: Path, call: str, every: int, error: str
) -> None:
    file = tmp_path / "feedback.sqlite"
    run_writer(file, "count", 1)
    failing = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=2+{every}"]
    lines = run_writer(file, "count", 40, strace=failing)
    assert lines[-1] == "done"
    assert len(acks(lines)) == 40  # each in the end
    assert sum(line.startswith("failed Saving failed") for line in lines) >= 3
    check_nothing_lost(file, acks(lines))


@needs_strace
@pytest.mark.long
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink"])
def test_add_survives_one_failure_of_each_system_call(tmp_path: Path, call: str) -> None:
    failures = 0
    for when in range(1, 61):
        file = tmp_path / str(when) / "feedback.sqlite"
        file.parent.mkdir()
        failing = ["-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}"]
        lines = run_writer(file, "count", 4, strace=failing)
        failures += any(line.startswith("failed") for line in lines)
        assert len(acks(lines)) == 4
        check_nothing_lost(file, acks(lines))
    assert failures >= {"pwrite64": 40, "fdatasync": 3}.get(call, 0)  # the others are seldom, or not missed


def test_add_at_a_limit_on_file_sizes_gives_no_false_acknowledgment(tmp_path: Path) -> None:
    file = tmp_path / "feedback.sqlite"
    lines = run_writer(file, "file-limit", 60)
    assert lines[-1] == "done"  # it works again once there is room
    assert sum(line.startswith("failed Saving failed") for line in lines) > 5
    assert len(acks(lines)) > 5
    assert check_nothing_lost(file, acks(lines)) == len(acks(lines))


@pytest.mark.parametrize(
    ("pragma", "reason"), [("max_page_count=60", "the disk is full"), ("query_only=ON", "read-only")]
)
def test_add_to_a_full_or_read_only_database_is_refused_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, reason: str
) -> None:
    file, done = tmp_path / "feedback.sqlite", list[str]()
    FeedbackStore(f"sqlite:///{file}").close()
    monkeypatch.setattr(connection, "PRAGMAS", (*connection.PRAGMAS, pragma))
    with FeedbackStore(f"sqlite:///{file}") as store:
        with refused("not_saved"):
            for number in range(100):
                done.append(store.add(replace(make_record(number), crop=make_crop(number))).id)
        assert len(done) < 100
        monkeypatch.undo()
        assert [one.id for one in store.records()] == done
        for number in range(len(done), len(done) + 20):
            done.append(store.add(replace(make_record(number), crop=make_crop(number))).id)
    assert check_nothing_lost(file, done) == len(done)


def test_store_in_a_file_that_may_not_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FeedbackStore(f"sqlite:///{folder / 'feedback.sqlite'}") as store:
            store.add(make_record(1))
        folder.chmod(0o555)
        (folder / "feedback.sqlite").chmod(0o444)
        (folder / "feedback.sqlite.lock").unlink(missing_ok=True)
        program = (
            "import os\nfrom hsemotion_space.feedback.store import FeedbackStore\nif os.geteuid() == 0:"
            f" os.setuid(65534)\ntry: FeedbackStore('sqlite:///{folder / 'feedback.sqlite'}')\nexcept"
            " ValueError as error: print(error)"
        )
        result = subprocess.run(
            [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        folder.chmod(0o755)
    assert result.stdout.startswith("The feedback database cannot be opened"), result.stderr
    assert name not in result.stdout


def test_add_is_refused_when_the_disk_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", reserve_bytes=1000) as store:
        store.add(make_record(1))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=999))
        with refused("not_saved"):
            store.add(make_record(2))
        batch = store.create_batch(10, encode)
        assert batch is not None  # what is there can still be pushed and erased
        store.mark_pushed(batch.id, "a" * 40)
        assert len(erase_locally(store, ANNA).records) == 1
        monkeypatch.undo()
        assert store.add(make_record(2)).created


def make_database(file: Path, records: int = 40) -> dict[str, FeedbackRecord]:
    with FeedbackStore(f"sqlite:///{file}", lambda: NOW_S) as store:
        for number in range(records):
            store.add(
                replace(
                    make_record(number, contributor=BEN if number % 2 else ANNA), crop=make_crop(number, 24)
                )
            )
        store.create_batch(10, encode)
        return {one.id: one for one in store.records()}


def flip(file: Path, place: int, mask: int = 0xFF) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= mask
    file.write_bytes(data)


@pytest.mark.parametrize("place", [0, 7, 15, 100, 4096, 8192, 3 * 4096 + 3, 5 * 4096])
def test_store_renames_a_damaged_file_and_creates_a_new_one(tmp_path: Path, place: int) -> None:
    file = tmp_path / "feedback.sqlite"
    make_database(file)
    flip(file, place)
    damaged = file.read_bytes()
    with refused("database_open"):
        FeedbackStore(f"sqlite:///{file}", read_only=True)
    assert file.read_bytes() == damaged
    with FeedbackStore(f"sqlite:///{file}", lambda: NOW_S) as store:
        aside = tmp_path / "feedback.sqlite.corrupt-20250615T150640Z"
        assert store.notices == (
            (
                f"The feedback database was damaged. It was renamed to {aside.name}, and a new database was"
                " created."
            ),
        )
        assert aside.read_bytes() == damaged
        assert store.records() == []
        store.add(make_record(1))
    flip(file, 0)
    with FeedbackStore(f"sqlite:///{file}", lambda: NOW_S) as store:  # in the same second
        assert "20250615T150640Z-2" in store.notices[0]
    assert aside.read_bytes() == damaged


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0", bytes(8192), b"not a database " * 1000])
def test_store_in_a_file_of_something_else_opens(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "feedback.sqlite"
    file.write_bytes(content)
    with FeedbackStore(f"sqlite:///{file}") as store:
        store.add(make_record(1))
        assert bool(store.notices) == (len(content) > 1)


@pytest.mark.parametrize("flips", [120, pytest.param(2000, marks=pytest.mark.long)])
def test_store_with_a_flipped_bit_returns_nothing_wrong(tmp_path: Path, flips: int) -> None:
    original = tmp_path / "original.sqlite"
    truth, rng, outcomes = make_database(original, 12), random.Random(1), Counter[str]()
    content = original.read_bytes()
    for turn in range(flips):
        file = tmp_path / str(turn) / "feedback.sqlite"
        file.parent.mkdir()
        file.write_bytes(content)
        flip(file, rng.randrange(len(content)), 1 << rng.randrange(8))
        try:
            with FeedbackStore(f"sqlite:///{file}") as store:
                found, notices, batches = store.records(), store.notices, store.batches()
                store.add(make_record(1000))
                assert make_record(1000).id in {one.id for one in store.records()}
        except FeedbackError:
            outcomes["refused"] += 1
            continue
        for one in found:
            expected = truth[one.id]
            assert (to_json(one), one.crop, one.created_s) == (to_json(expected), expected.crop, NOW_S)
        assert all(len(batch.body) > 10 for batch in batches if not batch.stale)
        assert notices or len(found) == len(truth)
        renamed = any("was renamed" in notice for notice in notices)
        outcomes["renamed" if renamed else "left out" if notices else "unharmed"] += 1
        shutil.rmtree(file.parent)
    assert outcomes["renamed"] > 0
    assert outcomes["left out"] > 0
    assert outcomes["refused"] <= flips / 20


def found_in(folder: Path, needles: dict[str, bytes]) -> set[str]:
    """Return the names of the needles that are in the bytes of a file below a folder."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {name for name, needle in needles.items() if any(needle in content for content in contents)}


def needles_of(records: Sequence[FeedbackRecord]) -> dict[str, bytes]:
    """Name what must not be found after an erasure: ids, comments, contributors, media and parts of crops."""
    needles = {}
    for one in records:
        number = one.number
        needles |= {f"id {number}": one.id.encode(), f"comment {number}": one.comment.encode()}
        needles |= {f"contributor {number}": one.contributor.encode(), f"item {number}": one.item.encode()}
        needles |= {
            f"crop {number} at {start}": one.crop[start : start + 24]
            for start in range(64, len(one.crop) - 24, 400)
        }
    return needles


def fill(store: FeedbackStore) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Write for two contributors, also into batches; return the needles of both."""
    for number in range(60):
        contributor, comment = (ANNA if number % 3 else BEN), f"canary-{number:04d}-of-a-comment"
        store.add(
            replace(
                make_record(number, contributor=contributor, comment=comment),
                crop=make_crop(number, 20 + number),
            )
        )
        if number % 20 == 19:
            store.create_batch(12, encode)
    store.mark_pushed(store.batches()[0].id, "a" * 40)
    return needles_of(store.records(contributor=ANNA)), needles_of(store.records(contributor=BEN))


def test_erase_locally_leaves_no_byte_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "feedback.sqlite"
    with FeedbackStore(f"sqlite:///{file}") as store:
        erased, others = fill(store)
        assert found_in(tmp_path, erased) == erased.keys()  # most of it in the write-ahead log
    shutil.copy(file, tmp_path / "feedback.sqlite.corrupt-20250615T150640Z")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_a_column))
    with FeedbackStore(f"sqlite:///{file}") as store:
        assert len(list(tmp_path.glob("*.backup-*"))) == 1
        other = FeedbackStore(f"sqlite:///{file}", read_only=True)
        other.records(limit=1)  # a reader that is not in the middle of anything
        store.add(replace(make_record(99, comment="canary-in-the-log"), crop=make_crop(99)))
        erased |= needles_of(store.records(contributor=ANNA, after=60))
        assert found_in(tmp_path, erased) == erased.keys()
        erasure = erase_locally(store, ANNA)
        assert len(erasure.records) == 41
        assert found_in(tmp_path, erased) == set()
        assert found_in(tmp_path, others) >= {name for name in others if not name.startswith("crop")}
        for batch in erasure.batches:
            store.replace_batch(batch, encode)
        complete_erasure(store, tombstone_of(ANNA))
        assert found_in(tmp_path, erased) == set()
        other.close()
    assert found_in(tmp_path, erased) == set()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["feedback.sqlite"]


def test_erase_locally_beside_a_reader_is_refused_and_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "feedback.sqlite"
    monkeypatch.setattr("hsemotion_space.feedback.database.BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.2)
    with FeedbackStore(f"sqlite:///{file}") as store:
        store.add(replace(make_record(1, comment="canary"), crop=make_crop(1)))
        reader = sqlite3.connect(file, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM feedback_records").fetchone()
        with refused("not_scrubbed"):
            erase_locally(store, ANNA)
        assert store.records() == []
        assert len(pending_erasures(store)) == 1
        reader.execute("COMMIT")
        erase_locally(store, ANNA)
        reader.close()
        assert found_in(tmp_path, {"comment": b"canary", "contributor": ANNA.encode()}) == set()


def test_erase_locally_rewrites_the_tables_of_postgresql() -> None:
    if os.environ.get("TEST_POSTGRES_URL"):
        pytest.skip("needs the files of the server")
    with postgres_server() as server:
        if not server:
            pytest.skip(MISSING)
        data = Path(server.partition("host=")[2]) / "data"
        with fresh_schema(server) as url, FeedbackStore(url) as store:
            for number in range(20):
                contributor, comment = (ANNA if number % 2 else BEN), f"canary-{number:04d}"
                store.add(make_record(number, contributor=contributor, comment=comment))
            erased, others = (needles_of(store.records(contributor=name)) for name in (ANNA, BEN))
            checkpoint(server)
            assert found_in(data / "base", erased) >= {
                name for name in erased if name.startswith("contributor")
            }
            erase_locally(store, ANNA)
            checkpoint(server)
            assert found_in(data / "base", erased) == set()
            assert found_in(data / "base", others) >= {
                name for name in others if name.startswith("contributor")
            }


def checkpoint(server: str) -> None:
    with __import__("psycopg").connect(server, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
