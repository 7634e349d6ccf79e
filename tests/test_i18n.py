"""Two languages: every text is translated, with the same places, and nothing is translated that is not there."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from i18n_makers import (
    PACKAGE,
    PLACE,
    agreed,
    declared,
    in_source,
    in_trace,
    in_viewer,
    is_written,
    messages_in,
    said,
)
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hsemotion_space.messages import Message
from hsemotion_space.ui import i18n
from hsemotion_space.ui.i18n import Language, choose, gettext, gettext_lazy, translate

JAPANESE = i18n._translations("ja")
KEYS = {"Shift", "Esc", "Space"}
SIGNS = {"{low} to {high}", "Alpha"}
"""Texts that are signs in Japanese."""
ENGLISH_ROOMS = {"batch", "cli", "operations", "training"}
"""Rooms whose messages only the command line, the log and monitors show, in English."""
KANA_OR_KANJI = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


@pytest.fixture
def japanese() -> None:
    i18n._LANGUAGE.set("ja")


@pytest.fixture(autouse=True)
def english_again() -> object:
    yield
    i18n._LANGUAGE.set("en")


def test_every_text_of_the_page_has_a_translation() -> None:
    assert len(said()) > 100
    assert not said() - JAPANESE.keys()


@pytest.mark.usefixtures("japanese")
def test_every_text_of_tasks_consent_and_checkpoints_has_a_translation() -> None:
    sentences = {text for text in declared() if len(text.split()) > 3 and not is_citation(text)}
    assert len(sentences) > 40
    assert not {text for text in sentences if not KANA_OR_KANJI.search(translate(text))}, (
        "names and terms of the trade may stay as they are"
    )


def is_citation(text: str) -> bool:
    return bool(re.search(r"\b(19|20)\d\d\b", text)) and "Published:" not in text


def test_every_text_of_the_viewer_has_a_translation() -> None:
    assert len(in_viewer()) > 40
    assert (
        not {text for text in in_viewer() if re.search("[a-z]{2}", PLACE.sub("", text))}
        - JAPANESE.keys()
        - KEYS
    )


def test_every_text_of_the_source_has_a_translation_of_its_own() -> None:
    catalog = json.loads((PACKAGE / "ui" / "i18n" / "ja" / "source.json").read_text("utf-8"))
    assert len(in_source()) >= 4
    assert in_source() == catalog.keys(), "the script gets this file alone"


def test_every_text_of_the_trace_has_a_translation_of_its_own() -> None:
    catalog = json.loads((PACKAGE / "ui" / "i18n" / "ja" / "trace.json").read_text("utf-8"))
    assert len(in_trace()) >= 15
    assert in_trace() == catalog.keys(), "the script gets this file alone"


def places(text: str) -> set[str]:
    return {place.strip("{}").split(":")[0] for place in PLACE.findall(text)}


def test_translations_have_the_same_places() -> None:
    different = [text for text, other in JAPANESE.items() if places(text) != places(other)]
    assert not different


def test_no_place_is_there_twice_and_no_text_is_untranslated() -> None:
    assert not [text for text in JAPANESE if len(set(PLACE.findall(text))) != len(PLACE.findall(text))]
    assert not [
        text for text, other in JAPANESE.items() if not KANA_OR_KANJI.search(other) and text not in SIGNS
    ]


def test_nothing_is_translated_that_nobody_says() -> None:
    assert not [text for text in JAPANESE if not is_written(text) and text not in declared()]
    assert not is_written("This sentence is nowhere.") and not is_written("Nobody says {this} anywhere.")


def test_everything_that_contributors_agree_to_is_translated_word_by_word() -> None:
    assert len(agreed()) >= 9
    catalog = json.loads((PACKAGE / "ui" / "i18n" / "ja" / "consent.json").read_text("utf-8"))
    assert not set(agreed()) - catalog.keys()
    assert not [text for text in agreed() if PLACE.search(text)], "what is agreed to has no values"


def test_programs_get_english() -> None:
    assert "ui.i18n" not in (PACKAGE / "ui" / "api.py").read_text("utf-8")
    outside = [
        file
        for file in PACKAGE.rglob("*.py")
        if "ui" not in file.parts and "ui.i18n" in file.read_text("utf-8")
    ]
    assert not outside, "layers below the page and the command line know no language"


def test_the_catalog_of_the_browser_has_both_languages() -> None:
    marker = gettext_lazy("Analyze")
    assert json.loads(marker.removeprefix("__i18n__"))["key"] == "Analyze"
    texts = i18n.catalog().translations_dict
    assert texts["en"]["Analyze"] == "Analyze" and KANA_OR_KANJI.search(texts["ja"]["Analyze"])


def test_braces_are_refused_as_they_would_cut_the_marker() -> None:
    with pytest.raises(ValueError, match="Braces"):
        gettext_lazy("so many: {n}")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        ("JA", "ja"),
        ("en-US,ja;q=0.9", "en"),
        ("de,ja", "en"),
        ("", "en"),
        (";;;,", "en"),
    ],
)
def test_the_first_choice_of_the_browser_counts(header: str, expected: str) -> None:
    assert choose(header) == expected


def test_every_message_of_the_package_is_in_the_catalog() -> None:
    rooms = {
        file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in PACKAGE.rglob("*.py")
    } - ENGLISH_ROOMS
    found = {room: {text for text, _ in messages_in(f"{room}.py", f"{room}/**/*.py")} for room in rooms}
    assert (
        sum(map(len, found.values())) > 300
        and min(len(found[room]) for room in ("feedback", "hub", "jobs", "media")) > 9
    )
    assert not {room: missing for room, texts in found.items() if (missing := texts - JAPANESE.keys())}


def test_every_message_has_the_values_of_its_template() -> None:
    found = [(text, values) for text, values in messages_in("**/*.py") if "**" not in values]
    assert not [text for text, values in found if places(text) - values]


@pytest.mark.usefixtures("japanese")
def test_translate_message_of_several_sentences() -> None:
    limit = Message("Your network has reached the limit for corrections.")
    told = translate(
        Message("{limit} Try again in {time}.", limit=limit, time=Message("{count} minutes", count=12))
    )
    assert KANA_OR_KANJI.search(told) and "12分" in told and not re.search("[a-z]{3}", told)
    half = translate(Message.joined(["Saved on this server.", "This sentence is in no catalog."]))
    assert half == JAPANESE["Saved on this server."] + "This sentence is in no catalog."


def test_english_is_told_outside_of_a_request() -> None:
    assert gettext("Analyze") == "Analyze" == translate("Analyze")


def test_visitors_of_two_languages_do_not_mix() -> None:
    both = threading.Barrier(2)

    def answer(_request: Request) -> PlainTextResponse:
        both.wait(60)  # both are handled at once
        return PlainTextResponse(gettext("Analyze"))

    client = TestClient(Starlette(routes=[Route("/", answer)], middleware=[Middleware(Language)]))

    def visit(accepted: str) -> set[str]:
        return {client.get("/", headers={"Accept-Language": accepted}).text for _ in range(20)}

    with client, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(visit, ("en-US,ja", "ja-JP,en"))) == [{"Analyze"}, {JAPANESE["Analyze"]}]


def test_about_has_the_same_sections_in_both_languages() -> None:
    folder = Path(i18n.__file__).parent.parent
    english, japanese = ((folder / name).read_text("utf-8") for name in ("about.md", "i18n/ja/about.md"))
    levels = [
        [len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in (english, japanese)
    ]
    assert levels[0] == levels[1] != []
    assert english.count("\n- ") == japanese.count("\n- ")
    assert PLACE.findall(english) == PLACE.findall(japanese) == ["{minutes}", "{kept}"]
    assert english.count("\n\n") == japanese.count("\n\n"), "as many paragraphs"
