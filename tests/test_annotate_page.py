"""The queue of annotators without a browser: what is sent to it, what is kept of the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from analysis_makers import change_lines
from annotate_makers import (
    ANGER,
    CHECKPOINT,
    CLIP,
    PICTURE,
    PRACTICE,
    STRANGER,
    SURPRISE,
    TERMS,
    Visit,
    made,
    make_visit,
)

from hsemotion_space.analysis.sampling import narrowed
from hsemotion_space.feedback.consent import VERSIONS
from hsemotion_space.feedback.form import Submission
from hsemotion_space.feedback.intake import read_predicted
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.ui import i18n
from hsemotion_space.ui.annotate import session as sessions
from hsemotion_space.ui.annotate.items import bundled_answers
from hsemotion_space.ui.annotate.running import Wish, start
from hsemotion_space.ui.feedback import _submit, refer_to


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    with make_visit(tmp_path) as opened:
        yield opened


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict | list):
        return [
            number
            for part in (value.values() if isinstance(value, dict) else value)
            for number in numbers_in(part)
        ]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


# What the browser gets


@pytest.mark.parametrize("job", [PICTURE, CLIP])
def test_queue_value_hides_the_prediction_before_the_answer(visit: Visit, job: str) -> None:
    visit.start(job)
    value = visit.value()
    asked = value["item"]
    assert asked["shown"] == [] and value["last"] == [] and set(asked) == {"picture", "clip", "note", "shown"}
    analysis, item = visit.runner.jobs[job][0], visit.session.items[0]
    boxes = value["item"].pop("clip") or {"boxes": []}
    sent = json.dumps({**value, "choices": [], "say": {}}).replace(asked["picture"], "")
    predictions = [one for face in analysis.faces for one in face.predictions]
    for label in (label for one in predictions for label in one.task.label_names):
        assert label not in sent
    assert item.score > 0 and not any(
        word in sent for word in (item.reason, "score", "reason", "unsure", "disagree")
    )
    values = {
        f"{number:.2f}"
        for face in analysis.faces
        for line in face.timelines
        for number in np.ravel(line.values)
    }
    fixed = {"turn", "share", "bounds", "width", "height"}
    told = numbers_in({name: part for name, part in value.items() if name not in fixed})
    assert told == [], "no numbers at all but those of the page"
    assert not any(number in sent for number in values - {"0.00", "1.00"})
    if job == CLIP:
        assert set(boxes) == {"url", "start", "end", "width", "height", "boxes"} and {
            len(row) for row in boxes["boxes"]
        } == {5}
        assert all(boxes["start"] <= row[0] <= boxes["end"] for row in boxes["boxes"])
    other = change_lines(analysis, EXPRESSION, np.eye(8)[2])
    faces = tuple(replace(face, predictions=made("image", 9)[0].faces[0].predictions) for face in other.faces)
    visit.runner.jobs[job] = (replace(other, faces=faces),)
    assert visit.value()["item"]["picture"] == asked["picture"]
    assert {**visit.value(), "item": None} == {**value, "item": None}, (
        "with another prediction the same is sent"
    )


def test_queue_value_shows_the_prediction_after_the_answer(visit: Visit) -> None:
    visit.start(PICTURE)
    visit.session.hides = False
    assert [term for term, _ in visit.value()["item"]["shown"]] == ["The network", "Reason for asking"]
    visit.session.hides = True
    assert not visit.act(label=SURPRISE)
    told = dict(visit.value()["last"])
    assert told["You"] == SURPRISE and "(" in told["The network"] and told["Others"] == "no answers yet"
    assert told["Saved"] == "Saved on this server."


def test_queue_has_media_of_the_visitor_only(visit: Visit) -> None:
    visit.start(PICTURE, CLIP)
    seen = set()
    while visit.session.item is not None:
        seen.add(visit.session.item.job)
        assert STRANGER not in json.dumps(visit.value())
        visit.act("skip")
    assert seen == {PICTURE, CLIP}
    end = visit.value()
    assert end["item"] is None and end["share"] == 1 and end["place"].startswith("Finished: 0 answered")
    other = Visit(visit.context)
    assert "nothing to annotate yet" in start(
        other.context, other.session, Wish([], [], CHECKPOINT.id, True, (), "192.0.2.1")
    )
    assert other.value()["item"] is None


# What is kept


def test_act_stores_the_statement_of_an_answer(visit: Visit) -> None:
    visit.start(PICTURE)
    faces = {face.track.track_id: face for face in visit.runner.jobs[PICTURE][0].faces}
    top = EXPRESSION.label_names[int(faces[visit.session.items[0].face].predictions[0].values.argmax())]
    visit.act(label=top, point=[0.5, 0.5])
    visit.act(choice="not_a_face")
    first, second = visit.records
    assert (first.verdict, first.corrected) == ("correct", {"expression": {top: 1.0}}), (
        "the point was not asked for"
    )
    assert (second.verdict, second.corrected, second.contributor) == ("not_a_face", {}, first.contributor)
    assert first.face == visit.session.items[0].face and first.blind and second.blind
    assert visit.session.counts == {"answered": 2, "skipped": 0, "left": 0}


def test_act_stores_a_point_where_it_was_asked_for(visit: Visit) -> None:
    visit.start(CLIP)
    visit.session.pad = True
    span = visit.session.items[0].span_s
    visit.act(point=[0.25, -0.5])
    [one] = visit.records
    assert one.corrected["valence_arousal"] == {"Valence": 0.25, "Arousal": -0.5}
    assert one.span_s == pytest.approx(span, abs=0.01) and len(span) == 2
    item, [analysis] = visit.session.items[0], visit.runner.jobs[CLIP]
    assert one.predicted == read_predicted(narrowed(analysis, item.face, span), item.face)[0]
    assert one.predicted != read_predicted(analysis, item.face)[0], (
        "the prediction for the stretch, not for the clip"
    )


def test_act_stores_nothing_in_practice_or_without_the_statement(visit: Visit) -> None:
    visit.start(PICTURE)
    assert (
        visit.act(terms=PRACTICE) == ""
        and dict(visit.value()["last"])["Saved"] == "Nothing; this is practice."
    )
    problem = visit.act(terms=replace(TERMS, statement="true"))
    assert problem.startswith("Not saved. ") and visit.session.at == 1 and not visit.records
    nowhere = Visit(replace(visit.context, feedback=None))
    nowhere.start(PICTURE)
    assert nowhere.act() == "" and nowhere.session.at == 1


def test_act_stores_the_picture_of_its_own_moment_only(visit: Visit) -> None:
    visit.start(CLIP)
    for _ in visit.session.items:
        assert visit.act(terms=replace(TERMS, scopes=("labels", "crop"))) == ""
    flags = [item.picture for item in visit.session.items]
    assert [bool(one.crop) for one in visit.records] == flags and sorted(set(flags)) == [False, True]


# Blind or not


@pytest.mark.parametrize(
    "how", ["hidden", "shown before", "another tab", "seen meanwhile", "after undo", "too many"]
)
def test_answer_is_blind_only_if_nothing_was_shown(visit: Visit, how: str) -> None:
    visit.start(PICTURE, seen=how == "another tab")
    visit.session.hides = how != "shown before"
    visit.value()
    visit.session.hides = True
    if how == "after undo":
        visit.act(label=SURPRISE, terms=PRACTICE)
        visit.act("undo")
    if how == "too many":
        visit.session.revealed = {(f"{number}", 1, ()) for number in range(sessions.MOST_REMEMBERED)}
    media = visit.session.items[0].media
    assert visit.act(terms=replace(TERMS, seen=frozenset({media} if how == "seen meanwhile" else ()))) == ""
    assert [one.blind for one in visit.records] == [how == "hidden"]


def test_answer_is_not_blind_on_a_second_visit(visit: Visit) -> None:
    visit.start(PICTURE)
    visit.act(label=ANGER)
    code = visit.session.code
    visit.runner.jobs["d" * 32] = visit.runner.jobs[PICTURE]
    for who, job in ((code, PICTURE), ("", "d" * 32)):
        later = Visit(visit.context)
        later.start(job)
        assert later.act(label=SURPRISE, terms=replace(TERMS, code=who)) == ""
    assert [one.blind for one in visit.records] == [True, False, True]
    assert len({one.item for one in visit.records}) == 1


# Undo


def test_undo_withdraws_and_the_same_can_be_answered_again(visit: Visit) -> None:
    visit.start(PICTURE)
    visit.act()
    first = visit.records[0].id
    visit.act("undo")
    assert not visit.records and visit.session.at == 0 and not visit.value()["can_undo"]
    visit.act("undo")
    visit.act()
    assert [one.id for one in visit.records] == [first] and dict(visit.value()["last"])[
        "Saved"
    ] == "Saved on this server."


def test_undo_of_a_sealed_answer_replaces_it(visit: Visit) -> None:
    visit.start(PICTURE, CLIP)
    number = next(place for place, item in enumerate(visit.session.items) if item.job == CLIP)
    visit.session.at = number
    terms = replace(TERMS, scopes=("labels", "publish"))
    visit.act(terms=terms)
    assert visit.kept.store.create_batch(10, lambda rows: b"rows") is not None
    visit.act("undo")
    assert "already being published" in visit.value()["notice"] and len(visit.records) == 1
    visit.act(label=SURPRISE, terms=terms)
    visit.act("undo")
    visit.act(terms=terms)
    assert [one.superseded for one in visit.records] == [True, False], (
        "said anew, not taken for the first one sent again"
    )
    del visit.runner.jobs[CLIP]
    visit.act("undo")
    visit.value()
    assert all(
        visit.session.replaced.get(item.key) is None for item in visit.session.items[visit.session.at :]
    )


# Comparison


def test_tallies_leave_out_the_annotator(visit: Visit) -> None:
    visit.start(PICTURE)
    visit.act()
    code, record = visit.session.code, visit.records[0].id
    visit.kept.store.mark_gold(record, True)
    for terms, alone in [
        (replace(PRACTICE, code=code), True),
        (replace(TERMS, code=code), True),
        (PRACTICE, False),
    ]:
        again = Visit(visit.context)
        again.start(PICTURE)
        assert again.act(terms=terms) == ""
        told = dict(again.value()["last"])
        assert (told["Others"] == "no answers yet") is alone and ("Known answer" not in told) is alone
        known, others = again.session.tallies
        assert (known.items, others.items) == ((0, 0) if alone else (1, 1))


def test_known_answer_of_an_example_is_shown_and_counted(visit: Visit) -> None:
    gold = bundled_answers()[0]
    analysis = made("image", 1)[0]
    media = replace(analysis.media, sha256=gold.media)
    box = np.array(
        [
            [
                gold.center[0] * 640 - 60,
                gold.center[1] * 480 - 60,
                gold.center[0] * 640 + 60,
                gold.center[1] * 480 + 60,
            ]
        ]
    )
    face = replace(
        analysis.faces[0], track=replace(analysis.faces[0].track, boxes_xyxy=box.astype(np.float32))
    )
    visit.runner.jobs[PICTURE] = (replace(analysis, media=media, faces=(face,)),)
    visit.start(PICTURE)
    label = next(iter(gold.values["expression"]))
    assert (
        visit.act(label=label, terms=replace(TERMS, statement=False, adult=True, scopes=("labels", "crop")))
        == ""
    )
    assert "you agree" in dict(visit.value()["last"])["Known answer"] and visit.session.tallies[0].same == 1
    assert visit.records[0].crop == b"" and visit.records[0].consent_statement == "adult"
    assert any("1 of 1" in line for line in visit.value()["totals"])


# Consent is to the text that was read


@pytest.mark.parametrize("language", ["ja"])
def test_consent_version_is_that_of_the_language(visit: Visit, language: str) -> None:
    analysis = visit.runner.jobs[PICTURE][0]
    given = refer_to(visit.context, PICTURE, analysis, None)
    said = Submission(1, "cannot_tell", {}, [], "", ["labels"], adult_and_permitted=True, code="")
    request = gr.Request(headers={}, client=SimpleNamespace(host="198.51.100.7"))
    visit.start(CLIP)
    token = i18n._LANGUAGE.set(language)
    try:
        assert str(_submit(visit.context, given, False, said, request)[1]).startswith("<div class='receipt'")
        assert not visit.act()
    finally:
        i18n._LANGUAGE.reset(token)
    assert [one.consent_version for one in visit.records] == [VERSIONS[language]] * 2
