"""Records in the store: valid, exact, chosen; ``test_feedback_store_model.py`` has the rules of their states."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from feedback_makers import ANNA, BEN, CARL, NOW_S, hash_of, make_record, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from store_makers import encode, ids

from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import MOST_CROP_BYTES, PNG_SIGNATURE, Ack
from hsemotion_space.tasks import TASKS

BAD_RECORDS: dict[str, Callable[[FeedbackRecord], FeedbackRecord]] = {
    "id": lambda record: replace(record, id="x" * 32),
    "contributor": lambda record: replace(record, contributor="Anna\0"),
    "no contributor": lambda record: replace(record, contributor=""),
    "verdict": lambda record: replace(record, verdict="good"),  # type: ignore[arg-type]
    "kind": lambda record: replace(record, kind="film"),
    "face": lambda record: replace(record, face=0),
    "box": lambda record: replace(record, box_xyxy=(0.0, 0.0, math.nan, 1.0)),
    "range of a picture": lambda record: replace(record, span_s=(0.0, 1.0)),
    "provenance": lambda record: replace(record, provenance={"expression": "guessed"}),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_record_with_an_invalid_field(case: str) -> None:
    with pytest.raises(FeedbackError):
        BAD_RECORDS[case](make_record(1))


@pytest.mark.parametrize("crop", [b"GIF89a", b"\x89PNG", PNG_SIGNATURE + bytes(MOST_CROP_BYTES), "text"])
def test_add_refuses_a_crop_that_is_no_small_png(store: FeedbackStore, crop: bytes) -> None:
    with refused("crop"):
        store.add(replace(make_record(1), crop=crop))
    assert store.records() == []
    store.add(replace(make_record(1), crop=PNG_SIGNATURE + bytes(MOST_CROP_BYTES - len(PNG_SIGNATURE))))
    assert len(store.records()[0].crop) == MOST_CROP_BYTES


@st.composite
def statements(draw: st.DrawFn) -> FeedbackRecord:
    """Any valid statement: a verdict, or values for any tasks."""
    verdict = draw(st.sampled_from(["wrong", "correct", "cannot_tell", "not_a_face"]))
    corrected = {}
    for task in draw(st.lists(st.sampled_from(TASKS), min_size=1, unique=True)) if verdict == "wrong" else []:
        some = draw(st.lists(st.sampled_from(task.label_names), min_size=1, unique=True))
        labels = {
            "one_of": some[:1],
            "continuous": task.label_names,
            "independent": [name for name in task.label_names if name in some],
        }
        numbers = st.just(1.0) if task.kind == "one_of" else st.floats(task.low, task.high)
        corrected[task.name] = {label: draw(numbers) for label in labels[task.kind]}
    number, contributor = draw(st.integers(0, 10**6)), draw(st.sampled_from([ANNA, BEN]))
    comment = draw(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=500))
    return make_record(
        number, kind="clip", verdict=verdict, corrected=corrected, contributor=contributor, comment=comment
    )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(record=statements())
def test_records_of_every_valid_statement(store: FeedbackStore, record: FeedbackRecord) -> None:
    store.add(record)
    found = [to_json(one) for one in store.records(contributor=record.contributor) if one.id == record.id]
    assert found == [to_json(record)]


def test_records_by_contributor_batch_state_and_number(store: FeedbackStore) -> None:
    for number in range(6):
        store.add(make_record(number, contributor=BEN if number % 2 else ANNA))
    batch = store.create_batch(3, encode)
    assert batch is not None
    numbers = [one.number for one in store.records()]
    assert [one.number for one in store.records(batch=batch.id)] == numbers[:3]
    assert [one.number for one in store.records(states=["received"])] == numbers[3:]
    assert [one.number for one in store.records(states=["sealed", "received"], contributor=BEN)] == numbers[
        1::2
    ]
    assert [one.number for one in store.records(after=numbers[1], limit=2)] == numbers[2:4]
    assert store.records(states=["pushed"]) == store.records(contributor=CARL) == []
    assert store.counts() == {"received": 3, "sealed": 3, "pushed": 0, "verified": 0}


def test_review_changes_and_keeps_every_decision(store: FeedbackStore) -> None:
    store.add(make_record(1))
    store.review(make_record(1).id, "approved", "Carla")
    assert store.records()[0].review == "approved"
    store.review(make_record(1).id, "", "Dora")
    assert store.records()[0].review == ""
    with store.database.reading() as connection:
        rows = connection.execute(
            text("SELECT decision, reviewer FROM feedback_reviews ORDER BY number")
        ).all()
    assert [tuple(row) for row in rows] == [("approved", "Carla"), ("", "Dora")]
    with refused("no_record"):
        store.review(make_record(2).id, "approved", "Carla")
    with refused("review"):
        store.review(make_record(1).id, "fine", "Carla")  # type: ignore[arg-type]


def test_set_meta_lasts(store: FeedbackStore, url: str) -> None:
    assert store.get_meta("cursor") == ""
    store.set_meta("cursor", "1")
    store.set_meta("cursor", "2 äß")
    store.close()
    with FeedbackStore(url) as again:
        assert again.get_meta("cursor") == "2 äß"


def test_records_are_in_order_of_arrival_whatever_the_clock_says(url: str) -> None:
    times = iter([NOW_S, NOW_S - 86400, NOW_S + 10 * 365 * 86400, 0.0])
    with FeedbackStore(url, lambda: next(times)) as store:
        records = [make_record(1, top=top) for top in range(4)]
        for record in records:
            store.add(record)
        assert ids(store.records()) == [record.id for record in records]
        assert [one.superseded for one in store.records()] == [True, True, True, False]


def test_store_in_several_threads(store: FeedbackStore) -> None:
    acks: list[Ack] = []
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(50):
                acks.append(store.add(make_record(number, contributor=hash_of(str(thread)))))
                if number % 10 == 0:
                    store.records(limit=5)
                    store.create_batch(20, encode)
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


def test_mark_gold_can_be_taken_back(store: FeedbackStore) -> None:
    name = store.add(make_record(1)).id
    for gold in (True, False):
        store.mark_gold(name, gold)
        assert [one.gold for one in store.records()] == [gold]
    with refused("no_record"):
        store.mark_gold("0" * 32, True)
