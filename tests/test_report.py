"""Reports of an evaluation: every number is there, and no text is taken for markup."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from hsemotion_space.metrics import CalibrationBins, calibration_bins
from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, MIMICRY_INTENSITY, VALENCE_AROUSAL, Label, Task
from hsemotion_space.training.report import LABEL_MEASURES, html_report, markdown_report
from hsemotion_space.training.scoring import LabelScore, TaskScore

NAN = float("nan")
NO_BINS = CalibrationBins(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
NO_COUNTS = np.zeros((0, 0), np.int64)
ODD = replace(
    EXPRESSION,
    title="Odd <b>|*",
    labels=(*EXPRESSION.labels[:2], Label("<b>x|y</b>", "<i>", "#0072b2", "Odd.")),
)


def values_of(task: Task, start: float, support: int) -> tuple[LabelScore, ...]:
    return tuple(LabelScore(name, start + 0.0111 * k, support + k) for k, name in enumerate(task.label_names))


def scores() -> list[TaskScore]:
    bins = calibration_bins(np.linspace(0.02, 0.98, 40), np.arange(40) % 3 == 0)
    affect, odd, units, mimicry = (
        values_of(VALENCE_AROUSAL, 0.41, 7001), values_of(ODD, 0.13, 8001), values_of(ACTION_UNITS, 0.61, 0),
        values_of(MIMICRY_INTENSITY, -0.1, 4588),
    )  # fmt: skip
    counts = np.array([[1501, 22, 33], [44, 1655, 66], [77, 88, 1999]])
    return [
        TaskScore(VALENCE_AROUSAL, "P_VA", 0.4321, (0.3987, 0.4765), affect, 70011, 65432, 258, 76, NO_COUNTS, NO_BINS),
        TaskScore(ODD, "macro F1", 0.2109, (0.1765, 0.2543), odd, 2801, 2222, 36, 70, counts, bins),
        TaskScore(ACTION_UNITS, "mean F1", 0.5432, (NAN, NAN), units, 445, 444, 0, 1, NO_COUNTS, bins),
        TaskScore(MIMICRY_INTENSITY, "mean Pearson r", -0.0321, (-0.1, 0.0456), mimicry, 4588, 4586, 2, 4588, NO_COUNTS, NO_BINS),
    ]  # fmt: skip


def wanted(score: TaskScore) -> set[str]:
    """Return all numbers of a score as they should be shown."""
    bins = score.calibration
    measured = [score.value, *score.interval, score.accuracy, score.ece, *bins.confidence, *bins.accuracy]
    measured += [label.value for label in score.per_label]
    counts = [score.frames_labeled, score.frames_predicted, score.frames_filled, score.frames_missing_video]
    counts += [
        score.videos,
        *score.confusion.ravel(),
        *bins.count,
        *(label.support for label in score.per_label),
    ]
    return {f"{value:.3f}" for value in measured if not math.isnan(value)} | {
        f"{count:,}" for count in counts
    }


LOADING = ("src", "href", "srcset", "data", "action")


class Page(HTMLParser):
    """Collects tags, text of cells, and whatever could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [f"{tag} {value}" for name, value in attrs if name in LOADING]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th") and data.strip():
            self.cells.append(data)


def without_library(text: str) -> str:
    """Return a page without the 5 MB of plotly.js, which name map tiles and a home page that only the policy
    can rule out."""
    return text.replace(get_plotlyjs(), "")


def read(text: str) -> Page:
    page = Page()
    page.feed(without_library(text))
    return page


each_score = pytest.mark.parametrize("score", scores(), ids=lambda score: score.measure)


@each_score
def test_markdown_has_every_number(score: TaskScore) -> None:
    text = markdown_report("Report", score)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = {cell.strip() for line in lines for cell in re.split(r"(?<!\\)\|", line)}
    assert wanted(score) <= cells
    assert text.startswith("# Report\n") and score.measure in text
    assert "95 %" in text and "whole videos" in text and "nan" not in text.lower()


@each_score
def test_html_has_every_number(score: TaskScore) -> None:
    page = read(html_report("Report", score))
    assert wanted(score) <= set(page.cells)
    assert {score.measure, LABEL_MEASURES[score.measure]} <= set(page.cells)


@each_score
def test_tables_of_markdown_are_rectangular(score: TaskScore) -> None:
    blocks = [
        block.splitlines() for block in markdown_report("R", score).split("\n\n") if block.startswith("|")
    ]
    assert len(blocks) == 3 + bool(score.confusion.size) + bool(score.calibration.count.size)
    for lines in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1 and re.fullmatch(
            r"\|---(\|---:)+\|", lines[1]
        )


def test_markdown_takes_no_text_for_markup() -> None:
    text = markdown_report("A <b> title\n# second run_1/__init__ *x* `y` [z](u) | <script>", scores()[1])
    assert "<b>" not in text and "<script>" not in text and "<i>" not in text
    title = r"# A &lt;b&gt; title \# second run_1/\_\_init\_\_ \*x\* \`y\` \[z\](u) \| &lt;script&gt;"
    assert text.splitlines()[0] == title
    assert r"| &lt;b&gt;x\|y&lt;/b&gt; |" in text and r"| Odd &lt;b&gt;\|\* |" in text


def test_html_takes_no_text_for_markup() -> None:
    rest = without_library(html_report('<b>"T"</title><script>alert(1)</script>', scores()[1]))
    page = read(rest)
    assert (
        "b" not in page.tags
        and "i" not in page.tags
        and "<b>x" not in rest
        and "alert(1)&lt;/script&gt;" in rest
    )
    assert "<b>x|y</b>" in page.cells, "as text"
    assert page.tags.count("script") == rest.count("</script>")


def test_html_is_one_file_that_loads_nothing() -> None:
    text = html_report("Report", scores()[1])
    assert text.count(get_plotlyjs()) == 1
    rest = without_library(text)
    assert (
        'src="http' not in rest and 'href="http' not in rest and "@import" not in rest and "url(" not in rest
    )
    assert not read(rest).loads
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'" in rest


@each_score
def test_html_has_a_figure_beside_each_table_of_the_task(score: TaskScore) -> None:
    order = re.findall(r"<table>|Plotly\.newPlot", without_library(html_report("Report", score)))
    figures = 1 + bool(score.confusion.size) + bool(score.calibration.count.size)
    assert order == ["<table>"] * 2 + ["<table>", "Plotly.newPlot"] * figures
