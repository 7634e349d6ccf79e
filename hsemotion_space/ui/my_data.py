"""What a contributor gave: list, download, erase, by receipt code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import gradio as gr

from hsemotion_space.feedback.export import export_own
from hsemotion_space.feedback.keys import HASH_LENGTH, read_code
from hsemotion_space.feedback.limits import (
    ATTEMPTS_PER_CLIENT,
    ATTEMPTS_TOTAL,
    CODE_LIMIT,
    Limits,
    network_of,
)
from hsemotion_space.feedback.record import FeedbackError, corrections_of, subject_of
from hsemotion_space.feedback.tables import Record
from hsemotion_space.feedback.trace import TraceRecord, trace_subject
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import QUIET, AppContext
from hsemotion_space.ui.feedback import VERDICT_WORDS
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate
from hsemotion_space.ui.tables import table
from hsemotion_space.ui.temporary import walk

STATES = {"received": "saved here", "sealed": "saved here", "pushed": "published", "verified": "published"}
LOOKUPS = Limits(time.monotonic, ATTEMPTS_PER_CLIENT, ATTEMPTS_TOTAL, CODE_LIMIT)
"""How often codes may be tried under which nothing is kept, by one network and by all together."""
RECEIPT = (
    "You get this code with your first correction. Enter it before you send more, so that"
    " all your corrections share one code."
)
ABOUT = "List, download and erase your corrections with your receipt code. No account is needed."


def build_receipt() -> gr.Textbox:
    """Return the field for the receipt code, which correction forms fill too; see :func:`build_my_data`."""
    return gr.Textbox(
        label=gettext_lazy("Receipt code"),
        info=gettext_lazy(RECEIPT),
        max_lines=1,
        max_length=100,
        render=False,
    )


def build_my_data(context: AppContext, tab: gr.Tab, receipt: gr.Textbox) -> None:
    """Lay out the tab and connect its events."""
    gr.Markdown(gettext_lazy(ABOUT))
    receipt.render()  # type: ignore[no-untyped-call]
    with gr.Row():
        show = gr.Button(gettext_lazy("List"), variant="primary")
        download = gr.DownloadButton(gettext_lazy("Download everything"), interactive=False)
    listed = gr.HTML()
    sure = gr.Checkbox(
        False, label=gettext_lazy("Erase everything saved under this code. This cannot be undone.")
    )
    remove = gr.Button(gettext_lazy("Erase"), variant="stop")
    message = gr.HTML()
    status = gr.HTML(elem_classes="fine")

    def listed_for(request: gr.Request, code: object) -> list[object]:
        return _list(context, client_of(request), code)

    def erased_for(request: gr.Request, code: object, yes: object) -> list[object]:
        return _erase(context, client_of(request), code, yes)

    show.click(listed_for, receipt, [listed, download, message], queue=False, api_visibility="private")
    erased = remove.click(
        erased_for, [receipt, sure], [message, listed, download, sure], queue=False, api_visibility="private"
    )
    for moment in (tab.select, erased.then):
        moment(lambda: _status(context), None, status, **QUIET)


def _status(context: AppContext) -> str:
    try:
        text = context.open_feedback.message
    except FeedbackError as error:
        text = error.message
    status = gettext("Corrections on this server: {state}", state=translate(text))
    return f"<p role='status'>{escape(status)}</p>"


def _problem(text: str) -> str:
    return f"<p class='problem' role='alert'>{escape(translate(text))}</p>" if text else ""


def _count(context: AppContext, client: str, code: object) -> Callable[[], None]:
    """Count a code that is tried; return what takes that back once something turns out to be kept under it.

    A code under which something is kept here is not counted, and nobody's tries can lock it out: with its 128
    bits it was not guessed.

    Raises:
        FeedbackError: if the code is mistyped, or too many were tried.
    """
    feedback, network = context.open_feedback, network_of(client)
    if feedback.store.has_contributor(feedback.keys.contributor(str(code or ""))):
        return lambda: None
    taken = LOOKUPS.acquire(network)
    return lambda: LOOKUPS.release(network, taken)


def _list(context: AppContext, client: str, code: object) -> list[object]:
    """Return the list, an update for the download, and what is told."""
    nothing = gr.update(interactive=False, value=None)
    try:
        take_back = _count(context, client, code)
        records, missing = context.open_feedback.contributions(str(code or ""))
        if records:
            take_back()
        problem = _problem(missing)
        if not records:
            text = (
                ""
                if problem
                else f"<p role='status'>{escape(gettext('Nothing is saved under this code.'))}</p>"
            )
            return [text, nothing, problem]
        file = _download(context, code)
        file.parent.mkdir(parents=True, exist_ok=True)
        export_own(records, file)
    except FeedbackError as error:
        return [_problem(error.message), nothing, ""]
    return [_table(records), gr.update(interactive=True, value=str(file)), problem]


def _download(context: AppContext, code: object) -> Path:
    """Return the path of a contributor's download, under a name that only the code holder can know."""
    name = context.open_feedback.keys.sign("download", read_code(str(code)))[:HASH_LENGTH]
    return context.results / "own" / f"my-data-{name}.json"


def _forget_downloads(context: AppContext, code: object) -> None:
    """Delete what was handed out for download, here and where Gradio copied it."""
    name = _download(context, code).name
    for copy in walk(context.results.parent):
        if copy.name == name:
            copy.unlink(missing_ok=True)


def _table(records: Sequence[Record]) -> str:
    rows: list[list[str]] = []
    for one in records:
        state = gettext(STATES[one.state])
        state = gettext("{state}, replaced by a newer one", state=state) if one.superseded else state
        if isinstance(one, TraceRecord):
            label, values = one.dimension, gettext("Ratings: {count}", count=len(one.values))
            about = [translate(trace_subject(one)), gettext("Trace, {name}", name=gettext(label)), values]
        else:
            about = [
                translate(subject_of(one)),
                gettext(VERDICT_WORDS[one.verdict]),
                corrections_of(one, gettext),
            ]
        rows.append([*about, _yes(bool(one.crop)), state])
    heads = [
        gettext("Subject"),
        gettext("Verdict"),
        gettext("Correction"),
        gettext("Picture saved"),
        gettext("State"),
    ]
    return table(gettext("Your corrections"), heads, rows)


def _yes(given: bool) -> str:
    return gettext("yes") if given else gettext("no")


def _erase(context: AppContext, client: str, code: object, yes: object) -> list[object]:
    """Return what is told, and updates for the list, the download and the tick."""
    try:
        if yes is not True:
            raise FeedbackError("Select the checkbox to confirm the erasure.")
        take_back = _count(context, client, code)
        report = context.open_feedback.erase(str(code or ""))
        if report.records or report.published in ("gone", "pending"):
            take_back()
        _forget_downloads(context, code)
    except FeedbackError as error:
        return [_problem(error.message), gr.skip(), gr.skip(), gr.skip()]
    return [
        f"<p role='status'>{escape(translate(report.message))}</p>",
        "",
        gr.update(interactive=False, value=None),
        False,
    ]
