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

    def say(
        self,
        who: str,
        what: Mapping[str, Values] | Verdict | str,
        item: int = 0,
        review: Review = "",
        kind: str = "image",
    ) -> FeedbackRecord:
        """Add a statement: corrections, a verdict, or the name of an expression."""
        verdicts = ("correct", "cannot_tell", "not_a_face")
        verdict = what if what in verdicts else "wrong"
        said = {} if what in verdicts else {"expression": {what: 1.0}} if isinstance(what, str) else what
        record = make_record(
            item, contributor=who, kind=kind, verdict=verdict, corrected=said, comment=str(len(self.stored))
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


def test_of_one_contributor_the_newest_statement_about_an_item_counts_in_whatever_order_they_are_read() -> (
    None
):
    log = Log()
    for label in ("Fear", "Anger", "Sadness"):
        log.say(ANNA, label)
    log.say(ANNA, "Fear", item=1)
    log.say(BEN, "Sadness")
    random.Random(1).shuffle(log.stored)
    found = votes(log.stored)
    assert {vote.record.contributor: vote.answers for vote in found[item_of(0)]} == {
        ANNA: expression("Sadness"), BEN: expression("Sadness"),
    }  # fmt: skip
    assert len(found[item_of(1)]) == 1


@pytest.mark.parametrize("change", [{"reverted": True}, {"review": "rejected"}, {"superseded": True}])
def test_what_was_set_aside_does_not_count(change: dict[str, object]) -> None:
    log = Log()
    log.say(ANNA, "Fear")
    assert votes(log.stored)
    gone = [replace(one, **change) for one in log.stored]
    assert not votes(gone)
    assert not consensus(gone)
    assert set(tiers(gone).values()) == {"raw"}


def test_what_each_verdict_says() -> None:
    log = Log()
    assert answers_of(log.say(ANNA, "correct")) == {  # numbers are not confirmed by it
        "expression": {"Happiness": 1.0}, "compound_expression": {"Angrily surprised": 1.0},
    }  # fmt: skip
    assert answers_of(log.say(ANNA, "cannot_tell")) == {}
    assert answers_of(log.say(ANNA, "not_a_face", kind="clip")) == {task.name: {} for task in TASKS}


def test_equal_answers() -> None:
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


def test_two_who_say_the_same_agree_and_one_never_does() -> None:
    log = Log()
    log.say(ANNA, "Fear")
    for _ in range(500):
        log.say(ANNA, "Fear")
    assert log.answer() == Agreed({"Fear": 1.0}, "raw", 1)
    log.say(BEN, "Fear")
    assert log.answer() == Agreed({"Fear": 1.0}, "agreed", 2)
    log.say(CARL, "Anger")
    assert log.answer() == Agreed({"Fear": 1.0}, "raw", 2)


def test_500_votes_of_one_contributor_or_of_500_fresh_ones_do_not_change_what_was_reviewed() -> None:
    for people in ([BEN], WORLD[:500], [ANNA]):
        log = Log()
        log.say(ANNA, "Fear", review="approved")
        log.say(CARL, units("AU1"), item=1, review="approved")
        before = {item: dict(answers) for item, answers in consensus(log.stored).items()}
        for number in range(500):
            log.say(people[number % len(people)], "Anger")
            log.say(people[number % len(people)], units(*FACES), item=1)
        stored = [
            replace(one, superseded=one.contributor == ANNA and one.number < len(log.stored))
            for one in log.stored
        ]
        for given in (log.stored, stored):
            after = consensus(given)
            assert all(
                after[item][name] == answer
                for item, answers in before.items()
                for name, answer in answers.items()
            )
            assert {name for name, tier in tiers(given).items() if tier == "reviewed"} == {
                one.id for one in log.stored[:2]
            }


def test_a_review_that_was_reverted_counts_no_more() -> None:
    log = Log()
    log.say(ANNA, "Fear", review="approved")
    log.say(BEN, "Anger")
    log.stored[0] = replace(log.stored[0], reverted=True)
    assert log.answer() == Agreed({"Anger": 1.0}, "raw", 1)


def test_numbers_agree_if_they_are_near_and_their_mean_is_taken() -> None:
    log = Log()
    log.say(ANNA, point(0.5, -0.1))
    log.say(BEN, point(0.7, 0.1))
    answer = log.answer(task="valence_arousal")
    assert answer.tier == "agreed"
    assert answer.values == pytest.approx({"Valence": 0.6, "Arousal": 0.0})
    log.say(CARL, point(0.6, 0.9))  # near in one dimension only
    answer = log.answer(task="valence_arousal")
    assert answer.tier == "raw"
    assert answer.values == pytest.approx({"Valence": 0.6, "Arousal": 0.3})


def test_units_agree_one_by_one() -> None:
    log = Log()
    log.say(ANNA, units("AU1", "AU2", absent=("AU4",)))
    log.say(BEN, units("AU1", "AU4", absent=("AU6",)))
    assert log.answer(task="action_units") == Agreed({"AU1": 1.0}, "agreed", 2)
    assert set(tiers(log.stored).values()) == {"raw"}  # each says more than was agreed
    log.say(CARL, units("AU1"))
    assert list(tiers(log.stored).values()) == ["raw", "raw", "agreed"]


def test_that_it_is_no_face_contradicts_and_can_be_agreed_on() -> None:
    log = Log()
    log.say(ANNA, "Fear")
    log.say(BEN, "Fear")
    log.say(CARL, "not_a_face")
    assert log.answer().tier == "raw"
    assert log.answer(task="action_units") == Agreed({}, "raw", 1)
    for who in (ANNA, BEN):
        log.say(who, "not_a_face")
    assert log.answer() == Agreed({}, "agreed", 3)
    assert list(tiers(log.stored).values()) == ["raw", "raw", "agreed", "agreed", "agreed"]


def test_cannot_tell_contradicts_nobody() -> None:
    log = Log()
    for who, what in ((ANNA, "Fear"), (CARL, "cannot_tell"), (BEN, "Fear")):
        log.say(who, what)
    assert log.answer() == Agreed({"Fear": 1.0}, "agreed", 2)
    assert list(tiers(log.stored).values()) == ["agreed", "raw", "agreed"]


# gold


def test_trust_follows_the_known_answers() -> None:
    log = Log()
    gold = {item_of(number): expression("Fear") for number in range(10, 14)}
    for number in range(10, 14):
        log.say(ANNA, "Fear", item=number)
        log.say(BEN, "Anger" if number % 2 else "Fear", item=number)
        log.say(CARL, units("AU1"), item=number)  # says nothing about the task
    log.say(CARL, "Fear", item=20)
    found = trust(log.stored, gold)
    assert found == {ANNA: Trust(4, 4), BEN: Trust(2, 4), CARL: Trust(0, 0)}
    assert found[ANNA].share > found[CARL].share > found[BEN].share
    assert [one.enough for one in found.values()] == [True, False, True]


def test_known_answers_are_what_a_reviewer_marked_and_did_not_take_back() -> None:
    log = Log()
    log.say(ANNA, "Fear")
    log.say(BEN, "Anger", item=1)
    log.say(CARL, units("AU1"), item=2)
    log.say(CARL, "Fear", item=3, review="rejected")
    marked = [replace(one, gold=one.number != 2) for one in log.stored]
    assert known_answers(marked) == {item_of(0): expression("Fear"), item_of(2): units("AU1")}
    corrected = replace(log.say(ANNA, "Sadness"), gold=True)
    assert known_answers([corrected, *marked])[item_of(0)] == expression("Sadness")


def test_who_is_wrong_on_gold_neither_agrees_nor_contradicts() -> None:
    log = Log()
    gold = {item_of(9): expression("Fear")}
    log.say(CARL, "Anger", item=9)
    log.say(ANNA, "Sadness")
    log.say(CARL, "Sadness")
    assert log.answer().tier == "agreed"
    assert log.answer(gold=gold).tier == "raw"
    log.say(BEN, "Sadness")
    log.say(CARL, "Anger")
    assert log.answer().tier == "raw"
    assert log.answer(gold=gold) == Agreed({"Sadness": 1.0}, "agreed", 2)


def test_the_order_of_records_changes_nothing() -> None:
    rng = random.Random(3)
    for seed in range(60):
        log = Log()
        for _ in range(rng.randint(1, 25)):
            kind = rng.choice(["Fear", "Anger", "correct", "not_a_face", "cannot_tell", "point", "units"])
            what = {"point": point(rng.uniform(-1, 1), 0.5), "units": units("AU1", absent=("AU2",))}.get(
                kind, kind
            )
            log.say(
                rng.choice([ANNA, BEN, CARL]),
                what,
                item=rng.randrange(3),
                review=rng.choice(["", "", "", "approved", "rejected"]),
            )
        shuffled = random.Random(seed).sample(log.stored, len(log.stored))
        first, second = consensus(log.stored), consensus(shuffled)
        assert first.keys() == second.keys()
        for item, answers in first.items():
            assert answers.keys() == second[item].keys()
            for name, answer in answers.items():
                assert answer.values == pytest.approx(dict(second[item][name].values))
                assert (answer.tier, answer.support) == (second[item][name].tier, second[item][name].support)
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


def published(say: Mapping[int, Mapping[str, Values]], kind: str = "image") -> list[FeedbackRecord]:
    log = Log()
    for who, row in zip((ANNA, BEN, CARL), PUBLISHED, strict=True):
        for item, value in enumerate(row):
            if value is not None:
                log.say(who, say[value], item=item, kind=kind)
    return log.stored


def of(records: list[FeedbackRecord], task: str, label: str = "") -> Agreement:
    (found,) = [one for one in agreement(records) if (one.task, one.label) == (task, label)]
    return found


def test_classes_have_the_published_nominal_alpha() -> None:
    found = of(
        published({value: expression(EXPRESSION.label_names[value]) for value in range(1, 5)}), "expression"
    )
    assert found.alpha == pytest.approx(0.691358, abs=1e-6)
    assert (found.level, found.items, found.raters, found.reason) == ("nominal", 12, 3, "")


def test_dimensions_have_the_published_interval_alpha_and_are_independent() -> None:
    stored = published({value: point(value / 10, 0.9) for value in range(1, 5)})
    valence, arousal = of(stored, "valence_arousal", "Valence"), of(stored, "valence_arousal", "Arousal")
    assert valence.alpha == pytest.approx(0.810845, abs=1e-6)
    assert valence.level == "interval"
    assert (arousal.alpha, arousal.items, arousal.reason) == (None, 12, ONE_ANSWER)


def test_intensities_of_a_clip_are_interval_and_units_nominal() -> None:
    joy = of(
        published({value: {"mimicry_intensity": {"Joy": value / 5}} for value in range(1, 5)}, "clip"),
        "mimicry_intensity",
        "Joy",
    )
    assert joy.alpha == pytest.approx(0.810845, abs=1e-6)
    # by hand: two raters, ten items, 3 differ; of 20 answers 5 are "present": 1 - (20 - 1) * 3 / (5 * 15) =
    # 0.24
    log = Log()
    for who, row in ((ANNA, "0100000000"), (BEN, "1110010000")):
        for item, value in enumerate(row):
            log.say(who, {"action_units": {"AU1": float(value), "AU2": float(value == "1") * 0.4}}, item=item)
    found = of(log.stored, "action_units", "AU1")
    assert found.level == "nominal"
    assert (found.items, found.raters) == (10, 2)
    assert found.alpha == pytest.approx(0.24)
    assert of(log.stored, "action_units", "AU2").reason == ONE_ANSWER  # 0.4 is absent as 0 is


def test_without_two_judges_of_one_item_alpha_is_not_defined() -> None:
    log = Log()
    for number in range(5):
        log.say(ANNA, "Fear", item=number)
        log.say(BEN, "Anger", item=number + 10)
    log.say(BEN, "not_a_face", item=0)
    found = agreement(log.stored)
    assert len(found) == 2 + 2 + 12 + 6
    assert {one.alpha for one in found} == {None}
    assert {one.reason for one in found} == {ALONE}
    assert not any(one.items or one.raters for one in found)
    assert {one.reason for one in agreement([])} == {ALONE}
