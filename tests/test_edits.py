"""Changes by hand: what they do to an analysis, and that nothing else is read from a file or a browser."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis
from checkpoint_makers import manifest_text
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from intake_makers import Sender

from hsemotion_space.edits import EditError, Edits, Marker, read_edits
from hsemotion_space.feedback.record import to_json
from hsemotion_space.hub.manifest import Checkpoint, read_manifest
from hsemotion_space.inference.postprocess import calmest_s, merge_tracks, read_track, reread
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.types import Analysis, CheckpointRef, FaceResult, FaceTrack, MediaInfo
from hsemotion_space.ui.edit import change

SHA256 = "ab" * 32
NEUTRAL = EXPRESSION.index("Neutral")
texts = st.text(max_size=100)
times = st.floats(0, 1e6) | st.integers(0, 10**6)
spans = st.tuples(times, times).map(sorted)
markers = st.builds(lambda span, label: Marker("event", *span, label), spans, texts)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "manifest.toml").write_text(manifest_text(tmp_path.name, SHA256), "utf-8")
    return read_manifest(tmp_path)


def make_track(track_id: int, first: int, frames: int = 20, surest: float = 0.9) -> FaceTrack:
    """Return a track at 10 frames per second that is neutral in its second half."""
    rows = np.arange(first, first + frames)
    scores = np.random.default_rng(track_id).normal(0, 1, (frames, 10)).astype(np.float32)
    scores[frames // 2 :, NEUTRAL] += 9
    return FaceTrack(
        track_id, rows, rows / 10, np.zeros((frames, 4), np.float32), np.full(frames, surest, np.float32),
        np.zeros((frames, 4), np.float32), scores, np.full((1, 1, 3), track_id, np.uint8),
    )  # fmt: skip


def made(checkpoint: Checkpoint, *tracks: FaceTrack) -> Analysis:
    reference = CheckpointRef(checkpoint.id, checkpoint.title, checkpoint.sha256)
    faces = tuple(read_track(track, checkpoint, 0) for track in tracks)
    return Analysis(MediaInfo("00", "clip", 4, 4, 9.0), reference, np.arange(90) / 10, faces)


def line_of(face: FaceResult, kind: str) -> np.ndarray:
    return next(line for line in face.timelines if line.task.kind == kind)


def test_merged_faces_are_one_track_and_can_be_parted_again(checkpoint: Checkpoint) -> None:
    tracks = [make_track(1, 0), make_track(2, 5), make_track(3, 30, surest=0.99), make_track(4, 60)]
    analysis = made(checkpoint, *tracks)
    edits = Edits().merge(4, 3).merge(3, 1)
    assert edits.merged == {3: 1, 4: 1}
    one, two = reread(analysis, checkpoint, 0.15, edits).faces
    assert (one.track.track_id, two.track.track_id) == (1, 2)
    assert one.track.times_s.tolist() == [
        time for track in (tracks[0], *tracks[2:]) for time in track.times_s
    ]
    assert one.track.thumbnail[0, 0, 0] == 3, "of the surest face, from which a picture would be cut"
    [late] = merge_tracks([make_track(1, 30), make_track(2, 0)], Edits(merged={2: 1}))
    assert late.thumbnail[0, 0, 0] == 2, "of the first of equally sure faces, as feedback takes it"
    whole = np.concatenate([tracks[0].scores, tracks[2].scores, tracks[3].scores])
    np.testing.assert_array_equal(one.track.scores, whole)
    assert [face.track for face in reread(analysis, checkpoint, 0, edits.split(1)).faces] == tracks
    with raises_code(EditError, "overlap"):
        merge_tracks(tracks, edits.merge(2, 1))
    with raises_code(EditError, "same_face"):
        edits.merge(4, 1)


def test_values_are_relative_to_the_second_around_the_neutral_moment(checkpoint: Checkpoint) -> None:
    analysis = made(checkpoint, make_track(1, 0), make_track(2, 40))
    [face, other] = reread(analysis, checkpoint, 1.0, Edits(neutral_s={1: 1.0})).faces
    [raw, _] = analysis.faces
    line, bare = line_of(face, "continuous"), line_of(raw, "continuous")
    near = np.abs(bare.times_s - 1.0) <= 0.5
    np.testing.assert_allclose(line.neutral, bare.values[near].mean(axis=0), rtol=1e-5)
    assert not len(line_of(face, "one_of").neutral) and not len(line_of(other, "continuous").neutral)
    found = calmest_s(raw)
    assert found == pytest.approx(1.4, abs=0.11), (
        "the whole second lies in the neutral half, which begins at 1 s"
    )


def test_nothing_is_predicted_in_excluded_time(checkpoint: Checkpoint) -> None:
    analysis = made(checkpoint, make_track(1, 0), make_track(2, 40))
    cut = Marker("exclusion", 0.5, 1.25)
    face, other = reread(analysis, checkpoint, 0, Edits(markers=(cut, Marker("event", 0, 9)))).faces
    kept = [row for row in range(20) if not 5 <= row <= 12]
    for line, bare in zip(face.timelines, analysis.faces[0].timelines, strict=True):
        np.testing.assert_array_equal(line.values, bare.values[kept])
        assert line.times_s.tolist() == [row / 10 for row in kept]
    assert face.predictions[0].frames == 12 and len(face.track.times_s) == 20, "boxes stay"
    assert len(other.timelines[0].times_s) == 20
    [gone, _] = reread(analysis, checkpoint, 0, Edits(markers=(Marker("exclusion", 0, 3),))).faces
    assert gone.timelines == () == gone.predictions


@given(
    st.dictionaries(st.integers(1, 99), texts, max_size=5), st.lists(markers, max_size=5),
    st.dictionaries(st.integers(1, 99), times, max_size=5), st.lists(st.integers(1, 9), max_size=6),
)  # fmt: skip
def test_edits_survive_a_file(
    names: dict[int, str], marks: list[Marker], neutral_s: dict[int, float], faces: list[int]
) -> None:
    edits = Edits(
        names, {}, {number: round(float(time), 4) for number, time in neutral_s.items()}, tuple(marks)
    )
    for one, other in pairwise(faces):
        if len({edits.merged.get(one, one), edits.merged.get(other, other)}) == 2:
            edits = edits.merge(one, other)
    rounded = [
        dataclasses.replace(mark, start_s=round(mark.start_s, 4), end_s=round(mark.end_s, 4))
        for mark in edits.markers
    ]
    assert read_edits(json.loads(json.dumps(edits.to_json()))) == dataclasses.replace(
        edits, markers=tuple(rounded)
    )
    assert all(
        text.isprintable() and len(text) <= 80 and text == text.strip() for text in edits.names.values()
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("0123", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["names", "merged", "neutral_s", "markers"]))
def test_anything_else_is_refused_with_a_sentence(value: object, name: str) -> None:
    for given_value in (value, Edits().to_json() | {name: value}):
        try:
            assert isinstance(read_edits(given_value), Edits)
        except EditError as error:
            assert error.code


@given(JSON, st.sampled_from(["name", "merge", "split", "neutral", "calmest", "markers", "other"]), JSON)
def test_a_browser_can_send_anything(face: object, action: str, value: object) -> None:
    analysis = make_analysis(2)
    sent = {"action": action, "face": face, "name": value, "other": value, "time": value, "markers": value}
    for number in (face, 1):
        try:
            assert isinstance(change(Edits(), analysis, sent | {"face": number}), Edits)
        except EditError as error:
            assert error.code


def test_a_name_is_never_part_of_feedback() -> None:
    desk = Sender(dataclasses.replace(make_analysis(), edits=Edits({1: "Anna Smith"}, {}, {1: 0.5})))
    desk.send()
    assert "Anna" not in json.dumps(to_json(desk.record))
