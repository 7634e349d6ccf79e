"""Tracing without a browser: the queue of clips, what of a pass is kept, and the comparison of two passes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_makers import CLIP, PICTURE, PRACTICE, TERMS, Visit, make_visit

from hsemotion_space.ui.annotate.answering import Terms
from hsemotion_space.ui.annotate.tracing import act_on_trace, trace_value

TIMES = np.round(np.arange(0, 5, 0.1), 3)


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    with make_visit(tmp_path) as opened:
        opened.session.dimension = "Valence"
        assert opened.start(PICTURE, CLIP) == ""
        yield opened


def value(visit: Visit) -> dict[str, Any]:
    return json.loads(trace_value(visit.context, visit.session), parse_constant=pytest.fail)


def send(visit: Visit, attempt: str, values: np.ndarray, terms: Terms = TERMS, **changes: object) -> str:
    start = value(visit)["clip"]["start"]
    samples = {"times_s": (TIMES + start).tolist(), "values": values.tolist()}
    sent = {"turn": visit.session.turn, "action": "trace", "attempt": attempt, "device": "keys", **samples}
    return act_on_trace(visit.context, visit.session, {**sent, **changes}, terms)


def test_two_passes_are_kept_and_compared_and_a_repair_is_a_third(visit: Visit) -> None:
    assert len(visit.session.items) == 1, "pictures are not traced"
    first = 0.4 * np.sin(TIMES)
    assert send(visit, "first", first) == ""
    shown = value(visit)
    assert (shown["attempt"], shown["passes"], shown["raw"], shown["agreement"]) == ("second", [], [], [])
    assert shown["notice"] == "Saved on this server."
    second = np.where(TIMES >= 1.5, first - 0.5, first)
    assert send(visit, "second", second) == ""
    shown = value(visit)
    assert shown["attempt"] == "repair" and len(shown["passes"]) == 2 and "CCC" in shown["agreement"][0]
    [[start, end]] = shown["apart"]
    assert (start, end) == (pytest.approx(1.5, abs=0.1), pytest.approx(4.9, abs=0.1))
    assert send(visit, "repair", first) == "" and value(visit)["apart"] == []
    kept = visit.kept.store.traces()
    assert [one.attempt for one in kept] == ["first", "second", "repair"]
    assert len({one.contributor for one in kept}) == 1 and all(one.blind and one.bounded for one in kept)
    assert kept[1].values == tuple(second.round(4).tolist())
    assert visit.records == []
    act_on_trace(visit.context, visit.session, {"turn": visit.session.turn, "action": "next"}, TERMS)
    assert value(visit)["clip"] is None and visit.session.passes == {}


def test_practice_keeps_nothing_and_what_cannot_be_used_changes_nothing(visit: Visit) -> None:
    assert send(visit, "second", np.zeros(50)).startswith("Not saved. ")
    assert send(visit, "first", np.full(50, 2.0)).startswith("Not saved. ")
    assert send(visit, "first", np.zeros(50), times_s=(TIMES + 99).tolist()).startswith("Not saved. ")
    assert send(visit, "first", np.zeros(50), turn=99) == "" == send(visit, "first", np.zeros(50), action="x")
    assert visit.session.passes == {}
    visit.session.bounded = False
    assert send(visit, "first", np.linspace(0, 40, 50), PRACTICE) == ""
    assert send(visit, "second", np.linspace(0, -2, 50), PRACTICE) == ""
    shown = value(visit)
    assert shown["notice"] == "This is practice; nothing is saved."
    assert "tau" in shown["agreement"][0] and np.abs(shown["passes"][0][1]).max() == 1
    assert not visit.kept.store.traces()


def test_a_deleted_analysis_leaves_the_queue(visit: Visit) -> None:
    del visit.runner.jobs[CLIP]
    assert "has expired" in send_without_value(visit)
    assert value(visit)["clip"] is None


def send_without_value(visit: Visit) -> str:
    sent = {"turn": visit.session.turn, "action": "trace", "attempt": "first", "device": "keys"}
    return act_on_trace(visit.context, visit.session, sent, TERMS)
