"""Figures: colors of faces and the empty state."""

from __future__ import annotations

import itertools

import numpy as np
import plotly.graph_objects as go
import pytest
from contrast import contrast

from hsemotion_space import figures
from hsemotion_space.figures.style import ink


def texts(fig: go.Figure) -> str:
    return "\n".join(annotation.text for annotation in fig.layout.annotations)


def test_colors_of_faces_differ_and_repeat_after_all() -> None:
    count = len(figures.FACE_COLORS)
    assert len({figures.face_color(number) for number in range(1, count + 1)}) == count >= 6
    assert figures.face_color(1) == figures.face_color(count + 1) == figures.FACE_COLORS[0]


@pytest.mark.parametrize("color", figures.FACE_COLORS)
def test_colors_of_faces_stand_out_on_light_and_dark_pages(color: str) -> None:
    assert contrast(color, "#ffffff") >= 3 and contrast(color, "#27272a") >= 3
    assert contrast(color, ink(color)) >= 4.5


@pytest.mark.parametrize(
    "matrix",  # Machado et al. (2009), severity 1: protanopia, deuteranopia, tritanopia
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ],
)
def test_first_colors_of_faces_stay_apart_under_color_blindness(matrix: list[list[float]]) -> None:
    seen = [
        np.asarray(matrix) @ [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        for color in figures.FACE_COLORS[:4]
    ]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 0.1


def test_empty_shows_its_message_without_axes() -> None:
    fig = figures.empty("No face <b>found</b> in this very long file name that has to wrap somewhere.")
    text = texts(fig)
    assert (
        "&lt;b&gt;" in text
        and "<b>" not in text
        and "<br>" in text
        and max(map(len, text.split("<br>"))) <= 40
    )
    assert (
        not fig.data
        and fig.layout.shapes
        and fig.layout.xaxis.visible is False
        and fig.layout.yaxis.visible is False
    )
