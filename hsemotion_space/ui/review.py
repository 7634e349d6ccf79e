"""The page of reviewers: approve, reject, mark known answers; agreement, publishing."""

from __future__ import annotations

import base64
import hmac
import io
import time
from dataclasses import dataclass
from html import escape

import gradio as gr
from PIL import Image

from hsemotion_space.feedback.limits import (
    ATTEMPTS_PER_CLIENT,
    ATTEMPTS_TOTAL,
    CODE_LIMIT,
    Limits,
    network_of,
)
from hsemotion_space.feedback.record import (
    TIERS,
    FeedbackError,
    FeedbackRecord,
    Review,
    answer_text,
    subject_of,
    top_of,
)
from hsemotion_space.feedback.trust import agreement
from hsemotion_space.tasks import TASKS, get_task
from hsemotion_space.types import PROVENANCE_LABELS
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.feedback import VERDICT_WORDS
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate
from hsemotion_space.ui.sign_in import can_sign_in, reviewer_name
from hsemotion_space.ui.tables import table

REVIEWER = "page"
DECIDED = {
    "approved": "Correction {number} is approved.",
    "rejected": "Correction {number} is rejected.",
    "gold": "Correction {number} is approved, as a known answer.",
}
LEVELS = {"nominal": "nominal", "interval": "interval"}
MEASURE = "Agreement (Krippendorff's alpha)"
TRIES = Limits(time.monotonic, ATTEMPTS_PER_CLIENT, ATTEMPTS_TOTAL, CODE_LIMIT)
"""Wrong tokens, by network and together."""


