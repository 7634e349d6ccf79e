"""Generated submissions: each is refused with a sentence or becomes a valid record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from intake_makers import ADDRESS, KEYS, KNOWN, Sender

from hsemotion_space.feedback.consent import SCOPES
from hsemotion_space.feedback.form import Submission
from hsemotion_space.feedback.record import FeedbackError, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.tasks import TASKS, Task

LABELS = [label for task in TASKS for label in task.label_names]
WORDS = st.sampled_from(
    ["", "wrong", "correct", "cannot_tell", "not_a_face", *SCOPES, "process", "=1+1", "\ud800", "a" * 600]
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, -1, 0.5, 1e400, 10**400, -(10**400), float("nan")]),
    st.floats(0, 3),
    st.booleans(),
)
NAMES = st.one_of(
    st.sampled_from([task.name for task in TASKS]), st.sampled_from(LABELS), st.text(max_size=5)
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=20), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


def right_answer(task: Task) -> st.SearchStrategy[object]:
    numbers = st.floats(task.low, task.high)
    if task.kind == "one_of":
        return st.sampled_from(task.label_names)
    if task.kind == "continuous":
        return st.fixed_dictionaries(dict.fromkeys(task.label_names, numbers))
    return st.dictionaries(st.sampled_from(task.label_names), numbers, min_size=1)


SHARED = Sender()
CORRECTED = st.fixed_dictionaries({}, optional={task.name: right_answer(task) for task in TASKS})
RIGHT: Mapping[str, st.SearchStrategy[object]] = {
    "face": st.sampled_from([1, 2]),
    "verdict": st.sampled_from(["wrong", "wrong", "correct", "cannot_tell", "not_a_face"]),
    "corrected": CORRECTED,
    "span_s": st.one_of(st.just([]), st.lists(st.floats(0, 3), min_size=2, max_size=2).map(sorted)),
    "comment": st.text(max_size=40),
    "scopes": st.lists(st.sampled_from(SCOPES), max_size=4).map(lambda scopes: [*scopes, "labels"]),
    "adult_and_permitted": st.just(True),
    "code": st.one_of(st.none(), st.just(""), st.integers(0, 9).map(lambda number: KEYS.code(str(number)))),
}
SEEN = {"stored": 0, "refused": 0}


@st.composite
def submissions(draw: Callable[..., object]) -> Submission:
    """Up to three fields are anything that JSON can say (and NaN, which it cannot), the others make sense
    together."""
    wild = draw(st.one_of(st.just(frozenset()), st.sets(st.sampled_from(sorted(RIGHT)), max_size=3)))
    values = {name: draw(JSON if name in wild else right) for name, right in RIGHT.items()}
    if "corrected" not in wild and values["verdict"] != "wrong":
        values["corrected"] = {}
    return Submission(**values)


@settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(submission=submissions())
@example(submission=SHARED.submission(corrected={"expression": ["Fear"]}))
@example(submission=SHARED.submission(corrected={"valence_arousal": {"Valence": 10**400, "Arousal": 0}}))
@example(submission=SHARED.submission(corrected={"action_units": {"AU1": float("nan")}}))
@example(submission=SHARED.submission(span_s=[10**400, 10**401]))
def take_any(submission: Submission) -> None:
    before = len(SHARED.store.records)
    try:
        receipt = SHARED.intake.submit(SHARED.analysis, submission, ADDRESS, KNOWN)
    except FeedbackError as error:
        SEEN["refused"] += 1
        assert re.search(r"[.]$", str(error))
        assert len(SHARED.store.records) == before
    else:
        SEEN["stored"] += 1
        record = SHARED.store.records[receipt.record_id]  # which the store read back
        assert record.contributor == KEYS.contributor(receipt.code)
        assert bool(record.crop) == ("crop" in record.consent_scopes)


def test_submit_of_2000_generated_submissions_stores_a_valid_record_or_is_refused(tmp_path: Path) -> None:
    assert {item.name for item in fields(Submission)} == set(RIGHT)
    take_any()
    assert SEEN["stored"] > 200
    assert SEEN["refused"] > 200
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}") as store:
        for record in SHARED.store.records.values():
            assert store.add(record).created
        assert {one.id: (to_json(one), one.crop) for one in store.records()} == {
            name: (to_json(record), record.crop) for name, record in SHARED.store.records.items()
        }
        assert store.notices == ()
