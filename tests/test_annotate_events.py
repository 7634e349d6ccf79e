"""What browsers may send to the queue of annotators, results that are gone, and files that are analyzed for
it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from annotate_makers import ANGER, CHECKPOINT, CLIP, PICTURE, STRANGER, TERMS, Visit, made, make_visit

from hsemotion_space.tasks import TASKS
from hsemotion_space.ui import i18n
from hsemotion_space.ui.annotate import tab
from hsemotion_space.ui.annotate.answering import act
from hsemotion_space.ui.annotate.payload import queue_value
from hsemotion_space.ui.annotate.running import AT_ONCE, MOST_FILES, Wish, collect, follow, progress, start
from hsemotion_space.ui.annotate.session import MOST_SESSIONS, Sessions
from hsemotion_space.ui.uploads import NamedFile


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    with make_visit(tmp_path) as opened:
        yield opened


def state(visit: Visit) -> tuple[object, ...]:
    session = visit.session
    return (
        session.turn,
        session.at,
        len(session.items),
        dict(session.entries),
        set(session.revealed),
        session.code,
        len(visit.records),
    )


# Events


@pytest.mark.parametrize("data", [
    None, {}, [], ["turn"], "turn", 7, {"other": 1}, {"turn": {"a": 1}}, {"action": "answer"}, {"turn": 0, "action": "Answer"},
    {"turn": 0, "action": ["answer"]}, {"turn": 0, "action": "__class__"},
    *({"turn": turn, "action": action, "choice": "label", "label": ANGER}
      for turn in (None, "0", -1, 1, 10**400, math.nan, True, False, [0]) for action in ("answer", "skip", "undo")),
])  # fmt: skip
def test_act_ignores_events_of_another_turn_or_kind(visit: Visit, data: object) -> None:
    visit.start(PICTURE)
    before = state(visit)
    assert act(visit.context, visit.session, tab.read_answer_event(gr.EventData(None, data)), TERMS) == ""
    assert state(visit) == before


@pytest.mark.parametrize(("choice", "label", "point"), [
    (None, ANGER, ()), ("maybe", ANGER, ()), ("label", None, ()), ("label", "A" * 100_000, ()),
    ("label", ANGER, [1e300, 0]), ("label", ANGER, [0] * 100_000),
])  # fmt: skip
def test_act_refuses_a_wrong_answer(visit: Visit, choice: object, label: object, point: object) -> None:
    visit.start(PICTURE)
    visit.session.pad = True
    turn, *before = state(visit)
    problem = visit.act("answer", choice, label, point)
    assert problem.startswith("Not saved. ") and problem.endswith(".") and len(problem) < 200
    assert list(state(visit)[1:]) == before and visit.session.turn == turn + 1
    assert visit.value()["last"] == [] and visit.act() == "", "it can be said again"
    assert visit.records[0].blind


@pytest.mark.parametrize("code", ["ABC", "x" * 10_000, "\0"])
def test_act_refuses_a_mistyped_receipt_code(visit: Visit, code: str) -> None:
    visit.start(PICTURE)
    assert visit.act(terms=replace(TERMS, code=code)).startswith("Not saved. ")
    assert not visit.records and visit.session.at == 0
    assert visit.act(terms=replace(TERMS, code="  ")) == "" and visit.session.code


def test_handle_returns_the_next_item_and_the_receipt_code(visit: Visit) -> None:
    kept = Sessions()
    key, visit.session = kept.make()
    visit.start(PICTURE)
    event = gr.EventData(
        None, {"turn": visit.session.turn, "action": "answer", "choice": "label", "label": ANGER}
    )
    value, code, told, status = tab._handle(visit.context, kept, event, key, TERMS)
    assert json.loads(str(value))["turn"] == visit.session.turn == event.turn + 1 and status == gr.skip()
    assert code == visit.session.code and str(code) in told["value"]  # type: ignore[index]
    assert tab._handle(visit.context, kept, event, key, TERMS) == [gr.skip()] * 4, "it was done"
    for wrong in (None, "", "0" * 32, 7, [key], {"key": key}):
        *nothing, status = tab._handle(visit.context, kept, event, wrong, TERMS)
        assert nothing == [gr.skip()] * 3 and "Press Start again" in status["value"]  # type: ignore[index]
    assert len(visit.records) == 1


def test_sessions_are_bounded() -> None:
    kept = Sessions(3)
    keys = [kept.make()[0] for _ in range(3)]
    assert kept.get(keys[0]) is not None
    fourth, _ = kept.make()
    assert [kept.get(key) is not None for key in (*keys, fourth)] == [True, False, True, True] and len(
        kept
    ) == 3
    usual = Sessions()
    made_keys = {usual.make()[0] for _ in range(MOST_SESSIONS + 20)}
    assert (
        len(usual) == MOST_SESSIONS
        and len(made_keys) == MOST_SESSIONS + 20
        and {len(key) for key in made_keys} == {32}
    )


# Results that are gone


def test_act_drops_results_that_are_gone(visit: Visit) -> None:
    visit.start(PICTURE, CLIP)
    first, total = visit.session.items[0].job, len(visit.session.items)
    left = [item.job for item in visit.session.items if item.job != first]
    del visit.runner.jobs[first]
    problem = visit.act()
    assert f"their result has expired: {total - len(left)}." in problem and not visit.records
    assert [item.job for item in visit.session.items] == left and visit.value()["item"] is not None
    visit.runner.jobs.clear()
    end = visit.value()
    assert end["item"] is None and f"expired: {len(left)}." in end["notice"] and not visit.session.items


def test_queue_value_in_japanese(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    visit.start(PICTURE)
    token = i18n._LANGUAGE.set("ja")
    try:
        assert visit.act(label="Joy").startswith("保存")
        visit.act()
        value = visit.value()
    finally:
        i18n._LANGUAGE.reset(token)
    labels = {label for task in TASKS if task.name == "expression" for label in task.label_names}
    assert not labels & {choice["text"] for choice in value["choices"]} and labels == {
        choice["name"] for choice in value["choices"]
    }
    assert not any(term in ("You", "The network", "Others", "Saved") for term, _ in value["last"])


# Files


def uploaded(visit: Visit, name: str) -> NamedFile:
    folder = visit.context.uploads.folder / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir()
    (folder / name).write_bytes(name.encode())
    return NamedFile(str(folder / name))


def test_start_analyzes_uploaded_files_two_at_a_time(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "canary.png").write_bytes(b"canary")
    assert "not uploaded to this server" in visit.start(files=[NamedFile(str(tmp_path / "canary.png"))])
    assert not visit.runner.submitted
    files = [uploaded(visit, f"{number}.png") for number in range(4)]
    assert visit.start(files=files) == "waits"
    assert len(visit.runner.submitted) == AT_ONCE and "files left: 4" in progress(
        visit.context, visit.session
    )
    first, second = visit.session.running
    visit.runner.jobs[first] = made("image", 11)
    visit.runner.failed[second] = "This file is no picture."
    assert not follow(visit.context, visit.session) and [
        path.read_bytes() for path in visit.runner.submitted
    ] == [b"0.png", b"1.png", b"2.png", b"3.png"]
    assert set(visit.runner.clients) == {"192.0.2.1"}
    for job in visit.session.running:
        visit.runner.jobs[job] = made("image", 12)
    assert follow(visit.context, visit.session)
    assert collect(visit.context, visit.session) == "This file is no picture."
    assert sorted(int(item.media, 16) for item in visit.session.items) == [11, 12], (
        "the same picture is asked about once"
    )
    assert json.loads(queue_value(visit.context, visit.session))["item"]["picture"].startswith(
        "data:image/png"
    )
    assert visit.start(files=[files[0]]) == "" and len(visit.runner.submitted) == 4, "it is there still"


def test_start_cancels_what_runs_and_reports_a_full_server(visit: Visit, tmp_path: Path) -> None:
    visit.start(files=[uploaded(visit, "one.png")])
    [running] = visit.session.running
    visit.runner.full = "Too many analyses are waiting. Try again later."
    told = visit.start(files=[uploaded(visit, "two.png")])
    assert visit.runner.cancelled == [running]
    assert told == f"{visit.runner.full} No face was found that can be annotated."


@pytest.mark.parametrize(("changes", "told"), [
    ({"files": [NamedFile("a")] * (MOST_FILES + 1)}, "at most 12 files"),
    ({"files": [NamedFile("a")], "agreed": "true"}, "Without it, nothing is analyzed"),
    ({"checkpoint": ["x"]}, "Select a backbone"), ({"checkpoint": "../../etc"}, "."), ({"sources": "shown"}, "nothing to annotate"),
    ({"sources": [["shown"], 7, "everything"]}, "nothing to annotate"), ({"sources": None, "files": "a"}, "nothing to annotate"),
    ({"jobs": ("d" * 32,)}, "nothing to annotate"),
])  # fmt: skip
def test_start_refuses_wishes_that_make_no_sense(visit: Visit, changes: dict[str, object], told: str) -> None:
    wish = replace(Wish(["shown"], [], CHECKPOINT.id, True, (PICTURE,), "192.0.2.1"), **changes)  # type: ignore[arg-type]
    assert told in start(visit.context, visit.session, wish)
    assert not visit.runner.submitted and not visit.session.running and not visit.session.items


def test_remember_is_bounded(visit: Visit) -> None:
    digest = visit.runner.jobs[STRANGER][0].media.sha256
    assert tab._remember(visit.context, tab.ResultRef(STRANGER), ()) == (digest,)
    assert tab._remember(visit.context, tab.ResultRef(STRANGER), (digest,)) == gr.skip()
    assert tab._remember(visit.context, tab.ResultRef("d" * 32), ()) == gr.skip()
    full = tab._remember(visit.context, tab.ResultRef(STRANGER), tuple(map(str, range(tab.MOST_SEEN))))
    assert isinstance(full, tuple) and len(full) == tab.MOST_SEEN and full[-1] == digest