@dataclass(frozen=True, slots=True)
class _Board:
    """The components that show one record."""

    number: gr.State
    crop: gr.HTML
    text: gr.HTML
    buttons: gr.Row
    status: gr.HTML

    @property
    def shown(self) -> list[gr.blocks.Block]:
        return [self.number, self.crop, self.text, self.buttons, self.status]


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Who asks: a token that may be wrong, the account that somebody signed in with, and the network."""

    token: object
    profile: gr.OAuthProfile | None
    client: str


def build_review(context: AppContext) -> None:
    """Lay out the tab and connect its events; every handler checks again who asks."""
    gr.Markdown(
        gettext_lazy(
            "For the moderators of this server. Your decisions are stored with the time and, if you"
            " sign in, with your user name."
        )
    )
    if can_sign_in(context.settings):
        gr.LoginButton()
    has_token = bool(context.settings.review_token)
    token = gr.Textbox(label=gettext_lazy("Review token"), type="password", max_lines=1, visible=has_token)
    with gr.Row():
        start = gr.Button(gettext_lazy("Show pending corrections"), variant="primary")
        measure = gr.Button(gettext_lazy("Agreement and publishing"))
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=240):
            crop = gr.HTML(visible=False)
        with gr.Column(scale=3, min_width=300):
            text = gr.HTML()
    with gr.Row(visible=False) as buttons:
        approve = gr.Button(gettext_lazy("Approve"), variant="primary")
        reject = gr.Button(gettext_lazy("Reject"), variant="stop")
        gold = gr.Button(gettext_lazy("Approve as known answer"))
        skip = gr.Button(gettext_lazy("Skip"))
        revert = gr.Button(gettext_lazy("Set aside all corrections of this contributor"), variant="stop")
    status = gr.HTML()
    board = _Board(gr.State(0), crop, text, buttons, status)

    def on(button: gr.Button, act: str) -> None:
        def handle(
            request: gr.Request, profile: gr.OAuthProfile | None, given: object, number: object
        ) -> list[object]:
            visitor = _Visitor(given, profile, client_of(request))
            return _step(context, visitor, number, act)

        button.click(handle, [token, board.number], board.shown, queue=False, api_visibility="private")

    for button, act in (
        (start, "start"),
        (approve, "approved"),
        (reject, "rejected"),
        (gold, "gold"),
        (skip, "skip"),
        (revert, "revert"),
    ):
        on(button, act)

    def measured(request: gr.Request, profile: gr.OAuthProfile | None, given: object) -> str:
        return _measures(context, _Visitor(given, profile, client_of(request)))

    measure.click(measured, token, status, queue=False, api_visibility="private")


def check_reviewer(context: AppContext, visitor: _Visitor) -> str:
    """Return under which name the decisions of a visitor are stored: their user name if they signed in.

    Raises:
        FeedbackError: if they may not review.
    """
    if name := reviewer_name(context.settings, visitor.profile):
        return name
    if not context.settings.review_token:
        raise FeedbackError("Sign in with an account that may review.", code="no_reviewer")
    check_token(context, visitor.token, visitor.client)
    return REVIEWER


def check_token(context: AppContext, given: object, client: str) -> None:
    """Refuse who does not know the token of the settings; only tokens that are not right are counted.

    A token is checked within the limits alone, as it may be short enough to be guessed.

    Raises:
        FeedbackError: if it is another one, or too many were tried.
    """
    network = network_of(client)
    taken = TRIES.acquire(network)
    known = context.settings.review_token
    if not known or not isinstance(given, str) or not hmac.compare_digest(given.encode(), known.encode()):
        raise FeedbackError("The review token is not valid.", code="token")
    TRIES.release(network, taken)


def _step(context: AppContext, visitor: _Visitor, number: object, act: str) -> list[object]:
    """Carry out a decision on the record with a number and return updates for the next one that waits."""
    try:
        reviewer = check_reviewer(context, visitor)
        number = number if isinstance(number, int) and act != "start" else 0
        sentence = _decide(context, number, act, reviewer) if number else ""
        waiting = context.open_feedback.store.records(waiting=True, after=number or None, limit=1)
    except FeedbackError as error:
        return [*[gr.skip()] * 4, f"<p class='problem' role='alert'>{escape(translate(error))}</p>"]
    status = f"<p role='status'>{escape(sentence)}</p>" if sentence else ""
    if not waiting:
        nothing = f"<p role='status'>{escape(gettext('No corrections are pending.'))}</p>"
        return [0, gr.update(visible=False, value=""), nothing, gr.update(visible=False), status]
    [one] = waiting
    picture = gr.update(visible=bool(one.crop), value=_shown(one.crop) if one.crop else "")
    return [one.number, picture, describe(one), gr.update(visible=True), status]


def _shown(crop: bytes) -> str:
    """Return a picture as HTML, encoded anew, so that nothing but its pixels is passed on."""
    out = io.BytesIO()
    Image.open(io.BytesIO(crop)).convert("RGB").save(out, "PNG")
    data, name = base64.b64encode(out.getvalue()).decode(), escape(gettext("Submitted picture"))
    return (
        f"<figure><img alt='{name}' width='224'"
        f" src='data:image/png;base64,{data}'><figcaption>{name}</figcaption></figure>"
    )


def _decide(context: AppContext, number: int, act: str, reviewer: str) -> str:
    """Return what was done, in a sentence."""
    store = context.open_feedback.store
    one = next(iter(store.records(after=number - 1, limit=1)), None)
    if one is None or one.number != number:
        raise FeedbackError("The correction no longer exists.", code="no_record")
    if act == "skip":
        return ""
    if act == "revert":
        return gettext("{count} corrections were set aside.", count=store.revert(one.contributor))
    decision: Review = "rejected" if act == "rejected" else "approved"
    store.review(one.id, decision, reviewer)
    store.mark_gold(one.id, act == "gold")
    return gettext(DECIDED[act], number=number)


def describe(one: FeedbackRecord) -> str:
    """Return a record as HTML: what was predicted beside what was said."""
    rows = []
    for task in (task for task in TASKS if task.name in one.predicted):  # a stored record sorts them by name
        name, predicted = task.name, one.predicted[task.name]
        values = {label: predicted[label] for label in task.label_names if label in predicted}
        shown = {top_of(values): values[top_of(values)]} if task.kind == "one_of" else values
        sentence = ", ".join(f"{gettext(label)} {value:.2f}" for label, value in shown.items())
        right = answer_text(name, one.corrected[name], gettext) if name in one.corrected else ""
        rows.append([gettext(task.title), sentence, gettext(PROVENANCE_LABELS[one.provenance[name]]), right])  # type: ignore[index]
    what = translate(subject_of(one))
    head = gettext(
        "Number {number}, {what}: {verdict}",
        number=one.number,
        what=what,
        verdict=gettext(VERDICT_WORDS[one.verdict]),
    )
    by = gettext(
        "by {contributor}, of {checkpoint}", contributor=one.contributor[:8], checkpoint=one.checkpoint
    )
    comment = f"<p>{escape(gettext('Comment: {text}', text=one.comment))}</p>" if one.comment else ""
    answers = table(
        gettext("Prediction and correction"),
        [gettext("Task"), gettext("Predicted"), gettext("Provenance"), gettext("Corrected")],
        rows,
    )
    return f"<p><strong>{escape(head)}</strong>, {escape(by)}</p>{comment}{answers}"


def _measures(context: AppContext, visitor: _Visitor) -> str:
    try:
        check_reviewer(context, visitor)
        feedback = context.open_feedback
        records = feedback.store.records()
        sentence, grades = feedback.message, list(feedback.tiers(records).values())
    except FeedbackError as error:
        return f"<p class='problem' role='alert'>{escape(translate(error))}</p>"
    rows = [
        [
            gettext(get_task(one.task).title), gettext(one.label),
            "" if one.alpha is None else f"{one.alpha:.3f}", gettext(LEVELS[one.level]),
            str(one.items), str(one.raters), translate(one.reason),
        ]
        for one in agreement(records)
    ]  # fmt: skip
    heads = [
        gettext("Task"), gettext("Label"), gettext("Alpha"), gettext("Level"), gettext("Items"),
        gettext("People"), gettext("Note"),
    ]  # fmt: skip
    raw, agreed, reviewed = (grades.count(tier) for tier in TIERS)
    tiers = gettext(
        "Tiers: {raw} raw, {agreed} agreed, {reviewed} reviewed.", raw=raw, agreed=agreed, reviewed=reviewed
    )
    status = f"<p role='status'>{escape(translate(sentence))} {escape(tiers)}</p>"
    return status + table(gettext(MEASURE), heads, rows)
