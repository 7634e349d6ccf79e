from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space.types import FaceDetections
from hsemotion_space.vision.tracking import MAX_GAP_S, FaceTracker, overlap, without_doubles

CORNERS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), max_size=6)


def faces(
    *corners: tuple[float, float], side: float = 40, scores: list[float] | None = None
) -> FaceDetections:
    boxes = np.array([[x, y, x + side, y + side] for x, y in corners], np.float32).reshape(-1, 4)
    certain = np.array(scores if scores is not None else [0.99] * len(boxes), np.float32)
    return FaceDetections(boxes, certain, np.zeros((len(boxes), 5, 2), np.float32))


def run(*frames: FaceDetections, step_s: float = 0.1) -> list[list[int]]:
    tracker = FaceTracker()
    return [tracker.update(found, number * step_s).tolist() for number, found in enumerate(frames)]


def test_overlap_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(overlap(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]])
    assert overlap(a, np.zeros((0, 4), np.float32)).shape == (2, 0)


def test_ids_follow_moving_faces_whatever_their_order() -> None:
    assert run(faces((0, 0), (200, 0)), faces((205, 5), (8, 0)), faces((16, 0), (210, 9))) == [
        [1, 2],
        [2, 1],
        [1, 2],
    ]


def test_the_whole_assignment_is_optimal() -> None:
    # the left box overlaps the first face more, but taking it would leave the second face without a partner
    tracker = FaceTracker()
    tracker.update(faces((0, 0), (16, 0)), 0.0)
    assert tracker.update(faces((8, 0), (0, 0)), 0.1).tolist() == [2, 1]


def test_crossing_faces_keep_their_ids() -> None:
    frames = [faces((10 * step, 0), (160 - 10 * step, 24)) for step in range(17)]
    assert run(*frames) == [[1, 2]] * 17


def test_a_face_that_returns_within_a_second_keeps_its_id() -> None:
    tracker = FaceTracker()
    tracker.update(faces((0, 0)), 0.0)
    for number in range(1, 10):
        tracker.update(FaceDetections.empty(), number / 10)
    assert tracker.update(faces((5, 0)), MAX_GAP_S).tolist() == [1]


def test_a_face_that_returns_later_gets_a_new_id() -> None:
    tracker = FaceTracker()
    tracker.update(faces((0, 0)), 0.0)
    assert tracker.update(faces((0, 0)), MAX_GAP_S + 0.01).tolist() == [2]


def test_a_face_elsewhere_is_another_one() -> None:
    assert run(faces((0, 0)), faces((35, 0)), faces((0, 0))) == [[1], [2], [1]]


def test_boxes_are_those_of_the_latest_frame_with_a_face() -> None:
    tracker = FaceTracker()
    assert tracker.boxes_xyxy.shape == (0, 4)
    tracker.update(faces((0, 0), (200, 0)), 0.0)
    tracker.update(faces((202, 0)), 0.1)
    assert tracker.boxes_xyxy.tolist() == [[202, 0, 242, 40]]
    tracker.update(FaceDetections.empty(), 2.0)
    assert tracker.boxes_xyxy.shape == (0, 4)


def test_the_surer_double_stays() -> None:
    found = faces((0, 0), (2, 2), (100, 0), scores=[0.9, 0.95, 0.8])
    assert without_doubles(found).scores.tolist() == pytest.approx([0.95, 0.8])
    assert len(without_doubles(FaceDetections.empty())) == 0


def test_neighbors_are_no_doubles() -> None:
    assert len(without_doubles(faces((0, 0), (15, 0)))) == 2


@settings(deadline=None)
@given(CORNERS)
def test_what_is_left_has_no_doubles_and_keeps_its_order(corners: list[tuple[int, int]]) -> None:
    left = without_doubles(faces(*corners))
    overlaps = overlap(left.boxes_xyxy, left.boxes_xyxy)
    assert (overlaps[~np.eye(len(left), dtype=bool)] <= 0.6).all()
    places = [corners.index((int(x), int(y))) for x, y in left.boxes_xyxy[:, :2]]
    assert places == sorted(places)
    assert bool(len(left)) == bool(corners)


@settings(deadline=None)
@given(st.lists(CORNERS, min_size=1, max_size=8))
def test_ids_are_unique_in_a_frame_and_numbered_without_holes(frames: list[list[tuple[int, int]]]) -> None:
    results = run(*(faces(*corners) for corners in frames))
    assert all(len(set(ids)) == len(ids) and min(ids, default=1) >= 1 for ids in results)
    seen = list(dict.fromkeys(track_id for ids in results for track_id in ids))
    assert seen == list(range(1, len(seen) + 1))
