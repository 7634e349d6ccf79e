"""Predictions as words and as tables, for readers who do not see the charts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from hsemotion_space.analysis.events import shares
from hsemotion_space.analysis.reliability import reliability_text
from hsemotion_space.figures import face_color
from hsemotion_space.types import (
    PROVENANCE_LABELS,
    Analysis,
    Disagreement,
    FaceResult,
    FloatArray,
    Prediction,
    Timeline,
)
from hsemotion_space.ui.i18n import gettext, translate

MOST_ROWS: Final = 60
MOST_FACES: Final = 6  # as many as the viewer draws together
NONE: Final = "-"
MOST_UNITS: Final = 4  # independent labels named in a table cell
LEAST_SHARE: Final = 0.005  # of the time, for a label to be named


def prediction_text(prediction: Prediction) -> str:
    """Return a prediction as a short phrase in the language of the visitor, such as ``Happiness 93 %``."""
    task, values = prediction.task, prediction.values
    if not prediction.stands_out:
        return gettext(task.none)
    if task.kind == "one_of":
        return f"{gettext(task.labels[prediction.top].name)} {values[prediction.top]:.0%}".replace(
            "%", "\u00a0%"
        )
    if task.kind == "continuous":
        return ", ".join(
            f"{gettext(label.name)} {value:+.2f}" for label, value in zip(task.labels, values, strict=True)
        )
    if prediction.thresholds:
        present = [
            gettext(label.short)
            for label, value, limit in zip(task.labels, values, prediction.thresholds, strict=True)
            if value >= limit
        ]
        return ", ".join(present) or gettext("none")
    order = sorted(range(len(values)), key=lambda column: -values[column])[:MOST_UNITS]
    return ", ".join(f"{gettext(task.labels[column].short)} {values[column]:.2f}" for column in order)


def _seen(face: FaceResult) -> str:
    times = face.track.times_s
    return (
        gettext("{start} to {end} s", start=f"{times[0]:.1f}", end=f"{times[-1]:.1f}")
        if len(times) > 1
        else gettext("one frame")
    )


def _over_time(line: Timeline) -> str:
    """Return the shares of time of labels as a short phrase; empty if labels do not hold in time."""
    share, names = shares(line), line.task.labels
    if not np.isfinite(share).all():
        return ""
    order = [
        column for column in np.argsort(-share, kind="stable")[:MOST_UNITS] if share[column] >= LEAST_SHARE
    ]
    sentences = [
        f"{gettext(names[column].short)} {share[column]:.0%}".replace("%", "\u00a0%") for column in order
    ]
    return ", ".join(sentences) or (gettext(line.task.none) if line.task.none else gettext("none"))


def face_table(analysis: Analysis) -> str:
    """Return the predictions of all faces as an HTML table, the text alternative of every chart."""
    if not analysis.faces:
        return ""
    clip = analysis.media.kind == "clip"
    tasks = {prediction.task.name: prediction for face in analysis.faces for prediction in face.predictions}
    heads = [
        (gettext(prediction.task.title), gettext(PROVENANCE_LABELS[prediction.provenance]))
        for prediction in tasks.values()
    ]
    rows = []
    for face in analysis.faces:
        number = face.track.track_id
        swatch = f"<span class='swatch' style='background:{face_color(number)}'></span>"
        given = {
            line.task.name: (prediction, _over_time(line))
            for line, prediction in zip(face.timelines, face.predictions, strict=True)
        }
        cells = [
            _answer(f"{title} ({provenance})", *given.get(name, (None, "")))
            for (title, provenance), name in zip(heads, tasks, strict=True)
        ]
        seen = _cell(gettext("Seen"), _seen(face)) if clip else ""
        rows.append(
            f"<tr><th scope='row'>{swatch}{escape(face_name(analysis, number))}</th>"
            f"{seen}{''.join(cells)}</tr>"
        )
    seen_head = f"<th scope='col'>{escape(gettext('Seen'))}</th>" if clip else ""
    titles = "".join(
        f"<th scope='col'>{escape(title)}<small>{escape(provenance)}</small></th>"
        for title, provenance in heads
    )
    caption = escape(
        gettext("Shares of time and means of each face") if clip else gettext("Predictions for each face")
    )
    return (
        "<div class='face-table faces' tabindex='0' role='region'"
        f" aria-label='{caption}'><table><caption>{caption}</caption>"
        f"<thead><tr><th scope='col'>{escape(gettext('Face'))}</th>{seen_head}{titles}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def face_name(analysis: Analysis, number: int) -> str:
    """Return the number of a face and, in parentheses, the name that the visitor gave it."""
    name = analysis.edits.names.get(number)
    return gettext("Face {number}", number=number) + (f" ({name})" if name else "")


def face_choices(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the choices of a dropdown: name and number of each face."""
    numbers = [face.track.track_id for face in analysis.faces]
    return [(face_name(analysis, number), str(number)) for number in numbers]


def _answer(head: str, prediction: Prediction | None, over_time: str) -> str:
    """Return the cell of a prediction: shares of time, else what is predicted and how often that is right."""
    if prediction is None or over_time:
        return _cell(head, over_time or gettext("too short"))
    return _cell(head, prediction_text(prediction), translate(reliability_text(prediction)))


def _cell(head: str, text: str, small: str = "") -> str:
    """Return a cell that knows its head, which stands beside it where the page is too narrow for columns."""
    under = f"<small>{escape(small)}</small>" if small else ""
    return f"<td data-head='{escape(head)}'><span>{escape(text)}{under}</span></td>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return texts as an HTML table that can be scrolled with the keyboard."""
    return table_of(
        caption, [escape(name) for name in heads], [[escape(cell) for cell in row] for row in rows]
    )


