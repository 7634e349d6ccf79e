from __future__ import annotations

import re

import pytest

from hsemotion_space.tasks import (
    AFF_WILD2_EXPRESSION,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    TASKS,
    Label,
    Task,
    get_task,
)

ORDERS = {
    "expression": "Anger Contempt Disgust Fear Happiness Neutral Sadness Surprise",
    "valence_arousal": "Valence Arousal",
    "action_units": "AU1 AU2 AU4 AU6 AU7 AU10 AU12 AU15 AU23 AU24 AU25 AU26",
    "compound_expression": (
        "Fearfully_surprised Happily_surprised Sadly_surprised Disgustedly_surprised Angrily_surprised"
        " Sadly_fearful Sadly_angry"
    ),
    "mimicry_intensity": "Admiration Amusement Determination Empathic_Pain Excitement Joy",
}


def test_public_orders() -> None:
    assert {task.name: task.label_names for task in TASKS} == {
        name: tuple(label.replace("_", " ") for label in text.split()) for name, text in ORDERS.items()
    }


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_labels_can_be_shown(task: Task) -> None:
    assert all(re.fullmatch(r"#[0-9a-f]{6}", label.color) for label in task.labels)
    assert len({label.color for label in task.labels}) == len(task.labels)
    assert len({label.short for label in task.labels}) == len(task.labels)
    assert all(0 < len(label.short) <= 12 and label.description.endswith(".") for label in task.labels)
    assert get_task(task.name) is task


def test_ranges_and_scopes() -> None:
    assert [(task.kind, task.scope, task.low, task.smoothing_s) for task in TASKS] == [
        ("one_of", "frame", 0, 1.67),
        ("continuous", "frame", -1, 1.67),
        ("independent", "frame", 0, 0.17),
        ("one_of", "frame", 0, 0.33),
        ("independent", "clip", 0, 0.0),
    ]


def test_compound_parts_are_expressions_and_named_in_the_label() -> None:
    for label in COMPOUND_EXPRESSION.labels:
        assert len(label.parts) == 2 == len(set(label.parts))
        assert set(label.parts) <= set(EXPRESSION.label_names)
    assert all(not label.parts for task in TASKS for label in task.labels if task is not COMPOUND_EXPRESSION)


def test_aff_wild2_order_has_other_instead_of_contempt() -> None:
    assert set(AFF_WILD2_EXPRESSION.label_names) ^ set(EXPRESSION.label_names) == {"Other", "Contempt"}


def test_subset_keeps_the_given_order() -> None:
    task = EXPRESSION.subset(["Surprise", "Anger"])
    assert task.label_names == ("Surprise", "Anger")
    assert task.index("Anger") == 1
    assert (task.name, task.kind) == ("expression", "one_of")


def test_unknown_and_repeated_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expression has no label 'Joy'.*Anger"):
        EXPRESSION.subset(["Joy"])
    with pytest.raises(ValueError, match="unique"):
        EXPRESSION.subset(["Fear", "Fear"])
    with pytest.raises(ValueError, match="unique"):
        EXPRESSION.subset([])
    with pytest.raises(ValueError, match=r"no task 'expressions'.*valence_arousal"):
        get_task("expressions")


def test_range_must_be_a_range() -> None:
    with pytest.raises(ValueError, match="low < high"):
        Task("x", "X", (Label("a", "a", "#000000", "A."),), "one_of", "frame", 1.0, 1.0, "", 0.0, 1, "")
