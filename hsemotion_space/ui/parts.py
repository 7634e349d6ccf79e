"""Small pieces of the page: raw uploads, words for values, tables and cards as escaped HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from hsemotion_space.analysis.reliability import in_words as reliability_in_words
from hsemotion_space.feedback.record import VERDICTS, Verdict
from hsemotion_space.figures import face_color
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.weights import Whereabouts
from hsemotion_space.tasks import TASKS
from hsemotion_space.types import PROVENANCE_WORDS, Analysis, FaceResult, Prediction
from hsemotion_space.ui.uploads import NamedFile
from hsemotion_space.ui.words import retell, say, translate

VERDICT_WORDS: Final[dict[Verdict, str]] = {name: name.replace("_", " ") for name in VERDICTS}
MOST_UNITS = 4  # independent labels named in a table cell


class RawImage(gr.Image):
    """An image input that hands on what the request names; decoding untrusted pictures is the worker's task."""

    is_template = True

    def preprocess(self, payload: ImageData | None) -> NamedFile | None:  # type: ignore[override]
        """Return what is named, or None."""
        return NamedFile(payload.path) if payload is not None and payload.path else None


class RawFile(gr.File):
    """An input of one file that hands on what the request names."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> NamedFile | None:  # type: ignore[override]
        """Return what is named, or None."""
        file = next(iter(payload.root), None) if isinstance(payload, ListFiles) else payload
        return NamedFile(file.path) if file is not None and file.path else None


class RawFiles(gr.File):
    """An input of several files that hands on what the request names."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[NamedFile]:  # type: ignore[override]
        """Return all that is named."""
        files = payload.root if isinstance(payload, ListFiles) else [payload]
        return [NamedFile(file.path) for file in files if file is not None and file.path]


class RawNumber(gr.Number):
    """A field for a number that hands on whatever is in it; what is done with it says what is wrong with it."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | None:
        """Return what was sent, which may be nothing."""
        return payload


class RawSlider(gr.Slider):
    """A slider that hands on whatever is in its field; what is done with it says what is wrong with it."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | None:  # type: ignore[override]
        """Return what was sent, which may be nothing."""
        return payload


def read_event(event: gr.EventData) -> dict[str, object]:
    """Return what an event brings, unchecked; empty if it is no table, as a browser can send anything."""
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}


def in_words(prediction: Prediction) -> str:
    """Return a prediction as a short phrase in the language of the visitor, such as ``Happiness 93 %``."""
    task, values = prediction.task, prediction.values
    if not prediction.stands_out:
        return say(task.none)
    if task.kind == "one_of":
        return f"{say(task.labels[prediction.top].name)} {values[prediction.top]:.0%}".replace("%", "\u00a0%")
    if task.kind == "continuous":
        return ", ".join(f"{say(label.name)} {value:+.2f}" for label, value in zip(task.labels, values, strict=True))
    if prediction.thresholds:
        present = [
            say(label.short) for label, value, limit in zip(task.labels, values, prediction.thresholds, strict=True) if value >= limit
        ]
        return ", ".join(present) or say("none")
    order = sorted(range(len(values)), key=lambda column: -values[column])[:MOST_UNITS]
    return ", ".join(f"{say(task.labels[column].short)} {values[column]:.2f}" for column in order)


def _seen(face: FaceResult) -> str:
    times = face.track.times_s
    return say("{start} to {end} s", start=f"{times[0]:.1f}", end=f"{times[-1]:.1f}") if len(times) > 1 else say("one frame")


