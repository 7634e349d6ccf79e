"""Reports of an evaluation, as Markdown and as one HTML file with figures."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass

from hsemotion_space.figures.evaluation import (
    Figure,
    confusion_figure,
    page_parts,
    per_label_figure,
    reliability_figure,
)
from hsemotion_space.hub.card import markdown_table
from hsemotion_space.training.scoring import TaskScore

LABEL_MEASURES = {"P_VA": "CCC", "macro F1": "F1", "mean F1": "F1", "mean Pearson r": "Pearson r"}
EXPLANATION = (
    "Measures are those of the challenge, over all annotated frames (clips) put together. Intervals contain"
    " 95 % of the values when whole videos (clips) are drawn again with replacement. Every annotated frame"
    " counts: filled frames have no prediction of their own and are interpolated, frames of videos without"
    " any prediction are scored with neutral values."
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 0.5rem 0 1.5rem; }}
caption {{ text-align: left; color: GrayText; }}
th, td {{ border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); \
padding: 0.2rem 0.7rem; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{explanation}</p>
{body}
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class _Table:
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figure: Figure | None = None


def markdown_report(title: str, score: TaskScore) -> str:
    """Return a report in Markdown: measures with intervals, frame counts, labels, confusions, calibration.

    All text is escaped.
    """
    return (
        "\n\n".join(
            [f"# {_markdown_text(title)}", _markdown_text(EXPLANATION), *map(_markdown_table, _tables(score))]
        )
        + "\n"
    )


def html_report(title: str, score: TaskScore) -> str:
    """Return the report of :func:`markdown_report` as one self-contained HTML file with figures (5 MB)."""
    tables = _tables(score)
    figures = iter(page_parts([table.figure for table in tables if table.figure is not None]))
    body = "\n".join(
        _html_table(table) + (next(figures) if table.figure is not None else "") for table in tables
    )
    return PAGE.format(title=html.escape(title), explanation=html.escape(EXPLANATION), body=body)


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _tables(score: TaskScore) -> list[_Table]:
    task, numbers = score.task, (score.value, *score.interval, score.accuracy, score.ece)
    counts = (
        score.videos,
        score.frames_labeled,
        score.frames_predicted,
        score.frames_filled,
        score.frames_missing_video,
    )
    measures = ("Task", "Measure", "Value", "95 % from", "to", "Accuracy", "Calibration error")
    frames = ("Task", "Videos", "Annotated", "Predicted", "Filled", "In videos without prediction")
    tables = [
        _Table("Measures", measures, ((task.title, score.measure, *map(_number, numbers)),)),
        _Table("Frames (clips)", frames, ((task.title, *(f"{count:,}" for count in counts)),)),
        _labels(score),
    ]
    if score.confusion.size:
        rows = tuple(
            (name, *(f"{count:,}" for count in row))
            for name, row in zip(task.label_names, score.confusion, strict=True)
        )
        figure = confusion_figure(score.confusion, [label.short for label in task.labels])
        tables.append(
            _Table(
                "Confusions: annotated in rows, predicted in columns", ("", *task.label_names), rows, figure
            )
        )
    if score.calibration.count.size:
        tables.append(_calibration(score))
    return tables


def _labels(score: TaskScore) -> _Table:
    task, measure = score.task, LABEL_MEASURES[score.measure]
    support = {"one_of": "Frames of the class", "independent": "Frames with the unit"}.get(
        task.kind, "Frames"
    )
    rows = tuple((label.name, _number(label.value), f"{label.support:,}") for label in score.per_label)
    values, colors = [label.value for label in score.per_label], [label.color for label in task.labels]
    figure = per_label_figure([label.short for label in task.labels], values, colors, measure)
    return _Table("Labels", ("Label", measure, "Clips" if task.scope == "clip" else support), rows, figure)


def _calibration(score: TaskScore) -> _Table:
    bins = score.calibration
    edges = [place / len(bins.count) for place in range(len(bins.count) + 1)]
    rows = tuple(
        (f"{low:.3f} to {high:.3f}", _number(sure), _number(right), f"{count:,}")
        for low, high, sure, right, count in zip(
            edges[:-1], edges[1:], bins.confidence, bins.accuracy, bins.count, strict=True
        )
    )
    of_class = score.task.kind == "one_of"
    caption = "Calibration: " + (
        "probability of the chosen class" if of_class else "probabilities of all units"
    )
    header = ("Confidence", "Mean", "Share that was right" if of_class else "Share that was present", "Count")
    return _Table(caption, header, rows, reliability_figure(bins))


def _markdown_text(text: str) -> str:
    """Return text on one line in which nothing is markup."""
    return re.sub(
        r"([\\`*\[\]#|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))",
        r"\\\1",
        html.escape(" ".join(text.split()), quote=False),
    )


def _markdown_table(table: _Table) -> str:
    header, *rows = (tuple(map(_markdown_text, line)) for line in (table.header, *table.rows))
    return f"{_markdown_text(table.caption)}\n\n{markdown_table(header, rows, '---:')}"


def _html_table(table: _Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    return (
        f'<div class="table"><table>{caption}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>\n"
    )
