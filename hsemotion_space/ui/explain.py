"""Where a network looks: choose a face and one of its values, and see which part of the face makes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import gradio as gr
import numpy as np

from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.jobs import Explained, JobError
from hsemotion_space.messages import MessageError
from hsemotion_space.types import Analysis, FaceResult, FaceTrack
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import QUIET, AppContext, ResultRef, Updates
from hsemotion_space.ui.explained import ExplainRequest, explained_html
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate
from hsemotion_space.ui.inputs import RawNumber, read_event
from hsemotion_space.ui.status import progress_bar
from hsemotion_space.ui.tables import face_choices

WAIT_S: Final = 30.0  # for an explanation
LOOK_EVERY_S: Final = 0.2
ROUNDING_S: Final = 0.01  # of the times on the page
LATEST_S: Final = 1e6
STYLE: Final = Path(__file__).with_name("explain.css")
ONLY_OF_JOB: Final = "${job && (value || '').startsWith(job) ? value.slice(job.length) : ''}"
"""Template of the result, which begins with the id of its job: an answer that comes late is not shown below
another result."""
ABOUT: Final = (
    "Parts of the face are hidden one after another. The more a value falls, the more the"
    " network relies on that part. This takes a few seconds."
)


class AskError(MessageError, ValueError):
    """What was asked cannot be explained; the message is in the language of the visitor."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The components."""

    box: gr.Accordion
    face: gr.Dropdown
    backbone: gr.Dropdown
    value: gr.Dropdown
    second: gr.Number
    result: gr.HTML

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """All of them."""
        return [self.box, self.face, self.backbone, self.value, self.second, self.result]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a visitor chose; unchecked."""

    face: object
    backbone: object
    value: object
    second: object


def build_explanation(context: AppContext, shown: gr.State, viewer: gr.HTML) -> Explanation:
    """Lay out the components, hidden until there is a face, and connect them.

    Args:
        context: of the page.
        shown: state with the :class:`ResultRef` of what is shown.
        viewer: the linked viewer of the same tab, from which the time in a clip is taken.
    """
    with gr.Accordion(gettext_lazy("Where does the network look?"), open=False, visible=False) as box:
        gr.Markdown(gettext_lazy(ABOUT))
        with gr.Row():
            face = gr.Dropdown([], label=gettext_lazy("Explained face"), min_width=120)
            backbone = gr.Dropdown([], label=gettext_lazy("Explained backbone"), visible=False, min_width=160)
            value = gr.Dropdown([], label=gettext_lazy("Explained value"), min_width=220)
            second = RawNumber(
                0, label=gettext_lazy("Time in seconds"), minimum=0, precision=2, visible=False,
                min_width=120,
                info=gettext_lazy("Follows the position in the clip above."),
            )  # fmt: skip
        show = gr.Button(gettext_lazy("Show the map"))
        result = gr.HTML(
            html_template=ONLY_OF_JOB, css_template=STYLE.read_text("utf-8"), apply_default_css=False, job=""
        )
    explanation = Explanation(box, face, backbone, value, second, result)

    def answer(request: gr.Request, given: ResultRef, *chosen: object) -> str:
        return given.job + _answer(context, given.job, _Choice(*chosen), client_of(request))

    face.input(lambda *chosen: _values(context, *chosen), [shown, face, backbone], value, **QUIET)
    backbone.input(lambda *chosen: _values(context, *chosen), [shown, face, backbone, value], value, **QUIET)
    viewer.seek(_time_sought, None, second, **QUIET)
    busy = show.click(_busy, shown, result, **QUIET)
    busy.then(answer, [shown, face, backbone, value, second], result, **QUIET)
    return explanation


def explanation_updates(explanation: Explanation, analyses: Sequence[Analysis], job: str) -> Updates:
    """Return updates for a new result or none; hidden unless there is a face.

    Nothing of an earlier result stays.
    """
    empty: Updates = {explanation.result: gr.update(value="", job=job)}
    if not analyses or not analyses[0].faces:
        return {explanation.box: gr.update(visible=False), **empty}
    first = analyses[0]
    faces = face_choices(first)
    backbones = [(one.checkpoint.title, one.checkpoint.id) for one in analyses]
    start_s = round(float(first.faces[0].track.times_s[0]), 2)
    return {
        explanation.box: gr.update(visible=True, open=False),
        explanation.face: gr.update(choices=faces, value=faces[0][1]),
        explanation.backbone: gr.update(choices=backbones, value=backbones[0][1], visible=len(backbones) > 1),
        explanation.value: gr.update(
            choices=value_choices(first.faces[0]), value=usual_value(first.faces[0])
        ),
        explanation.second: gr.update(value=start_s, visible=first.media.kind == "clip"),
        **empty,
    }


def value_choices(face: FaceResult) -> list[tuple[str, str]]:
    """Return all values that a face has in each frame: what is shown, and a key."""
    lines = [line for line in face.timelines if line.task.scope == "frame"]
    return [
        (f"{gettext(line.task.title)}: {gettext(label.name)}", f"{line.task.name}/{label.name}")
        for line in lines
        for label in line.task.labels
    ]


def usual_value(face: FaceResult) -> str:
    """Return the default key to explain: the largest value of the first one-of task."""
    for prediction in face.predictions:
        if prediction.task.scope == "frame" and prediction.task.kind == "one_of":
            return f"{prediction.task.name}/{prediction.task.label_names[prediction.top]}"
    return next((key for _, key in value_choices(face)), "")


def frame_row(analysis: Analysis, track: FaceTrack, second: object) -> int:
    """Return the row of a track that is nearest to a time.

    Raises:
        AskError: if it is no time of the clip, or if the face was not found then.
    """
    if analysis.media.kind != "clip":
        return 0
    asked_s, end_s = _seconds(second), max(float(analysis.frame_times_s[-1]), analysis.media.duration_s)
    if asked_s is None or not 0 <= asked_s <= end_s + ROUNDING_S:
        raise AskError(gettext("Enter a time from 0 to {end} s.", end=f"{end_s:.2f}"))
    row = int(np.abs(track.times_s - asked_s).argmin())
    nearest_s = float(analysis.frame_times_s[np.abs(analysis.frame_times_s - asked_s).argmin()])
    if abs(track.times_s[row] - asked_s) > abs(nearest_s - asked_s) + 1e-6:
        text = gettext(
            ("Face {number} was not found at {time} s. The nearest time at which it was found is"
" {found} s."),
            number=track.track_id, time=f"{asked_s:.2f}", found=f"{track.times_s[row]:.2f}",
        )  # fmt: skip
        raise AskError(text)
    return row


def _answer(context: AppContext, job: str, choice: _Choice, client: str) -> str:
    """Return the explanation of what was chosen, or why there is none, as HTML."""
    try:
        asked = _read(context.analyses(context.runner.status(job), None), choice)
        media = context.runner.media_of(job)
        if media is None:
            raise AskError(gettext("The file is no longer on this server. Analyze it again."))
        question = context.runner.explain(
            media, asked.analysis.checkpoint.id, asked.place, asked.what, client=client
        )
        explained = _wait(context, question)
    except AskError as error:
        return _problem(str(error))
    except (JobError, CheckpointError) as error:
        return _problem(translate(error))
    return explained_html(asked, explained)


def _read(analyses: Sequence[Analysis], choice: _Choice) -> ExplainRequest:
    """Return what is asked.

    Raises:
        AskError: if there is no such face, backbone, value or time.
    """
    analysis = next((one for one in analyses if one.checkpoint.id == choice.backbone), None)
    face = (
        next((one for one in analysis.faces if str(one.track.track_id) == choice.face), None)
        if analysis is not None
        else None
    )
    if analysis is None or face is None or choice.value not in [key for _, key in value_choices(face)]:
        raise AskError(gettext("Select a face and one of its values."))
    task, _, label = str(choice.value).partition("/")
    return ExplainRequest(analysis, face.track, frame_row(analysis, face.track, choice.second), (task, label))


def _wait(context: AppContext, job: str) -> Explained:
    """Return the answer to a question.

    Raises:
        JobError: if there is none within WAIT_S, or it cannot be given.
    """
    until_s = time.monotonic() + WAIT_S
    for status in context.runner.watch(job, LOOK_EVERY_S):
        if status.finished or time.monotonic() > until_s:
            break
    if status.explained is not None:
        return status.explained
    if not status.finished:
        context.runner.cancel(job)
        raise JobError("The server is too busy for this at the moment. Try again later.")
    raise JobError(status.message or "The analysis was canceled.")


def _values(
    context: AppContext, given: ResultRef, number: object, backbone: object, kept: object = None
) -> object:
    """Return an update for the values of another face or backbone; a ``kept`` choice stays if present."""
    try:
        analyses = context.analyses(context.runner.status(given.job), given.smoothing)
    except (JobError, CheckpointError):  # it is told when the button is pressed
        return gr.skip()
    for one in analyses:
        for face in one.faces:
            if one.checkpoint.id == backbone and str(face.track.track_id) == number:
                choices = value_choices(face)
                return gr.update(
                    choices=choices, value=kept if kept in [key for _, key in choices] else usual_value(face)
                )
    return gr.skip()


def _busy(given: ResultRef) -> str:
    return given.job + progress_bar(0, 0, gettext("Hiding parts of the face…"))


def _problem(text: str) -> str:
    return f"<p class='problem' role='alert'>{escape(text)}</p>"


def _time_sought(event: gr.EventData) -> object:
    """Return the time to which the visitor went in the viewer."""
    found = _seconds(read_event(event).get("time"))
    return round(found, 2) if found is not None and found >= 0 else gr.skip()


def _seconds(value: object) -> float | None:
    """Return a number of seconds; what a browser sends may be anything."""
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LATEST_S
        else None
    )
