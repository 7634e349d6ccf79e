from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from analysis_makers import make_analysis, make_face

from hsemotion_space.figures import face_color
from hsemotion_space.tasks import EXPRESSION, TASKS
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, FaceResult
from hsemotion_space.ui.result import _shown_url
from hsemotion_space.ui.viewer import (
    Selection,
    as_text,
    build_viewer,
    media_url,
    read_label_key,
    read_selection,
    viewer_value,
)
from hsemotion_space.ui.viewer.component import FOLDER, SCRIPTS, serve_plotly
from hsemotion_space.ui.viewer.payload import local_deviation


def with_values(analysis: Analysis, change: dict[tuple[int, int], float]) -> Analysis:
    """Return the analysis with other values of the first task of the first face, by row and column."""
    face = analysis.faces[0]
    values = face.timelines[0].values.copy()
    for place, value in change.items():
        values[place] = value
    changed: FaceResult = replace(
        face, timelines=(replace(face.timelines[0], values=values), *face.timelines[1:])
    )
    return replace(analysis, faces=(changed, *analysis.faces[1:]))


def test_browsers_get_the_preview_of_a_heic_photo_and_any_other_file_itself(tmp_path: Path) -> None:
    analysis = replace(make_analysis(kind="image"), preview=np.zeros((30, 40, 3), np.uint8))
    path = tmp_path / "photo"
    for head, start in ((b"\0\0\0\x18ftypheic", "data:image/jpeg;"), (b"\xff\xd8\xff", "/gradio_api/file=")):
        path.write_bytes(head)
        assert _shown_url(path, analysis).startswith(start)


def test_viewer_value_has_the_shapes_of_the_analysis() -> None:
    analysis = make_analysis(faces=2, frames=30)
    value = viewer_value(analysis, "/clip.mp4")
    assert value["media"] == {
        "id": analysis.media.sha256, "url": "/clip.mp4", "kind": "clip", "width": 640, "height": 480, "duration": analysis.media.duration_s
    }  # fmt: skip
    assert len(value["times"]) == 30
    assert [task["name"] for task in value["tasks"]] == [task.name for task in TASKS]
    for face in value["faces"]:
        assert len(face["boxes"]) == 30
        for task in TASKS:
            line = face["lines"][task.name]
            frames = 30 if task.scope == "frame" else 1
            assert [len(column) for column in line["values"]] == [frames] * len(task.labels)
            assert [len(column) for column in line["band"]] == (
                [30] * len(task.labels) if task.scope == "frame" else []
            )
            assert len(line["top"]) == (30 if task.kind == "one_of" else 0)
            assert len(line["mean"]) == len(task.labels)
    assert json.loads(as_text(value), parse_constant=pytest.fail) == value
    image, nobody = (
        viewer_value(make_analysis(kind="image"), "/p.png"),
        viewer_value(make_analysis(faces=0), "/clip.mp4"),
    )
    assert (image["media"]["kind"], len(image["times"]), {task["band"] for task in image["tasks"]}) == (
        "image",
        1,
        {""},
    )
    assert all(line["band"] == [] for face in image["faces"] for line in face["lines"].values())
    assert (nobody["faces"], nobody["tasks"], len(nobody["times"])) == ([], [], 30)


def test_viewer_value_has_words_of_tasks_and_colors_of_faces() -> None:
    analysis = make_analysis(faces=2)
    value = viewer_value(analysis, "")
    assert [face["color"] for face in value["faces"]] == [face_color(1), face_color(2)]
    given = [line.provenance for line in analysis.faces[0].timelines]
    assert [task["provenance"] for task in value["tasks"]] == [
        PROVENANCE_LABELS[provenance] for provenance in given
    ]
    for entry, task in zip(value["tasks"], TASKS, strict=True):
        assert (entry["kind"], entry["scope"], entry["low"], entry["high"]) == (
            task.kind,
            task.scope,
            task.low,
            task.high,
        )
        assert [(label["name"], label["short"], label["color"]) for label in entry["labels"]] == [
            (label.name, label.short, label.color) for label in task.labels
        ]


def test_viewer_value_rounds_numbers() -> None:
    analysis = make_analysis(faces=1, gap=False)
    value = viewer_value(analysis, "")
    face, line = analysis.faces[0], analysis.faces[0].timelines[0]
    shown = np.array(value["faces"][0]["lines"]["expression"]["values"]).T
    assert np.abs(shown - line.values).max() <= 0.00051
    assert np.abs(np.array(value["times"]) - analysis.frame_times_s).max() <= 0.000051
    boxes = np.array(value["faces"][0]["boxes"]) * [640, 480, 640, 480]
    assert np.abs(boxes - face.track.boxes_xyxy).max() <= 0.05
    assert value["faces"][0]["lines"]["expression"]["top"] == line.values.argmax(axis=1).tolist()
    assert all(len(str(number)) <= 6 for column in shown.T.tolist() for number in column)


