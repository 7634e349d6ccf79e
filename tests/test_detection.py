from __future__ import annotations

import numpy as np
import pytest
import torch
from face_makers import FACE_BOX, draw_face, picture_with
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import detect_face

from hsemotion_space.types import ByteArray, FloatArray
from hsemotion_space.vision import mtcnn
from hsemotion_space.vision.detection import MtcnnDetector
from hsemotion_space.vision.engine import EngineOptions
from hsemotion_space.vision.tracking import overlap


@pytest.fixture(scope="module")
def both() -> list[MtcnnDetector]:
    return [MtcnnDetector(EngineOptions(name, threads=1)) for name in ("torch", "openvino")]


@pytest.fixture(params=["torch", "openvino"])
def detector(request: pytest.FixtureRequest, both: list[MtcnnDetector]) -> MtcnnDetector:
    return both[request.param == "openvino"]


def expected_box(left: int, top: int, side: int = 120) -> FloatArray:
    return (np.array(FACE_BOX, np.float32) * side + np.array([left, top, left, top], np.float32))[None]


@pytest.mark.parametrize("places", [[(20, 60)], [(190, 100), (10, 20)]])
def test_faces_are_found_from_left_to_right(detector: MtcnnDetector, places: list[tuple[int, int]]) -> None:
    found = detector.detect(picture_with(places))
    assert len(found) == len(places)
    for box, score, points, place in zip(
        found.boxes_xyxy, found.scores, found.landmarks, sorted(places), strict=True
    ):
        assert overlap(box[None], expected_box(*place))[0, 0] > 0.75
        assert 0.9 <= score <= 1
        assert ((points >= box[:2]) & (points <= box[2:])).all()
        left_eye, right_eye, nose, left_mouth, right_mouth = points
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_eye[1] < nose[1] < left_mouth[1]
        assert left_mouth[0] < right_mouth[0]


def test_large_pictures_are_searched_small_and_boxes_scaled_back() -> None:
    detector = MtcnnDetector(EngineOptions("torch", threads=1), side=160)
    found = detector.detect(picture_with([(300, 240)], (960, 1280), side=480))
    assert overlap(found.boxes_xyxy, expected_box(300, 240, 480))[0, 0] > 0.7


def test_small_faces_are_left_out_on_request() -> None:
    picture = picture_with([(20, 60)])
    assert len(MtcnnDetector(EngineOptions("torch", threads=1), min_face=120).detect(picture)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 200), (64, 3), (240, 320), (2000, 30)])
@pytest.mark.parametrize("thorough", [False, True])
def test_no_face_gives_empty_detections(
    detector: MtcnnDetector, shape: tuple[int, int], thorough: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 1), np.uint8).repeat(3, 2)
    for picture in (noise, np.zeros((*shape, 3), np.uint8)):
        found = detector.detect(picture, thorough)
        assert (found.boxes_xyxy.shape, found.landmarks.shape) == ((0, 4), (0, 5, 2))


def test_a_face_that_fills_the_picture_is_found_with_a_border(detector: MtcnnDetector) -> None:
    close = draw_face(320)[85:272, 82:231]
    assert len(detector.detect(close)) == 0
    found = detector.detect(close, thorough=True)
    assert len(found) == 1
    assert found.boxes_xyxy[0] == pytest.approx([0, 0, 149, 187], abs=20)
    assert (found.landmarks[0].mean(0) / [149, 187]) == pytest.approx([0.5, 0.5], abs=0.15)


def test_follow_finds_a_face_that_moved_and_refines_its_box(detector: MtcnnDetector) -> None:
    found, scores = detector.follow(picture_with([(28, 66)]), expected_box(20, 60))
    assert scores.shape == (1,)
    assert found.boxes_xyxy[0] == pytest.approx(expected_box(28, 66)[0], abs=6)


