from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL
from hsemotion_space.types import FaceDetections, FaceTrack, Frame, Prediction, Timeline, check_shape


def make_track(count: int = 3) -> FaceTrack:
    return FaceTrack(
        1, np.arange(count), np.arange(count) / 10, np.zeros((count, 4), np.float32), np.ones(count, np.float32),
        np.zeros((count, 5), np.float32), np.zeros((count, 10), np.float32), np.zeros((2, 2, 3), np.uint8),
    )  # fmt: skip


def test_shape_errors_quote_owner_expected_and_actual() -> None:
    with pytest.raises(ValueError, match=r"Frame\.rgb: expected shape \(any, any, 3\), got \(4, 4\)"):
        check_shape("Frame", "rgb", np.zeros((4, 4)), (None, None, 3))
    check_shape("Frame", "rgb", np.zeros((0, 7, 3)), (None, None, 3))


def test_frame_takes_only_bytes() -> None:
    with pytest.raises(ValueError, match="uint8, got float64"):
        Frame(np.zeros((2, 2, 3)), 0, 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Frame\.rgb"):
        Frame(np.zeros((2, 2, 4), np.uint8), 0, 0.0)


def test_detections_check_every_array() -> None:
    boxes, scores, landmarks = (
        np.zeros((2, 4), np.float32),
        np.zeros(2, np.float32),
        np.zeros((2, 5, 2), np.float32),
    )
    assert len(FaceDetections(boxes, scores, landmarks)) == 2
    for wrong in (
        (boxes[:, :3], scores, landmarks),
        (boxes, scores[:1], landmarks),
        (boxes, scores, landmarks[:1]),
    ):
        with pytest.raises(ValueError, match="FaceDetections"):
            FaceDetections(*wrong)


def test_detections_empty_and_select() -> None:
    assert len(FaceDetections.empty()) == 0
    faces = FaceDetections(
        np.arange(8, dtype=np.float32).reshape(2, 4),
        np.array([0.5, 0.9], np.float32),
        np.zeros((2, 5, 2), np.float32),
    )
    assert faces.select(np.array([1])).boxes_xyxy.tolist() == [[4, 5, 6, 7]]
    assert len(faces.select(np.array([False, False]))) == 0


@pytest.mark.parametrize(
    "name", ["frame_index", "times_s", "boxes_xyxy", "detection_scores", "embeddings", "scores"]
)
def test_track_arrays_have_one_length(name: str) -> None:
    track = make_track()
    with pytest.raises(ValueError, match=r"FaceTrack\."):
        replace(track, **{name: getattr(track, name)[:2]})


def test_track_times_rise() -> None:
    with pytest.raises(ValueError, match="rising"):
        replace(make_track(), times_s=np.array([0.0, 0.1, 0.1]))
    with pytest.raises(ValueError, match="at least one"):
        make_track(0)


def test_timeline_and_prediction_have_a_column_per_label() -> None:
    with pytest.raises(ValueError, match=r"Timeline\.values: expected shape \(2, 8\), got \(2, 7\)"):
        Timeline(EXPRESSION, "trained", np.array([0.0, 1.0]), np.zeros((2, 7), np.float32))
    prediction = Prediction(
        VALENCE_AROUSAL, "rule", np.array([-0.5, 0.2], np.float32), np.zeros(2, np.float32), 1
    )
    assert prediction.top == 1
    with pytest.raises(ValueError, match=r"Prediction\.spread"):
        replace(prediction, spread=np.zeros(1, np.float32))


def test_values_are_frozen_and_cross_processes() -> None:
    track = make_track()
    with pytest.raises(FrozenInstanceError):
        track.track_id = 2  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(track))
    assert copy.track_id == 1
    assert np.array_equal(copy.times_s, track.times_s)
