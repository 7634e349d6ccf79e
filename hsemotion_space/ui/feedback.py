"""The correction form beside every result: generated from the tasks, outside of the queue of analyses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import gradio as gr

from hsemotion_space.feedback.consent import CROP, LADDER, SCOPES, STATEMENT
from hsemotion_space.feedback.crops import find_track, preview
from hsemotion_space.feedback.form import COMMENT_LENGTH, Submission
from hsemotion_space.feedback.intake import Context, Receipt
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import JobError
from hsemotion_space.settings import SettingsError
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.desk import Desk
from hsemotion_space.ui.parts import RawNumber, RawSlider
from hsemotion_space.ui.viewer import read_label_key, read_selection
from hsemotion_space.ui.words import fixed, language, say, translate

NOT_SAID: Final = ""
VERDICTS: Final = (
    ("It is right", "correct"),
    ("It is wrong", "wrong"),
    ("I cannot tell", "cannot_tell"),
    ("This is not a face", "not_a_face"),
)
KEEP_IT: Final = "Keep it. With it, and only with it, you can list, download and erase what you gave, under <em>My data</em>."
STEPS: Final = tuple(step for step in LADDER if step.name in SCOPES)
RECEIPT: Final = "You get a receipt code, by which you can erase all this again. If you have one, put it into *My data* before you send."
REFUSALS: Final = (FeedbackError, JobError, CheckpointError, SettingsError)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a visitor may correct: the result that is shown, and the numbers of its faces, as text."""

    job: str = ""
    smoothing: float | None = None
    faces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """The components that ask for one task: one for a class; else a tick that the answer counts, then the answer."""

    task: Task
    parts: tuple[gr.components.Component, ...]

    @property
    def unsaid(self) -> list[object]:
        """Values of the parts when nothing is said."""
        if self.task.kind == "one_of":
            return [NOT_SAID]
        return [False, []] if _is_checklist(self.task) else [False, *[_middle(self.task)] * len(self.task.labels)]

    def answer(self, values: Sequence[object]) -> object:
        """Return what was answered, unchecked, or None if nothing was."""
        if self.task.kind == "one_of":
            return None if values[0] == NOT_SAID else values[0]
        if values[0] is not True:
            return None
        if _is_checklist(self.task):
            present = values[1] if isinstance(values[1], list) else []
            return {label.name: float(label.name in present) for label in self.task.labels}
        return dict(zip(self.task.label_names, values[1:], strict=True))


@dataclass(frozen=True, slots=True)
class Form:
    """The components of one form.

    Attributes:
        box: all of it.
        face, start, end: which face, and which part of a clip.
        about: state with the face that everything below is about.
        seen: state with job and face of the picture that was shown as the one that would be kept.
        crop: that picture.
        verdict, comment, statement: what is said, and the statement on age and permission.
        scopes: the steps of the consent ladder.
        questions: of the tasks.
        told: what became of it.
    """

    box: gr.Accordion
    face: gr.Dropdown
    start: gr.Number
    end: gr.Number
    about: gr.State
    seen: gr.State
    crop: gr.Image
    verdict: gr.Radio
    comment: gr.Textbox
    statement: gr.Checkbox
    scopes: tuple[gr.Checkbox, ...]
    questions: tuple[Question, ...]
    told: gr.HTML

    @property
    def said(self) -> list[gr.blocks.Block]:
        """Everything about one face: nothing of it holds for another one. In the order of :func:`_unsaid`."""
        answers = [part for question in self.questions for part in question.parts]
        return [self.seen, self.crop, self.verdict, self.comment, self.statement, *self.scopes, *answers, self.told]

    @property
    def filled(self) -> list[gr.blocks.Block]:
        """Components in the order of :func:`form_updates`."""
        return [self.box, self.face, self.start, self.end, self.about, *self.said]


def _is_checklist(task: Task) -> bool:
    return task.kind == "independent" and task.scope == "frame"


def _middle(task: Task) -> float:
    return (task.low + task.high) / 2 if task.kind == "continuous" else task.low


def _question(task: Task) -> Question:
    if task.kind == "one_of":
        choices = [(fixed("not said"), NOT_SAID), *((fixed(label.name), label.name) for label in task.labels)]
        return Question(task, (gr.Dropdown(choices, value=NOT_SAID, label=fixed(task.title)),))
    count = gr.Checkbox(False, label=fixed("I judge: {task}", task=task.title))
    with gr.Group(visible=False) as answers:
        if _is_checklist(task):
            choices = [(fixed("{unit} {what}", unit=label.short, what=label.description), label.name) for label in task.labels]
            words = fixed("{task}: tick all that are visible", task=task.title)
            parts: list[gr.components.Component] = [gr.CheckboxGroup(choices, label=words)]
        else:
            parts = [
                RawSlider(task.low, task.high, _middle(task), step=0.05, label=fixed(label.name), info=fixed(label.description))
                for label in task.labels
            ]
    count.change(lambda yes: gr.update(visible=yes is True), count, answers, queue=False, api_visibility="private", show_progress="hidden")
    return Question(task, (count, *parts))