def test_follow_keeps_the_order_and_leaves_out_what_is_gone(detector: MtcnnDetector) -> None:
    boxes = np.concatenate([expected_box(190, 100), expected_box(100, 0), expected_box(10, 20)])
    found, scores = detector.follow(picture_with([(190, 100), (10, 20)]), boxes)
    assert (scores >= 0.7).tolist() == [True, False, True]
    assert found.boxes_xyxy[0, 0] > found.boxes_xyxy[1, 0]


@pytest.mark.parametrize(
    "box",
    [
        (-500, -500, -400, -400),
        (310, 230, 330, 250),
        (330, 0, 400, 100),
        (5, 5, 5, 5),
        (-1e6, -1e6, 1e6, 1e6),
    ],
)
def test_follow_survives_boxes_beyond_the_picture(detector: MtcnnDetector, box: tuple[float, ...]) -> None:
    found, scores = detector.follow(picture_with([]), np.array([box], np.float32))
    assert (len(found), scores.shape) == (0, (1,))


def test_follow_of_nothing(detector: MtcnnDetector) -> None:
    found, scores = detector.follow(picture_with([]), np.zeros((0, 4), np.float32))
    assert (len(found), scores.shape) == (0, (0,))


def test_no_box_has_its_center_outside(detector: MtcnnDetector) -> None:
    for cut in range(0, 120, 20):
        picture: ByteArray = np.ascontiguousarray(picture_with([(20, 60)])[:, 20 + cut :])
        for thorough in (False, True):
            boxes = detector.detect(picture, thorough).boxes_xyxy
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            assert ((centers > 0) & (centers < [picture.shape[1], picture.shape[0]])).all()


@pytest.mark.parametrize(("stage", "side"), [("pnet", 70), ("pnet", 33), ("rnet", 24), ("onet", 48)])
def test_engines_give_the_same_stage_outputs(both: list[MtcnnDetector], stage: str, side: int) -> None:
    x = np.random.default_rng(0).normal(0, 0.5, (3, 3, side, side)).astype(np.float32)
    for expected, actual in zip(*(getattr(detector, stage)(x) for detector in both), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("places", "size", "min_face"),
    [
        ([(20, 60)], (240, 320), 20),
        ([(190, 100), (10, 20)], (240, 320), 30),
        ([(0, 100), (199, 0)], (241, 319), 20),
        ([], (64, 97), 12),
    ],
)
def test_the_cascade_is_that_of_facenet(
    places: list[tuple[int, int]], size: tuple[int, int], min_face: int
) -> None:
    picture = picture_with(places, size)
    noise = np.random.default_rng(0).integers(-20, 20, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    nets = (net := MTCNN(keep_all=True)).pnet, net.rnet, net.onet
    with torch.inference_mode():
        (boxes,), (points,) = detect_face(
            picture, min_face, *nets, list(mtcnn.THRESHOLDS), mtcnn.PYRAMID_FACTOR, torch.device("cpu")
        )
    torch_detector = MtcnnDetector(EngineOptions("torch", threads=1))
    found = mtcnn.search(picture, min_face, torch_detector.pnet, torch_detector.rnet, torch_detector.onet)
    assert bool(len(found)) == bool(places)
    expected = np.asarray(list(boxes), np.float32).reshape(-1, 5)
    np.testing.assert_allclose(found.boxes_xyxy, expected[:, :4], atol=1e-3)
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-5)
    np.testing.assert_allclose(
        found.landmarks, np.asarray(list(points), np.float32).reshape(-1, 5, 2), atol=1e-3
    )


def test_engines_give_the_same_faces(both: list[MtcnnDetector]) -> None:
    first, second = (detector.detect(picture_with([(190, 100), (10, 20)])) for detector in both)
    np.testing.assert_allclose(first.boxes_xyxy, second.boxes_xyxy, atol=0.05)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)
    np.testing.assert_allclose(first.landmarks, second.landmarks, atol=0.05)
