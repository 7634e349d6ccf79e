"""What may be no face is told in the same sentence on the page, on the command line and in every export."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis
from checkpoint_makers import change_manifest, make_checkpoint, manifest_text
from error_codes import raises_code
from face_makers import picture_with
from PIL import Image

from hsemotion_space.analysis import export
from hsemotion_space.analysis.face_check import LEAST_SCORE, doubt
from hsemotion_space.analysis.image_quality import quality
from hsemotion_space.cli import main
from hsemotion_space.hub.manifest import CheckpointError, InputSpec, read_manifest
from hsemotion_space.inference.postprocess import read_track
from hsemotion_space.training.attach import drop_heads, set_least_length
from hsemotion_space.training.confidence import LabeledOutputs, least_length, shorter_shares
from hsemotion_space.training.data import TEST, TUNING
from hsemotion_space.types import FaceResult

SPEC = InputSpec(64, "square", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def face(score: float = 0.999, length: float = 5.0, least: float = 4.0, frames: int = 5) -> FaceResult:
    made = make_analysis(1, frames, gap=False).faces[0]
    embeddings = np.zeros((frames, 4), np.float32)
    embeddings[:, 1] = length
    track = replace(made.track, detection_scores=np.full(frames, score, np.float32), embeddings=embeddings)
    return replace(made, track=track, least_length=least)


def test_detector_and_network_are_asked_in_this_order() -> None:
    assert doubt(face()) is None
    found = doubt(face(score=0.95))
    assert (
        found is not None
        and found.text.values == {"score": found.value, "limit": LEAST_SCORE}
        and found.threshold == LEAST_SCORE
    )
    found = doubt(face(length=3.9876543))
    assert found is not None and found.text.values == {"length": found.value, "limit": 4.0}
    assert (found.threshold, found.value) == (4.0, pytest.approx(3.9877, abs=1e-4))
    both = doubt(face(score=0.5, length=1.0))
    assert both is not None and "score" in both.text.values


def test_nothing_is_said_of_the_length_where_it_was_not_measured() -> None:
    assert doubt(face(length=0.0, least=0.0)) is None


def test_a_clip_is_judged_by_its_median_frame() -> None:
    one = face()
    one.track.embeddings[:2] = 0
    assert doubt(one) is None
    one.track.embeddings[:3] = 0
    assert doubt(one) is not None


def test_it_is_the_first_flag_and_nothing_is_left_out() -> None:
    made = replace(make_analysis(1, 5, gap=False), faces=(face(length=1.0),))
    (found,) = quality(made, SPEC)
    assert found.flags[0].kind == "unsure" and found.flags[0].text == doubt(made.faces[0]).text  # type: ignore[union-attr]


def test_exports_say_the_same(tmp_path: Path) -> None:
    analysis = replace(
        make_analysis(1, 5, gap=False),
        faces=(face(length=1.0), replace(face(), track=replace(face().track, track_id=2))),
    )
    found = doubt(analysis.faces[0])
    assert found is not None
    rows = list(csv.DictReader(export.write([analysis], tmp_path / "a.csv").read_text("utf-8").splitlines()))
    assert [row["face_doubt"] for row in rows] == [found.text] * 5 + [""] * 5
    document = json.loads(export.write([analysis], tmp_path / "a.json").read_text("utf-8"))
    assert [entry["face_doubt"] for entry in document["analyses"][0]["faces"]] == [found.text, None]


def test_the_command_line_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    set_least_length(tmp_path / "checkpoints" / "random", 1e9)
    monkeypatch.setenv("HSEMOTION_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("HSEMOTION_ENGINE", "torch")
    Image.fromarray(picture_with([(10, 20)], (240, 320))).save(tmp_path / "one.png")
    assert main(["analyze", str(tmp_path / "one.png")]) == 0
    printed = capsys.readouterr().out
    assert "    warning: The " in printed and "Expression (trained)" in printed


def test_the_bound_travels_from_the_manifest_and_goes_with_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "manifest.toml").write_text(manifest_text("small", "ab" * 32), "utf-8")
    assert read_manifest(folder).least_length == 0
    set_least_length(folder, 3.25)
    made = make_analysis(1, 1).faces[0].track
    track = replace(made, scores=np.zeros((1, 10), np.float32))
    assert read_track(track, read_manifest(folder), 0.0).least_length == 3.25
    drop_heads(folder, "cd" * 32)
    assert read_manifest(folder).least_length == 0
    for wrong in ("-1", '"long"', "inf", "nan"):
        set_least_length(folder, 3.25)
        change_manifest(folder, ("least_length = 3.25", f"least_length = {wrong}"))
        with raises_code(CheckpointError, "invalid_value"):
            read_manifest(folder)
        change_manifest(folder, (f"least_length = {wrong}", "least_length = 3.25"))


def test_two_of_a_hundred_tuning_faces_are_shorter() -> None:
    def seen(split: int, lengths: np.ndarray) -> LabeledOutputs:
        embeddings = np.stack([lengths * 0.6, lengths * 0.8], 1).astype(np.float32)
        return LabeledOutputs(
            "web",
            split,
            embeddings,
            np.zeros((len(lengths), 8), np.float32),
            np.zeros(len(lengths), np.int64),
        )

    tuning, test = seen(TUNING, np.arange(1, 102.0)), seen(TEST, np.array([1.0, 2.0, 4.0, 50.0]))
    assert least_length([tuning, test]) == 3.0
    assert shorter_shares([tuning, test], 3.0) == {"web": {"pictures": 4, "doubted": 0.5}}
