"""Compound expressions are findings only where the expressions support both parts, everywhere in the same
way."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from checkpoint_makers import HEADS, manifest_text

from hsemotion_space.analysis import export
from hsemotion_space.analysis.disagreement import disagreements, most_disagreed
from hsemotion_space.analysis.image_quality import quality
from hsemotion_space.analysis.reliability import reliability_text
from hsemotion_space.hub.manifest import InputSpec, read_manifest
from hsemotion_space.inference.postprocess import read_track
from hsemotion_space.tasks import COMPOUND_EXPRESSION, EXPRESSION, TASKS
from hsemotion_space.training.attach import drop_heads
from hsemotion_space.training.confidence import (
    MAX_FALSE_SHARE,
    Support,
    choose_support,
    stand_out_shares,
    support_of_top,
)
from hsemotion_space.training.data import TEST, TUNING
from hsemotion_space.types import (
    Analysis,
    CheckpointRef,
    FaceResult,
    FaceTrack,
    FloatArray,
    MediaInfo,
    Reliability,
)
from hsemotion_space.ui.tables import prediction_text
from hsemotion_space.ui.viewer import viewer_value

NONE = "none of the seven stands out"
SPEC = InputSpec(64, "square", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMILE = {"Happiness": 0.96, "Neutral": 0.02}
BOTH = {"Happiness": 0.5, "Surprise": 0.4}


def scores(*faces: dict[str, float]) -> FloatArray:
    """Return raw outputs whose softmax is nearly the given probabilities of the expressions."""
    rows = [[np.log(face.get(name, 0.003)) for name in EXPRESSION.label_names] + [0.0, 0.0] for face in faces]
    return np.array(rows, np.float32)


def read(
    tmp_path: Path, rows: FloatArray, least: str = "least_support = 0.2\n", smoothing: float = 0.0
) -> FaceResult:
    folder = tmp_path / "small"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.toml").write_text(manifest_text("small", "ab" * 32, heads=HEADS + least), "utf-8")
    count = len(rows)
    track = FaceTrack(
        1, np.arange(count), np.arange(count) / 10, np.tile(np.array([0, 0, 90, 90], np.float32), (count, 1)), np.ones(count, np.float32),
        np.zeros((count, 4), np.float32), rows, np.zeros((1, 1, 3), np.uint8),
    )  # fmt: skip
    return read_track(track, read_manifest(folder), smoothing)


def analysis(face: FaceResult) -> Analysis:
    times_s = face.track.times_s
    media = MediaInfo("0" * 64, "clip", 100, 100, float(times_s[-1]))
    return Analysis(media, CheckpointRef("small", "Small", "ab" * 32), times_s, (face,))


def test_a_plain_smile_is_no_compound_and_a_surprised_smile_is_one(tmp_path: Path) -> None:
    expression, _, compound = read(tmp_path, scores(SMILE, BOTH)).timelines
    assert [COMPOUND_EXPRESSION.labels[top].name for top in compound.values.argmax(axis=1)] == [
        "Happily surprised"
    ] * 2
    assert compound.stands_out.tolist() == [False, True]
    assert expression.stands_out.all() and not len(expression.support)
    smile, both = (read(tmp_path, scores(face)).predictions[2] for face in (SMILE, BOTH))
    assert (smile.stands_out, both.stands_out) == (False, True)
    assert prediction_text(smile) == NONE and prediction_text(both).startswith("Happily surprised ")


def test_the_bound_is_that_of_the_manifest(tmp_path: Path) -> None:
    for least, expected in (("", True), ("least_support = 0.39\n", True), ("least_support = 0.45\n", False)):
        made = read(tmp_path, scores(BOTH), least).predictions[2]
        assert made.stands_out == expected
    assert read(tmp_path, scores(BOTH), "").predictions[2].least_support == 1 / 8, (
        "not measured: more than an equal share"
    )


def test_support_is_what_is_shown_after_smoothing(tmp_path: Path) -> None:
    rows = scores(*[SMILE] * 20, BOTH, *[SMILE] * 20)
    assert read(tmp_path, rows).timelines[2].stands_out.sum() == 1
    assert not read(tmp_path, rows, smoothing=1.0).timelines[2].stands_out.any()


def test_a_checkpoint_without_the_parts_is_left_alone(tmp_path: Path) -> None:
    track = read(tmp_path, scores(SMILE)).track
    heads = (
        '[[heads]]\ntask = "compound_expression"\nkind = "scores"\nprovenance = "trained"\ncolumns = [0, 1,'
        " 2, 3, 4, 5, 6]\n"
    )
    (tmp_path / "small" / "manifest.toml").write_text(manifest_text("small", "ab" * 32, heads=heads), "utf-8")
    (made,) = read_track(track, read_manifest(tmp_path / "small"), 0.0).predictions
    assert made.stands_out and not len(made.support)


def test_tables_and_documents_name_the_finding_and_keep_the_values(tmp_path: Path) -> None:
    made = analysis(read(tmp_path, scores(SMILE, BOTH)))
    rows = list(csv.DictReader(export.write([made], tmp_path / "a.csv").read_text("utf-8").splitlines()))
    assert [row["compound_expression.finding"] for row in rows] == ["", "Happily surprised"]
    assert all(float(row["compound_expression.Happily surprised"]) > 0.3 for row in rows)
    document = export.document([made])
    (face,) = document["analyses"][0]["faces"]  # type: ignore[index,call-overload]
    line, prediction = face["timelines"][2], face["predictions"][2]  # type: ignore[index,call-overload]
    assert (
        line["findings"] == [None, "Happily surprised"]
        and line["least_support"] == 0.2
        and len(line["values"][0]) == 7
    )
    assert prediction["finding"] == "Happily surprised"
    assert "findings" not in face["timelines"][0]  # type: ignore[index,call-overload]


def test_the_viewer_knows_the_frames_without_a_finding(tmp_path: Path) -> None:
    value = viewer_value(analysis(read(tmp_path, scores(SMILE, BOTH, SMILE))), "")
    assert value["faces"][0]["lines"]["compound_expression"]["none"] == [0, 2]
    assert value["faces"][0]["lines"]["expression"]["none"] == []
    assert [task["none"] for task in value["tasks"]] == ["", "", NONE]


def test_moments_of_disagreement_tell_it_too(tmp_path: Path) -> None:
    one, other = (
        analysis(read(tmp_path, scores(SMILE, SMILE))),
        analysis(read(tmp_path, scores(BOTH, {"Sadness": 0.5, "Anger": 0.4}))),
    )
    other = replace(other, checkpoint=CheckpointRef("other", "Other", "cd" * 32))
    found = [item for item in most_disagreed(disagreements((one, other)), 9) if item.task.none]
    assert found
    assert {prediction_text(moment.predictions[0]) == NONE for moment in found} == {True}


def test_no_flag_and_no_figure_is_about_an_answer_that_is_not_shown(tmp_path: Path) -> None:
    face = read(tmp_path, scores(SMILE))
    compound = replace(
        face.predictions[2],
        reliability=Reliability((6,) * 7, (10,) * 7),
        values=np.full(7, 1 / 7, np.float32),
    )
    assert not compound.stands_out and reliability_text(compound) == ""
    face = replace(face, predictions=(compound,))
    assert "undecided" not in [flag.kind for one in quality(analysis(face), SPEC) for flag in one.flags]


def test_only_tasks_whose_labels_have_two_parts_can_say_none() -> None:
    assert [task.name for task in TASKS if task.none] == [
        task.name for task in TASKS if all(len(label.parts) == 2 for label in task.labels)
    ]


def shown(name: str, support: list[float], split: int = TUNING, composed: bool = False) -> Support:
    return Support(name, split, composed, np.array(support, np.float32))


def test_the_bound_lets_few_of_the_other_faces_through_each_kind_alike() -> None:
    """A kind with few faces weighs as much as one with many; positives and test faces are not looked at."""
    many = shown("many", [0.0] * 1000)
    few = shown("few", [0.305] * 1 + [0.205] * 1 + [0.0] * 8)
    positives, test = shown("compound", [0.4] * 50, composed=True), shown("test", [0.5] * 50, TEST)
    assert choose_support([few, positives, test]) == 0.21
    assert choose_support([many, few, positives, test, shown("two", [0.5] * 2)]) == 0.01
    assert choose_support([shown("all", [0.5] * 10)]) == 0.5
    assert choose_support([positives, test, shown("two", [0.0] * 2)]) == 0, "not measured"
    told = stand_out_shares([many, few, positives, test], 0.21)
    assert told["tuning"]["few"] == {"pictures": 10, "stands_out": 0.1} and told["test"] == {
        "test": {"pictures": 50, "stands_out": 1.0}
    }
    assert MAX_FALSE_SHARE == 0.15


def test_support_of_the_top_label_is_the_smaller_of_its_parts() -> None:
    values = np.eye(7, dtype=np.float32)[[1, 6]]  # happily surprised, sadly angry
    probabilities = np.array([[0.1, 0, 0, 0, 0.6, 0, 0, 0.3], [0.1, 0, 0, 0, 0, 0, 0.9, 0]], np.float32)
    np.testing.assert_allclose(
        support_of_top(COMPOUND_EXPRESSION, values, EXPRESSION, probabilities), [0.3, 0.1]
    )


def test_new_weights_take_the_bound_away(tmp_path: Path) -> None:
    read(tmp_path, scores(SMILE))
    drop_heads(tmp_path / "small", "cd" * 32)
    assert read_manifest(tmp_path / "small").heads[2].least_support == 0