def face_table(analysis: Analysis) -> str:
    """Return the predictions of all faces as an HTML table, the text alternative of every chart."""
    if not analysis.faces:
        return ""
    clip = analysis.media.kind == "clip"
    tasks = {prediction.task.name: prediction for face in analysis.faces for prediction in face.predictions}
    heads = [(say(prediction.task.title), say(PROVENANCE_WORDS[prediction.provenance])) for prediction in tasks.values()]
    rows = []
    for face in analysis.faces:
        number = face.track.track_id
        swatch = f"<span class='swatch' style='background:{face_color(number)}'></span>"
        given = {prediction.task.name: prediction for prediction in face.predictions}
        cells = [_answer(f"{title} ({provenance})", given.get(name)) for (title, provenance), name in zip(heads, tasks, strict=True)]
        seen = _cell(say("Seen"), _seen(face)) if clip else ""
        rows.append(f"<tr><th scope='row'>{swatch}{escape(say('Face {number}', number=number))}</th>{seen}{''.join(cells)}</tr>")
    seen_head = f"<th scope='col'>{escape(say('Seen'))}</th>" if clip else ""
    titles = "".join(f"<th scope='col'>{escape(title)}<small>{escape(provenance)}</small></th>" for title, provenance in heads)
    caption = escape(say("Mean over the frames of each face") if clip else say("Predictions for each face"))
    return (
        f"<div class='face-table faces' tabindex='0' role='region' aria-label='{caption}'><table><caption>{caption}</caption>"
        f"<thead><tr><th scope='col'>{escape(say('Face'))}</th>{seen_head}{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _answer(head: str, prediction: Prediction | None) -> str:
    """Return the cell of a prediction with how often such answers are right."""
    if prediction is None:
        return _cell(head, say("too short"))
    return _cell(head, in_words(prediction), translate(reliability_in_words(prediction)))


def _cell(head: str, text: str, small: str = "") -> str:
    """Return a cell that knows its head, which stands beside it where the page is too narrow for columns."""
    under = f"<small>{escape(small)}</small>" if small else ""
    return f"<td data-head='{escape(head)}'><span>{escape(text)}{under}</span></td>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return texts as an HTML table that can be scrolled with the keyboard."""
    return table_of(caption, [escape(name) for name in heads], [[escape(cell) for cell in row] for row in rows])


def table_of(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return pieces of HTML, heads and cells, as such a table; only the caption is a text."""
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"<div class='face-table' tabindex='0' role='region' aria-label='{escape(caption)}'><table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def notice_list(notices: Sequence[str]) -> str:
    """Return notices as an HTML list; empty for none."""
    items = "".join(f"<li>{escape(notice)}</li>" for notice in notices)
    return f"<div role='status'><ul class='notices'>{items}</ul></div>" if items else ""


def checkpoint_card(checkpoint: Checkpoint, where: Whereabouts, problem: str = "") -> str:
    """Return what a user should know before picking a checkpoint.

    Args:
        checkpoint: its manifest.
        where: how its weights can be had.
        problem: why they could not be had the last time.
    """
    size = (checkpoint.weights_bytes or where.size_bytes) / 1e6
    facts = [
        checkpoint.family,
        say("{count} M parameters", count=f"{checkpoint.parameters / 1e6:.2f}") if checkpoint.parameters else "",
        f"{size:.1f} MB" if size else "",
        say("{size} px input", size=checkpoint.input.size),
        retell(checkpoint.license),
    ]
    heads = "".join(
        f"<li><strong>{escape(say(head.task.title))}</strong>: {escape(say(PROVENANCE_WORDS[head.provenance]))}"
        f"{'. ' + escape(retell(head.note)) if head.note else ''}</li>"
        for head in checkpoint.heads
    )
    heads += "".join(
        f"<li><strong>{escape(say(task.title))}</strong>: {escape(say('not predicted by this checkpoint'))}</li>"
        for task in TASKS
        if checkpoint.head(task.name) is None
    )
    if not any(head.reliability for head in checkpoint.heads):
        heads += f"<li>{escape(say('How often its answers are right was not measured.'))}</li>"
    state = retell(problem) or (where.words and say("The weights are {state}.", state=retell(where.words)))
    state = f"<p class='{'problem' if problem else 'state'}' role='status'>{escape(state)}</p>" if state else ""
    line = " · ".join(escape(fact) for fact in facts if fact)
    details = f"<details><summary>{line}</summary><p>{escape(retell(checkpoint.summary))}</p><ul>{heads}</ul></details>"
    return f"<div class='card'>{details}{state}</div>"
