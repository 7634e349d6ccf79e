"""Reports of an evaluation, as Markdown and as one HTML file with figures."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hsemotion_space.figures.evaluation import Figure, confusion_figure, page_parts, per_label_figure, reliability_figure
from hsemotion_space.training.scoring import TaskScore

LABEL_MEASURES = {"P_VA": "CCC", "macro F1": "F1", "mean F1": "F1", "mean Pearson r": "Pearson r"}
EXPLANATION = (
    "Measures are those of the challenge, over all annotated frames (clips) put together. Intervals hold 95 % of the values when whole "
    "videos (clips) are drawn anew. Every annotated frame counts: filled ones had no prediction of their own and were interpolated, "
    "those of videos without any prediction were scored with neutral values."
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 0.5rem 0 1.5rem; }}
caption {{ text-align: left; color: GrayText; }}
th, td {{ border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: 0.2rem 0.7rem; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class _Table:
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown_report(title: str, scores: Sequence[TaskScore], notes: Sequence[str]) -> str:
    """Return a report in Markdown: measures with intervals, counts of frames, and per task its labels, confusions and calibration.

    Args:
        title: of the report; this and all other text is escaped.
        scores: one per task, with numbers to three decimals.
        notes: sentences for the reader, such as what was scored with which thresholds.
    """
    parts = [f"# {_markdown_text(title)}", *(f"- {_markdown_text(note)}" for note in notes), _markdown_text(EXPLANATION)]
    parts += [_markdown_table(table) for table in _overview(scores)]
    for score in scores:
        parts += [f"## {_markdown_text(score.task.title)}", *(_markdown_table(table) for table in _details(score))]
    return "\n\n".join(parts) + "\n"


def html_report(title: str, scores: Sequence[TaskScore], notes: Sequence[str]) -> str:
    """Return the report of :func:`markdown_report` as one HTML file with figures; it loads nothing from elsewhere (5 MB of plotly.js)."""
    figures = iter(page_parts([figure for score in scores for figure in _figures(score)]))
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if notes:
        parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>")
    parts += [f"<p>{html.escape(EXPLANATION)}</p>", *(_html_table(table) for table in _overview(scores))]
    for score in scores:
        parts.append(f"<h2>{html.escape(score.task.title)}</h2>")
        parts += [_html_table(table) + next(figures) for table in _details(score)]
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _overview(scores: Sequence[TaskScore]) -> tuple[_Table, _Table]:
    measures, counts = [], []
    for score in scores:
        numbers = (score.value, *score.interval, score.accuracy, score.ece)
        measures.append((score.task.title, score.measure, *map(_number, numbers)))
        frames = (score.frames_labeled, score.frames_predicted, score.frames_filled, score.frames_missing_video)
        counts.append((score.task.title, *(f"{count:,}" for count in (score.videos, *frames))))
    return (
        _Table("Measures", ("Task", "Measure", "Value", "95 % from", "to", "Accuracy", "Calibration error"), tuple(measures)),
        _Table("Frames (clips)", ("Task", "Videos", "Annotated", "Predicted", "Filled", "In videos without prediction"), tuple(counts)),
    )


def _details(score: TaskScore) -> list[_Table]:
    """Return the tables of one task; :func:`_figures` has as many figures, in the same order."""
    support = (
        "Clips"
        if score.task.scope == "clip"
        else {"one_of": "Frames of the class", "independent": "Frames with the unit"}.get(score.task.kind, "Frames")
    )
    rows = tuple((label.name, _number(label.value), f"{label.support:,}") for label in score.per_label)
    tables = [_Table("Labels", ("Label", LABEL_MEASURES[score.measure], support), rows)]
    if score.confusion.size:
        names = score.task.label_names
        counts = tuple((name, *(f"{count:,}" for count in row)) for name, row in zip(names, score.confusion, strict=True))
        tables.append(_Table("Confusions: annotated in rows, predicted in columns", ("", *names), counts))
    if score.calibration.count.size:
        tables.append(_calibration(score))
    return tables


def _calibration(score: TaskScore) -> _Table:
    bins = score.calibration
    edges = [place / len(bins.count) for place in range(len(bins.count) + 1)]
    rows = tuple(
        (f"{low:.3f} to {high:.3f}", _number(sure), _number(right), f"{count:,}")
        for low, high, sure, right, count in zip(edges[:-1], edges[1:], bins.confidence, bins.accuracy, bins.count, strict=True)
    )
    chosen = score.task.kind == "one_of"
    caption = "Calibration: " + ("probability of the chosen class" if chosen else "probabilities of all units")
    return _Table(caption, ("Confidence", "Mean", "Share that was right" if chosen else "Share that was present", "Count"), rows)


def _figures(score: TaskScore) -> list[Figure]:
    shorts = [label.short for label in score.task.labels]
    values, colors = [label.value for label in score.per_label], [label.color for label in score.task.labels]
    figures = [per_label_figure(shorts, values, colors, LABEL_MEASURES[score.measure])]
    if score.confusion.size:
        figures.append(confusion_figure(score.confusion, shorts))
    if score.calibration.count.size:
        figures.append(reliability_figure(score.calibration))
    return figures


def _markdown_text(text: str) -> str:
    """Return text on one line in which nothing is markup."""
    return re.sub(r"([\\`*\[\]#|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _markdown_table(table: _Table) -> str:
    lines = [table.header, ("---", *["---:"] * (len(table.header) - 1)), *table.rows]
    shown = [line if number == 1 else tuple(map(_markdown_text, line)) for number, line in enumerate(lines)]
    return f"{_markdown_text(table.caption)}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in shown)


def _html_table(table: _Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>' + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:]) + "</tr>\n"
        for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    return f'<div class="table"><table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n'
