"""Handlers of the workspace, without a browser: what is analyzed, what is shown of it, and what opens the
correction form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from analysis_makers import make_analysis, make_siblings
from page_makers import ROOT

from hsemotion_space.edits import Edits
from hsemotion_space.hub.manifest import InputSpec
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.inference.postprocess import merge_tracks
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import EXPRESSION, TASKS
from hsemotion_space.types import Analysis
from hsemotion_space.ui import context as context_module
from hsemotion_space.ui import result as result_module
from hsemotion_space.ui.analyze import (
    Choice,
    Shared,
    Source,
    Workspace,
    _ask,
    _copy_example,
    _start,
    build_workspace,
    find_job,
)
from hsemotion_space.ui.context import AppContext, ResultRef, Updates, example_digests, unchanged
from hsemotion_space.ui.feedback import Form, form_updates, refer_to
from hsemotion_space.ui.picker import build_picker
from hsemotion_space.ui.result import KIND_TITLES, list_warnings, message_updates
from hsemotion_space.ui.uploads import Uploads

JOB = "a" * 32
ROOTS = (ROOT / "checkpoints",)
AGREED = Choice(find_checkpoint(ROOTS, "").id, agreed=True)
SPEC = InputSpec(1000, "square", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # for which every face is small


@dataclass
class FakeRunner:
    """Knows one job."""

    analyses: tuple[Analysis, ...] = ()
    state: str = "done"
    message: str = ""
    media: Path | None = None
    edits: Edits = field(default_factory=Edits)
    submitted: list[Path] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def status(self, job: str) -> JobStatus:
        if job != JOB:
            raise JobError("This analysis is not here any more.")
        state = cast("Any", self.state)
        return JobStatus(JOB, state, message=self.message, analyses=self.analyses, edits=self.edits)

    def edit(self, job: str, edits: Edits) -> None:
        self.edits = edits

    def submit(self, path: Path, *_: object, client: str) -> str:
        self.submitted.append(path)
        return JOB

    def watch(self, job: str, _interval_s: float) -> Iterator[JobStatus]:
        yield self.status(job)

    def cancel(self, job: str) -> None:
        self.state = "cancelled"

    def media_of(self, job: str) -> Path | None:
        return self.media if job == JOB else None


@dataclass(frozen=True)
class Page:
    """A workspace on a page of its own."""

    context: AppContext
    workspace: Workspace
    demo: gr.Blocks

    @property
    def runner(self) -> FakeRunner:
        return cast("FakeRunner", self.context.runner)

    @property
    def form(self) -> Form:
        assert self.workspace.result.form is not None
        return self.workspace.result.form

    def start(self, source: Source | None, choice: Choice = AGREED) -> Updates:
        return _start(self.context, self.workspace, "", source, choice, "192.0.2.1")

    def ask(self, shown: ResultRef | None = None) -> Updates:
        return _ask(self.context, self.workspace, JOB, None, AGREED.checkpoint, shown or ResultRef())

    def send(self, name: str, event: dict[str, object], *values: object) -> Any:
        """Send an event of the viewer."""
        target = (self.workspace.result.viewer._id, name)
        handle = next(function.fn for function in self.demo.fns.values() if target in function.targets)
        return handle(gr.EventData(None, event), *values)


def edited(analysis: Analysis, _checkpoint: object, _smoothing: float, edits: Edits) -> Analysis:
    merge_tracks((face.track for face in analysis.faces), edits)
    return replace(analysis, edits=edits)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(context_module, "reread", edited)
    monkeypatch.setattr(context_module, "find_checkpoint", lambda *_: None)
    uploads = Uploads(tmp_path / "uploads", tmp_path / "claims")
    settings = Settings(cache=tmp_path)
    context = AppContext(
        settings, cast("Any", FakeRunner()), list_checkpoints(ROOTS), tmp_path / "results", uploads, cast("Any", SimpleNamespace())
    )  # fmt: skip

    async def make() -> Page:  # where no event loop runs, Gradio makes some that it never closes
        with gr.Blocks() as demo:
            shared = Shared(build_picker(context), gr.Checkbox(), gr.Textbox())
            return Page(context, build_workspace(context, shared), demo)

    return asyncio.run(make())


def notice(page: Page, updates: Updates) -> str:
    return str(updates[page.workspace.result.notices]["value"])


def test_nothing_is_analyzed_without_a_file_and_consent(page: Page, tmp_path: Path) -> None:
    source = Source(tmp_path / "face.png", "face.png")
    assert "Add a picture or a clip first." in notice(page, page.start(None))
    for agreed in (False, None, "true", 1, [True]):
        updates = page.start(source, Choice(AGREED.checkpoint, agreed))
        assert "Select “Analyze my files” first." in notice(page, updates)
        assert updates[page.workspace.added] == source, "the tick alone is missing"
        assert json.loads(updates[page.workspace.source])["name"] == "face.png"
    assert "Select at most 3 backbones" in notice(
        page, page.start(source, Choice(AGREED.checkpoint, True, ["x"] * 4))
    )
    assert not page.runner.submitted
    page.runner.state = "running"
    assert page.start(source)[page.workspace.job] == JOB
    assert page.runner.submitted == [source.path]


def test_an_example_needs_no_consent_and_takes_no_correction(page: Page) -> None:
    source = _copy_example(page.context, "image")
    page.runner.state = "running"
    page.start(source, Choice(AGREED.checkpoint, agreed=False))
    assert page.runner.submitted == [source.path] and source.path.is_relative_to(page.context.results)
    analysis = make_analysis(kind="image")
    assert refer_to(page.context, JOB, analysis, None).faces == ("1", "2")
    example = SimpleNamespace(
        media=SimpleNamespace(sha256=next(iter(example_digests()))), faces=analysis.faces, imported=False
    )
    assert refer_to(page.context, JOB, cast("Any", example), None).faces == ()


def test_a_running_job_shows_progress_and_a_failed_one_why(page: Page) -> None:
    page.runner.state = "running"
    updates = page.ask()
    assert (
        "progressbar" in updates[page.workspace.progress]["value"]
        and updates[page.workspace.cancel]["visible"] is True
    )
    assert page.workspace.result.viewer not in updates, "what is shown stays for now"
    page.runner.state, page.runner.message = "failed", "<b>Broken.</b>"
    updates = page.ask()
    assert "&lt;b&gt;Broken.&lt;/b&gt;" in notice(page, updates)
    assert updates[page.workspace.result.viewer]["visible"] is False
    assert (
        updates[page.workspace.result.shown] == ResultRef()
        and updates[page.workspace.cancel]["visible"] is False
    )


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_a_result_is_shown_once(page: Page, kind: Any, tmp_path: Path) -> None:
    page.runner.analyses, page.runner.media = (make_analysis(faces=3, kind=kind),), tmp_path / "media"
    result, updates = page.workspace.result, page.ask()
    assert set(updates) <= set(page.workspace.outputs)
    value = json.loads(updates[result.viewer]["value"])
    assert len(value["faces"]) == 3 and value["correctable"] is True
    assert updates[result.smoothing]["visible"] is (kind == "clip")
    assert updates[result.numbers]["value"].count("<table>") == (1 if kind == "image" else 1 + 3 * 4)
    assert (
        Path(updates[result.csv]["value"]).read_text("utf-8")
        and Path(updates[result.json]["value"]).is_file()
    )
    again = page.ask(updates[result.shown])
    assert not {result.viewer, page.form.verdict, result.shown} & set(again), (
        "a form that is being filled is not emptied"
    )
    page.runner.analyses = (make_analysis(faces=0, kind=kind),)
    updates = page.ask()
    assert (
        updates[result.viewer] == gr.update(value=None, visible=False)
        and updates[result.numbers]["visible"] is False
    )


def test_the_job_of_this_browser_is_found_again(page: Page, tmp_path: Path) -> None:
    page.runner.analyses, page.runner.media = make_siblings(2), tmp_path / "media"
    for job, saved in (("", "d" * 32), ("", ["x"]), ("", None), (JOB, JOB)):
        updates = find_job(page.context, page.workspace, job, saved, AGREED.checkpoint)
        assert (
            page.workspace.result.viewer not in updates
            and json.loads(updates[page.workspace.source])["examples"]
        )
    updates = find_job(page.context, page.workspace, "", JOB, AGREED.checkpoint)
    assert updates[page.workspace.result.shown].job == JOB
    assert json.loads(updates[page.workspace.source])["name"] == "Clip"
    assert updates[page.workspace.result.comparison.box]["visible"] is True


def test_warnings_are_one_line_per_kind_the_most_serious_first(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_module, "find_checkpoint", lambda *_: SimpleNamespace(input=SPEC))
    found = list_warnings(page.context, make_siblings(2, faces=3))
    titles = [warning["title"] for warning in found]
    assert (
        titles == [title for title in KIND_TITLES.values() if title in titles]
        and len(titles) == len(set(titles)) >= 2
    )
    small = next(warning for warning in found if warning["title"] == "Small")
    assert small["faces"] == [1, 2, 3]
    assert [text.split(":")[0] for text in small["details"]] == ["Face 1", "Face 2", "Face 3"]
    assert not list_warnings(page.context, (make_analysis(faces=0),))


def test_the_form_of_a_picture_asks_for_no_time_and_nothing_of_clips(page: Page) -> None:
    form = page.form
    for kind in ("image", "clip"):
        updates = form_updates(form, make_analysis(kind=kind))  # type: ignore[arg-type]
        assert set(updates) <= set(form.outputs)
        shown = [question.task for question in form.questions if updates[question.box]["visible"]]
        assert shown == [task for task in TASKS if kind == "clip" or task.scope == "frame"]
        assert updates[form.start]["visible"] is updates[form.end]["visible"] is (kind == "clip")
        assert [updates[scope] for scope in form.scopes] == [False] * len(form.scopes) and updates[
            form.verdict
        ] is None
    assert set(message_updates(page.workspace.result, "")) <= set(page.workspace.result.outputs)


def test_not_right_opens_the_form_at_the_task_and_empties_it_for_another_face(page: Page) -> None:
    form, shown = page.form, ResultRef(JOB, None, ("1", "2"))
    updates = page.send("correct", {"task": "action_units", "face": 2, "start": 1.0, "end": 2.0}, shown, "1")
    assert (updates[form.face], updates[form.verdict], updates[form.start], updates[form.end]) == (
        "2",
        "wrong",
        1.0,
        2.0,
    )
    assert (
        json.loads(updates[form.drawer])["target"] == "question-action_units" and updates[form.comment] == ""
    )
    same = page.send("correct", {"task": "action_units", "face": 2}, shown, "2")
    assert form.comment not in same and same[form.drawer] != updates[form.drawer], (
        "a closed drawer opens again"
    )
    for wrong in ({}, {"face": 3, "task": "expression"}, {"face": None}, {"face": [1]}):
        assert page.send("correct", wrong, shown, "1") == unchanged()
    assert (
        json.loads(page.send("correct", {"face": 1, "task": "<b>"}, shown, "1")[form.drawer])["target"]
        == "question-"
    )


def test_keys_and_ranges_open_the_form(page: Page) -> None:
    form, shown = page.form, ResultRef(JOB, None, ("1", "2"))
    updates = page.send("label_key", {"number": 3, "face": 1}, shown, "1")
    assert (
        updates[form.questions[0].fields[0]] == EXPRESSION.label_names[2] and updates[form.verdict] == "wrong"
    )
    updates = page.send("correct", {"start": 0.5, "end": 1.25, "face": 2}, shown, "1")
    assert (updates[form.start], updates[form.end], updates[form.about]) == (0.5, 1.25, "2")
    assert form.verdict in updates and form.drawer in updates
    assert page.send("label_key", {"number": 9, "face": 1}, shown, "1") == unchanged()
    assert page.send("label_key", {"number": 1, "face": 1}, ResultRef(JOB), "1") == unchanged(), (
        "an example takes none"
    )


def test_changes_by_hand_follow_in_the_viewer_the_table_and_the_files(page: Page, tmp_path: Path) -> None:
    page.runner.analyses, page.runner.media = (make_analysis(2, gap=False),), tmp_path / "media"
    result = page.workspace.result
    shown = page.ask()[result.shown]
    updates = page.send("edit", {"action": "name", "face": 2, "name": " Anna\n"}, shown)
    assert set(updates) <= set(result.outputs) and page.form.verdict not in updates, "an open form stays"
    assert json.loads(updates[result.viewer]["value"])["faces"][1]["name"] == "Anna"
    assert updates[result.numbers]["value"].count("Face 2 (Anna)") > 1, "in both tables"
    for choice in (page.form.face, result.explanation.face):
        assert ("Face 2 (Anna)", "2") in updates[choice]["choices"] and "value" not in updates[choice]
    assert "Anna" in Path(updates[result.csv]["value"]).read_text("utf-8")
    assert updates[result.markers]["visible"] is False
    marks = [["event", 0.5, 0.5, "smile"], ["exclusion", 1, 2, ""]]
    updates = page.send("edit", {"action": "markers", "markers": marks}, shown)
    assert len(json.loads(updates[result.viewer]["value"])["markers"]) == 2
    assert (
        updates[result.markers]["visible"] and "smile" in Path(updates[result.markers]["value"]).read_text()
    )
    assert page.runner.edits.names == {2: "Anna"} and page.ask()[result.shown] == shown, "a reload finds them"
    for wrong in ({"action": "merge", "face": 1, "other": 2}, {"action": "name", "face": 3, "name": "x"}, {}):
        before = page.runner.edits
        assert "class" in notice(page, page.send("edit", wrong, shown)) and page.runner.edits == before
