"""A server of feedback beside a stand-in for the Hub: its store, its publisher, and a clock that moves when
told to.

with FakeHub() as hub, use(hub, monkeypatch, tmp_path / "hub"):
    server = Server(hub, tmp_path / "here")
    server.say(30)
    server.pass_time(61)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fake_hub import FakeHub
from feedback_makers import ANNA, NOW_S, make_crop, make_record
from sqlalchemy import event

from hsemotion_space.feedback.dataset import record_ids
from hsemotion_space.feedback.erase import Erasure, erase_everywhere, pending_erasures
from hsemotion_space.feedback.publish import Publisher
from hsemotion_space.feedback.record import VERDICTS, FeedbackRecord
from hsemotion_space.feedback.status import PublishStatus
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import Counts

REPO = "org/feedback"
TOKEN = "hf_canaryCanaryCANARYcanary0123456789"
TEXTS = {"1": "labels: Keep my correction.\npublish: Also publish it."}


class PowerCutError(BaseException):
    """Nothing can catch this."""


@dataclass
class Clock:
    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Server:
    """One server; `folder` is its disk, `said` has the ids of all that was acknowledged."""

    hub: FakeHub
    folder: Path
    clock: Clock = field(default_factory=Clock)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hub.token = TOKEN
        self.start()

    def start(self) -> None:
        """Start as after a crash, with whatever the disk has."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = FeedbackStore(
            f"sqlite:///{self.folder / 'feedback.sqlite'}", self.clock, reserve_bytes=0
        )
        engine = self.store.database._engine
        event.listen(
            engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF")
        )  # for speed: nobody pulls a plug
        engine.dispose()
        self.publisher = Publisher(self.store, REPO, TOKEN, TEXTS, clock=self.clock)

    def crash(self, *, lose_disk: bool = False) -> None:
        """End without a chance to push, and start anew."""
        self.store.close()
        if lose_disk:
            self.folder = self.folder.with_name(f"{self.folder.name}_")
        self.start()

    def say(
        self,
        count: int = 1,
        contributor: str = ANNA,
        *,
        crop: bool = False,
        scopes: tuple[str, ...] = ("labels", "crop", "publish"),
    ) -> list[str]:
        """Make statements about pictures that nobody has judged before."""
        ids = []
        for _ in range(count):
            record = make_record(
                media=f"{self.folder.name} {len(self.said)}", contributor=contributor, scopes=scopes
            )
            ids.append(self.store.add(replace(record, crop=make_crop(len(self.said)) if crop else b"")).id)
            self.said.append(ids[-1])
        return ids

    def erase(self, contributor: str, *, alone: bool = False, wait_s: float = 20.0) -> Erasure:
        """Erase everything of somebody, as the page does; `alone` has no access to the Hub."""
        finish_erasures = None if alone else partial(self.publisher.finish_erasures, wait_s=wait_s)
        return erase_everywhere(
            self.store, contributor, finish_erasures, publishes=True, restored=self.publisher.restored
        )

    def pass_time(self, seconds: float) -> bool:
        """Move the clock and do what is due then."""
        self.clock.now_s += seconds
        return self.publisher.step()

    def drain(self, hours: float = 24.0) -> PublishStatus:
        """Go on until nothing waits any more, at most so long on the clock."""
        until_s = self.clock.now_s + hours * 3600
        while (
            self.store.counts()["received"] or self.store.counts()["sealed"] or pending_erasures(self.store)
        ):
            assert self.clock.now_s < until_s, self.publisher.status()
            self.pass_time(30)
        return self.publisher.status()

    @property
    def commits(self) -> int:
        """Commits besides the one that made the repository."""
        return len(self.hub.commits(REPO, kind="dataset")) - 1


def batches_on(hub: FakeHub) -> dict[str, bytes]:
    """Return the Parquet files at the head."""
    return {path: body for path, body in hub.files(REPO, kind="dataset").items() if path.endswith(".parquet")}


def published_ids(hub: FakeHub) -> Counter[str]:
    """Return how often each id is in the files at the head."""
    return Counter(name for body in batches_on(hub).values() for name in record_ids(body))


def everything_on(hub: FakeHub) -> list[bytes]:
    """Return every file of every commit and every large file, as it is and, if it is Parquet, with its cells
    unpacked."""
    blobs = [body for commit in hub.commits(REPO, kind="dataset") for body in commit.files.values()]
    blobs += [commit.message.encode() for commit in hub.commits(REPO, kind="dataset")]
    blobs += hub.lfs_objects(REPO, kind="dataset").values()
    return blobs + [_cells(body) for body in blobs if body.startswith(b"PAR1")]


def _cells(body: bytes) -> bytes:
    rows = pq.read_table(pa.BufferReader(body)).to_pylist()
    pictures = [row["image"]["bytes"] for row in rows if row.get("image")]
    return b"\n".join([repr(rows).encode(), *pictures])


def everything_in(folder: Path) -> list[bytes]:
    """Return the files of a disk: the database, its log, and what lies beside it."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def counts_of(rows: Sequence[FeedbackRecord]) -> Counts:
    """Count rows, each of which is another statement."""
    verdicts = dict.fromkeys(VERDICTS, 0) | Counter(row.verdict for row in rows)
    versions = tuple(sorted({row.consent_version for row in rows}))
    return Counts(
        len(rows),
        sum(bool(row.crop) for row in rows),
        len({row.contributor for row in rows}),
        verdicts,
        versions,
    )
