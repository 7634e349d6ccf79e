"""Lines over time: where they break, and which points are left of long ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space.figures.lines import MAX_POINTS, gaps, thin

TIMES = np.arange(30) / 25


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ([slice(5, None)], [(0, 5)]),
        ([slice(0, 25)], [(24, 29)]),
        ([slice(7, 8)], [(0, 7), (7, 29)]),
        ([slice(0, 10), slice(20, 30)], [(9, 20)]),
        ([slice(0, 30)], []),
        ([], [(0, 29)]),
    ],
)
def test_gaps_reach_from_the_last_value_to_the_next_and_to_the_edges(
    keep: Sequence[slice], expected: list[tuple[int, int]]
) -> None:
    values = np.full((30, 2), np.nan, np.float32)
    for part in keep:
        values[part, 0] = 0.5  # one of the labels is enough
    assert gaps(TIMES, values) == [(TIMES[start], TIMES[stop]) for start, stop in expected]


def test_short_lines_are_kept_whole() -> None:
    values = np.linspace(0, 1, 30, dtype=np.float32)
    times, kept = thin(TIMES, values)
    np.testing.assert_array_equal(times, TIMES.astype(np.float32))
    np.testing.assert_array_equal(kept, values)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(MAX_POINTS + 1, 4000),
    st.lists(st.tuples(st.integers(0, 3999), st.integers(1, 300)), max_size=6),
    st.integers(0, 9),
)
def test_thinning_keeps_every_run_every_gap_and_the_extremes(
    count: int, holes: Sequence[tuple[int, int]], seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    for start, length in holes:
        values[start : start + length] = np.nan
    times, kept = thin(np.arange(count) * 0.04, values)
    assert (
        len(kept) <= MAX_POINTS + 4 * (len(holes) + 1)
        and times.dtype == kept.dtype == np.float32
        and (np.diff(times) > 0).all()
    )
    assert np.diff(np.isnan(kept)).sum() == np.diff(np.isnan(values)).sum(), "as many gaps as before"
    if np.isfinite(values).any():
        assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(values), np.nanmax(values))
        np.testing.assert_array_equal(kept, values[np.round(times / 0.04).astype(int)])
