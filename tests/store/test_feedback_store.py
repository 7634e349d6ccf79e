"""Records in the store: valid, exact, in order, reviewed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from feedback_makers import ANNA, BEN, CARL, NOW_S, hash_of, make_crop, make_record, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from store_makers import encode, ids

from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.tables import MOST_CROP_BYTES, PNG_SIGNATURE, Ack
from hsemotion_space.tasks import TASKS


def test_what_was_acknowledged_is_read_back_as_it_was(store: FeedbackStore, url: str) -> None:
    clip = make_record(2, kind="clip", span_s=(0.5, 1.25), comment="Größer 😀 than <b>", scopes=("labels",))
    assert store.add(replace(make_record(1), crop=make_crop(1))) == Ack(make_record(1).id, True, "received")
    assert store.add(clip) == Ack(clip.id, True, "received")
    store.close()
    with FeedbackStore(url) as again:
        first, second = again.records()
    assert (to_json(first), first.crop, first.created_s, first.gold) == (
        to_json(make_record(1)),
        make_crop(1),
        NOW_S,
        False,
    )
    assert (to_json(second), second.crop, second.state, second.batch, second.gold) == (
        to_json(clip),
        b"",
        "received",
        "",
        False,
    )
    assert second.number > first.number


def test_a_replay_changes_nothing_and_is_told_the_state(store: FeedbackStore) -> None:
    store.add(replace(make_record(1), crop=make_crop(1)))
    before = store.records()
    assert store.add(replace(make_record(1), crop=make_crop(2))) == Ack(make_record(1).id, False, "received")
    assert store.add(replace(make_record(1), comment="something else")).created is False
    assert store.records() == before
    store.create_batch(10, encode)
    assert store.add(make_record(1)).state == "sealed"


def test_a_newer_statement_supersedes_that_of_the_same_contributor_about_the_same_item(
    store: FeedbackStore,
) -> None:
    said = [
        make_record(1), make_record(1, contributor=BEN), make_record(2), make_record(1, face=2),
        make_record(1, verdict="correct"), make_record(1, verdict="cannot_tell"),
    ]  # fmt: skip
    for record in said:
        store.add(record)
    assert [one.superseded for one in store.records()] == [True, False, False, False, True, False]
    assert [to_json(one) for one in store.records()] == [to_json(one) for one in said]
    assert ids(store.records(contributor=BEN)) == [said[1].id]


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
def test_a_record_with_a_field_that_is_not_valid_cannot_be_made(case: str) -> None:
    with pytest.raises(FeedbackError):
        BAD_RECORDS[case](make_record(1))


@pytest.mark.parametrize("crop", [b"GIF89a", b"\x89PNG", PNG_SIGNATURE + bytes(MOST_CROP_BYTES), "text"])
def test_a_crop_that_is_no_small_png_is_refused_with_its_record(store: FeedbackStore, crop: bytes) -> None:
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
def test_every_valid_statement_is_stored_exactly(store: FeedbackStore, record: FeedbackRecord) -> None:
    store.add(record)
    found = [to_json(one) for one in store.records(contributor=record.contributor) if one.id == record.id]
    assert found == [to_json(record)]


def test_records_are_chosen_by_contributor_batch_state_and_number(store: FeedbackStore) -> None:
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


def test_a_review_can_be_changed_and_every_decision_is_kept(store: FeedbackStore) -> None:
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


def test_everything_of_one_contributor_is_reverted_at_once_and_stays(store: FeedbackStore) -> None:
    for number in range(3):
        store.add(make_record(number))
    store.add(make_record(0, contributor=BEN))
    assert store.revert(ANNA) == 3
    assert store.revert(ANNA) == 0
    store.add(make_record(7))
    assert [one.reverted for one in store.records()] == [True, True, True, False, False]


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


def test_gold_is_marked_and_taken_back(store: FeedbackStore) -> None:
    name = store.add(make_record(1)).id
    for gold in (True, False):
        store.mark_gold(name, gold)
        assert [one.gold for one in store.records()] == [gold]
    with refused("no_record"):
        store.mark_gold("0" * 32, True)
