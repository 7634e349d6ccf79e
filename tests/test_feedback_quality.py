from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from feedback_makers import ANNA, BEN, CARL, hash_of, make_record, make_stored

from hsemotion_space.feedback.record import FeedbackRecord, Review, Values, Verdict
from hsemotion_space.feedback.trust import (
    ALONE,
    ONE_ANSWER,
    Agreed,
    Agreement,
    Trust,
    agreement,
    answers_of,
    consensus,
    known_answers,
    same,
    tiers,
    trust,
    votes,
)
from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, MIMICRY_INTENSITY, TASKS, VALENCE_AROUSAL

FACES = ACTION_UNITS.label_names
WORLD = [hash_of(f"person {number}") for number in range(600)]


class Log:
    """Records in the order of arrival."""

    def __init__(self) -> None:
        self.stored: list[FeedbackRecord] = []

    def add(
        self,
        who: str,
        what: Mapping[str, Values] | Verdict | str,
        item: int = 0,
        review: Review = "",
        kind: str = "image",
    ) -> FeedbackRecord:
        """Add a statement: corrections, a verdict, or the name of an expression."""
        verdict, corrected = "wrong", expression(what) if isinstance(what, str) else what
        if what in ("correct", "cannot_tell", "not_a_face"):
            verdict, corrected = what, {}
        comment = str(len(self.stored))
        record = make_record(
            item, contributor=who, kind=kind, verdict=verdict, corrected=corrected, comment=comment
        )
        self.stored.append(make_stored(record, number=len(self.stored) + 1, review=review))
        return self.stored[-1]

    def answer(self, item: int = 0, task: str = "expression", **options: object) -> Agreed:
        return consensus(self.stored, **options)[item_of(item)][task]


def item_of(item: int, kind: str = "image") -> str:
    return make_record(item, kind=kind).item


def point(valence: float, arousal: float) -> Mapping[str, Values]:
    return {"valence_arousal": {"Valence": valence, "Arousal": arousal}}


def units(*present: str, absent: tuple[str, ...] = ()) -> Mapping[str, Values]:
    return {"action_units": {**dict.fromkeys(present, 1.0), **dict.fromkeys(absent, 0.0)}}


def expression(label: str) -> Mapping[str, Values]:
    return {"expression": {label: 1.0}}


# votes


def test_votes_count_the_newest_statement_of_each_contributor_in_any_order() -> None:
    log = Log()
    for label in ("Fear", "Anger", "Sadness"):
        log.add(ANNA, label)
    log.add(ANNA, "Fear", item=1)
    log.add(BEN, "Sadness")
    random.Random(1).shuffle(log.stored)
    found = votes(log.stored)
    assert {vote.record.contributor: vote.answers for vote in found[item_of(0)]} == {
        ANNA: expression("Sadness"), BEN: expression("Sadness"),
    }  # fmt: skip
    assert len(found[item_of(1)]) == 1


@pytest.mark.parametrize("change", [{"reverted": True}, {"review": "rejected"}, {"superseded": True}])
def test_votes_leave_reverted_rejected_and_superseded_records_out(change: dict[str, object]) -> None:
    log = Log()
    log.add(ANNA, "Fear")
    assert votes(log.stored)
    gone = [replace(one, **change) for one in log.stored]
    assert not votes(gone)
    assert not consensus(gone)
    assert set(tiers(gone).values()) == {"raw"}


def test_answers_of_each_verdict() -> None:
    log = Log()
    assert answers_of(log.add(ANNA, "correct")) == {  # numbers are not confirmed by it
        "expression": {"Happiness": 1.0}, "compound_expression": {"Angrily surprised": 1.0},
    }  # fmt: skip
    assert answers_of(log.add(ANNA, "cannot_tell")) == {}
    assert answers_of(log.add(ANNA, "not_a_face", kind="clip")) == {task.name: {} for task in TASKS}


def test_same_of_equal_and_different_answers() -> None:
    assert same(EXPRESSION, {"Fear": 1.0}, {"Fear": 1.0})
    assert not same(EXPRESSION, {"Fear": 1.0}, {"Anger": 1.0})
    assert not same(EXPRESSION, {"Fear": 1.0}, {})
    assert same(EXPRESSION, {}, {})
    assert same(VALENCE_AROUSAL, {"Valence": 0.0, "Arousal": 0.0}, {"Valence": 0.3, "Arousal": -0.3})
    assert not same(VALENCE_AROUSAL, {"Valence": 0.0, "Arousal": 0.0}, {"Valence": 0.31, "Arousal": 0.0})
    assert same(ACTION_UNITS, {"AU1": 1.0, "AU2": 0.0}, {"AU1": 0.5, "AU4": 1.0})
    assert not same(ACTION_UNITS, {"AU1": 1.0}, {"AU1": 0.49})
    assert not same(ACTION_UNITS, {"AU1": 1.0}, {"AU2": 1.0})  # they speak of different units
    assert not same(MIMICRY_INTENSITY, {"Joy": 0.4}, {"Joy": 0.6})


# consensus


