"""The map laid over a face, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hsemotion_space import figures
from hsemotion_space.figures.saliency import LOWERS, RAISES, STRONGEST


def gray(size: int = 64, level: int = 128) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def ramp(size: int = 64) -> np.ndarray:
    """Return a map from -1 at the left to 1 at the right."""
    return np.tile(np.linspace(-1, 1, size, dtype=np.float32), (size, 1))


def over(color: tuple[int, int, int], opacity: float, level: int = 128) -> np.ndarray:
    return np.round((1 - opacity) * level + opacity * np.asarray(color))


def test_overlay_colors_follow_sign_and_magnitude() -> None:
    picture = figures.overlay(gray(), ramp(), side=64)
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    for column in (0, 10, 31, 32, 50, 63):
        value = ramp()[0, column]
        expected = over(LOWERS if value > 0 else RAISES, STRONGEST * abs(float(value)))
        assert np.abs(picture[:, column].astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(picture, figures.overlay(gray(), 0.25 * ramp(), side=64))
    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for nothing in (np.zeros((64, 64), np.float32), np.full((64, 64), np.nan, np.float32)):
        np.testing.assert_array_equal(figures.overlay(face, nothing, side=64), face)
    assert picture[30, 63].tolist() == over(LOWERS, STRONGEST).tolist()
    assert picture[30, 0].tolist() == over(RAISES, STRONGEST).tolist()


def test_overlay_of_nan_leaves_the_face() -> None:
    change = ramp()
    change[:32] = np.nan
    picture = figures.overlay(gray(), change, side=64)
    assert (picture[5] == 128).all()
    np.testing.assert_array_equal(picture[60], figures.overlay(gray(), ramp(), side=64)[60])


def test_overlay_frames_the_strongest_place() -> None:
    plain, framed = (figures.overlay(gray(), ramp(), place, 256) for place in (None, (16, 8, 32, 24)))
    rows, columns = np.nonzero((plain != framed).any(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (64, 32, 127, 95)
    assert (framed[60, 64:70] == 0).all(1).any() and (framed[60, 64:70] == 255).all(1).any(), (
        "black and white, so that it shows on any face"
    )
    np.testing.assert_array_equal(plain[44:84, 76:116], framed[44:84, 76:116])


def test_overlay_leaves_its_input_and_resizes() -> None:
    face = np.random.default_rng(1).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    kept = face.copy()
    assert [figures.overlay(face, ramp(112), side=side).shape for side in (32, 256)] == [
        (32, 32, 3),
        (256, 256, 3),
    ]
    np.testing.assert_array_equal(face, kept)
    assert figures.overlay(face, ramp(112)).flags.writeable


def test_overlay_colors_differ_for_color_blind_readers() -> None:
    """Simulated by the matrices of Machado, Oliveira and Fernandes (2009) for full severity on linear RGB,
    told by the largest channel."""
    linear = [(np.asarray(color) / 255) ** 2.2 for color in (LOWERS, RAISES)]
    matrices = (
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    )
    for matrix in matrices:
        warm, cold = (255 * np.clip(np.asarray(matrix) @ color, 0, 1) ** (1 / 2.2) for color in linear)
        assert np.abs(warm - cold).max() > 100


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.data())
def test_overlay_of_any_map(size: int, side: int, data: st.DataObject) -> None:
    change = data.draw(hnp.arrays(np.float32, (size, size), elements=st.floats(width=32)))
    assert figures.overlay(gray(size), change, side=side).shape == (side, side, 3)


@pytest.mark.parametrize(
    ("face", "change", "words"),
    [
        (
            np.zeros((64, 64, 3), np.uint8),
            np.zeros((63, 64), np.float32),
            r"change: expected shape \(64, 64\), got \(63, 64\)",
        ),
        (
            np.zeros((64, 32, 3), np.uint8),
            np.zeros((64, 64), np.float32),
            r"face: expected shape \(64, 64, 3\)",
        ),
    ],
)
def test_overlay_refuses_shapes_that_do_not_fit(face: np.ndarray, change: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        figures.overlay(face, change)
