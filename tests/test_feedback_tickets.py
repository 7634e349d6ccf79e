"""Tickets: what may be corrected, and for how long."""

from __future__ import annotations

import base64
import json
import random
import re
from dataclasses import astuple

import pytest
from intake_makers import KEYS, NOW_S, PREPROCESSING

from hsemotion_space.feedback import tickets
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.records import FeedbackError

REFERENCE = tickets.Reference("m" * 32, "clip", 2, "starter", PREPROCESSING, "d" * 64)


def test_a_ticket_says_what_it_was_issued_for_is_url_safe_and_never_the_same_twice() -> None:
    texts = [tickets.issue(KEYS, REFERENCE, NOW_S + 0.9) for _ in range(50)]
    read = [tickets.verify(KEYS, text, NOW_S) for text in texts]
    assert {one.reference for one in read} == {REFERENCE}
    assert {one.expires_s - one.issued_s for one in read} == {1800}
    assert len({one.nonce for one in read}) == len(set(texts)) == 50
    assert all(re.fullmatch(r"[\w.-]+", text, re.ASCII) and len(text) < 600 for text in texts)


def test_no_change_of_a_ticket_goes_unnoticed() -> None:
    text = tickets.issue(KEYS, REFERENCE, NOW_S)
    rng = random.Random(2)
    changed = [text[:place] + rng.choice("abcXYZ019_-.") + text[place + 1 :] for place in range(len(text))]
    changed += [text[:place] for place in range(len(text))] + [text + "a", text + "=", " " + text, "", ".", text.upper()]
    for one in set(changed) - {text}:
        with pytest.raises(FeedbackError) as caught:
            tickets.verify(KEYS, one, NOW_S)
        assert str(caught.value) == tickets.DAMAGED


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, b"a.b", "é.a", "\ud800", "a" * 10**6, ".".join(["a" * 64] * 3)])
def test_what_is_no_ticket_is_refused(value: object) -> None:
    with pytest.raises(FeedbackError, match="not made here"):
        tickets.verify(KEYS, value, NOW_S)


@pytest.mark.parametrize(
    "payload", [b"null", b"[]", b"[1,2,3]", b'{"a":1}', b"\xff", b"[" * 500, json.dumps([*astuple(REFERENCE), "n"]).encode()]
)
def test_a_signed_ticket_of_another_form_is_refused(payload: bytes) -> None:
    encoded = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    with pytest.raises(FeedbackError, match="not made here"):
        tickets.verify(KEYS, f"{encoded}.{KEYS.sign('ticket', encoded)}", NOW_S)


def test_a_ticket_of_another_server_or_purpose_is_refused() -> None:
    text = tickets.issue(KEYS, REFERENCE, NOW_S)
    encoded = text.partition(".")[0]
    for one in (tickets.issue(Keys(b"j" * 32), REFERENCE, NOW_S), f"{encoded}.{KEYS.sign('media', encoded)}"):
        with pytest.raises(FeedbackError, match="not made here"):
            tickets.verify(KEYS, one, NOW_S)


@pytest.mark.parametrize(
    ("later_s", "complaint"),
    [(0, ""), (1800, ""), (1801, "too old"), (86400, "too old"), (-300, ""), (-301, "clock"), (-86400, "clock"), (3e8, "too old")],
)
def test_a_ticket_lives_half_an_hour_and_clocks_may_differ_by_five_minutes(later_s: float, complaint: str) -> None:
    text = tickets.issue(KEYS, REFERENCE, NOW_S)
    if complaint:
        with pytest.raises(FeedbackError, match=complaint):
            tickets.verify(KEYS, text, NOW_S + later_s)
    else:
        assert tickets.verify(KEYS, text, NOW_S + later_s).reference == REFERENCE