def test_consensus_needs_two_contributors() -> None:
    log = Log()
    log.add(ANNA, "Fear")
    for _ in range(500):
        log.add(ANNA, "Fear")
    assert log.answer() == Agreed({"Fear": 1.0}, "raw", 1)
    log.add(BEN, "Fear")
    assert log.answer() == Agreed({"Fear": 1.0}, "agreed", 2)
    log.add(CARL, "Anger")
    assert log.answer() == Agreed({"Fear": 1.0}, "raw", 2)


def test_consensus_on_reviewed_answers_withstands_500_votes() -> None:
    for people in ([BEN], WORLD[:500], [ANNA]):
        log = Log()
        log.add(ANNA, "Fear", review="approved")
        log.add(CARL, units("AU1"), item=1, review="approved")
        before = {item: dict(answers) for item, answers in consensus(log.stored).items()}
        for number in range(500):
            log.add(people[number % len(people)], "Anger")
            log.add(people[number % len(people)], units(*FACES), item=1)
        stored = [
            replace(one, superseded=one.contributor == ANNA and one.number < len(log.stored))
            for one in log.stored
        ]
        for records in (log.stored, stored):
            after = consensus(records)
            assert all(dict(after[item]) | answers == dict(after[item]) for item, answers in before.items())
            reviewed = {name for name, tier in tiers(records).items() if tier == "reviewed"}
            assert reviewed == {one.id for one in log.stored[:2]}


def test_consensus_ignores_a_reverted_review() -> None:
    log = Log()
    log.add(ANNA, "Fear", review="approved")
    log.add(BEN, "Anger")
    log.stored[0] = replace(log.stored[0], reverted=True)
    assert log.answer() == Agreed({"Anger": 1.0}, "raw", 1)


def test_consensus_of_near_numbers_is_their_mean() -> None:
    log = Log()
    log.add(ANNA, point(0.5, -0.1))
    log.add(BEN, point(0.7, 0.1))
    answer = log.answer(task="valence_arousal")
    assert answer.tier == "agreed"
    assert answer.values == pytest.approx({"Valence": 0.6, "Arousal": 0.0})
    log.add(CARL, point(0.6, 0.9))  # near in one dimension only
    answer = log.answer(task="valence_arousal")
    assert answer.tier == "raw"
    assert answer.values == pytest.approx({"Valence": 0.6, "Arousal": 0.3})


def test_consensus_of_units_is_one_by_one() -> None:
    log = Log()
    log.add(ANNA, units("AU1", "AU2", absent=("AU4",)))
    log.add(BEN, units("AU1", "AU4", absent=("AU6",)))
    assert log.answer(task="action_units") == Agreed({"AU1": 1.0}, "agreed", 2)
    assert set(tiers(log.stored).values()) == {"raw"}  # each says more than was agreed
    log.add(CARL, units("AU1"))
    assert list(tiers(log.stored).values()) == ["raw", "raw", "agreed"]


def test_consensus_counts_not_a_face_as_an_answer() -> None:
    log = Log()
    log.add(ANNA, "Fear")
    log.add(BEN, "Fear")
    log.add(CARL, "not_a_face")
    assert log.answer().tier == "raw"
    assert log.answer(task="action_units") == Agreed({}, "raw", 1)
    for who in (ANNA, BEN):
        log.add(who, "not_a_face")
    assert log.answer() == Agreed({}, "agreed", 3)
    assert list(tiers(log.stored).values()) == ["raw", "raw", "agreed", "agreed", "agreed"]


def test_consensus_ignores_cannot_tell() -> None:
    log = Log()
    for who, what in ((ANNA, "Fear"), (CARL, "cannot_tell"), (BEN, "Fear")):
        log.add(who, what)
    assert log.answer() == Agreed({"Fear": 1.0}, "agreed", 2)
    assert list(tiers(log.stored).values()) == ["agreed", "raw", "agreed"]


# gold


def test_trust_follows_the_known_answers() -> None:
    log = Log()
    gold = {item_of(number): expression("Fear") for number in range(10, 14)}
    for number in range(10, 14):
        log.add(ANNA, "Fear", item=number)
        log.add(BEN, "Anger" if number % 2 else "Fear", item=number)
        log.add(CARL, units("AU1"), item=number)  # says nothing about the task
    log.add(CARL, "Fear", item=20)
    found = trust(log.stored, gold)
    assert found == {ANNA: Trust(4, 4), BEN: Trust(2, 4), CARL: Trust(0, 0)}
    assert found[ANNA].share > found[CARL].share > found[BEN].share
    assert [one.enough for one in found.values()] == [True, False, True]


def test_known_answers_are_marked_and_not_rejected() -> None:
    log = Log()
    log.add(ANNA, "Fear")
    log.add(BEN, "Anger", item=1)
    log.add(CARL, units("AU1"), item=2)
    log.add(CARL, "Fear", item=3, review="rejected")
    marked = [replace(one, gold=one.number != 2) for one in log.stored]
    assert known_answers(marked) == {item_of(0): expression("Fear"), item_of(2): units("AU1")}
    corrected = replace(log.add(ANNA, "Sadness"), gold=True)
    assert known_answers([corrected, *marked])[item_of(0)] == expression("Sadness")


