"""How often an answer like this one was right: counted on tuning rows, written into the manifest, told beside
the answer."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis, make_reliability
from checkpoint_makers import change_manifest, manifest_text

from hsemotion_space.analysis import export
from hsemotion_space.analysis.reliability import out_of_ten, precision, reliability_text
from hsemotion_space.hub.manifest import Checkpoint, read_manifest
from hsemotion_space.inference.postprocess import read_track
from hsemotion_space.metrics import confusion
from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, TASKS, VALENCE_AROUSAL
from hsemotion_space.training.attach import drop_heads, set_measured
from hsemotion_space.training.calibration import reliability_of, reliability_of_units
from hsemotion_space.types import NOT_MEASURED, Analysis, FaceTrack, FloatArray, Prediction, Reliability

MEASURED = Reliability(
    (60, 0, 0, 3, 200, 99, 12, 1), (100, 0, 9, 30, 200, 100, 40, 11), "tuning pictures of web"
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "manifest.toml").write_text(manifest_text("small", "ab" * 32), "utf-8")
    return read_manifest(folder)


def prediction(top: int, reliability: Reliability = MEASURED) -> Prediction:
    values = np.full(8, 0.05, np.float32)
    values[top] = 0.65
    return Prediction(EXPRESSION, "trained", values, np.full(8, np.nan, np.float32), 1, (), reliability)


@pytest.mark.parametrize(
    ("top", "known"),
    [
        (0, {"right": 6, "count": 100}), (3, {"right": 1, "count": 30}), (4, {"right": 10, "count": 200}),
        (5, {"right": 9, "count": 100}), (1, {"count": 0}), (2, {"count": 9}),
    ],
)  # fmt: skip
def test_in_words_has_figure_and_count(top: int, known: dict[str, int]) -> None:
    assert reliability_text(prediction(top)).values == known  # type: ignore[attr-defined]


def test_nothing_is_guessed_where_nothing_was_measured() -> None:
    assert reliability_text(prediction(0, NOT_MEASURED)) == ""
    assert math.isnan(precision(NOT_MEASURED, 0)) and math.isnan(precision(MEASURED, 2))
    with pytest.raises(ValueError, match="NaN"):
        out_of_ten(MEASURED, 2)


def test_units_that_are_present_are_told() -> None:
    values, limits = np.linspace(0, 1, 12, dtype=np.float32), (0.0, 0.0, *[0.95] * 10)
    made = Prediction(ACTION_UNITS, "trained", values, values * 0, 1, limits, make_reliability(ACTION_UNITS))
    assert reliability_text(made).values == {"figures": "AU1 6, AU2 6, AU26 \u2013"}  # type: ignore[attr-defined]
    assert (
        reliability_text(replace(made, thresholds=(2.0,) * 12))
        == reliability_text(replace(made, thresholds=()))
        == ""
    )
    affect = Prediction(VALENCE_AROUSAL, "trained", values[:2], values[:2], 1)
    assert reliability_text(affect) == ""


def test_counts_that_cannot_be_are_refused() -> None:
    for right, answers in (((1,), (1, 2)), ((3,), (2,)), ((-1,), (2,))):
        with pytest.raises(ValueError, match="right <= answers"):
            Reliability(right, answers)


def test_answers_are_counted_by_hand() -> None:
    """Five pictures: Anger said twice and right once, Fear said thrice and right twice."""
    values = np.eye(8, dtype=np.float32)[[0, 0, 3, 3, 3]]
    counts = confusion(values.argmax(1), np.array([0, 3, 3, 3, 6]), 8)
    found = reliability_of(counts, "five")
    assert (found.right, found.answers) == ((1, 0, 0, 2, 0, 0, 0, 0), (2, 0, 0, 3, 0, 0, 0, 0))
    units: FloatArray = np.array([[0.2, 0.6], [0.5, 0.7], [0.9, 0.1]], np.float32)
    found = reliability_of_units(units, np.array([[1, 0], [0, 1], [1, 1]]), (0.5, 0.6), "three")
    assert (found.right, found.answers) == ((1, 1), (2, 2)), (
        "the threshold itself counts as present, as it does for readers"
    )


def test_the_manifest_keeps_the_counts_until_the_weights_change(checkpoint: Checkpoint) -> None:
    set_measured(checkpoint.folder, EXPRESSION.name, 0.7, MEASURED)
    head = read_manifest(checkpoint.folder).head(EXPRESSION.name)
    assert head is not None and (head.reliability, head.temperature) == (MEASURED, 0.7)
    drop_heads(checkpoint.folder, "ab" * 32)
    assert read_manifest(checkpoint.folder).heads[0].reliability == MEASURED
    drop_heads(checkpoint.folder, "cd" * 32)
    assert read_manifest(checkpoint.folder).heads[0].reliability == NOT_MEASURED


def test_they_travel_from_the_manifest_to_every_prediction(checkpoint: Checkpoint) -> None:
    change_manifest(
        checkpoint.folder, ("7]\n", f"7]\nreliability = {{ right = {[5] * 8}, answers = {[20] * 8} }}\n")
    )
    track = FaceTrack(
        1, np.arange(9), np.arange(9) / 10, np.zeros((9, 4), np.float32), np.ones(9, np.float32), np.zeros((9, 4), np.float32),
        np.zeros((9, 10), np.float32), np.zeros((1, 1, 3), np.uint8),
    )  # fmt: skip
    face = read_track(track, read_manifest(checkpoint.folder), 1.0)
    for made in (face.timelines, face.predictions):
        assert [bool(one.reliability) for one in made] == [True, False, False]


def rows_of(analysis: Analysis, tmp_path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(export.write([analysis], tmp_path / "a.csv").read_text("utf-8").splitlines()))


def test_every_row_of_a_table_has_the_figure_of_its_own_answer(tmp_path: Path) -> None:
    analysis = make_analysis(1, 6, gap=False)
    line = analysis.faces[0].timelines[0]
    line.values[:] = 0
    line.values[range(6), [0, 0, 7, 3, 7, 7]] = 1
    rows = rows_of(analysis, tmp_path)
    assert [row["expression.top.precision"] for row in rows] == ["0.6", "0.6", "", "0.6", "", ""]
    assert [row["expression.top.answers"] for row in rows] == ["100", "100", "5", "100", "5", "5"]
    assert {(row["action_units.AU4.precision"], row["action_units.AU4.answers"]) for row in rows} == {
        ("0.6", "100")
    }
    assert {(row["action_units.AU26.precision"], row["action_units.AU26.answers"]) for row in rows} == {
        ("", "5")
    }


def test_a_file_of_a_checkpoint_that_was_not_measured_has_no_such_columns(tmp_path: Path) -> None:
    analysis = make_analysis(1, 3)
    face = analysis.faces[0]
    bare = replace(face, timelines=tuple(replace(line, reliability=NOT_MEASURED) for line in face.timelines))
    bare = replace(
        bare, predictions=tuple(replace(made, reliability=NOT_MEASURED) for made in face.predictions)
    )
    analysis = replace(analysis, faces=(bare,))
    assert not [name for name in rows_of(analysis, tmp_path)[0] if name.endswith((".precision", ".answers"))]
    assert "reliability" not in json.dumps(export.document([analysis]))


def test_the_document_has_the_counts() -> None:
    made = export.document([make_analysis(1, 3)])
    (face,) = made["analyses"][0]["faces"]  # type: ignore[index,call-overload]
    for entry in (*face["timelines"], *face["predictions"]):  # type: ignore[index,call-overload]
        task = next(task for task in TASKS if task.name == entry["task"])
        found = make_reliability(task)
        expected = (
            {"right": list(found.right), "answers": list(found.answers), "pictures": found.pictures}
            if found
            else None
        )
        assert entry.get("reliability") == expected
