from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from analysis_makers import change_lines, make_analysis
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_makers import make_manifest
from PIL import Image

from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import EXPRESSION, TASKS
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, CheckpointRef
from hsemotion_space.ui import i18n
from hsemotion_space.ui.analyze import Shared
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.live import answer as live_answer
from hsemotion_space.ui.live.answer import (
    MOST_BYTES,
    MOST_TEXT,
    UNUSABLE,
    answer,
    read_frame,
    read_sequence,
    seen,
)
from hsemotion_space.ui.live.component import FOLDER, build_live
from hsemotion_space.ui.picker import Picker
from hsemotion_space.ui.uploads import Uploads

ID = "0" * 32


@dataclass
class FakeRunner:
    """Answers each frame with the states that it was given."""

    states: list[JobStatus] = field(default_factory=list)
    busy: str = ""
    looked: list[tuple[bytes, str]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def analyze_frame(self, frame: bytes, checkpoint: str, *, client: str) -> str:
        if self.busy:
            raise JobError(self.busy)
        self.clients.append(client)
        self.looked.append((frame, checkpoint))
        return ID

    def watch(self, job_id: str, interval_s: float) -> Iterator[JobStatus]:
        assert job_id == ID and 0 < interval_s < 1
        yield from self.states
        while not self.states[-1].finished:
            yield self.states[-1]

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)


def jpeg(width: int = 64, height: int = 48) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "gray").save(file, "JPEG")
    return file.getvalue()


def as_text(frame: bytes) -> str:
    return base64.b64encode(frame).decode()


FRAME = as_text(jpeg())


def done(analysis: Analysis) -> JobStatus:
    return JobStatus(
        ID, "done", analyses=(replace(analysis, checkpoint=CheckpointRef("one", "One", "c" * 64)),)
    )


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    make_manifest(tmp_path / "checkpoints" / "one")
    options = Settings(checkpoints=tmp_path / "checkpoints", cache=tmp_path / "cache")
    runner = FakeRunner([JobStatus(ID, "queued"), done(make_analysis(faces=3, kind="image"))])
    uploads = Uploads(tmp_path / "uploads", tmp_path / "claims")
    return AppContext(
        options, runner, list_checkpoints(options.checkpoint_roots), tmp_path / "results", uploads
    )


def ask(
    context: AppContext, data: object, checkpoint: object = "one", agreed: object = True
) -> dict[str, object]:
    return json.loads(
        answer(context, gr.EventData(None, data), checkpoint, agreed, "192.0.2.1"), parse_constant=pytest.fail
    )


def test_answer_has_boxes_and_values_of_all_faces(context: AppContext) -> None:
    told = ask(context, {"sequence": 7, "frame": FRAME})
    assert context.runner.looked == [(jpeg(), "one")]
    assert context.runner.clients == ["192.0.2.1"]
    assert (told["sequence"], told["checkpoint"], len(told["faces"])) == (7, "one", 3)
    shown = [task for task in TASKS if task.scope == "frame"]
    assert [task["name"] for task in told["tasks"]] == [task.name for task in shown]
    assert {task["provenance"] for task in told["tasks"]} == {
        PROVENANCE_LABELS["trained"],
        PROVENANCE_LABELS["rule"],
    }
    analysis = context.runner.states[-1].analyses[0]
    for face, entry in zip(analysis.faces, told["faces"], strict=True):
        box = face.track.boxes_xyxy[0] / [640, 480, 640, 480]
        assert entry["box"] == pytest.approx(box.tolist(), abs=1e-4)
        assert list(entry["lines"]) == [task.name for task in shown]
        for line in face.timelines:
            if line.task in shown:
                given_values = [column[0] for column in entry["lines"][line.task.name]["values"]]
                assert given_values == pytest.approx(line.values[0].tolist(), abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answer_has_null_for_nan_and_infinity(context: AppContext, bad: float) -> None:
    analysis = change_lines(make_analysis(faces=2, kind="image"), EXPRESSION, [bad, *[0.1] * 7])
    context.runner.states = [done(analysis)]
    told = ask(context, {"sequence": 1, "frame": FRAME})
    assert [column[0] for column in told["faces"][1]["lines"]["expression"]["values"]] == [
        None,
        *[pytest.approx(0.1)] * 7,
    ]


def test_seen_leaves_out_a_face_without_a_place(context: AppContext) -> None:
    analysis = make_analysis(faces=2, kind="image")
    nowhere = replace(analysis.faces[0].track, boxes_xyxy=np.full((1, 4), np.nan, np.float32))
    faces = (replace(analysis.faces[0], track=nowhere), analysis.faces[1])
    assert len(seen(replace(analysis, faces=faces), context.checkpoints[0])["faces"]) == 1


def test_seen_warns_of_a_small_face(context: AppContext) -> None:
    analysis = make_analysis(faces=2, kind="image")
    sure = [replace(face.track, detection_scores=np.ones(1, np.float32)) for face in analysis.faces]
    tracks = [sure[0], replace(sure[1], boxes_xyxy=np.array([[10, 10, 25, 28]], np.float32))]
    faces = tuple(replace(face, track=track) for face, track in zip(analysis.faces, tracks, strict=True))
    told = seen(replace(analysis, faces=faces), context.checkpoints[0])
    assert "small" in told["faces"][1]["against"] and "small" not in told["faces"][0]["against"]


@pytest.mark.parametrize(
    "data",
    [
        None, [], "text", {}, {"frame": None}, {"frame": ["x"]}, {"frame": "not base64!"}, {"frame": FRAME[:-1] + "é"},
        {"frame": FRAME[1:]}, {"frame": as_text(b"GIF89a")}, {"frame": "A" * (MOST_TEXT + 1)},
        {"frame": as_text(jpeg()[:3] + bytes(MOST_BYTES))}, {"job": "../../x"}, {"job": "0" * 31}, {"job": ["0" * 32]},
    ],
)  # fmt: skip
def test_answer_refuses_what_is_no_frame_and_no_job(context: AppContext, data: object) -> None:
    assert ask(context, data) == {"sequence": 0, "stop": UNUSABLE}
    assert not context.runner.looked


@pytest.mark.parametrize(
    "wrong",
    [{"agreed": False}, {"agreed": "true"}, {"agreed": 1}, {"checkpoint": None}, {"checkpoint": "nobody's"}],
)
def test_answer_stops_without_consent_or_backbone(context: AppContext, wrong: dict[str, object]) -> None:
    assert ask(context, {"sequence": 1, "frame": FRAME}, **wrong)["stop"]
    assert not context.runner.looked


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            JobStatus(ID, "failed", message="The weights are damaged."),
            {"sequence": 4, "stop": "The weights are damaged."},
        ),
        (JobStatus(ID, "cancelled"), {"sequence": 4, "wait": "The server is busy."}),
        (
            done(make_analysis(faces=0, kind="image")),
            {"sequence": 4, "checkpoint": "one", "tasks": [], "faces": []},
        ),
    ],
)
def test_answer_without_faces_says_why(
    context: AppContext, state: JobStatus, expected: dict[str, object]
) -> None:
    context.runner.states = [JobStatus(ID, "running"), state]
    assert ask(context, {"sequence": 4, "frame": FRAME}) == expected
    context.runner.busy = "Other pictures are being looked at."
    assert ask(context, {"sequence": 4, "frame": FRAME}) == {"sequence": 4, "wait": context.runner.busy}


