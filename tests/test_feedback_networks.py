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


def test_networks_of_generated_addresses() -> None:
    chance = random.Random(0)
    for _ in range(3000):
        four, prefix = IPv4Address(chance.getrandbits(32)), chance.getrandbits(64) | 1 << 63
        assert (
            network_of(str(four))
            == network_of(f"::ffff:{four}")
            == network_of(IPv6Address(0xFFFF << 32 | int(four)).exploded)
            == str(four)
        )
        first, second = (IPv6Address(prefix << 64 | chance.getrandbits(64)) for _ in range(2))
        network = network_of(str(first))
        assert network.endswith("/64")
        assert {
            network_of(f" {text}\n")
            for text in (first.exploded, str(second).upper(), f"{second}%eth0", f"{first}%5")
        } == {network}
        assert (
            network_of(str(IPv6Address((prefix ^ 1 << chance.randrange(64)) << 64 | int(first) & 2**64 - 1)))
            != network
        )
        garbage = "".join(
            chance.choices(
                ["\0", "\ud800", "é", "g", ":", "/", "%", " ", "-", "99999"], k=chance.randrange(8)
            )
        )
        assert network_of(garbage) in (UNKNOWN, "::/64")
    for text in (
        "",
        "unknown",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4:80",
        "[::1]",
        "fe80::1::2",
        "%",
        "256.0.0.1",
        "x" * 10**5,
        "1" * 5000,
    ):
        assert network_of(text) == UNKNOWN


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


def test_one_network_of_ipv6_locks_out_nobody_else(context: AppContext, clock: Clock) -> None:
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
    assert "Nothing is kept" in listed(context, "2001:db8:1:3::1", unknown)
    assert "What you gave" in listed(context, "2001:db8:1:2::1", code), "not even its own contributors"
    assert "erased from this server" in my_data._erase(context, "2001:db8:1:2::1", code, True)[0]


def test_a_known_code_never_counts_and_cannot_be_locked_out(context: AppContext, clock: Clock) -> None:
    code, unknown = give(context, "ben"), context.open_feedback.keys.code("nobody")
    for _ in range(5 * MOST):
        assert "What you gave" in listed(context, "192.0.2.1", code)
    assert len(my_data.LOOKUPS) == 0
    for number in range(ATTEMPTS_TOTAL[0].count):
        my_data.LOOKUPS.acquire(f"network {number}")
    assert "The server is receiving too many invalid codes" in listed(context, "192.0.2.1", unknown)
    assert "What you gave" in listed(context, "192.0.2.1", code)
    assert "erased from this server" in my_data._erase(context, "192.0.2.1", code, True)[0]
    clock.now += HOUR_S
    assert "Nothing is kept" in listed(context, "192.0.2.1", unknown)


def test_wrong_codes_are_limited_for_whoever_sends_them(context: AppContext, clock: Clock) -> None:
    unknown = context.open_feedback.keys.code("nobody")
    told = [listed(context, "192.0.2.7", unknown) for _ in range(MOST + 3)]
    assert ["Nothing is kept" in words for words in told] == [True] * MOST + [False] * 3
    assert "Your network has sent too many invalid codes. Try again in" in told[-1]
    assert "too many invalid codes" in my_data._erase(context, "192.0.2.7", unknown, True)[0]
    for _ in range(50):
        assert "typing error" in listed(context, "192.0.2.8", unknown[:-1]), "a mistyped code probes nothing"
    assert len(my_data.LOOKUPS) == MOST


def test_wrong_tokens_are_limited_by_network_and_right_ones_do_not_count(
    context: AppContext, clock: Clock
) -> None:
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


def test_a_network_takes_a_small_part_of_the_common_budget_over_any_time() -> None:
    [together] = ATTEMPTS_TOTAL
    for window_s in (60, HOUR_S, 24 * HOUR_S):
        alone = min(rule.count * max(1, window_s // rule.window_s) for rule in ATTEMPTS_PER_CLIENT)
        assert alone * 10 < together.count * max(1, window_s // together.window_s)
