"""Which addresses count as one client, and what wrong codes and tokens of one network cost the others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from unittest.mock import Mock

import pytest
from feedback_makers import make_record, refused
from hypothesis import example, given
from hypothesis import strategies as st
from intake_makers import Clock

from hsemotion_space.feedback.limits import (
    ATTEMPTS_PER_CLIENT,
    ATTEMPTS_TOTAL,
    CODE_LIMIT,
    HOUR_S,
    UNKNOWN,
    Limits,
    network_of,
)
from hsemotion_space.feedback.service import Feedback, open_feedback
from hsemotion_space.settings import Settings
from hsemotion_space.ui import my_data, review
from hsemotion_space.ui.context import AppContext

TOKEN = "a token of some length"
MOST = ATTEMPTS_PER_CLIENT[0].count


BITS = st.integers(0, 2**64 - 1)
NO_ADDRESSES = ["", "unknown", "1.2.3", "1.2.3.4.5", "1.2.3.4:80", "[::1]", "fe80::1::2", "%", "256.0.0.1"]


@given(st.ip_addresses(v=4))
def test_network_of_ipv4(four: IPv4Address) -> None:
    mapped = IPv6Address(0xFFFF << 32 | int(four))
    assert {network_of(text) for text in (str(four), f"::ffff:{four}", mapped.exploded)} == {str(four)}


@given(st.integers(2**63, 2**64 - 1), BITS, BITS, st.integers(0, 63))
def test_network_of_ipv6(prefix: int, one: int, other: int, bit: int) -> None:
    first, second = (IPv6Address(prefix << 64 | host) for host in (one, other))
    beside = IPv6Address((prefix ^ 1 << bit) << 64 | one)
    network = network_of(str(first))
    assert network.endswith("/64")
    texts = (first.exploded, str(second).upper(), f"{second}%eth0", f"{first}%5")
    assert {network_of(f" {text}\n") for text in texts} == {network} != {network_of(str(beside))}


@given(st.text(st.sampled_from("\0é g:/%-9\ud800"), max_size=30))
@example("x" * 10**5)
@example("1" * 5000)
def test_network_of_something_else(text: str) -> None:
    assert network_of(text) in (UNKNOWN, "::/64")
    assert {network_of(name) for name in NO_ADDRESSES} == {UNKNOWN}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(0)
    for module, name in ((my_data, "LOOKUPS"), (review, "TRIES")):
        monkeypatch.setattr(module, name, Limits(clock, ATTEMPTS_PER_CLIENT, ATTEMPTS_TOTAL, CODE_LIMIT))
    return clock


@pytest.fixture
def feedback(tmp_path: Path) -> Iterator[Feedback]:
    feedback = open_feedback(Settings(feedback_data=tmp_path / "data", review_token=TOKEN))
    yield feedback
    feedback.close()


@pytest.fixture
def context(feedback: Feedback, tmp_path: Path) -> AppContext:
    return AppContext(feedback.settings, Mock(), (), tmp_path / "results", tmp_path / "uploads", feedback)


def give(context: AppContext, name: str) -> str:
    """Keep a correction and return its receipt code."""
    feedback = context.open_feedback
    code = feedback.keys.code(name)
    feedback.store.add(replace(make_record(1), contributor=feedback.keys.contributor(code)))
    return code


def listed(context: AppContext, client: str, code: str) -> str:
    table, _, problem = my_data._list(context, client, code)
    return f"{table}{problem}"


def test_lookups_of_one_network_lock_out_nobody_else(context: AppContext, clock: Clock) -> None:
    code, unknown = give(context, "anna"), context.open_feedback.keys.code("nobody")
    chance, refused = random.Random(1), 0
    for _ in range(400):
        clock.now += 1
        refused += "Try again" in listed(
            context, f"2001:db8:1:2:{chance.getrandbits(16):x}::{chance.getrandbits(16):x}", unknown
        )
    assert refused > 300
    assert len(my_data.LOOKUPS) <= ATTEMPTS_TOTAL[0].count // 10, (
        "one network takes a small part of what all may try"
    )
    assert "Nothing is saved" in listed(context, "2001:db8:1:3::1", unknown)
    assert "Your corrections" in listed(context, "2001:db8:1:2::1", code), "not even its own contributors"
    assert "erased from this server" in my_data._erase(context, "2001:db8:1:2::1", code, True)[0]


def test_lookups_of_a_known_code_never_count(context: AppContext, clock: Clock) -> None:
    code, unknown = give(context, "ben"), context.open_feedback.keys.code("nobody")
    for _ in range(5 * MOST):
        assert "Your corrections" in listed(context, "192.0.2.1", code)
    assert len(my_data.LOOKUPS) == 0
    for number in range(ATTEMPTS_TOTAL[0].count):
        my_data.LOOKUPS.acquire(f"network {number}")
    assert "The server is receiving too many invalid codes" in listed(context, "192.0.2.1", unknown)
    assert "Your corrections" in listed(context, "192.0.2.1", code)
    assert "erased from this server" in my_data._erase(context, "192.0.2.1", code, True)[0]
    clock.now += HOUR_S
    assert "Nothing is saved" in listed(context, "192.0.2.1", unknown)


def test_lookups_of_wrong_codes_are_limited(context: AppContext, clock: Clock) -> None:
    unknown = context.open_feedback.keys.code("nobody")
    told = [listed(context, "192.0.2.7", unknown) for _ in range(MOST + 3)]
    assert ["Nothing is saved" in words for words in told] == [True] * MOST + [False] * 3
    assert "Your network has sent too many invalid codes. Try again in" in told[-1]
    assert "too many invalid codes" in my_data._erase(context, "192.0.2.7", unknown, True)[0]
    for _ in range(50):
        assert "typing error" in listed(context, "192.0.2.8", unknown[:-1]), "a mistyped code probes nothing"
    assert len(my_data.LOOKUPS) == MOST


def test_check_token_is_limited_by_network(context: AppContext, clock: Clock) -> None:
    for number in range(200):
        review.check_token(context, TOKEN, f"2001:db8::{number}")
    assert len(review.TRIES) == 0
    for number in range(200):
        with refused("token" if number < MOST else "limit"):
            review.check_token(context, "wrong", f"2001:db8::{number:x}")
    with refused("limit"):
        review.check_token(context, TOKEN, "2001:db8::ffff")
    assert len(review.TRIES) == MOST < ATTEMPTS_TOTAL[0].count / 50
    review.check_token(context, TOKEN, "2001:db8:0:1::1")


def test_attempts_of_one_network_are_a_small_part_of_all() -> None:
    [together] = ATTEMPTS_TOTAL
    for window_s in (60, HOUR_S, 24 * HOUR_S):
        alone = min(rule.count * max(1, window_s // rule.window_s) for rule in ATTEMPTS_PER_CLIENT)
        assert alone * 10 < together.count * max(1, window_s // together.window_s)
