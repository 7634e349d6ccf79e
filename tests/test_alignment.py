from __future__ import annotations

import numpy as np
import pytest

from hsemotion_space.hub.manifest import Crop, InputSpec
from hsemotion_space.types import ByteArray
from hsemotion_space.vision.alignment import align_face, crop_region


def spec(size: int, crop: Crop = "box", margin: float = 0.0) -> InputSpec:
    return InputSpec(size, crop, margin, (0, 0, 0), (1, 1, 1))


@pytest.fixture
def picture() -> ByteArray:
    """Every pixel tells its place: red is x, green is y."""
    ys, xs = np.mgrid[:100, :200].astype(np.uint8)
    return np.stack([xs, ys, np.full_like(xs, 7)], 2)


@pytest.mark.parametrize(
    ("crop", "margin", "expected"),
    [
        ("box", 0.0, (10, 20, 50, 40)),
        ("box", 0.25, (0, 15, 60, 45)),
        ("box", -0.25, (20, 25, 40, 35)),
        ("square", 0.0, (10, 10, 50, 50)),
        ("square", 0.1, (6, 6, 54, 54)),
    ],
)
def test_region(crop: Crop, margin: float, expected: tuple[float, ...]) -> None:
    assert crop_region(np.array([10, 20, 50, 40]), spec(1, crop, margin)) == pytest.approx(expected)


@pytest.mark.parametrize("crop", ["box", "square"])
def test_pixels_stay_exact_without_scaling(picture: ByteArray, crop: Crop) -> None:
    face = align_face(picture, np.array([30.4, 20.4, 61.6, 51.6]), spec(32, crop))
    assert np.array_equal(face, picture[20:52, 30:62])


def test_a_box_is_squashed_and_a_square_is_not(picture: ByteArray) -> None:
    box = np.array([40, 30, 80, 50])
    squashed, kept = align_face(picture, box, spec(20, "box")), align_face(picture, box, spec(20, "square"))
    assert (squashed[0, 10, 1], squashed[-1, 10, 1]) == (30, 49)
    assert (kept[0, 10, 1], kept[-1, 10, 1]) == pytest.approx((20.5, 58.5), abs=1)


def test_a_box_crop_is_cut_at_the_picture(picture: ByteArray) -> None:
    face = align_face(picture, np.array([-50, -10, 20, 20]), spec(20))
    assert np.array_equal(face, picture[:20, :20])


def test_a_square_crop_repeats_the_edge(picture: ByteArray) -> None:
    face = align_face(picture, np.array([190, 90, 210, 110]), spec(20, "square"))
    assert np.array_equal(face[:10, :10], picture[90:, 190:])
    assert np.array_equal(face[10:, :10], np.broadcast_to(picture[-1:, 190:], (10, 10, 3)))
    assert (face[10:, 10:] == picture[-1, -1]).all()


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        ("box", (-20, 0, -5, 10)),
        ("box", (0, 100, 10, 120)),
        ("box", (5, 5, 5, 9)),
        ("square", (200, 0, 220, 20)),
        ("square", (0, -40, 20, -20)),
    ],
)
def test_a_box_outside_is_refused(picture: ByteArray, crop: Crop, box: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="outside of the picture of 200 x 100 px"):
        align_face(picture, np.array(box), spec(16, crop))