def table_of(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return pieces of HTML, heads and cells, as such a table; only the caption is a text."""
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        "<div class='face-table' tabindex='0' role='region'"
        f" aria-label='{escape(caption)}'><table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def timeline_tables(analysis: Analysis) -> str:
    """Return a clip's timelines as foldable tables of at most sixty rows; empty for a picture."""
    if analysis.media.kind != "clip" or not analysis.faces:
        return ""
    seconds = int(analysis.frame_times_s[-1] // MOST_ROWS) + 1
    means = (
        gettext("Means over each second.")
        if seconds == 1
        else gettext("Means over every {seconds} seconds.", seconds=seconds)
    )
    sentences = [
        means,
        gettext("{none} means that the face was not found.", none=NONE),
        gettext("The downloads contain every frame."),
    ]
    if len(analysis.faces) > MOST_FACES:
        sentences.append(gettext("{count} of {all} faces", count=MOST_FACES, all=len(analysis.faces)))
    last_s = float(analysis.frame_times_s[-1])
    faces = [
        _of_face(face, face_name(analysis, face.track.track_id), seconds, last_s)
        for face in analysis.faces[:MOST_FACES]
    ]
    return folded(gettext("Timelines as tables"), f"<p>{escape(' '.join(sentences))}</p>{''.join(faces)}")


def _of_face(face: FaceResult, name: str, seconds: int, last_s: float) -> str:
    tables = []
    for line in face.timelines:
        if line.task.scope == "frame":
            values = thinned(line, seconds, last_s)
            rows = [
                [
                    gettext("{start} to {end} s", start=row * seconds, end=(row + 1) * seconds),
                    *map(_number, given),
                ]
                for row, given in enumerate(values)
            ]
            caption = f"{name}, {gettext(line.task.title)} ({gettext(PROVENANCE_LABELS[line.provenance])})"
            tables.append(
                table(caption, [gettext("Time"), *(gettext(label.short) for label in line.task.labels)], rows)
            )
    return folded(name, "".join(tables))


def thinned(line: Timeline, seconds: int, last_s: float) -> FloatArray:
    """Return means (R, K) over rows of so many seconds, from 0 to the last frame; NaN without a value.

    Args:
        line: of a frame-level task.
        seconds: of a row.
        last_s: presentation time of the last analyzed frame.
    """
    count = int(last_s // seconds) + 1
    rows = np.clip(line.times_s // seconds, 0, count - 1).astype(np.int64)
    sums = np.zeros((count, line.values.shape[1]))
    np.add.at(sums, rows, line.values)
    frames = np.bincount(rows, minlength=count)[:, None]
    return np.divide(sums, frames, out=np.full_like(sums, np.nan), where=frames > 0).astype(np.float32)


def comparison_tables(
    analyses: Sequence[Analysis], found: Sequence[Disagreement], track_id: int, task_name: str
) -> str:
    """Return what the figures of a comparison show, as tables that can be folded out.

    Args:
        analyses: of one media file with the same tracks, one per checkpoint.
        found: how far they are apart, for all faces and tasks.
        track_id: of the face that is shown.
        task_name: of the task that is shown.
    """
    return folded(gettext("Values as tables"), _means(analyses, track_id, task_name) + _differences(found))


def _means(analyses: Sequence[Analysis], track_id: int, task_name: str) -> str:
    """Return a table of the mean of each label by each checkpoint; empty if none of them has the task."""
    given = [
        (one.checkpoint.title, prediction)
        for one in analyses
        for face in one.faces
        for prediction in face.predictions
        if face.track.track_id == track_id and prediction.task.name == task_name
    ]
    if not given:
        return ""
    task = given[0][1].task
    labels = {label.name: label for _, prediction in given for label in prediction.task.labels}
    rows = [
        [gettext(label.name), *(_number(_of_label(prediction, label.name)) for _, prediction in given)]
        for label in labels.values()
    ]
    caption = gettext(
        "Face {number}, {task}: mean over the frames", number=track_id, task=gettext(task.title)
    )
    heads = [f"{title} ({gettext(PROVENANCE_LABELS[prediction.provenance])})" for title, prediction in given]
    return table(caption, [gettext("Label"), *heads], rows)


def _of_label(prediction: Prediction, name: str) -> float:
    """Return the value of a label; NaN if the checkpoint does not have it."""
    task = prediction.task
    return float(prediction.values[task.index(name)]) if name in task.label_names else np.nan


def _differences(found: Sequence[Disagreement]) -> str:
    """Return a table with how far checkpoints are apart in each task of each face."""
    rows = [
        [
            gettext("Face {number}", number=item.track_id),
            gettext(item.task.title),
            *map(_number, (item.score.mean(), item.score.max(), item.decisions.mean())),
        ]
        for item in found
    ]
    heads = [
        gettext("Face"),
        gettext("Task"),
        gettext("Mean"),
        gettext("Largest"),
        gettext("Share of different decisions"),
    ]
    return table(gettext("Difference between the backbones"), heads, rows)


def folded(title: str, inner: str) -> str:
    """Return HTML that can be folded out under a title.

    Args:
        title: a text.
        inner: a piece of HTML.
    """
    return f"<details class='numbers'><summary>{escape(title)}</summary>{inner}</details>"


def _number(value: float | np.floating) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NONE
