"""Hard cuts are found; motion, light, fades and flashes are not taken for cuts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from hsemotion_space.types import ByteArray, Frame
from hsemotion_space.vision.cuts import mark_cuts

Pictures = list[ByteArray]


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> ByteArray:
    """Return a picture with soft shapes and some detail, as a photograph has them."""
    rng = np.random.default_rng(seed)
    layers = (
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            float,
        )
        for side in (5, 12, 40)
    )
    return np.average(list(layers), axis=0, weights=(6, 3, 1)).astype(np.uint8)


A, B = scene(1), scene(2)
WHITE, BLACK = np.full_like(A, 255), np.zeros_like(A)


def lit(picture: ByteArray, gain: float, offset: float = 0) -> ByteArray:
    return np.clip(picture * gain + offset, 0, 255).astype(np.uint8)


def mixed(one: ByteArray, other: ByteArray) -> Pictures:
    return [lit(one * (1 - share) + other * share, 1) for share in np.linspace(0, 1, 11)]


def pan(share: float) -> Pictures:
    wide = scene(3, (480, 120))
    return [wide[:, start : start + 160] for start in range(0, 320, round(160 * share))]


def starts(pictures: Pictures) -> list[int]:
    frames = [Frame(picture, number, number / 10) for number, picture in enumerate(pictures)]
    marked = list(mark_cuts(frames))
    assert [frame.rgb is given for frame, given in zip(marked, pictures, strict=True)] == [True] * len(
        pictures
    )
    return [frame.index for frame in marked if frame.starts_shot]


CUTS: dict[str, tuple[Callable[[], Pictures], list[int]]] = {
    "cut": (lambda: [A] * 3 + [B] * 3, [3]),
    "cut-and-back": (lambda: [A] * 3 + [B] * 3 + [A] * 3, [3, 6]),
    "cut-in-the-last-picture": (lambda: [A] * 3 + [B], [3]),
    "cut-to-the-mirrored-picture": (lambda: [A] * 3 + [A[:, ::-1]] * 3, [3]),
    "cut-between-dark-pictures": (lambda: [lit(A, 0.4)] * 3 + [lit(B, 0.4)] * 3, [3]),
    "cut-with-a-black-picture-between": (lambda: [A] * 3 + [BLACK] + [B] * 3, [4]),
    "cut-to-another-size": (lambda: [A] * 3 + [scene(2, (320, 90))] * 3, [3]),
}
NO_CUTS: dict[str, Callable[[], Pictures]] = {
    "nothing": list,
    "one-picture": lambda: [A],
    "still": lambda: [A] * 5,
    "black": lambda: [BLACK] * 5,
    "from-black": lambda: [BLACK] * 3 + [A] * 3,
    "slow-pan": lambda: pan(0.02),
    "pan": lambda: pan(0.08),
    "fade-out-and-in": lambda: mixed(A, BLACK) + mixed(BLACK, A),
    "dissolve": lambda: mixed(A, B),
    "white-flash": lambda: [A] * 3 + [WHITE] + [A] * 3,
    "long-white-flash": lambda: [A] * 3 + [WHITE] * 4 + [A] * 3,
    "flash": lambda: [A] * 3 + [lit(A, 3)] + [A] * 3,
    "one-odd-picture": lambda: [A] * 3 + [B] + [A] * 3,
    "light-goes-on": lambda: [lit(A, 0.4)] * 3 + [lit(A, 0.9)] * 3,
    "noise": lambda: [lit(A + np.random.default_rng(seed).normal(0, 25, A.shape), 1) for seed in range(4)],
    "tiny": lambda: [A[:1, :1]] * 3,
}


@pytest.mark.parametrize("name", CUTS)
def test_cuts_are_found(name: str) -> None:
    make, expected = CUTS[name]
    assert starts(make()) == expected


def test_a_fade_through_black_to_another_shot_is_one_cut() -> None:
    found = starts(mixed(A, BLACK) + mixed(BLACK, B))
    assert len(found) == 1 and 11 < found[0] < 15, "at the first picture with contrast"


@pytest.mark.parametrize("name", NO_CUTS)
def test_what_is_no_cut_is_not_taken_for_one(name: str) -> None:
    assert starts(NO_CUTS[name]()) == []


def test_most_cuts_between_pictures_are_found() -> None:
    scenes = [scene(seed) for seed in range(12)]
    found = [
        starts([one, one, other, other]) == [2] for one in scenes for other in scenes if one is not other
    ]
    assert np.mean(found) > 0.95