def build_form(kind: str, desk: Desk, offer: gr.State, receipt: gr.Textbox) -> Form:
    """Lay out the form, hidden until there is a face, and connect its events.

    Args:
        kind: of the media.
        desk: of the page.
        offer: state with the :class:`Offer` of what is shown.
        receipt: the field of the page with the receipt code, which all forms share.
    """
    with gr.Accordion(fixed("Is this right? Say what you see"), open=False, visible=False, elem_classes="feedback") as box:
        with gr.Row():
            face = gr.Dropdown([], label=fixed("Face"), info=fixed("as numbered above"), min_width=120)
            start = RawNumber(0, label=fixed("From second"), minimum=0, precision=2, visible=kind == "clip", min_width=120)
            end = RawNumber(0, label=fixed("To second"), minimum=0, precision=2, visible=kind == "clip", min_width=120)
        verdict = gr.Radio([(fixed(words), name) for words, name in VERDICTS], label=fixed("What the network says about this face"))
        with gr.Column(visible=False) as corrections:
            gr.Markdown(fixed("What would be right? Answer what you can see; leave the rest."))
            questions = [_question(task) for task in TASKS if kind == "clip" or task.scope == "frame"]
        comment = gr.Textbox(label=fixed("Comment (optional)"), info=fixed("No names, please."), max_length=COMMENT_LENGTH, lines=2)
        gr.Markdown(fixed("**What may be kept?** Nothing is, unless you tick it."))
        scopes = [gr.Checkbox(False, label=fixed(step.title), info=fixed(step.text)) for step in STEPS]
        crop = gr.Image(
            label=fixed("The picture that would be kept"), visible=False, interactive=False, height=224, format="png", buttons=[]
        )  # fmt: skip
        statement = gr.Checkbox(False, label=fixed(STATEMENT))
        gr.Markdown(fixed(RECEIPT))
        send = gr.Button(fixed("Send"), variant="primary")
        told = gr.HTML()
        about, seen = gr.State(""), gr.State(())
    form = Form(box, face, start, end, about, seen, crop, verdict, comment, statement, tuple(scopes), tuple(questions), told)
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    verdict.change(lambda chosen: gr.update(visible=chosen == "wrong"), verdict, corrections, **quiet)
    wants_crop = scopes[[step is CROP for step in STEPS].index(True)]
    wants_crop.input(lambda *given: _preview(desk, *given), [offer, face, wants_crop], [seen, crop], **quiet)
    face.input(lambda *chosen: _other_face(desk, form, *chosen), [offer, face, about], [start, end, about, *form.said], **quiet)

    def submit(request: gr.Request, given: Offer, number: object, shown: object, *said: object) -> list[object]:
        submission = _read(form, kind, given, number, said)
        return _submit(desk, given, shown == (given.job, str(number)), submission, request)

    answers = [part for question in questions for part in question.parts]
    fields = [offer, face, seen, verdict, comment, statement, receipt, start, end, *scopes, *answers]
    send.click(submit, fields, [receipt, told], **quiet)
    return form


def _other_face(desk: Desk, form: Form, given: Offer, number: object, about: object) -> list[object]:
    """Return updates for start, end, ``Form.about`` and ``Form.said``; walking through the field with the keyboard changes nothing."""
    if str(number) == about:
        return [gr.skip() for _ in range(3 + len(form.said))]
    return [*_span(desk, given, number), str(number), *_unsaid(form)]


def connect_viewer(form: Form, viewer: gr.HTML, offer: gr.State) -> None:
    """Let a range that was dragged in the viewer, and a key from 1 to 8 pressed there, fill the form."""
    [first, *_] = form.questions

    def take_range(event: gr.EventData, given: Offer, about: object) -> list[object]:
        chosen = read_selection(event)
        if chosen is None or str(chosen.face) not in given.faces:
            return [gr.skip() for _ in form.filled]
        face, span = str(chosen.face), [round(chosen.start_s, 2), round(chosen.end_s, 2)]
        said = [gr.skip() for _ in form.said] if face == about else _unsaid(form)
        return [gr.update(open=True), face, *span, face, *said]

    def take_label(event: gr.EventData, given: Offer) -> list[object]:
        number, labels = read_label_key(event), first.task.label_names
        if number is None or number > len(labels) or not given.faces:
            return [gr.skip()] * 3
        return [gr.update(open=True), "wrong", labels[number - 1]]

    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    viewer.range(take_range, [offer, form.about], form.filled, **quiet)
    viewer.label_key(take_label, offer, [form.box, form.verdict, first.parts[0]], **quiet)


