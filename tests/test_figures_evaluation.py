"""Figures of an evaluation: confusion matrix, reliability diagram, measures per label; parts of a page."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
from contrast import contrast
from plotly.offline import get_plotlyjs

from hsemotion_space.figures.evaluation import (
    SHARE_COLORS,
    _share_color,
    confusion_figure,
    page_parts,
    per_label_figure,
    reliability_figure,
)
from hsemotion_space.figures.style import CLEAR
from hsemotion_space.metrics import calibration_bins

COUNTS = np.array([[30, 10, 0], [0, 0, 0], [1, 2, 1234567]])
NAMES = ["Anger", "Fear", "<b>Odd</b>"]


def bins(count: int = 5) -> go.Figure:
    return reliability_figure(calibration_bins([0.3, 0.5, 0.9, 0.95, 1], [0, 1, 1, 1, 0], count))


def every_figure() -> list[go.Figure]:
    return [
        confusion_figure(COUNTS, NAMES),
        bins(),
        reliability_figure(calibration_bins([], [])),
        per_label_figure(NAMES, [0.5, -0.25, 0], ["#0072b2", "#d55e00", "#555555"], "F1"),
    ]


@pytest.mark.parametrize("number", range(4))
def test_every_figure_has_the_common_look_and_suits_both_themes(number: int) -> None:
    fig = every_figure()[number]
    assert "NaN" not in fig.to_json()
    assert fig.layout.title.text is None and fig.layout.paper_bgcolor == fig.layout.plot_bgcolor == CLEAR
    assert (
        contrast(fig.layout.font.color, "#ffffff") > 3.5 and contrast(fig.layout.font.color, "#27272a") > 3.5
    )
    assert (
        fig.layout.template.layout.to_plotly_json() == {}
        and fig.layout.width is None
        and fig.layout.margin.r <= 40
    )
    assert "<b>Odd" not in str(fig.to_json()) and "\\u003cb\\u003eOdd" not in str(fig.to_json()), (
        "names are no markup"
    )


def test_confusion_colors_are_shares_of_rows_and_numbers_are_counts() -> None:
    fig = confusion_figure(COUNTS, NAMES)
    np.testing.assert_allclose(fig.data[0].z[:2], [[0.75, 0.25, 0], [0, 0, 0]])
    assert (fig.data[0].zmin, fig.data[0].zmax) == (0, 1)
    shown = {(note.y, note.x): note.text for note in fig.layout.annotations}
    assert shown == {place: f"{count:,}" for place, count in np.ndenumerate(COUNTS)}
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1], "the first class stands on top"
    assert (
        fig.layout.yaxis.ticktext == fig.layout.xaxis.ticktext == ("Anger", "Fear", "&lt;b&gt;Odd&lt;/b&gt;")
    )
    assert (fig.layout.yaxis.title.text, fig.layout.xaxis.title.text) == ("annotated", "predicted")
    assert "annotated Anger<br>predicted Fear<br>10 (0.250 of the row)" in fig.data[0].text[0][1]


def test_counts_are_readable_on_every_share() -> None:
    assert (_share_color(0), _share_color(1)) == SHARE_COLORS
    shares = np.arange(0, 101, 10)
    fig = confusion_figure(
        np.diag(shares) + np.roll(np.diag(100 - shares), 1, axis=1), [str(share) for share in shares]
    )
    assert {round(share, 1) for share in fig.data[0].z.ravel()} == {number / 10 for number in range(11)}
    for note in fig.layout.annotations:
        assert contrast(note.font.color, _share_color(float(fig.data[0].z[note.y][note.x]))) >= 4.5


def test_confusion_needs_a_name_per_class() -> None:
    with pytest.raises(ValueError, match=r"confusion_figure\.counts: expected shape \(2, 2\), got \(3, 3\)"):
        confusion_figure(COUNTS, NAMES[:2])


def test_reliability_shows_filled_bins_beside_the_diagonal() -> None:
    observed, diagonal, means, histogram = bins().data
    np.testing.assert_allclose(observed.x, [0.3, 0.5, 0.9])
    np.testing.assert_allclose(observed.y, [0, 1, 2 / 3])
    np.testing.assert_allclose(means.x, [0.3, 0.5, 0.95])
    np.testing.assert_allclose(means.y, observed.y)
    assert list(diagonal.x) == list(diagonal.y) == [0, 1]
    assert (
        list(histogram.y) == [1, 1, 3]
        and histogram.yaxis == "y2"
        and observed.width == histogram.width == 0.2
    )
    layout = bins().layout
    assert layout.yaxis2.domain[1] < layout.yaxis.domain[0], "the histogram stands below"
    assert "confidence 0.950<br>observed 0.667<br>3 predictions" in observed.hovertext
    assert "No predictions" in reliability_figure(calibration_bins([], [])).layout.annotations[0].text


def test_bars_of_labels_show_their_numbers() -> None:
    fig = per_label_figure(["Valence", "Arousal"], [0.12345, 1], ["#0072b2", "#d55e00"], "CCC")
    assert list(fig.data[0].x) == [0.12345, 1] and fig.data[0].marker.color == ("#0072b2", "#d55e00")
    assert [note.text for note in fig.layout.annotations] == ["0.123", "1.000"]
    assert fig.layout.xaxis.range == (0, 1) and fig.layout.xaxis.title.text == "CCC"
    assert fig.layout.yaxis.ticktext == ("Valence", "Arousal") and fig.layout.yaxis.range == (1.5, -0.5)
    assert per_label_figure(["A"], [-0.1], ["#0072b2"], "r").layout.xaxis.range == (-1, 1)
    with pytest.raises(ValueError, match="got 1, 2 and 1"):
        per_label_figure(["A"], [0.1, 0.2], ["#0072b2"], "F1")


def test_parts_of_a_page_carry_the_library_once_and_load_nothing() -> None:
    parts = page_parts(every_figure())
    assert [get_plotlyjs() in part for part in parts] == [True, False, False, False]
    rest = "".join(parts).replace(get_plotlyjs(), "")
    assert (
        all(f'id="figure-{number}"' in part for number, part in enumerate(parts, 1))
        and rest.count("Plotly.newPlot") == 4
    )
    assert "src=" not in rest and "href=" not in rest
    assert page_parts(every_figure()) == parts, "the same figures give the same page"
    assert page_parts([]) == ()


def test_a_name_cannot_end_the_script() -> None:
    (part,) = page_parts([per_label_figure(["</script><script>alert(1)"], [0.5], ["#0072b2"], "</script>")])
    assert "alert(1)" in part and part.replace(get_plotlyjs(), "").lower().count("</script") == part.replace(
        get_plotlyjs(), ""
    ).count("<script")
    assert "</script><script>alert" not in part