def test_viewer_value_has_gaps_where_the_face_was_not_found() -> None:
    analysis = make_analysis(faces=2, frames=30)
    value = viewer_value(analysis, "")
    whole, parted = value["faces"]
    assert whole["gaps"] == []
    times = value["times"]
    assert parted["gaps"] == [[times[9], times[20]]]
    absent = [row for row, box in enumerate(parted["boxes"]) if box is None]
    assert absent == list(range(10, 20))
    for name in ("expression", "action_units"):
        for column in (*parted["lines"][name]["values"], *parted["lines"][name]["band"]):
            assert [row for row, number in enumerate(column) if number is None] == absent
    assert [row for row, top in enumerate(parted["lines"]["expression"]["top"]) if top is None] == absent
    times = np.arange(10) / 10
    late = replace(
        make_analysis(faces=1, frames=10),
        frame_times_s=times,
        faces=(make_face(1, np.arange(3, 7), times, 0),),
    )
    assert viewer_value(late, "")["faces"][0]["gaps"] == [[0.0, 0.3], [0.6, 0.9]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_as_text_of_nan_and_infinity_is_null(bad: float) -> None:
    analysis = with_values(make_analysis(faces=1, gap=False), {(4, 2): bad})
    face = analysis.faces[0]
    boxes = face.track.boxes_xyxy.copy()
    boxes[5, 1] = bad
    analysis = replace(analysis, faces=(replace(face, track=replace(face.track, boxes_xyxy=boxes)),))
    value = json.loads(as_text(viewer_value(analysis, "")))
    line = value["faces"][0]["lines"]["expression"]
    assert line["values"][2][4] is None
    assert line["top"][4] is None
    assert line["band"][2][4] is None, "a window with an unknown value has no known spread"
    assert line["values"][2][3] is not None
    assert value["faces"][0]["boxes"][5] is None
    assert None not in line["mean"]


def test_local_deviation_is_that_within_the_window() -> None:
    rng = np.random.default_rng(3)
    times, values = np.sort(rng.uniform(0, 10, 80)), rng.normal(0, 1, (80, 3)).astype(np.float32)
    found = local_deviation(times, values, 0.5)
    for row, time in enumerate(times):
        near = values[np.abs(times - time) <= 0.5].astype(np.float64)
        assert found[row] == pytest.approx(
            near.std(axis=0) if len(near) > 1 else np.full(3, np.nan), abs=1e-5, nan_ok=True
        )
    assert np.isnan(local_deviation(np.array([0.0, 5.0]), values[:2], 0.5)).all()


def test_viewer_value_takes_the_band_of_the_unsmoothed() -> None:
    raw = make_analysis(faces=1, gap=False)
    face = raw.faces[0]
    flat = replace(face.timelines[0], values=np.full_like(face.timelines[0].values, 1 / 8))
    smooth = replace(raw, faces=(replace(face, timelines=(flat, *face.timelines[1:])),))
    alone, both = viewer_value(smooth, ""), viewer_value(smooth, "", raw)
    assert np.max(alone["faces"][0]["lines"]["expression"]["band"]) == 0
    expected = local_deviation(face.timelines[0].times_s, face.timelines[0].values, EXPRESSION.smoothing_s)
    shown = np.array(both["faces"][0]["lines"]["expression"]["band"]).T
    assert shown == pytest.approx(expected, abs=0.00051)
    assert (
        both["faces"][0]["lines"]["expression"]["values"]
        == alone["faces"][0]["lines"]["expression"]["values"]
    )
    assert alone["tasks"][0]["band"] == "± 1 SD of the shown values within ±1.67 s"
    assert both["tasks"][0]["band"] == "± 1 SD of the unsmoothed values within ±1.67 s"


def test_build_viewer_loads_nothing_from_elsewhere() -> None:
    viewer = build_viewer()
    config = viewer.get_config()
    script = serve_plotly()
    assert media_url(Path("/folder/a b#1?.mp4")) == "/gradio_api/file=/folder/a%20b%231%3F.mp4"
    assert script.stat().st_size > 1_000_000
    assert config["head"] == f'<script src="{media_url(script)}?v={version("plotly")}"></script>'
    for text in (config["head"], config["js_on_load"], config["html_template"], config["css_template"]):
        assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in text
    for name in ("html_template", "css_template"):  # both are templates; nothing in them may be one
        assert not any(mark in config[name] for mark in ("${", "{{", "`", "\\", "@children"))


def test_scripts_never_write_markup() -> None:
    for name in SCRIPTS:
        script = (FOLDER / name).read_text("utf-8")
        assert not any(
            way in script for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write")
        ), name
        assert all(len(line) <= 140 for line in script.splitlines()), name


@pytest.mark.parametrize(
    ("brought", "expected"),
    [
        ({"start": 1, "end": 2.5, "face": 2}, Selection(1.0, 2.5, 2)),
        ({"start": None, "end": None, "face": 1}, None),
        ({"start": 2, "end": 1, "face": 1}, None),
        ({"start": 1, "end": 1, "face": 1}, None),
        ({"start": -1, "end": 1, "face": 1}, None),
        ({"start": 0, "end": float("inf"), "face": 1}, None),
        ({"start": "0", "end": 1, "face": 1}, None),
        ({"start": 0, "end": 1, "face": 0}, None),
        ({"start": 0, "end": 1, "face": 1.5}, None),
        ({"start": 0, "end": True, "face": 1}, None),
        ({}, None),
    ],
)
def test_read_selection_refuses_what_is_none(brought: dict[str, object], expected: Selection | None) -> None:
    assert read_selection(gr.EventData(None, brought)) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, 1), (8, 8), (0, None), (9, None), (1.5, None), ("1", None), (True, None), (None, None)],
)
def test_read_label_key_refuses_what_is_none(number: object, expected: int | None) -> None:
    assert read_label_key(gr.EventData(None, {"number": number})) == expected
