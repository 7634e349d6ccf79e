"""How much a client, and all together, may send."""

from __future__ import annotations

from feedback_makers import refused
from intake_makers import Clock, run_all

from hsemotion_space.feedback.limits import DAY_S, HOUR_S, Limits, Rule
from hsemotion_space.feedback.record import FeedbackError


def count_taken(limits: Limits, client: str, tries: int) -> int:
    taken = 0
    for _ in range(tries):
        try:
            limits.acquire(client)
        except FeedbackError:
            continue
        taken += 1
    return taken


def wait(limits: Limits, client: str) -> object:
    with refused("limit") as caught:
        limits.acquire(client)
    return caught.value.message.values["time"]


def test_a_client_may_send_five_a_minute_and_fifty_a_day() -> None:
    clock = Clock(7.0)
    limits = Limits(clock)
    assert count_taken(limits, "a", 100) == 5
    assert wait(limits, "a") == "60 seconds"
    assert count_taken(limits, "b", 1) == 1
    clock.now += 59.5
    assert wait(limits, "a") == "1 second"
    total = 5
    for _ in range(30):
        clock.now += 61
        total += count_taken(limits, "a", 100)
    assert total == 50
    assert wait(limits, "a") == "24 hours"
    clock.now = 7.0 + DAY_S
    assert count_taken(limits, "a", 100) == 5


def test_all_together_may_send_600_an_hour_whatever_the_number_of_clients() -> None:
    clock = Clock(0)
    limits = Limits(clock)
    assert sum(count_taken(limits, f"client {number}", 1) for number in range(5000)) == 600
    clock.now = 1800.0
    assert wait(limits, "new") == "30 minutes"
    clock.now = HOUR_S
    assert sum(count_taken(limits, f"client {number}", 1) for number in range(5000)) == 600


def test_memory_is_bounded_over_days_of_flooding() -> None:
    clock = Clock(0)
    limits = Limits(clock)
    for hour in range(60):
        clock.now = hour * HOUR_S
        assert sum(count_taken(limits, f"{hour} {number}", 1) for number in range(650)) == 600
        assert len(limits) <= 24 * 600
        assert len(limits._of) <= 24 * 600
    clock.now += 2 * DAY_S
    limits.acquire("last")
    assert (len(limits), len(limits._of)) == (1, 1)


def test_what_is_given_back_is_free_again_and_only_once() -> None:
    limits = Limits(Clock(0))
    taken = [limits.acquire("a") for _ in range(5)]
    limits.release("a", taken[0])
    assert count_taken(limits, "a", 10) == 1
    limits.release("b", taken[0])
    limits.release("a", 99.0)
    assert count_taken(limits, "a", 10) == 0
    for one in [*taken, *taken]:
        limits.release("a", one)
    assert len(limits) == 0


def test_many_threads_get_no_more_than_one() -> None:
    limits, taken = Limits(Clock(0), [Rule(500, 60)]), []
    run_all([lambda: taken.append(count_taken(limits, "a", 200))] * 8)
    assert sum(taken) == 500
