"""The boxes and captions drawn into a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsemotion_space import figures

BOX = np.asarray([[200, 150, 300, 280]], np.float32)


def gray(height: int = 480, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((before != after).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_annotate_draws_a_box_and_a_caption_into_a_copy() -> None:
    before = gray()
    after = figures.annotate(before, BOX, ["Happiness 0.83"])
    assert (before == 128).all() and after.shape == before.shape and after.dtype == np.uint8
    x0, y0, x1, y1 = changed(before, after)
    assert 195 <= x0 <= 200 and 120 <= y0 <= 140 and 300 <= x1 < 400 and 280 <= y1 <= 284
    color = [int(figures.face_color(1)[at : at + 2], 16) for at in (1, 3, 5)]
    assert (after[280, 250] == color).all() and (after[215, 250] == 128).all(), "an outline, not a filled box"
    caption = after[y0 : y0 + 12, 202:300].reshape(-1, 3)
    assert (caption == color).all(axis=1).sum() > 200 and (caption.max(axis=1) < 60).sum() > 20, "dark letters on the color of the face"


def test_annotate_numbers_and_colors_follow_the_tracks() -> None:
    boxes = np.asarray([[50, 80, 150, 200], [350, 80, 450, 200]], np.float32)
    plain, other = figures.annotate(gray(), boxes, ["", ""]), figures.annotate(gray(), boxes, ["", ""], [1, 5])
    np.testing.assert_array_equal(plain[:, :250], other[:, :250])
    assert (other[200, 400] == [int(figures.face_color(5)[at : at + 2], 16) for at in (1, 3, 5)]).all()
    assert (plain != other)[:, 250:].any()


@pytest.mark.parametrize("box", [(-50, -40, 60, 50), (600, 440, 700, 520), (300, 2, 340, 60), (0, 0, 640, 480), (700, 500, 800, 600)])
def test_caption_stays_inside_the_picture(box: tuple[int, int, int, int]) -> None:
    boxes = np.asarray([box], np.float32)
    with_caption, without = figures.annotate(gray(), boxes, ["Disgustedly surprised"]), figures.annotate(gray(), boxes, [""])
    color = np.asarray([int(figures.face_color(1)[at : at + 2], 16) for at in (1, 3, 5)])
    more = (with_caption == color).all(axis=2).sum() - (without == color).all(axis=2).sum()
    assert more > 1000, "the longer caption is visible as a whole"


def test_letters_grow_with_the_picture() -> None:
    small, large = gray(480, 640), gray(1440, 1920)
    heights = []
    for picture, scale in ((small, 1), (large, 3)):
        top = changed(picture, figures.annotate(picture, BOX * scale, ["Neutral"]))[1]
        heights.append(150 * scale - top)
    assert heights[1] > 2.5 * heights[0]


def test_captions_avoid_each_other() -> None:
    boxes = np.asarray([[100, 100, 250, 260], [110, 104, 260, 266]], np.float32)
    both = figures.annotate(gray(), boxes, ["Happiness", "Surprise"])
    first = figures.annotate(gray(), boxes[:1], ["Happiness"])
    spot = changed(gray(), first)[1]
    np.testing.assert_array_equal(both[spot + 3 : 95, 105:180], first[spot + 3 : 95, 105:180])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.lists(st.tuples(*[st.floats(-200, 200, width=32) | st.just(float("nan"))] * 4), max_size=4),
    st.text(max_size=30),
)
def test_annotate_takes_any_box_and_text(height: int, width: int, boxes: list[tuple[float, ...]], text: str) -> None:
    picture = gray(height, width)
    after = figures.annotate(picture, np.asarray(boxes, np.float32).reshape(-1, 4), [text] * len(boxes))
    assert after.shape == picture.shape and after.flags.writeable and not np.shares_memory(after, picture)
    if not np.isfinite(np.asarray(boxes, np.float32).reshape(-1, 4)).all(axis=1).any():
        np.testing.assert_array_equal(after, picture)


def test_annotate_refuses_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"boxes_xyxy: expected shape \(2, 4\), got \(1, 4\)"):
        figures.annotate(gray(), BOX, ["a", "b"])
    with pytest.raises(ValueError, match=r"annotate\.rgb"):
        figures.annotate(gray()[:, :, 0], BOX, ["a"])
