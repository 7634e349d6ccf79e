"""The correction form in the drawer: generated from the tasks, outside of the queue of analyses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Final

import gradio as gr

from hsemotion_space.feedback.consent import CROP, LADDER, SCOPES, STATEMENT
from hsemotion_space.feedback.crops import find_track, preview
from hsemotion_space.feedback.form import COMMENT_LENGTH, Submission
from hsemotion_space.feedback.intake import Context, Receipt
from hsemotion_space.feedback.record import VERDICTS as VERDICT_NAMES
from hsemotion_space.feedback.record import FeedbackError, Verdict
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import JobError
from hsemotion_space.settings import SettingsError
from hsemotion_space.tasks import TASKS
from hsemotion_space.types import Analysis
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import QUIET, AppContext, ResultRef, Updates, example_digests, unchanged
from hsemotion_space.ui.drawer import build_drawer, opened
from hsemotion_space.ui.i18n import gettext, gettext_lazy, language, translate
from hsemotion_space.ui.inputs import RawNumber, read_event
from hsemotion_space.ui.questions import Question, build_question
from hsemotion_space.ui.tables import face_choices
from hsemotion_space.ui.viewer import read_label_key, read_selection

VERDICTS: Final = (
    ("Right", "correct"),
    ("Wrong", "wrong"),
    ("I cannot tell", "cannot_tell"),
    ("Not a face", "not_a_face"),
)
VERDICT_WORDS: Final[dict[Verdict, str]] = {name: name.replace("_", " ") for name in VERDICT_NAMES}
KEEP_IT: Final = (
    "Keep this code. It is the only way to list, download and erase your corrections under <em>My data</em>."
)
STEPS: Final = tuple(step for step in LADDER if step.name in SCOPES)
RECEIPT: Final = (
    "You get a receipt code, with which you can erase everything again. If you already have"
    " one, enter it under *My data* before you send."
)
REFUSALS: Final = (FeedbackError, JobError, CheckpointError, SettingsError)


@dataclass(frozen=True, slots=True)
class Form:
    """The components of the form.

    Attributes:
        drawer: all of it.
        face, start, end: which face, and which part of a clip.
        about: state with the face that everything below is about.
        seen: state with job and face of the picture that was shown as the one that would be kept.
        crop: that picture.
        verdict, comment, statement: the statement on the face, and that on age and permission.
        corrections: the questions.
        scopes: the steps of the consent ladder.
        questions: of the tasks.
        send: its button.
        outcome: the receipt, or what is missing.
    """

    drawer: gr.HTML
    face: gr.Dropdown
    start: gr.Number
    end: gr.Number
    about: gr.State
    seen: gr.State
    crop: gr.Image
    verdict: gr.Radio
    corrections: gr.Column
    comment: gr.Textbox
    statement: gr.Checkbox
    scopes: tuple[gr.Checkbox, ...]
    questions: tuple[Question, ...]
    send: gr.Button
    outcome: gr.HTML

    @property
    def fields(self) -> list[gr.components.Component]:
        """The fields of all questions."""
        return [field for question in self.questions for field in question.fields]

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """Everything that a result or another face changes."""
        boxes = [question.box for question in self.questions]
        return [
            self.drawer,
            self.face,
            self.start,
            self.end,
            self.about,
            self.corrections,
            *boxes,
            *self.empty(),
        ]

    def empty(self) -> Updates:
        """Return updates that empty what is about one face: nothing of it holds for another one."""
        answers = [gr.update(value=value) for question in self.questions for value in question.empty]
        return {
            self.seen: (), self.crop: gr.update(visible=False, value=None), self.verdict: None,
            self.comment: "", self.statement: False,
            **dict.fromkeys(self.scopes, False), **dict(zip(self.fields, answers, strict=True)),
            self.outcome: "",
        }  # fmt: skip


def build_form(context: AppContext, shown: gr.State, receipt: gr.Textbox) -> Form:
    """Lay out the form in a closed drawer and connect its events.

    Args:
        context: of the page.
        shown: state with the :class:`ResultRef` of what is shown.
        receipt: the field of the page with the receipt code.
    """
    form = _lay_out()
    wants_crop = form.scopes[STEPS.index(CROP)]
    form.verdict.change(
        lambda chosen: gr.update(visible=chosen == "wrong"), form.verdict, form.corrections, **QUIET
    )
    wants_crop.input(
        lambda *given: _preview(context, *given), [shown, form.face, wants_crop], [form.seen, form.crop],
        **QUIET
    )  # fmt: skip
    form.face.input(
        lambda *chosen: _other_face(context, form, *chosen), [shown, form.face, form.about], form.outputs,
        **QUIET
    )  # fmt: skip

    def submit(
        request: gr.Request, given: ResultRef, number: object, seen: object, *values: object
    ) -> list[object]:
        return _submit(
            context, given, seen == (given.job, str(number)), _read(form, given, number, values), request
        )

    send = form.send
    fields = [
        form.verdict,
        form.comment,
        form.statement,
        receipt,
        form.start,
        form.end,
        *form.scopes,
        *form.fields,
    ]
    send.click(submit, [shown, form.face, form.seen, *fields], [receipt, form.outcome], **QUIET)
    return form


def _lay_out() -> Form:
    with build_drawer() as drawer:
        with gr.Row():
            face = gr.Dropdown([], label=gettext_lazy("Face"), min_width=100)
            start = RawNumber(
                0,
                label=gettext_lazy("Start in seconds"),
                minimum=0,
                precision=2,
                visible=False,
                min_width=100,
            )
            end = RawNumber(
                0, label=gettext_lazy("End in seconds"), minimum=0, precision=2, visible=False, min_width=100
            )
        verdict = gr.Radio(
            [(gettext_lazy(words), name) for words, name in VERDICTS],
            label=gettext_lazy("The prediction for this face"),
        )
        with gr.Column(visible=False) as corrections:
            gr.Markdown(gettext_lazy("What is right? Answer what you can see; leave the rest empty."))
            questions = tuple(build_question(task) for task in TASKS)
        comment = gr.Textbox(
            label=gettext_lazy("Comment (optional)"),
            info=gettext_lazy("No names, please."),
            max_length=COMMENT_LENGTH,
            lines=2,
        )
        gr.Markdown(gettext_lazy("**What may be saved?** Nothing, unless you select it."))
        scopes = tuple(
            gr.Checkbox(False, label=gettext_lazy(step.title), info=gettext_lazy(step.text)) for step in STEPS
        )
        crop = gr.Image(
            label=gettext_lazy("Picture that would be saved"), visible=False, interactive=False, height=224,
            format="png", buttons=[]
        )  # fmt: skip
        statement = gr.Checkbox(False, label=gettext_lazy(STATEMENT))
        gr.Markdown(gettext_lazy(RECEIPT))
        send = gr.Button(gettext_lazy("Send"), variant="primary")
        outcome = gr.HTML()
    return Form(
        drawer, face, start, end, gr.State(""), gr.State(()), crop, verdict, corrections, comment, statement,
        scopes, questions, send,
        outcome,
    )  # fmt: skip


def _other_face(context: AppContext, form: Form, given: ResultRef, number: object, about: object) -> Updates:
    """Return updates when another face is selected; moving by keyboard within the field changes nothing."""
    if str(number) == about:
        return unchanged()
    try:
        times = find_track(context.analysis(given.job, given.smoothing), int(str(number))).times_s
    except (*REFUSALS, ValueError):
        return {**form.empty(), form.about: str(number)}
    return {**form.empty(), form.about: str(number), **_span(form, times[0], times[-1])}


def _span(form: Form, start_s: float, end_s: float) -> Updates:
    return {form.start: round(float(start_s), 2), form.end: round(float(end_s), 2)}


def connect_viewer(form: Form, viewer: gr.HTML, shown: gr.State) -> None:
    """Let "Not right?", "Correct range" and a key from 1 to 8 in the viewer open the form."""

    def about_face(number: object, about: object) -> Updates:
        """Return updates that bring the form to a face and empty it unless it is about that face already."""
        face = str(number)
        return {} if face == about else {**form.empty(), form.face: face, form.about: face}

    def correct(event: gr.EventData, given: ResultRef, about: object) -> Updates:
        sent = read_event(event)
        task = next(
            (question.task.name for question in form.questions if question.task.name == sent.get("task")), ""
        )
        if str(sent.get("face")) not in given.faces:
            return unchanged()
        chosen = read_selection(event)
        span = _span(form, chosen.start_s, chosen.end_s) if chosen is not None else {}
        wrong = {form.verdict: "wrong", form.corrections: gr.update(visible=True)}
        return {
            **about_face(sent.get("face"), about),
            **span,
            **wrong,
            form.drawer: opened(gettext("Correction"), f"question-{task}"),
        }

    def take_label(event: gr.EventData, given: ResultRef, about: object) -> Updates:
        [first, *_] = form.questions
        number, labels = read_label_key(event), first.task.label_names
        if number is None or number > len(labels) or str(read_event(event).get("face")) not in given.faces:
            return unchanged()
        return {
            **correct(event, given, about),
            first.fields[0]: labels[number - 1],
            form.drawer: opened(gettext("Correction"), first.box.elem_id or ""),
        }

    for event, handle in ((viewer.correct, correct), (viewer.label_key, take_label)):
        event(handle, [shown, form.about], form.outputs, **QUIET)


def _read(form: Form, given: ResultRef, number: object, values: Sequence[object]) -> Submission:
    """Return what was sent, unchecked; ``values`` are in the order of the fields in :func:`build_form`."""
    verdict, comment, statement, code, start_s, end_s = values[:6]
    ticks, answers = values[6 : 6 + len(STEPS)], values[6 + len(STEPS) :]
    corrected: dict[str, object] = {}
    for question in form.questions:
        answer = question.answer(answers[: len(question.fields)])
        answers = answers[len(question.fields) :]
        if answer is not None:
            corrected[question.task.name] = answer
    return Submission(
        face=int(str(number)) if str(number) in given.faces else 0, verdict=verdict,
        corrected=corrected if verdict == "wrong" else {},
        span_s=[start_s, end_s], comment=comment,
        scopes=[step.name for step, tick in zip(STEPS, ticks, strict=True) if tick is True],
        adult_and_permitted=statement, code=code,
    )  # fmt: skip


def _submit(
    context: AppContext, given: ResultRef, seen: bool, submission: Submission, request: gr.Request
) -> list[object]:
    """Return updates for the receipt code and for what is told; a picture is kept only if it was ``seen``."""
    try:
        if submission.verdict is None:
            raise FeedbackError("First select whether the prediction is right.", code="no_verdict")
        if isinstance(submission.scopes, list) and CROP.name in submission.scopes and not seen:
            raise FeedbackError(
                "Check the picture that would be saved: select “{tick}” again.",
                code="unseen",
                tick=CROP.title,
            )
        analysis = context.analysis(given.job, given.smoothing)
        if analysis.media.kind != "clip":
            submission = replace(submission, span_s=[])
        known = Context(given.job, preprocessing_of(context, analysis), language=language())
        receipt = context.open_feedback.intake.submit(analysis, submission, client_of(request), known)
    except REFUSALS as error:
        return [
            gr.skip(),
            (
                "<p class='problem'"
                f" role='alert'>{escape(gettext('Not saved. {reason}', reason=translate(error)))}</p>"
            ),
        ]
    return [receipt.code, _thanks(receipt)]


def _thanks(receipt: Receipt) -> str:
    return (
        f"<div class='receipt' role='status'><p>{escape(translate(receipt.message))}"
        f" {escape(gettext('Your receipt code:'))}"
        f" <code>{escape(receipt.code)}</code></p><p>{gettext(KEEP_IT)}</p></div>"
    )


def _preview(context: AppContext, given: ResultRef, number: object, wanted: object) -> list[object]:
    """Return what is seen, and the very pixels that would be kept, or nothing."""
    if wanted is not True:
        return [(), gr.update(visible=False, value=None)]
    try:
        pixels = preview(context.analysis(given.job, given.smoothing), int(str(number)))
    except (*REFUSALS, ValueError):
        return [(), gr.update(visible=False, value=None)]
    return [(given.job, str(number)), gr.update(visible=True, value=pixels)]


def refer_to(context: AppContext, job_id: str, analysis: Analysis, smoothing: float | None) -> ResultRef:
    """Return the reference to a result; an example and a session file take no corrections."""
    mine = not analysis.imported and analysis.media.sha256 not in example_digests()
    taken = context.feedback is not None and mine
    return ResultRef(job_id, smoothing, face_numbers(analysis) if taken else ())


def face_numbers(analysis: Analysis) -> tuple[str, ...]:
    """Return the numbers of the faces of an analysis, as text."""
    return tuple(str(face.track.track_id) for face in analysis.faces)


def preprocessing_of(context: AppContext, analysis: Analysis) -> str:
    """Return a digest of how the faces of an analysis were found and prepared.

    Raises:
        CheckpointError: if the manifest of its checkpoint was changed in the meantime.
    """
    checkpoint = find_checkpoint(context.settings.checkpoint_roots, analysis.checkpoint.id)
    return hashlib.sha256(repr(checkpoint.input).encode()).hexdigest()


def form_updates(form: Form, analysis: Analysis | None) -> Updates:
    """Return updates for a new result or none; nothing that was entered or ticked before is carried over."""
    updates: Updates = {**form.empty(), form.drawer: "", form.about: ""}
    if analysis is None or not analysis.faces:
        return updates
    choices = face_choices(analysis)
    times, clip = analysis.faces[0].track.times_s, analysis.media.kind == "clip"
    return {
        **updates,
        form.face: gr.update(choices=choices, value=choices[0][1]),
        form.about: choices[0][1],
        form.start: gr.update(value=round(float(times[0]), 2), visible=clip),
        form.end: gr.update(value=round(float(times[-1]), 2), visible=clip),
        **{
            question.box: gr.update(visible=clip or question.task.scope == "frame")
            for question in form.questions
        },
    }
