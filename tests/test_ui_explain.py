"""The part of the page that shows where a network looks."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from analysis_makers import make_analysis, make_siblings
from PIL import Image

from hsemotion_space.analysis.saliency import LIMITS, Saliency
from hsemotion_space.figures import overlay
from hsemotion_space.jobs import Explained, JobError, JobStatus, Place
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.types import PROVENANCE_LABELS, Analysis
from hsemotion_space.ui import explain, i18n
from hsemotion_space.ui.context import AppContext, ResultRef
from hsemotion_space.ui.explain import (
    AskError,
    Explanation,
    _answer,
    _Choice,
    _time_sought,
    _values,
    explanation_updates,
    frame_row,
    usual_value,
    value_choices,
)
from hsemotion_space.ui.explained import NO_MAP, PLACES, ExplainRequest, explained_html, place_text
from hsemotion_space.ui.uploads import Uploads

JOB, QUESTION = "a" * 32, "b" * 32
CLIENT = "192.0.2.1"
KANA_OR_KANJI = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def make_explained(
    drop: float = 0.4, stability: float = 0.9, place: tuple[int, int, int, int] = (4, 18, 12, 26)
) -> Explained:
    rng = np.random.default_rng(0)
    change = rng.uniform(-0.1, 0.1, (32, 32)).astype(np.float32)
    found = Saliency(EXPRESSION, "Happiness", "trained", 0.93, change, drop, place, 8, 4, stability)
    return Explained(found, rng.integers(0, 256, (32, 32, 3), np.uint8))


@dataclass
class FakeRunner:
    """Knows one analysis, and answers a question with the states that it was given."""

    analyses: tuple[Analysis, ...]
    states: list[JobStatus] = field(default_factory=list)
    asked: list[tuple[Path, str, Place, tuple[str, str]]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    full: str = ""
    media: Path | None = None

    def media_of(self, job_id: str) -> Path | None:
        return self.media if job_id == JOB else None

    def status(self, job_id: str) -> JobStatus:
        if job_id != JOB:
            raise JobError(
                "This analysis is not here any more; results are kept for 15 minutes at most. Please start it"
                " again."
            )
        return JobStatus(JOB, "done", analyses=self.analyses)

    def explain(
        self, path: Path, checkpoint: str, place: Place, what: tuple[str, str], *, client: str
    ) -> str:
        if self.full:
            raise JobError(self.full)
        assert client == CLIENT
        self.asked.append((path, checkpoint, place, what))
        return QUESTION

    def watch(self, job_id: str, interval_s: float) -> Iterator[JobStatus]:
        assert job_id == QUESTION and 0 < interval_s < 1
        yield from self.states
        while not self.states[-1].finished:
            yield self.states[-1]

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    runner = FakeRunner(
        make_siblings(2, faces=2),
        [JobStatus(QUESTION, "running"), JobStatus(QUESTION, "done", explained=make_explained())],
    )
    made = AppContext(
        Settings(cache=tmp_path),
        runner,
        (),
        tmp_path / "results",
        Uploads(tmp_path / "uploads", tmp_path / "claims"),
    )  # type: ignore[arg-type]
    runner.media = tmp_path / "clip.mp4"
    return made


@pytest.fixture
def japanese() -> Iterator[None]:
    i18n._LANGUAGE.set("ja")
    yield
    i18n._LANGUAGE.set("en")


def chosen(**changes: object) -> _Choice:
    return replace(_Choice("1", "c0", "expression/Happiness", 1.0), **changes)  # type: ignore[arg-type]


def asked(analysis: Analysis, face: int = 0, row: int = 0) -> ExplainRequest:
    return ExplainRequest(analysis, analysis.faces[face].track, row, ("expression", "Happiness"))


def pictures(html: str) -> list[tuple[str, np.ndarray]]:
    """Return text alternatives and pixels of all pictures."""
    found = re.findall(r"<img alt='([^']*)' src='data:image/png;base64,([^']*)'>", html)
    assert len(found) == html.count("<img")
    return [(alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))) for alt, data in found]


def text(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


# What is asked


def test_value_choices_are_all_values_of_a_frame() -> None:
    face = make_analysis(faces=1).faces[0]
    choices = value_choices(face)
    lines = [line for line in face.timelines if line.task.scope == "frame"]
    assert len(choices) == len(dict(choices)) == sum(len(line.task.labels) for line in lines) == 29
    assert choices[0] == ("Expression: Anger", "expression/Anger")
    assert ("Action units: AU12", "action_units/AU12") in choices
    assert not [key for _, key in choices if key.startswith("mimicry")], (
        "a value of a whole clip is none of a face"
    )
    best = face.predictions[0]
    assert usual_value(face) == f"expression/{best.task.label_names[int(best.values.argmax())]}"
    alone = replace(face, timelines=face.timelines[1:2], predictions=face.predictions[1:2])
    assert usual_value(alone) == "valence_arousal/Valence"


def test_explanation_updates_fill_choices_and_drop_the_answer() -> None:
    made = Explanation(gr.Accordion(), gr.Dropdown(), gr.Dropdown(), gr.Dropdown(), gr.Number(), gr.HTML())

    def updates(analyses: tuple[Analysis, ...], job: str) -> list[dict[str, object]]:
        found = explanation_updates(made, analyses, job)
        return [found.get(component, {}) for component in made.outputs]

    box, face, backbone, value, second, result = updates(make_siblings(2, faces=3), JOB)
    assert box["visible"] is True and box["open"] is False
    assert face["choices"] == [("Face 1", "1"), ("Face 2", "2"), ("Face 3", "3")] and face["value"] == "1"
    assert (
        backbone["choices"] == [("Checkpoint 0", "c0"), ("Checkpoint 1", "c1")]
        and backbone["visible"] is True
    )
    assert value["value"] in dict(value["choices"]).values()
    assert second["visible"] is True and second["value"] == 0
    assert (result["value"], result["job"]) == ("", JOB)
    _, _, backbone, _, second, _ = updates((make_analysis(kind="image"),), JOB)
    assert backbone["visible"] is False and second["visible"] is False
    for nothing in ((), (make_analysis(faces=0),)):
        box, *_, result = updates(nothing, JOB)
        assert box["visible"] is False
        assert result["value"] == ""
    assert updates((), "")[-1]["job"] == "", "no answer that comes late is shown"


def test_values_of_another_face_or_backbone(context: AppContext) -> None:
    first, second = context.runner.analyses[0].faces
    given = ResultRef(JOB)
    assert _values(context, given, "2", "c0")["value"] == usual_value(second)
    assert _values(context, given, "1", "c1", "action_units/AU4")["value"] == "action_units/AU4"
    assert _values(context, given, "1", "c0", "gaze/Left")["value"] == usual_value(first)
    for wrong in (
        (ResultRef(), "1", "c0"),
        (given, "9", "c0"),
        (given, ["1"], "c0"),
        (given, "1", "c9"),
        (given, None, {}),
    ):
        assert _values(context, *wrong) == gr.skip()


def test_frame_row_is_the_nearest_with_the_face() -> None:
    analysis = make_analysis(faces=2, frames=30)
    whole, parted = (face.track for face in analysis.faces)
    for time_s in (0, 0.04, 1.0, 1.26, 2.9, analysis.media.duration_s):
        row = frame_row(analysis, whole, time_s)
        assert row == int(np.abs(whole.times_s - time_s).argmin())
    assert frame_row(analysis, parted, 0.5) == 5
    with pytest.raises(
        AskError, match=rf"^Face 2 was not found at 1\.30 s\. .* it was found is {parted.times_s[9]:.2f} s\.$"
    ):
        frame_row(analysis, parted, 1.3)
    assert frame_row(make_analysis(kind="image"), make_analysis(kind="image").faces[0].track, None) == 0


@pytest.mark.parametrize("second", [None, "1", True, -0.1, 4.0, float("nan"), 10**400, []])
def test_frame_row_refuses_what_is_no_time_of_the_clip(second: object) -> None:
    analysis = make_analysis(faces=1, frames=30)
    with pytest.raises(AskError, match=r"^Enter a time from 0 to 2\.9\d s\.$"):
        frame_row(analysis, analysis.faces[0].track, second)


@pytest.mark.parametrize(("data", "expected"), [({"time": 1.234567}, 1.23), ({"time": 0}, 0.0)])
def test_time_sought_reads_events_of_the_viewer(data: dict[str, object], expected: float) -> None:
    assert _time_sought(gr.EventData(None, data)) == expected
    for wrong in ({}, {"time": None}, {"time": "1"}, {"time": -1}, {"time": float("nan")}, {"time": 10**400}):
        assert _time_sought(gr.EventData(None, wrong)) == gr.skip()


# What is answered


def test_answer_asks_for_frame_face_backbone_and_value(context: AppContext) -> None:
    html = _answer(
        context, JOB, chosen(face="2", backbone="c1", value="valence_arousal/Arousal", second=0.52), CLIENT
    )
    [(path, checkpoint, place, what)] = context.runner.asked
    track = context.runner.analyses[1].faces[1].track
    assert path == context.runner.media
    assert (checkpoint, what) == ("c1", ("valence_arousal", "Arousal"))
    assert place == Place(float(track.times_s[5]), tuple(track.boxes_xyxy[5].tolist()))
    assert f"Face 2 at {track.times_s[5]:.2f} s, Checkpoint 1: Expression, Happiness (trained)" in text(html)


@pytest.mark.parametrize(
    "changes",
    [
        {"face": "9"},
        {"face": ["1"]},
        {"backbone": "c9"},
        {"backbone": {"a": 1}},
        {"value": "mimicry_intensity/Joy"},
        {"value": None},
    ],
)
def test_answer_refuses_what_was_not_offered(context: AppContext, changes: dict[str, object]) -> None:
    assert text(_answer(context, JOB, chosen(**changes), CLIENT)) == "Select a face and one of its values."
    assert not context.runner.asked


def test_answer_says_why_there_is_none(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "This analysis is not here any more" in _answer(context, "c" * 32, chosen(), CLIENT)
    assert "Enter a time from 0 to" in _answer(context, JOB, chosen(second=-1), CLIENT)
    context.runner.states = [JobStatus(QUESTION, "failed", message="<b>No</b> picture.")]
    assert (
        _answer(context, JOB, chosen(), CLIENT)
        == "<p class='problem' role='alert'>&lt;b&gt;No&lt;/b&gt; picture.</p>"
    )
    context.runner.states = [JobStatus(QUESTION, "cancelled")]
    assert text(_answer(context, JOB, chosen(), CLIENT)) == "The analysis was canceled."
    context.runner.full = "16 analyses are waiting already. Try again in a minute."
    assert text(_answer(context, JOB, chosen(), CLIENT)) == context.runner.full
    context.runner.full = ""
    assert not context.runner.cancelled
    monkeypatch.setattr(explain, "WAIT_S", 0.0)
    context.runner.states = [JobStatus(QUESTION, "running")]
    assert "The server is too busy for this" in _answer(context, JOB, chosen(), CLIENT)
    assert context.runner.cancelled == [QUESTION]
    context.runner.media = None
    assert (
        text(_answer(context, JOB, chosen(), CLIENT))
        == "The file is no longer on this server. Analyze it again."
    )


def test_explained_html_of_a_clear_map_has_words_for_all_of_it() -> None:
    explained = make_explained()
    html = explained_html(asked(make_analysis(kind="image")), explained)
    (face_alt, face), (map_alt, map_) = pictures(html)
    assert face_alt == "Face 1, input of the network"
    assert (
        map_alt
        == "Map over face 1. Happiness depends most on the lower left of the face; left and right refer to"
        " the picture."
    )
    np.testing.assert_array_equal(
        map_, overlay(explained.face, explained.saliency.map, explained.saliency.place_xyxy)
    )
    assert face.shape == map_.shape
    told = text(html)
    assert told.startswith("Face 1, Starter: Expression, Happiness (trained)")
    odd = replace(
        asked(make_analysis()).analysis, checkpoint=replace(make_analysis().checkpoint, title="<img src=x>'")
    )
    untrained = replace(explained, saliency=replace(explained.saliency, provenance="rule"))
    html = explained_html(asked(odd), untrained)
    assert (
        "<img src=x>" not in html
        and "&lt;img src=x&gt;" in html
        and f"({PROVENANCE_LABELS['rule']})" in text(html)
    )
    for part in (
        explained.saliency.summary,
        LIMITS,
        "strongest: the lower left of the face",
        "hiding it lowers the value",
    ):
        assert part in told
    assert "single frame" not in told
    assert "The value belongs to this single frame" in text(
        explained_html(asked(make_analysis(), row=3), explained)
    )


@pytest.mark.parametrize(
    ("drop", "stability", "verdict"), [(0.05, 0.9, "none"), (-0.2, 0.9, "none"), (0.4, 0.3, "unstable")]
)
def test_explained_html_has_no_map_where_it_would_mislead(
    drop: float, stability: float, verdict: str
) -> None:
    explained = make_explained(drop, stability)
    assert explained.saliency.verdict == verdict
    html = explained_html(asked(make_analysis()), explained)
    [(alt, _)] = pictures(html)
    assert alt == "Face 1, input of the network"
    told = text(html)
    assert NO_MAP[explained.saliency.verdict] in told
    assert explained.saliency.summary in told and LIMITS in told
    assert "strongest:" not in told


def test_place_words_name_the_third() -> None:
    side, found = 96, {}
    for row, top in enumerate((0, 36, 72)):
        for column, left in enumerate((0, 36, 72)):
            found[row, column] = place_text((left, top, left + 24, top + 24), side)
    assert found == PLACES
    assert place_text((0, 0, 1, 1), 1) == "the middle of the face"


@pytest.mark.usefixtures("japanese")
@pytest.mark.parametrize(("drop", "stability"), [(0.4, 0.9), (0.05, 0.9), (0.4, 0.3)])
def test_explained_html_in_japanese(drop: float, stability: float) -> None:
    html = explained_html(asked(make_analysis(), row=2), make_explained(drop, stability))
    told = [piece for piece in re.split("<[^>]*>", html) if piece.strip()] + [
        alt for alt, _ in pictures(html)
    ]
    assert len(told) >= 6
    for piece in told:
        assert KANA_OR_KANJI.search(piece) and not re.search("[a-z]{4}", piece.replace("Starter", "")), piece