def test_read_frame_and_sequence_at_their_bounds() -> None:
    assert [read_sequence(value) for value in (1, 2**53 - 1)] == [1, 2**53 - 1]
    assert [read_sequence(value) for value in (0, -1, True, 1.5, "1", None, [1], 2**53)] == [0] * 8
    frame = jpeg() + bytes(MOST_BYTES - len(jpeg()))
    assert read_frame(as_text(frame)) == frame
    assert len(as_text(frame)) == MOST_TEXT < 256 * 1024 - 4096


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_read_frame_of_any_text(text: str) -> None:
    try:
        assert read_frame(text).startswith(b"\xff\xd8\xff")
    except live_answer.FrameError as error:
        assert str(error) == UNUSABLE


def test_answer_gives_up_a_slow_frame(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_answer, "WAIT_S", 0.05)
    context.runner.states = [JobStatus(ID, "running")]
    assert ask(context, {"sequence": 4, "frame": FRAME}) == {"sequence": 4, "wait": "The server is busy."}
    assert context.runner.cancelled == [ID]


def test_answer_waits_for_a_download(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_answer, "WAIT_S", 0.05)
    context.runner.states = [JobStatus(ID, "running", phase="download", done=2_500_000, total=9_000_000)]
    told = ask(context, {"sequence": 4, "frame": FRAME})
    assert "2.5 MB" in told["wait"] and told["job"] == ID
    assert context.runner.cancelled == []
    context.runner.states = [done(make_analysis(faces=1, kind="image"))]
    assert len(ask(context, {"sequence": 5, "job": ID})["faces"]) == 1
    assert len(context.runner.looked) == 1


def test_scripts_have_translations_for_every_text() -> None:
    scripts = "\n".join(file.read_text("utf-8") for file in sorted(FOLDER.glob("*.js")))
    found = {
        text
        for call in re.findall(r"\bgettext\(((?:[^()']|'[^']*')*)", scripts)
        for text in re.findall(r"'([^']*)'", call)
    }
    page = (FOLDER / "live.html").read_text("utf-8")
    found |= set(re.findall(r">([^<>]*[a-z]{2}[^<>]*)<", page)) | set(
        re.findall(r'aria-label="([^"]*)"', page)
    )
    known = {**i18n._file(i18n.FOLDER / "ja" / "viewer.json"), **i18n._file(i18n.FOLDER / "ja" / "live.json")}
    assert len(found) > 20
    assert not found - known.keys()


def test_build_live_needs_an_id_of_the_tick(context: AppContext) -> None:
    shared = Shared(Picker(gr.Dropdown(["one"]), gr.HTML()), gr.Checkbox(False), gr.Textbox())
    with pytest.raises(ValueError, match="elem_id"):
        build_live(context, shared, gr.Tab("Live"))
