"""Two languages: every text is translated, with the same places, and nothing is translated that is not there."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from analysis_makers import make_analysis, make_siblings
from feedback_makers import make_predicted, make_record
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from words_makers import PACKAGE, PLACE, ROOT, agreed, declared, in_source, in_viewer, is_written, raised_in, said, templates_in

from hsemotion_space.analysis.disagreement import disagreements
from hsemotion_space.analysis.image_quality import quality
from hsemotion_space.feedback.consent import read_consent
from hsemotion_space.feedback.crops import find_track
from hsemotion_space.feedback.erase import NOT_HERE, Erasure
from hsemotion_space.feedback.form import check_statement, read_comment, read_corrected, read_verdict
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.limits import TRIED, Limits, Rule
from hsemotion_space.feedback.record import subject_of
from hsemotion_space.feedback.status import PublishStatus
from hsemotion_space.hub.manifest import InputSpec
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.weights import locate
from hsemotion_space.inference.pipeline import NO_FACE
from hsemotion_space.media.images import check_size, identify, read_image
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import MediaLimits, PipelineConfig
from hsemotion_space.ui import words
from hsemotion_space.ui.words import Language, choose, fixed, retell, say, translate

JAPANESE = words._words("ja")
KEYS = {"Shift", "Esc", "Space"}
SIGNS = {"{low} to {high}", "Alpha"}
"""Texts that are signs in Japanese."""
SHOWN = ("consent", "crops", "form", "intake")
"""Modules of the feedback that check what a visitor sends."""
CORE = ("images", "media", "engine", "heads", "pipeline", "readout", "doubt", "reliability", "quality", "explain", "jobs/*")
"""Modules whose messages a visitor may read."""
KANA_OR_KANJI = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


@pytest.fixture
def japanese() -> None:
    words._LANGUAGE.set("ja")


@pytest.fixture(autouse=True)
def english_again() -> object:
    yield
    words._LANGUAGE.set("en")


def test_every_text_of_the_page_has_a_translation() -> None:
    assert len(said()) > 100
    assert not said() - JAPANESE.keys()


@pytest.mark.usefixtures("japanese")
def test_every_text_of_tasks_consent_and_checkpoints_has_a_translation() -> None:
    sentences = {text for text in declared() if len(text.split()) > 3 and not is_citation(text)}
    assert len(sentences) > 40
    assert not {text for text in sentences if not KANA_OR_KANJI.search(retell(text))}, "names and terms of the trade may stay as they are"


def is_citation(text: str) -> bool:
    return bool(re.search(r"\b(19|20)\d\d\b", text)) and "Published:" not in text


def test_every_text_of_the_viewer_has_a_translation() -> None:
    assert len(in_viewer()) > 40
    assert not {text for text in in_viewer() if re.search("[a-z]{2}", PLACE.sub("", text))} - JAPANESE.keys() - KEYS


def test_every_text_of_the_source_has_a_translation_of_its_own() -> None:
    catalog = json.loads((PACKAGE / "ui" / "words" / "ja" / "source.json").read_text("utf-8"))
    assert len(in_source()) >= 4
    assert in_source() == catalog.keys(), "the script gets this file alone"


def places(text: str) -> set[str]:
    return {place.strip("{}").split(":")[0] for place in PLACE.findall(text)}


def test_translations_have_the_same_places() -> None:
    different = [text for text, other in JAPANESE.items() if places(text) != places(other)]
    assert not different


def test_no_place_is_there_twice_and_no_text_is_untranslated() -> None:
    assert not [text for text in JAPANESE if len(set(PLACE.findall(text))) != len(PLACE.findall(text))]
    assert not [text for text, other in JAPANESE.items() if not KANA_OR_KANJI.search(other) and text not in SIGNS]


def test_nothing_is_translated_that_nobody_says() -> None:
    assert not [text for text in JAPANESE if not is_written(text) and text not in declared()]
    assert not is_written("This sentence is nowhere.") and not is_written("Nobody says {this} anywhere.")


def test_everything_that_contributors_agree_to_is_translated_word_by_word() -> None:
    assert len(agreed()) >= 9
    catalog = json.loads((PACKAGE / "ui" / "words" / "ja" / "consent.json").read_text("utf-8"))
    assert not set(agreed()) - catalog.keys()
    assert not [text for text in agreed() if PLACE.search(text)], "what is agreed to has no values"


def test_programs_get_english() -> None:
    assert "ui.words" not in (PACKAGE / "ui" / "api.py").read_text("utf-8")
    outside = [file for file in PACKAGE.rglob("*.py") if "ui" not in file.parts and "ui.words" in file.read_text("utf-8")]
    assert not outside, "layers below the page and the command line know no language"


def test_the_catalog_of_the_browser_has_both_languages() -> None:
    marker = fixed("Analyze")
    assert json.loads(marker.removeprefix("__i18n__"))["key"] == "Analyze"
    texts = words.catalog().translations_dict
    assert texts["en"]["Analyze"] == "Analyze" and KANA_OR_KANJI.search(texts["ja"]["Analyze"])


def test_braces_are_refused_as_they_would_cut_the_marker() -> None:
    with pytest.raises(ValueError, match="Braces"):
        fixed("so many: {n}")


@pytest.mark.parametrize(
    ("header", "expected"),
    [("ja-JP,ja;q=0.9,en;q=0.8", "ja"), ("JA", "ja"), ("en-US,ja;q=0.9", "en"), ("de,ja", "en"), ("", "en"), (";;;,", "en")],
)
def test_the_first_choice_of_the_browser_counts(header: str, expected: str) -> None:
    assert choose(header) == expected


def raised(action: Callable[[], object]) -> str:
    with pytest.raises(MessageError) as caught:
        action()
    return caught.value.message


def too_many() -> None:
    limits = Limits(lambda: 0.0, [Rule(1, 600)], [Rule(9, 600)])
    for _ in range(2):
        limits.take("somebody")


def too_many_codes() -> None:
    limits = Limits(lambda: 0.0, [Rule(1, 600)], [Rule(2, 600)], TRIED)
    for client in ("one", "two", "three"):
        limits.take(client)


def too_many_codes_of_one() -> None:
    limits = Limits(lambda: 0.0, [Rule(1, 600)], [Rule(9, 600)], TRIED)
    for _ in range(2):
        limits.take("somebody")


def errors(folder: Path) -> Iterator[str]:
    """Yield sentences of the layers below as they are really made."""
    (folder / "empty").touch()
    (folder / "words.png").write_bytes(b"no picture")
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(40))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    for name in ("empty", "words.png", "clip.mp4", "broken.png", "nowhere"):
        yield raised(lambda name=name: read_image(folder / name, MediaLimits()))  # type: ignore[misc]
    yield raised(lambda: identify(folder / "words.png", 1))
    yield raised(lambda: check_size(9000, 9000, 10**6))
    yield raised(lambda: PipelineConfig(smoothing=9))
    yield raised(lambda: find_checkpoint((ROOT / "checkpoints",), "nowhere"))
    keys = Keys(b"x" * 40)
    yield raised(lambda: keys.contributor("2222-2222"))
    yield from (raised(too_many), raised(too_many_codes), raised(too_many_codes_of_one))
    yield from (raised(lambda given=given: read_consent(*given)) for given in ((["crop"], True), (["labels"], False)))  # type: ignore[misc]
    yield raised(lambda: read_verdict("perhaps"))
    yield raised(lambda: read_comment("x" * 10**5))
    yield raised(lambda: read_corrected({"expression": "Bliss"}, ["expression"]))
    yield raised(lambda: check_statement("wrong", {}, make_predicted()))
    yield raised(lambda: find_track(make_analysis(), 99))


def answers(folder: Path) -> Iterator[str]:
    """Yield what the layers below tell besides errors."""
    analyses = make_siblings(2, faces=2, seed=1)
    spec = InputSpec(224, "square", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for face in (*quality(analyses[0], spec, disagreements(analyses)), *quality(make_analysis(seed=3), spec)):
        yield from (flag.text for flag in face.flags)
    yield from (Erasure(1, 2, "gone").words, Erasure(3, 0, "pending", NOT_HERE).words, Erasure(0, 0, "none").words)
    yield from (Erasure(2, 1, "unknown", "another server is changing the dataset").words, NO_FACE)
    status = PublishStatus(
        "a/b", 1, 2, 3, 1e9, "What is published could not be looked up at the moment; please try again in a minute.", "open", 2e9, 2
    )
    yield status.words
    yield from (subject_of(make_record()), subject_of(make_record(kind="clip", span_s=(1.5, 3.0))))
    for checkpoint in list_checkpoints((ROOT / "checkpoints",)):
        yield from filter(None, [locate(replace(checkpoint, folder=folder), folder).words])


@pytest.mark.usefixtures("japanese")
def test_every_error_that_a_visitor_can_cause_is_translated() -> None:
    found = [*raised_in(*(f"feedback/{name}.py" for name in SHOWN))]
    assert not {text for text in found if not KANA_OR_KANJI.search(retell(text))}


def test_every_message_of_the_core_is_in_the_catalog() -> None:
    found = {name: set(templates_in(f"{name}.py")) for name in CORE}
    assert all(found.values()) and sum(map(len, found.values())) > 50
    assert not set().union(*found.values()) - JAPANESE.keys()


@pytest.mark.usefixtures("japanese")
def test_what_the_layers_below_say_is_told_again(tmp_path: Path) -> None:
    given = [*errors(tmp_path), *answers(tmp_path)]
    assert len(given) > 40
    english = r"\b[a-z]{2,}(?: [a-z]{2,}){2,}"
    told = {text: translate(text) for text in given}
    assert not {text: other for text, other in told.items() if not KANA_OR_KANJI.search(other)}
    assert not {text: other for text, other in told.items() if re.search(english, re.sub("`.*?`", "", other))}


@pytest.mark.usefixtures("japanese")
def test_finished_sentences_are_told_again_with_their_values() -> None:
    told = retell("You have sent as many corrections as are taken from one place. Please try again in 12 minutes.")
    assert KANA_OR_KANJI.search(told) and "12分" in told and not re.search("[a-z]{3}", told)
    assert retell("This sentence is in no catalog.") == "This sentence is in no catalog."
    half = retell("Saved here. This sentence is in no catalog.")
    assert half == JAPANESE["Saved here."] + "This sentence is in no catalog."


def test_english_is_told_outside_of_a_request() -> None:
    assert say("Analyze") == "Analyze" == retell("Analyze")


def test_visitors_of_two_languages_do_not_mix() -> None:
    both = threading.Barrier(2)

    def answer(_request: Request) -> PlainTextResponse:
        both.wait(60)  # both are handled at once
        return PlainTextResponse(say("Analyze"))

    client = TestClient(Starlette(routes=[Route("/", answer)], middleware=[Middleware(Language)]))

    def visit(accepted: str) -> set[str]:
        return {client.get("/", headers={"Accept-Language": accepted}).text for _ in range(20)}

    with client, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(visit, ("en-US,ja", "ja-JP,en"))) == [{"Analyze"}, {JAPANESE["Analyze"]}]


def test_about_has_the_same_sections_in_both_languages() -> None:
    folder = Path(words.__file__).parent.parent
    english, japanese = ((folder / name).read_text("utf-8") for name in ("about.md", "words/ja/about.md"))
    levels = [[len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in (english, japanese)]
    assert levels[0] == levels[1] != []
    assert english.count("\n- ") == japanese.count("\n- ")
    assert PLACE.findall(english) == PLACE.findall(japanese) == ["{minutes}", "{kept}"]
    assert english.count("\n\n") == japanese.count("\n\n"), "as many paragraphs"
