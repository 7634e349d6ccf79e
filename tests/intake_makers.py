"""An intake of corrections with a store in memory and a clock that stands still."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from analysis_makers import make_analysis

from hsemotion_space.feedback.form import Submission
from hsemotion_space.feedback.intake import Context, Intake
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.limits import DAY_S, HOUR_S, Limits, Rule
from hsemotion_space.feedback.record import FeedbackRecord, from_json, to_json
from hsemotion_space.feedback.tables import Ack
from hsemotion_space.types import Analysis

NOW_S = 1_750_000_000.0
KEYS = Keys(b"k" * 32)
PREPROCESSING = "f" * 64
JOB = "0123456789abcdef" * 2
KNOWN = Context(JOB, PREPROCESSING)
ADDRESS = "198.51.100.7"


class Clock:
    def __init__(self, now: float = NOW_S) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeStore:
    """Keeps records by id, as JSON text."""

    def __init__(self) -> None:
        self.records: dict[str, FeedbackRecord] = {}

    def add(self, record: FeedbackRecord) -> Ack:
        created = record.id not in self.records
        if created:
            read = from_json(
                FeedbackRecord, json.loads(json.dumps(to_json(record), allow_nan=False)), crop=record.crop
            )
            assert read == record
            self.records[record.id] = read
        return Ack(record.id, created, "received")

    def has_contributor(self, contributor: str) -> bool:
        return any(record.contributor == contributor for record in self.records.values())


class Sender:
    """Sends submissions about one analysis to an intake."""

    def __init__(self, analysis: Analysis | None = None, generous: bool = True) -> None:
        self.clock, self.store = Clock(), FakeStore()
        limits = (
            Limits(Clock(0), [Rule(10**9, DAY_S)], [Rule(10**9, HOUR_S)]) if generous else Limits(Clock(0))
        )
        self.intake = Intake(self.store, KEYS, limits, self.clock)
        self.analysis = analysis or make_analysis()

    def submission(self, face: int = 1, **changes: object) -> Submission:
        usual = Submission(face, "wrong", {"expression": "Fear"}, [], "", ["labels"], True, "")
        return replace(usual, **changes)

    def send(self, face: int = 1, client: str = ADDRESS, **changes: object):
        return self.intake.submit(self.analysis, self.submission(face, **changes), client, KNOWN)

    @property
    def record(self) -> FeedbackRecord:
        (record,) = self.store.records.values()
        return record


def run_all(functions: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
