"""Figures of an evaluation (confusion, reliability, measures per label), and figures as parts of a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import plotly.graph_objects as go

from hsemotion_space.figures.style import FACE_COLORS, TEXT, empty, finish, ink
from hsemotion_space.metrics import CalibrationBins
from hsemotion_space.types import IntArray, check_shape

Figure: TypeAlias = go.Figure
"""For those who pass figures on without drawing any."""

SHARE_COLORS: Final = ("#eef3f8", "#0b4f8a")
"""Colors of the shares 0 and 1 in a confusion matrix; opaque, so that the ink on them suits light and dark
pages."""
NO_PREDICTIONS: Final = "No predictions to show."
PAGE_OPTIONS: Final = {"displayModeBar": False, "displaylogo": False, "responsive": True}


def confusion_figure(counts: IntArray, names: Sequence[str]) -> go.Figure:
    """Draw a confusion matrix with the counts in its cells, colored by the share of each row.

    Args:
        counts: (K, K), rows are targets; a row of zeros (a class without targets) has the color of 0.
        names: (K,) of the classes.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    check_shape("confusion_figure", "counts", counts, (len(names), len(names)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = [html.escape(name, quote=False) for name in names]
    fig, places = go.Figure(), list(range(len(names)))
    fig.add_heatmap(
        z=shares, x=places, y=places, zmin=0, zmax=1, colorscale=[[0, SHARE_COLORS[0]], [1, SHARE_COLORS[1]]],
        showscale=False,
        xgap=1, ygap=1, hoverinfo="text",
        text=[[f"annotated {row}<br>predicted {column}<br>{counts[i, j]:,} ({shares[i, j]:.3f} of the row)"
               for j, column in enumerate(shown)] for i, row in enumerate(shown)],
    )  # fmt: skip
    inks = [[ink(_share_color(float(share))) for share in row] for row in shares]
    fig.update_layout(
        annotations=[
            {
                "text": f"{count:,}",
                "x": column,
                "y": row,
                "showarrow": False,
                "font": {"color": inks[row][column], "size": 11},
            }
            for (row, column), count in np.ndenumerate(counts)
        ]
    )
    fig.update_xaxes(
        tickvals=places,
        ticktext=shown,
        title={"text": "predicted", "standoff": 4},
        showgrid=False,
        zeroline=False,
    )
    fig.update_yaxes(
        tickvals=places,
        ticktext=shown,
        title={"text": "annotated", "standoff": 10},
        showgrid=False,
        zeroline=False,
    )
    fig.update_yaxes(range=[len(names) - 0.5, -0.5])
    return finish(fig, 90 + 34 * len(names), "")


def _share_color(share: float) -> str:
    """Return the ``#rrggbb`` of a share from 0 to 1, as Plotly mixes it."""
    low, high = ([int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in SHARE_COLORS)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def reliability_figure(bins: CalibrationBins) -> go.Figure:
    """Draw a reliability diagram (accuracy over confidence, diagonal) above the counts of its bins."""
    filled = np.flatnonzero(bins.count > 0)
    if not len(filled):
        return empty(NO_PREDICTIONS)
    width, fig = 1 / len(bins.count), go.Figure()
    middle = (filled + 0.5) * width
    confidence, accuracy, count = bins.confidence[filled], bins.accuracy[filled], bins.count[filled]
    hover = [
        f"confidence {sure:.3f}<br>observed {right:.3f}<br>{number:,} predictions"
        for sure, right, number in zip(confidence, accuracy, count, strict=True)
    ]
    fig.add_bar(
        x=middle,
        y=accuracy,
        width=width,
        marker_color=FACE_COLORS[0],
        opacity=0.6,
        name="observed",
        hovertext=hover,
        hoverinfo="text",
    )
    fig.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="calibrated",
        line={"color": TEXT, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )
    fig.add_scatter(
        x=confidence, y=accuracy, mode="lines+markers", name="at the mean confidence",
        line={"color": FACE_COLORS[1], "width": 1.5},
        marker={"size": 7}, hovertext=hover, hoverinfo="text",
    )  # fmt: skip
    fig.add_bar(
        x=middle,
        y=count,
        width=width,
        marker_color=TEXT,
        yaxis="y2",
        showlegend=False,
        hovertext=hover,
        hoverinfo="text",
    )
    fig.update_xaxes(range=[0, 1], dtick=0.2, title={"text": "confidence", "standoff": 4}, anchor="y2")
    fig.update_layout(
        yaxis={"domain": [0.34, 1], "range": [0, 1.02], "dtick": 0.2,
               "title": {"text": "observed share", "standoff": 4}},
        yaxis2={"domain": [0, 0.24], "title": {"text": "count", "standoff": 4}, "nticks": 3,
                "rangemode": "tozero"},
        barmode="overlay", bargap=0,
    )  # fmt: skip
    return finish(fig, 400, "")


def per_label_figure(
    names: Sequence[str], values: Sequence[float], colors: Sequence[str], measure: str
) -> go.Figure:
    """Draw the measure of each label as a bar with its number beside it.

    Args:
        names: (K,) of the labels, the first on top.
        values: (K,) up to 1; the axis starts at 0, or at -1 if one is negative.
        colors: (K,) ``#rrggbb``.
        measure: title of the axis.

    Raises:
        ValueError: if the lengths differ.
    """
    if not len(names) == len(values) == len(colors):
        raise ValueError(
            f"Expected a value and a color per label, got {len(names)}, {len(values)} and {len(colors)}."
        )
    places, shown = list(range(len(names))), [html.escape(name, quote=False) for name in names]
    fig = go.Figure()
    fig.add_bar(
        x=list(values), y=places, orientation="h", marker_color=list(colors), hoverinfo="text",
        hovertext=[f"{name}: {value:.3f}" for name, value in zip(shown, values, strict=True)],
    )  # fmt: skip
    for place, value in zip(places, values, strict=True):
        fig.add_annotation(text=f"{value:.3f}", x=1, y=place, xref="paper", xanchor="left", showarrow=False)
    low = -1 if min(values, default=0) < 0 else 0
    fig.update_xaxes(range=[low, 1], nticks=6, zeroline=low < 0, zerolinecolor=TEXT)
    fig.update_xaxes(title={"text": html.escape(measure, quote=False), "standoff": 4})
    fig.update_yaxes(
        tickvals=places, ticktext=shown, range=[len(names) - 0.5, -0.5], showgrid=False, zeroline=False
    )
    fig.update_layout(bargap=0.3, showlegend=False, margin_r=40)
    return finish(fig, 56 + 24 * len(names), "")


def page_parts(figures: Sequence[go.Figure]) -> tuple[str, ...]:
    """Return each figure as HTML for one page; the first includes plotly.js (5 MB), so nothing is loaded."""
    return tuple(
        fig.to_html(
            full_html=False,
            include_plotlyjs=number == 1,
            config=PAGE_OPTIONS,
            default_width="100%",
            div_id=f"figure-{number}",
        )
        for number, fig in enumerate(figures, 1)
    )
