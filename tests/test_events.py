"""Events and shares of time, checked against sequences worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from hsemotion_space.analysis.events import Event, active, events, shares
from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, MIMICRY_INTENSITY, VALENCE_AROUSAL, Task
from hsemotion_space.types import FloatArray, Timeline

NEUTRAL, SADNESS, SURPRISE = (
    EXPRESSION.label_names.index(name) for name in ("Neutral", "Sadness", "Surprise")
)


def expression_line(labels: Sequence[int], step_s: float = 0.1, times_s: Sequence[float] = ()) -> Timeline:
    """Return a timeline in which each frame has .6 for its label and .4/7 for the others."""
    values = np.full((len(labels), 8), 0.4 / 7, np.float32)
    values[np.arange(len(labels)), labels] = 0.6
    return line(EXPRESSION, values, step_s, times_s)


def line(
    task: Task, values: FloatArray, step_s: float = 0.1, times_s: Sequence[float] = (), **more: object
) -> Timeline:
    times = np.array(times_s if len(times_s) else np.arange(len(values)) * step_s, np.float64)
    return Timeline(task, "trained", times, values, **more)  # type: ignore[arg-type]


def test_events_of_three_expressions() -> None:
    found = events(expression_line([NEUTRAL] * 10 + [SADNESS] * 5 + [SURPRISE] * 6))
    assert [(event.column, round(event.start_s, 3), round(event.end_s, 3)) for event in found] == [
        (NEUTRAL, 0.0, 0.95), (SADNESS, 0.95, 1.45), (SURPRISE, 1.45, 2.0),
    ]  # fmt: skip
    assert all(event.peak == pytest.approx(0.6) for event in found)


def test_events_leave_out_what_is_shorter() -> None:
    labels = [NEUTRAL] * 10 + [SADNESS] * 2 + [NEUTRAL] * 10
    assert [event.column for event in events(expression_line(labels))] == [NEUTRAL, NEUTRAL]
    assert [event.column for event in events(expression_line(labels), shortest_s=0.2)] == [
        NEUTRAL,
        SADNESS,
        NEUTRAL,
    ]


def test_events_end_where_the_face_is_not_visible() -> None:
    times_s = [*np.arange(10) * 0.1, *(5 + np.arange(10) * 0.1)]
    found = events(expression_line([SADNESS] * 20, times_s=times_s))
    assert [(round(event.start_s, 3), round(event.end_s, 3)) for event in found] == [(0.0, 0.95), (4.95, 5.9)]


def test_events_peak_is_the_largest_value() -> None:
    values = expression_line([SURPRISE] * 9).values.copy()
    values[4, SURPRISE] = 0.83
    [event] = events(line(EXPRESSION, values))
    assert (event.peak, event.peak_s) == (pytest.approx(0.83), pytest.approx(0.4))


def test_events_of_action_units_may_overlap() -> None:
    values = np.zeros((20, 12), np.float32)
    values[2:12, 0] = values[8:18, 10] = 0.9
    found = events(line(ACTION_UNITS, values, thresholds=(0.5,) * 12))
    assert [(event.column, round(event.start_s, 3), round(event.end_s, 3)) for event in found] == [
        (0, 0.15, 1.15),
        (10, 0.75, 1.75),
    ]


@pytest.mark.parametrize(
    ("task", "count"), [(VALENCE_AROUSAL, 20), (ACTION_UNITS, 20), (MIMICRY_INTENSITY, 1), (EXPRESSION, 1)]
)  # action units without thresholds
def test_events_and_shares_are_empty_without_labels_that_hold(task: Task, count: int) -> None:
    given = line(task, np.full((count, len(task.labels)), 0.9, np.float32))
    assert events(given) == ()
    assert np.isnan(shares(given)).all()


def test_shares_weigh_frames_by_their_time() -> None:
    """The step is .1 s, then .2 s: three frames of Neutral last .25 s, two of Sadness .35 s up to the last
    one."""
    found = shares(expression_line([NEUTRAL] * 3 + [SADNESS] * 2, times_s=[0, 0.1, 0.2, 0.4, 0.6]))
    assert found[NEUTRAL] == pytest.approx(0.3 / 0.6)
    assert found[SADNESS] == pytest.approx(0.3 / 0.6)
    assert found.sum() == pytest.approx(1)


def test_what_does_not_stand_out_is_no_event() -> None:
    given = expression_line([NEUTRAL] * 20)
    unsupported = Timeline(
        EXPRESSION, "trained", given.times_s, given.values, support=np.zeros_like(given.values), least_support=0.5
    )  # fmt: skip
    assert not active(unsupported).any() and events(unsupported) == () and shares(unsupported).sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_events_of_one_of_do_not_overlap_and_cover_the_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = line(
        EXPRESSION,
        rng.dirichlet(np.ones(8), 60).astype(np.float32),
        times_s=np.cumsum(rng.uniform(0.08, 0.12, 60)),
    )
    found: tuple[Event, ...] = events(given, shortest_s=0)
    assert all(one.end_s <= other.start_s + 1e-9 for one, other in pairwise(found))
    total = given.times_s[-1] - given.times_s[0]
    for column, share in enumerate(shares(given)):
        assert sum(event.duration_s for event in found if event.column == column) / total == pytest.approx(
            share, abs=1e-5
        )