def _unsaid(form: Form) -> list[object]:
    """Return updates for ``Form.said`` when nothing is said yet."""
    answers = [gr.update(value=value) for question in form.questions for value in question.unsaid]
    return [(), gr.update(visible=False, value=None), None, "", False, *[False] * len(form.scopes), *answers, ""]


def _read(form: Form, kind: str, given: Offer, number: object, said: Sequence[object]) -> Submission:
    """Return what a visitor said, unchecked; ``said`` follows the order of the fields in :func:`build_form`."""
    verdict, comment, statement, code, start_s, end_s = said[:6]
    ticks, values = said[6 : 6 + len(STEPS)], said[6 + len(STEPS) :]
    corrected: dict[str, object] = {}
    for question in form.questions:
        answer = question.answer(values[: len(question.parts)])
        values = values[len(question.parts) :]
        if answer is not None:
            corrected[question.task.name] = answer
    return Submission(
        face=int(str(number)) if str(number) in given.faces else 0, verdict=verdict, corrected=corrected if verdict == "wrong" else {},
        span_s=[start_s, end_s] if kind == "clip" else [], comment=comment,
        scopes=[step.name for step, tick in zip(STEPS, ticks, strict=True) if tick is True], adult_and_permitted=statement, code=code,
    )  # fmt: skip


def _submit(desk: Desk, given: Offer, seen: bool, submission: Submission, request: gr.Request) -> list[object]:
    """Return updates for the receipt code and for what is told; a picture is kept only if it was ``seen``."""
    try:
        if submission.verdict is None:
            raise FeedbackError("Please say first whether what the network says is right.", code="no_verdict")
        if isinstance(submission.scopes, list) and CROP.name in submission.scopes and not seen:
            raise FeedbackError("Please look at the picture that would be kept: tick “{tick}” again.", code="unseen", tick=CROP.title)
        analysis = desk.analysis(given.job, given.smoothing)
        known = Context(given.job, preprocessing_of(desk, analysis), language=language())
        receipt = desk.open_feedback.intake.submit(analysis, submission, client_of(request), known)
    except REFUSALS as error:
        return [gr.skip(), f"<p class='problem' role='alert'>{escape(say('Not saved. {reason}', reason=translate(error)))}</p>"]
    return [receipt.code, _thanks(receipt)]


def _thanks(receipt: Receipt) -> str:
    return (
        f"<div class='receipt' role='status'><p>{escape(translate(receipt.message))} {escape(say('Your receipt code:'))} "
        f"<code>{escape(receipt.code)}</code></p><p>{say(KEEP_IT)}</p></div>"
    )


def _preview(desk: Desk, given: Offer, number: object, wanted: object) -> list[object]:
    """Return what is seen, and the very pixels that would be kept, or nothing."""
    if wanted is not True:
        return [(), gr.update(visible=False, value=None)]
    try:
        pixels = preview(desk.analysis(given.job, given.smoothing), int(str(number)))
    except (*REFUSALS, ValueError):
        return [(), gr.update(visible=False, value=None)]
    return [(given.job, str(number)), gr.update(visible=True, value=pixels)]


def _span(desk: Desk, given: Offer, number: object) -> list[object]:
    """Return the times of the chosen face."""
    try:
        times = find_track(desk.analysis(given.job, given.smoothing), int(str(number))).times_s
    except (*REFUSALS, ValueError):
        return [gr.skip(), gr.skip()]
    return [round(float(times[0]), 2), round(float(times[-1]), 2)]


def make_offer(desk: Desk, job_id: str, analysis: Analysis, smoothing: float | None) -> Offer:
    """Return what may be corrected of a result."""
    return Offer(job_id, smoothing, () if desk.feedback is None else face_numbers(analysis))


def face_numbers(analysis: Analysis) -> tuple[str, ...]:
    """Return the numbers of the faces of an analysis, as text."""
    return tuple(str(face.track.track_id) for face in analysis.faces)


def preprocessing_of(desk: Desk, analysis: Analysis) -> str:
    """Return a digest of how the faces of an analysis were found and prepared.

    Raises:
        CheckpointError: if the manifest of its checkpoint was changed in the meantime.
    """
    checkpoint = find_checkpoint(desk.settings.checkpoint_roots, analysis.checkpoint.id)
    return hashlib.sha256(repr(checkpoint.input).encode()).hexdigest()


def form_updates(form: Form, analysis: Analysis | None) -> list[object]:
    """Return updates for ``Form.filled``, for a new result or none; nothing that was said or ticked before is carried over."""
    if analysis is None or not analysis.faces:
        return [gr.update(visible=False), *[gr.skip()] * 3, "", *_unsaid(form)]
    choices = [(say("Face {number}", number=item.track.track_id), str(item.track.track_id)) for item in analysis.faces]
    times = analysis.faces[0].track.times_s
    where = [gr.update(choices=choices, value=choices[0][1]), round(float(times[0]), 2), round(float(times[-1]), 2)]
    return [gr.update(visible=True, open=False), *where, choices[0][1], *_unsaid(form)]
