"""What all figures share: colors, the empty state and the common look.

No figure has a title: the panel around it names the task, and the provenance of its numbers stands above the
plot. Backgrounds are transparent and texts a middle gray, so one figure serves light and dark pages.
"""

from __future__ import annotations

import html
import textwrap
from typing import Final

import plotly.graph_objects as go

FACE_COLORS: Final = ("#2a84c6", "#d55e00", "#00916b", "#b0609c", "#a87b00", "#8a6bd1", "#7a8288", "#1496a8")
FACE_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
FACE_PATTERNS: Final = ("", "/", ".", "x", "-", "+", "\\", "|")
NOTHING: Final = "No face yet."
TEXT: Final = "#7d8189"
GRID: Final = "rgba(127,127,127,0.28)"
SHADE: Final = "rgba(127,127,127,0.2)"
CLEAR: Final = "rgba(0,0,0,0)"


def face_color(track_id: int) -> str:
    """Return the ``#rrggbb`` of a face, safe for common color blindness; repeats after eight faces."""
    return FACE_COLORS[(track_id - 1) % len(FACE_COLORS)]


def ink(color: str) -> str:
    """Return black or white, whichever contrasts more with a color (WCAG relative luminance)."""
    red, green, blue = (((int(color[at : at + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for at in (1, 3, 5))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"


def empty(message: str) -> go.Figure:
    """Return the figure for "nothing to show": a neutral face above a sentence, without axes."""
    fig = go.Figure()
    text = "<br>".join(textwrap.wrap(html.escape(message, quote=False), 40))
    fig.add_annotation(
        text=text,
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        yanchor="top",
        yshift=-12,
        showarrow=False,
        font_size=14,
    )
    for kind, corners in (
        ("circle", (-22, 0, 22, 44)), ("circle", (-10, 25, -6, 29)), ("circle", (6, 25, 10, 29)),
        ("line", (-9, 13, 9, 13))
    ):  # fmt: skip
        x0, y0, x1, y1 = corners
        fig.add_shape(
            type=kind, x0=x0, y0=y0, x1=x1, y1=y1, xsizemode="pixel", ysizemode="pixel", xanchor=0.5,
            yanchor=0.5,
            xref="paper", yref="paper", line={"color": TEXT, "width": 2},
        )  # fmt: skip
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    return finish(fig, 220, "")


def finish(fig: go.Figure, height: int, note: str, lift: int = 0) -> go.Figure:
    """Apply the common look; the provenance stands above the plot at the right, clear of panel labels.

    Args:
        fig: changed and returned.
        height: in px without the margin that ``note`` and ``lift`` take.
        note: provenance, broken into short lines.
        lift: px between plot and note, room for the name of the first row.
    """
    lines = textwrap.wrap(note, 36)
    if lines:
        fig.add_annotation(
            text="<b>" + "<br>".join(lines) + "</b>", x=1, y=1, xref="paper", yref="paper", xanchor="right",
            yanchor="bottom",
            align="right", xshift=(fig.layout.margin.r or 8) - 8, yshift=4 + lift, showarrow=False,
        )  # fmt: skip
    top = 12 + 16 * len(lines) + lift
    fig.update_xaxes(
        gridcolor=GRID, linecolor=GRID, automargin=True, fixedrange=True, ticks="", title_font_size=12
    )
    fig.update_yaxes(
        gridcolor=GRID, linecolor=GRID, automargin=True, fixedrange=True, ticks="", title_font_size=12
    )
    fig.update_layout(
        template=go.layout.Template(), height=height + top, paper_bgcolor=CLEAR, plot_bgcolor=CLEAR,
        dragmode=False, hovermode="closest",
        font={"color": TEXT, "size": 12}, modebar={"bgcolor": CLEAR, "color": TEXT},
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container",
                "yanchor": "bottom", "bgcolor": CLEAR},
        margin={"l": 8, "t": top, "b": 8, "r": fig.layout.margin.r or 8},
    )  # fmt: skip
    return fig
