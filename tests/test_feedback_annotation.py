"""What annotators answer: how it becomes statements, what it is compared with, and how it is kept and taken
back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from analysis_makers import make_analysis
from feedback_makers import (
    ANNA,
    BEN,
    CARL,
    NOW_S,
    SAD,
    make_crop,
    make_predicted,
    make_record,
    make_stored,
    refused,
)

from hsemotion_space.feedback.annotation import (
    MIN_ITEMS,
    AgreementCount,
    Answer,
    MajorityAnswer,
    agrees,
    known_answer,
    majority_answer,
    read_answer,
    to_correction,
)
from hsemotion_space.feedback.consent import VERSIONS, texts
from hsemotion_space.feedback.dataset import decode, encode, to_table
from hsemotion_space.feedback.form import Submission
from hsemotion_space.feedback.intake import Context, Intake
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.limits import ANSWERS_PER_CLIENT, ANSWERS_TOTAL, Limits
from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, from_json, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL

KEYS = Keys(b"k" * 32)
TOP = EXPRESSION.label_names[4]
OTHER = EXPRESSION.label_names[1]
PREDICTED = make_predicted(top=4)
POINT = tuple(PREDICTED[VALENCE_AROUSAL.name].values())
PLACED = dict(zip(VALENCE_AROUSAL.label_names, POINT, strict=True))


class Clock:
    def __init__(self) -> None:
        self.now = NOW_S

    def __call__(self) -> float:
        return self.now


class Room:
    """An intake with a real store, the usual limits of the page, and clocks that the test moves."""

    def __init__(self, store: FeedbackStore) -> None:
        self.clock, self.store = Clock(), store
        answers = Limits(self.clock, ANSWERS_PER_CLIENT, ANSWERS_TOTAL)
        self.intake = Intake(store, KEYS, Limits(self.clock), self.clock, answers)
        self.analysis = make_analysis(faces=1)

    def answer(self, label: str = OTHER, code: str = "", span: tuple[float, ...] = (), **known_here: object):
        given = Submission(1, "wrong", {"expression": label}, list(span), "", ["labels"], True, code)
        return self.intake.answer(
            self.analysis, given, "198.51.100.7", Context("job", "f" * 64, **known_here)
        )  # type: ignore[arg-type]

    def many(self, count: int, code: str | None, pause_s: float) -> int:
        """Return how many answers were kept; each is about another stretch, and with a fresh code if ``code``
        is None."""
        kept = 0
        for number in range(count):
            self.clock.now += pause_s
            span = (round(0.01 * (number % 200), 2), 2.5 + round(0.01 * (number // 200), 2))
            try:
                kept += self.answer(
                    code=KEYS.code(f"{number:032x}") if code is None else code, span=span
                ).created
            except FeedbackError as error:
                assert error.code == "limit"
        return kept


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", lambda: NOW_S) as opened:
        yield opened


@pytest.fixture
def room(store: FeedbackStore) -> Room:
    return Room(store)


def stored(number: int, contributor: str, label: str, **marks: object) -> FeedbackRecord:
    record = make_record(0, contributor=contributor, corrected={"expression": {label: 1.0}})
    return make_stored(record, number=number, **marks)  # type: ignore[arg-type]


ITEM = make_record(0).item


# Answers


@pytest.mark.parametrize(("answer", "expected"), [
    (Answer("label", TOP), ("correct", {"expression": TOP})),
    (Answer("label", OTHER), ("wrong", {"expression": OTHER})),
    (Answer("label", TOP, POINT), ("correct", {"expression": TOP, "valence_arousal": PLACED})),
    (Answer("label", TOP, (-1.0, -1.0)), ("wrong", {"expression": TOP, "valence_arousal": {"Valence": -1.0, "Arousal": -1.0}})),
    (Answer("label", OTHER, POINT), ("wrong", {"expression": OTHER, "valence_arousal": PLACED})),
    (Answer("cannot_tell"), ("cannot_tell", {})),
    (Answer("not_a_face"), ("not_a_face", {})),
])  # fmt: skip
def test_statement_follows_from_answer_and_prediction(answer: Answer, expected: tuple[str, object]) -> None:
    assert to_correction(answer, PREDICTED) == expected


def test_statement_leaves_out_what_was_not_predicted() -> None:
    plane = {"valence_arousal": PREDICTED["valence_arousal"]}
    assert to_correction(Answer("label", OTHER, POINT), plane)[0] == "correct", (
        "the class was not predicted, the point was"
    )
    with refused("not_predicted"):
        to_correction(Answer("label", OTHER), plane)
    assert to_correction(Answer("not_a_face"), {}) == ("not_a_face", {})


@pytest.mark.parametrize(("given", "code"), [
    *((("label", TOP, point), "point")
      for point in ([1.01, 0], [0], [math.nan, 0], [True, 0], ["0", 0], "00", {"Valence": 0}, 7, [10**400, 0])),
    *((("label", label), "answer") for label in ("", "happiness", None, ["Anger"], math.nan)),
    *(((choice, TOP), "choice") for choice in ("", "Label", None, ["label"], {})),
])  # fmt: skip
def test_read_answer_refuses_what_is_none(given: tuple[object, ...], code: str) -> None:
    with refused(code):
        read_answer(*given)


def test_read_answer_rounds_and_drops_what_says_nothing() -> None:
    assert read_answer("label", TOP, [-0.0, 0.3333]) == Answer("label", TOP, (0.0, 0.33))
    assert read_answer("label", TOP, None) == read_answer("label", TOP, []) == Answer("label", TOP)
    assert read_answer("not_a_face", TOP, [9]) == Answer("not_a_face"), "a label beside it says nothing"
    assert read_answer("cannot_tell").values == {} and read_answer("not_a_face").values == {"expression": {}}


# Known answers and others


def test_panel_is_the_majority_of_others() -> None:
    records = [stored(1, ANNA, TOP), stored(2, BEN, OTHER), stored(3, CARL, OTHER), make_stored(number=4)]
    assert majority_answer(records, ITEM, "expression") == MajorityAnswer({OTHER: 1.0}, 2, 3)
    assert majority_answer(records, ITEM, "expression", BEN).people == 2  # type: ignore[union-attr]
    assert majority_answer(records[:2], ITEM, "expression", BEN) == MajorityAnswer({TOP: 1.0}, 1, 1)
    assert majority_answer(records[:1], ITEM, "expression", ANNA) is None
    changed = [
        stored(1, ANNA, TOP, superseded=True),
        stored(2, ANNA, OTHER),
        stored(3, BEN, TOP, review="rejected"),
    ]
    assert majority_answer(changed, ITEM, "expression") == MajorityAnswer({OTHER: 1.0}, 1, 1)
    assert (
        majority_answer(records, ITEM, "valence_arousal") is None
        and majority_answer(records, "0" * 32, "expression") is None
    )


def test_known_prefers_a_reviewer_to_an_example() -> None:
    gold = [stored(1, ANNA, TOP, gold=True), stored(2, BEN, OTHER)]
    bundled = {"expression": {"Happiness": 1.0}}
    assert (
        known_answer(gold, ITEM, bundled)
        == known_answer(gold, ITEM, bundled, BEN)
        == {"expression": {TOP: 1.0}}
    )
    assert known_answer(gold, ITEM, bundled, ANNA) == bundled and known_answer(gold, ITEM, without=ANNA) == {}
    assert known_answer(gold, "0" * 32) == {} and known_answer(gold, "0" * 32, bundled) == bundled


def test_agrees_compares_classes() -> None:
    assert (
        agrees(Answer("label", "Sadness", (0.9, 0.9)), SAD) is True
        and agrees(Answer("label", TOP + "?"), SAD) is False
    )
    assert (
        agrees(Answer("not_a_face"), {"expression": {}}) is True
        and agrees(Answer("not_a_face"), SAD) is False
    )
    assert agrees(Answer("cannot_tell"), SAD) is None and agrees(Answer("label", TOP), {}) is None
    tally = AgreementCount()
    for agree in [True, False, None, True, True]:
        tally = tally.add(agree)
    assert tally == AgreementCount(3, 4) and tally.share is None and MIN_ITEMS == 5
    assert tally.add(True).share == 0.8


# What is kept


def test_answers_of_one_contributor_are_limited_per_minute(room: Room) -> None:
    code = room.answer().code
    assert room.many(60, code, 0.01) == 39, "forty a minute, with the first one"
    room.clock.now += 60
    assert room.many(60, code, 0.01) == 21, "what is kept already does not count"


def test_answers_with_fresh_codes_are_limited_per_day(room: Room) -> None:
    assert room.many(80, None, 375) == 50, "500 minutes of one day (UTC)"
    assert len({one.contributor for one in room.store.records()}) == 50
    room.clock.now = NOW_S + 2 * 86_400
    assert room.answer(code=KEYS.code("f" * 32)).created, "the next day it goes on"


def test_withdrawn_answers_count_for_the_limit(room: Room) -> None:
    kept = 0
    for _ in range(12):
        room.clock.now += 0.5
        try:
            receipt = room.answer()
        except FeedbackError:
            continue
        kept += room.store.withdraw(receipt.record_id, KEYS.contributor(receipt.code))
    assert kept == 5


def test_withdraw_by_the_contributor_only(store: FeedbackStore) -> None:
    record, rest = make_record(1), make_record(2)
    store.add(replace(record, crop=make_crop(1)))
    store.add(replace(rest, crop=make_crop(2)))
    store.review(record.id, "approved", "Reviewer")
    assert (
        not store.withdraw(record.id, BEN)
        and not store.withdraw("0" * 32, ANNA)
        and len(store.records()) == 2
    )
    assert store.withdraw(record.id, ANNA) and not store.withdraw(record.id, ANNA)
    assert [one.id for one in store.records()] == [rest.id] and store.records()[0].crop == make_crop(2)
    assert store.add(record).created, "there is no tombstone"
    [again] = store.records_of_items([record.item])
    assert (to_json(again), again.crop, again.review) == (to_json(record), b"", ""), (
        "neither its picture nor its review came back"
    )


def test_withdraw_of_a_sealed_record_is_refused(store: FeedbackStore) -> None:
    store.add(record := make_record(1))
    batch = store.create_batch(10, lambda rows: b"rows")
    assert batch is not None and not store.withdraw(record.id, ANNA)
    store.mark_pushed(batch.id, "0" * 40)
    assert not store.withdraw(record.id, ANNA) and len(store.records()) == 1


def test_about_finds_records_in_order_of_arrival(store: FeedbackStore) -> None:
    for record in [make_record(1), make_record(2), make_record(1, contributor=BEN), make_record(3)]:
        store.add(record)
    items = [make_record(number).item for number in (2, 1)]
    assert [(one.number, one.contributor) for one in store.records_of_items(items)] == [
        (1, ANNA),
        (2, ANNA),
        (3, BEN),
    ]
    assert store.records_of_items([]) == [] and store.records_of_items(["0" * 32] * 1200) == []
    assert store.has_contributor(BEN) and not store.has_contributor(CARL)


def test_blind_is_stored_and_false_where_missing(room: Room) -> None:
    room.answer(blind=True)
    [kept] = room.store.records()
    assert kept.blind is True
    body = {name: value for name, value in to_json(kept).items() if name != "blind"}
    assert from_json(FeedbackRecord, body).blind is False


def test_decode_without_the_blind_column(tmp_path: Path) -> None:
    given = [make_stored(replace(make_record(1), blind=True)), make_stored(make_record(2), number=2)]
    assert [row.blind for row in decode(encode(given))] == [True, False]
    pq.write_table(to_table(given).drop_columns(["blind"]), tmp_path / "old.parquet")
    assert [row.blind for row in decode((tmp_path / "old.parquet").read_bytes())] == [False, False]


def test_answer_instead_of_another_is_new(room: Room) -> None:
    first = room.answer(TOP)
    assert not room.answer(TOP, first.code).created
    second = room.answer(TOP, first.code, instead_of=first.record_id)
    assert second.created and second.record_id != first.record_id


def test_consent_is_to_the_text_of_the_language_read(room: Room) -> None:
    room.answer(language="ja")
    assert (version := room.store.records()[0].consent_version) == VERSIONS["ja"] != VERSIONS["en"]
    assert version in texts()


def test_answer_about_an_example_stores_no_picture(room: Room) -> None:
    room.answer(bundled=True)
    assert room.store.records()[0].consent_statement == "adult"
    given = Submission(1, "not_a_face", {}, [], "", ["labels", "crop"], True, "")
    with refused("bundled_crop"):
        room.intake.answer(room.analysis, given, "198.51.100.7", Context("job", "f" * 64, bundled=True))
    with pytest.raises(FeedbackError):
        room.intake.answer(
            room.analysis,
            replace(given, scopes=["labels"], adult_and_permitted="yes"),
            "x",
            Context("job", "f" * 64, bundled=True),
        )
