"""The texts that are agreed to, and what counts as consent."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from feedback_makers import refused

from hsemotion_space.feedback import consent
from hsemotion_space.feedback.consent import (
    LADDER,
    SCOPES,
    STATEMENT,
    STATEMENT_BUNDLED,
    VERSION,
    VERSIONS,
    read_consent,
    texts,
)

PACKAGE = Path(consent.__file__).parents[1]


def wording() -> str:
    steps = [f"{step.name}: {step.title}. {step.text}" for step in LADDER]
    return (
        "\n".join([*steps, f"Statement: {STATEMENT}", f"Statement on bundled faces: {STATEMENT_BUNDLED}"])
        + "\n"
    )


def version_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_every_version_of_the_texts_has_the_hash_of_its_text() -> None:
    assert texts()[VERSION] == wording(), (
        "texts were changed: keep the old ones, and give VERSION a new date and hash"
    )
    for version, text in texts().items():
        assert re.fullmatch(r"20\d\d-\d\d-\d\d-" + version_hash(text), version), (
            f"{version} must end with {version_hash(text)}"
        )
    assert all(step.text in wording() and step.title in wording() for step in LADDER)
    assert STATEMENT in wording()
    japanese = json.loads((PACKAGE / "ui" / "i18n" / "ja" / "consent.json").read_text("utf-8"))
    assert all(text in texts()[VERSIONS["ja"]] for text in japanese.values()), (
        "the Japanese texts were changed"
    )


def test_the_texts_tell_what_matters() -> None:
    assert [step.name for step in LADDER] == ["process", *SCOPES]
    labels, crop, publish = (step.text for step in LADDER[1:])
    assert all("erase" in text for text in (labels, crop, publish))
    assert "personal data and not anonymous" in crop
    assert "224" in crop
    assert "research" in publish
    assert "18" in STATEMENT


def test_any_mix_of_steps_with_the_labels_is_taken_in_the_order_of_the_ladder() -> None:
    for scopes in (
        ["labels"],
        ["crop", "labels"],
        ["publish", "labels", "labels"],
        ("publish", "crop", "labels"),
    ):
        ticked = tuple(name for name in SCOPES if name in scopes)
        assert read_consent(scopes, True) == (VERSION, ticked, "adult_and_permitted")


@pytest.mark.parametrize(
    ("scopes", "statement", "code"),
    [
        ([], True, "no_scope"), (["crop", "publish"], True, "no_scope"),
        (["labels", "process"], True, "scopes"), (["labels", "sell"], True, "scopes"), ("labels", True, "scopes"),
        (["labels", 1], True, "scopes"), (["labels", ["crop"]], True, "scopes"), (None, True, "scopes"),
        ({"labels": True}, True, "scopes"), (["labels"], False, "statement"), (["labels"], 1, "statement"),
        (["labels"], "true", "statement"), (["labels"], None, "statement"),
    ],
)  # fmt: skip
def test_consent_that_is_not_clear_is_none(scopes: object, statement: object, code: str) -> None:
    with refused(code):
        read_consent(scopes, statement)
