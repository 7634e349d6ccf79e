"""An iteration that runs ahead of its consumer: same items, bounded, and no thread outlives it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsemotion_space.inference.ahead import iterate_ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


class Stop(Exception):
    """Raised by the consumer or by the iteration."""


@given(
    count=st.integers(0, 8), depth=st.integers(1, 4), fails=st.booleans(), taken=st.integers(0, 9),
    leaves=st.sampled_from(["break", "raise", "end"]),
)  # fmt: skip
def test_items_errors_and_the_end_are_those_of_the_iteration(
    count: int, depth: int, fails: bool, taken: int, leaves: str
) -> None:
    made: list[int] = []
    is_closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(count):
                made.append(number)
                yield number
            if fails:
                raise Stop(count)
        finally:
            is_closed.set()

    got: list[int] = []

    def consume() -> None:
        with closing(iterate_ahead(items(), depth)) as ahead:
            for number in ahead:
                got.append(number)
                assert len(made) <= len(got) + depth
                if len(got) == taken and leaves == "break":
                    break
                if len(got) == taken and leaves == "raise":
                    raise Stop("consumer")

    reached = leaves != "end" and 1 <= taken <= count
    if (reached and leaves == "raise") or (not reached and fails):
        with pytest.raises(Stop, match="consumer" if reached else str(count)):
            consume()
    else:
        consume()
    assert got == list(range(taken if reached else count))
    assert is_closed.is_set(), "the file can be closed"
    assert not threads()


def test_the_thread_works_while_the_consumer_does() -> None:
    made: list[int] = []
    with closing(iterate_ahead(map(made.append, range(100)), 3)) as ahead:
        next(ahead)
        deadline = time.monotonic() + 60
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(made) == 4, "three wait beside the one that was taken"
    assert not threads()
