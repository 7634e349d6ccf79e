"""Messages: text, template, values and code travel together."""

from __future__ import annotations

import pickle

import pytest

from hsemotion_space.media.formats import MediaError
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.ui import i18n
from hsemotion_space.ui.i18n import translate


def test_message_is_its_english_text() -> None:
    message = Message("At least {share:.0%} of {count}.", code="few", share=0.5, count=3)
    assert message == "At least 50% of 3."
    assert (message.template, message.code) == ("At least {share:.0%} of {count}.", "few")


def test_message_without_values_keeps_braces() -> None:
    assert Message("{not a place}") == "{not a place}"


def test_message_survives_pickle() -> None:
    message = Message("{inner} Again.", code="outer", inner=Message("{n} faces.", n=2))
    copy = pickle.loads(pickle.dumps(message))
    assert (copy, copy.template, copy.code, copy.values) == (
        message,
        message.template,
        message.code,
        message.values,
    )


def test_message_error_has_code_and_message_after_pickle() -> None:
    error = pickle.loads(pickle.dumps(MediaError("Larger than {limit} MB.", code="too_large", limit=5)))
    assert isinstance(error, MessageError) and isinstance(error, ValueError)
    assert (str(error), error.code, error.message.values) == ("Larger than 5 MB.", "too_large", {"limit": 5})


def test_translate_fills_values_and_inner_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = {
        "{n} faces.": "顔が{n}つ。",
        "Not saved. {reason}": "保存できません。{reason}",
        "Fear": "恐れ",
        "On {label}.": "{label}で。",
    }
    monkeypatch.setattr(i18n, "_translations", lambda _language: catalog)
    faces = Message("{n} faces.", n=2)
    assert (
        translate(Message("Not saved. {reason}", reason=MessageError(faces))) == "保存できません。顔が2つ。"
    )
    assert translate(Message.joined([faces, "Fear", "unknown"])) == "顔が2つ。恐れ unknown"
    assert translate(Message("On {label}.", label="Fear")) == "恐れで。"
    assert translate("never translated") == "never translated"