def test_consensus_ignores_contributors_who_are_wrong_on_gold() -> None:
    log = Log()
    gold = {item_of(9): expression("Fear")}
    log.add(CARL, "Anger", item=9)
    log.add(ANNA, "Sadness")
    log.add(CARL, "Sadness")
    assert log.answer().tier == "agreed"
    assert log.answer(gold=gold).tier == "raw"
    log.add(BEN, "Sadness")
    log.add(CARL, "Anger")
    assert log.answer().tier == "raw"
    assert log.answer(gold=gold) == Agreed({"Sadness": 1.0}, "agreed", 2)


def test_consensus_and_tiers_do_not_depend_on_the_order() -> None:
    rng = random.Random(3)
    for seed in range(60):
        log = Log()
        for _ in range(rng.randint(1, 25)):
            kind = rng.choice(["Fear", "Anger", "correct", "not_a_face", "cannot_tell", "point", "units"])
            numbers = {"point": point(rng.uniform(-1, 1), 0.5), "units": units("AU1", absent=("AU2",))}
            who, review = rng.choice([ANNA, BEN, CARL]), rng.choice(["", "", "", "approved", "rejected"])
            log.add(who, numbers.get(kind, kind), item=rng.randrange(3), review=review)
        shuffled = random.Random(seed).sample(log.stored, len(log.stored))
        first, second = consensus(log.stored), consensus(shuffled)
        assert first.keys() == second.keys()
        for item, answers in first.items():
            assert answers.keys() == second[item].keys()
            for name, answer in answers.items():
                other = second[item][name]
                assert answer.values == pytest.approx(dict(other.values))
                assert (answer.tier, answer.support) == (other.tier, other.support)
        assert tiers(log.stored) == tiers(shuffled)
        assert tiers(log.stored).keys() == {one.id for one in log.stored}


# agreement

PUBLISHED = [
    [None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3],
    [1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None],
    [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
]
"""Three raters and fifteen items of https://en.wikipedia.org/wiki/Krippendorff%27s_alpha: nominal alpha
0.691, interval 0.811."""


def published(answers: Mapping[int, Mapping[str, Values]], kind: str = "image") -> list[FeedbackRecord]:
    log = Log()
    for who, row in zip((ANNA, BEN, CARL), PUBLISHED, strict=True):
        for item, value in enumerate(row):
            if value is not None:
                log.add(who, answers[value], item=item, kind=kind)
    return log.stored


def of(records: list[FeedbackRecord], task: str, label: str = "") -> Agreement:
    (found,) = [one for one in agreement(records) if (one.task, one.label) == (task, label)]
    return found


def test_agreement_of_classes_is_the_published_nominal_alpha() -> None:
    classes = {value: expression(EXPRESSION.label_names[value]) for value in range(1, 5)}
    found = of(published(classes), "expression")
    assert found.alpha == pytest.approx(0.691358, abs=1e-6)
    assert (found.level, found.items, found.raters, found.reason) == ("nominal", 12, 3, "")


def test_agreement_of_dimensions_is_the_published_interval_alpha() -> None:
    stored = published({value: point(value / 10, 0.9) for value in range(1, 5)})
    valence, arousal = of(stored, "valence_arousal", "Valence"), of(stored, "valence_arousal", "Arousal")
    assert valence.alpha == pytest.approx(0.810845, abs=1e-6)
    assert valence.level == "interval"
    assert (arousal.alpha, arousal.items, arousal.reason) == (None, 12, ONE_ANSWER)


def test_agreement_of_intensities_is_interval_and_of_units_nominal() -> None:
    values = {value: {"mimicry_intensity": {"Joy": value / 5}} for value in range(1, 5)}
    joy = of(published(values, "clip"), "mimicry_intensity", "Joy")
    assert joy.alpha == pytest.approx(0.810845, abs=1e-6)
    # by hand: two raters, ten items, 3 differ; of 20 answers 5 are "present": 1 - (20 - 1) * 3 / (5 * 15) =
    # 0.24
    log = Log()
    for who, row in ((ANNA, "0100000000"), (BEN, "1110010000")):
        for item, value in enumerate(row):
            log.add(who, {"action_units": {"AU1": float(value), "AU2": float(value == "1") * 0.4}}, item=item)
    found = of(log.stored, "action_units", "AU1")
    assert found.level == "nominal"
    assert (found.items, found.raters) == (10, 2)
    assert found.alpha == pytest.approx(0.24)
    assert of(log.stored, "action_units", "AU2").reason == ONE_ANSWER  # 0.4 is absent as 0 is


def test_agreement_without_two_judges_of_one_item_is_undefined() -> None:
    log = Log()
    for number in range(5):
        log.add(ANNA, "Fear", item=number)
        log.add(BEN, "Anger", item=number + 10)
    log.add(BEN, "not_a_face", item=0)
    found = agreement(log.stored)
    assert len(found) == 2 + 2 + 12 + 6
    assert {one.alpha for one in found} == {None}
    assert {one.reason for one in found} == {ALONE}
    assert not any(one.items or one.raters for one in found)
    assert {one.reason for one in agreement([])} == {ALONE}
