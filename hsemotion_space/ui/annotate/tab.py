"""Layout and events of the tab: what is queued, under which terms answers are kept, and the queue itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gradio as gr

from hsemotion_space.feedback.consent import LADDER, SCOPES, STATEMENT, STATEMENT_BUNDLED
from hsemotion_space.feedback.trace import DIMENSIONS
from hsemotion_space.ui.analyze import ASK_EVERY_S, Shared
from hsemotion_space.ui.annotate.answering import AnswerEvent, Terms, act
from hsemotion_space.ui.annotate.payload import queue_value
from hsemotion_space.ui.annotate.running import (
    EXAMPLE,
    MOST_FILES,
    SHOWN,
    SOURCES,
    Wish,
    collect,
    follow,
    progress,
    start,
)
from hsemotion_space.ui.annotate.session import Session, Sessions
from hsemotion_space.ui.annotate.tracing import act_on_trace, trace_value
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import QUIET, AppContext, ResultRef
from hsemotion_space.ui.i18n import gettext, gettext_lazy
from hsemotion_space.ui.inputs import RawFiles, read_event
from hsemotion_space.ui.status import notice_list
from hsemotion_space.ui.viewer.component import FOLDER as VIEWER

FOLDER: Final = Path(__file__).parent
LABELS_MODE: Final = "labels"
OVER_TIME: Final = {"Valence": "Valence over time", "Arousal": "Arousal over time"}
TRACE: Final = (
    "Over time: you rate faces in clips while they play, in one pass or two. Predictions stay hidden."
)
STEPS: Final = tuple(step for step in LADDER if step.name in SCOPES)
MOST_SEEN: Final = 1000  # media of one page whose results were shown
ABOUT: Final = (
    "Label the expressions of faces, one key per answer. Faces on which the backbones"
    " disagree most, or of which the network is least certain, come first. You see only your"
    " own files and the examples of this page; files of other visitors are never shown."
)
FILES: Final = "Add up to {count} pictures and clips. Their predictions stay hidden until you have answered."
SEEN: Final = "You have seen the results of your analyzed files, so answers about them do not count as blind."
TERMS: Final = (
    "Nothing is saved unless you select it here; without the first checkbox you practice."
    " Your selection applies to every answer until you clear it. With the first saved answer"
    " you get a receipt code, with which you can list and erase all your answers under *My"
    " data*."
)
PRACTICE: Final = (
    "This server saves no answers, so this is practice: you see the predictions and whether"
    " you agree with known answers."
)
GONE: Final = "This queue has expired. Press Start again; your saved answers are not lost."


@dataclass(frozen=True, slots=True)
class Board:
    """The components of the tab.

    Attributes:
        key: state with the key of the session.
        seen: state with the digests of media whose results were shown elsewhere on the page.
        sources, files, mode, bounded, hides, pad, button: what is queued, and how.
        scopes, statement, adult: terms; none where nothing is kept.
        status: progress, or why there is no queue.
        timer: asks for analyses that run.
        code: tells the receipt code.
        queue, trace: the components that ask for labels and for traces.
    """

    key: gr.State
    seen: gr.State
    sources: gr.CheckboxGroup
    files: RawFiles
    mode: gr.Radio
    bounded: gr.Checkbox
    hides: gr.Checkbox
    pad: gr.Checkbox
    button: gr.Button
    scopes: tuple[gr.Checkbox, ...]
    statement: gr.Checkbox
    adult: gr.Checkbox
    status: gr.HTML
    timer: gr.Timer
    code: gr.HTML
    queue: gr.HTML
    trace: gr.HTML

    @property
    def started(self) -> list[gr.blocks.Block]:
        """Components in the order of :func:`_shown`."""
        return [self.key, self.status, self.timer, self.queue, self.trace]


def build_annotate(context: AppContext, shared: Shared, shown: gr.State) -> Board:
    """Lay out the tab and connect its events.

    Args:
        context: of the page.
        shared: components of the page.
        shown: state with the :class:`ResultRef` of what the tab Analyze shows.
    """
    board, sessions = _lay_out(context), Sessions()
    _connect_start(context, sessions, board, shared, shown)
    _connect_answers(context, sessions, board, shared.receipt)
    shown.change(
        lambda given, seen: _remember(context, given, seen), [shown, board.seen], board.seen, **QUIET
    )
    board.mode.change(_options, board.mode, [board.bounded, board.hides, board.pad], **QUIET)
    board.sources.change(_statements, board.sources, [board.statement, board.adult], **QUIET)
    return board


def _lay_out(context: AppContext) -> Board:
    gr.Markdown(gettext_lazy(ABOUT))
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            choices = [(gettext_lazy("My analyzed files"), SHOWN), (gettext_lazy("Examples"), EXAMPLE)]
            sources = gr.CheckboxGroup(
                choices, value=list(SOURCES), label=gettext_lazy("Faces to annotate"), info=gettext_lazy(SEEN)
            )
            files = RawFiles(
                label=gettext_lazy("My files"),
                file_count="multiple",
                file_types=["image", "video"],
                height=140,
            )
            gr.Markdown(gettext_lazy(FILES, count=MOST_FILES), elem_classes="fine")
            mode = gr.Radio(
                [
                    (gettext_lazy("Expression"), LABELS_MODE),
                    *((gettext_lazy(OVER_TIME[name]), name) for name in DIMENSIONS),
                ],
                value=LABELS_MODE,
                label=gettext_lazy("Rating"),
                info=gettext_lazy(TRACE),
            )
            bounded = gr.Checkbox(
                False, label=gettext_lazy("Unbounded: only relative changes count (RankTrace)"), visible=False
            )
            hides = gr.Checkbox(True, label=gettext_lazy("Hide predictions until I have answered"))
            pad = gr.Checkbox(False, label=gettext_lazy("Also ask for valence and arousal"))
            button = gr.Button(gettext_lazy("Start"), variant="primary")
        with gr.Column(scale=7, min_width=300):
            keeps = context.feedback is not None
            gr.Markdown(gettext_lazy(TERMS) if keeps else gettext_lazy(PRACTICE))
            scopes = tuple(
                gr.Checkbox(
                    False, label=gettext_lazy(step.title), info=gettext_lazy(step.text), visible=keeps
                )
                for step in STEPS
            )
            statement = gr.Checkbox(False, label=gettext_lazy(STATEMENT), visible=keeps)
            adult = gr.Checkbox(False, label=gettext_lazy(STATEMENT_BUNDLED), visible=False)
    status, code = gr.HTML(visible=False), gr.HTML(visible=False)
    queue, trace = (_component(name) for name in ("annotate", "trace"))
    timer = gr.Timer(ASK_EVERY_S, active=False)
    return Board(
        gr.State(""), gr.State(()), sources, files, mode, bounded, hides, pad, button, scopes, statement,
        adult, status, timer, code, queue, trace
    )  # fmt: skip


def _component(name: str) -> gr.HTML:
    """Return the component of ``name``.html, .css and .js, hidden until there is a queue."""
    # one scope, in this order
    scripts = (VIEWER / "i18n.js", FOLDER / "clip.js", FOLDER / "exchange.js", FOLDER / f"{name}.js")
    return gr.HTML(
        value=None, html_template=_text(FOLDER / f"{name}.html"), css_template=_text(FOLDER / f"{name}.css"),
        js_on_load="\n".join(map(_text, scripts)), apply_default_css=False, visible=False,
        elem_classes=f"{name}-queue",
    )  # fmt: skip


def _connect_start(
    context: AppContext, sessions: Sessions, board: Board, shared: Shared, shown: gr.State
) -> None:
    def begin(request: gr.Request, key: object, *wish: Any) -> list[object]:
        *options, chosen, files, checkpoint, agreed, given = wish
        asked = Wish(chosen, files, checkpoint, agreed, (given.job,), client_of(request))
        return _begin(context, sessions, key, options, asked)

    def change(key: object, hides: object, pad: object) -> object:
        session = sessions.get(key)
        if session is None:
            return gr.skip()
        with session.lock:
            session.hides, session.pad, session.turn = hides is not False, pad is True, session.turn + 1
            return queue_value(context, session) if session.items and not session.dimension else gr.skip()

    inputs = [
        board.key,
        board.hides,
        board.pad,
        board.mode,
        board.bounded,
        board.sources,
        board.files,
        shared.picker.choice,
        shared.agreed,
        shown,
    ]
    board.button.click(begin, inputs, board.started, **QUIET)
    board.timer.tick(lambda key: _ask(context, sessions, key), board.key, board.started, **QUIET)
    gr.on(
        [board.hides.input, board.pad.input],
        change,
        [board.key, board.hides, board.pad],
        board.queue,
        **QUIET,
    )


def _begin(
    context: AppContext, sessions: Sessions, key: object, options: Sequence[object], wish: Wish
) -> list[object]:
    """Start a queue in the session of the page, or in a new one, and return updates for ``Board.started``.

    ``options`` are whether predictions are hidden and the plane is asked for, what is rated, and whether
    without limits.
    """
    session = sessions.get(key)
    if session is None:
        key, session = sessions.make()
    with session.lock:
        hides, pad, mode, unlimited = options
        session.hides, session.pad, session.bounded = hides is not False, pad is True, unlimited is not True
        session.dimension = mode if isinstance(mode, str) and mode in DIMENSIONS else ""
        session.items, session.at = (), 0  # of whatever was rated before
        problem = start(context, session, wish)
        if problem:
            return [key, _status_update(problem), gr.Timer(active=False), gr.skip(), gr.skip()]
        return _shown(context, key, session)


def _ask(context: AppContext, sessions: Sessions, key: object) -> list[object]:
    session = sessions.get(key)
    if session is None:
        return [gr.skip(), _status_update(gettext(GONE)), gr.Timer(active=False), gr.skip(), gr.skip()]
    with session.lock:
        if not session.running and not session.todo:  # the tick before has shown the queue
            return [gr.skip(), gr.skip(), gr.Timer(active=False), gr.skip(), gr.skip()]
        return _shown(context, key, session)


def _shown(context: AppContext, key: object, session: Session) -> list[object]:
    """Return updates for ``Board.started``: how far the analyses are, or the queue when they have ended."""
    if not follow(context, session):
        return [
            key,
            gr.update(value=progress(context, session), visible=True),
            gr.Timer(active=True),
            gr.update(visible=False),
            gr.update(visible=False),
        ]
    text = collect(context, session)
    session.turn += 1
    queue = trace = gr.update(visible=False)
    if session.items and session.dimension:
        trace = gr.update(value=trace_value(context, session, begins=True), visible=True)
    elif session.items:
        queue = gr.update(value=queue_value(context, session, begins=True), visible=True)
    return [key, _status_update(text), gr.Timer(active=False), queue, trace]


def _status_update(text: str) -> object:
    return gr.update(value=notice_list([text]) if text else "", visible=bool(text))


def _connect_answers(context: AppContext, sessions: Sessions, board: Board, receipt: gr.Textbox) -> None:
    def handle(request: gr.Request, event: gr.EventData, key: object, *terms: Any) -> list[object]:
        return _handle(context, sessions, event, key, _terms(request, terms))

    inputs = [board.key, board.seen, receipt, board.statement, board.adult, *board.scopes]
    board.queue.act(handle, inputs, [board.queue, receipt, board.code, board.status], **QUIET)
    board.trace.act(handle, inputs, [board.trace, receipt, board.code, board.status], **QUIET)


def _terms(request: gr.Request, given: Sequence[Any]) -> Terms:
    seen, code, statement, adult, *ticks = given
    scopes = [step.name for step, tick in zip(STEPS, ticks, strict=True) if tick is True]
    return Terms(scopes, statement, adult, code, frozenset(seen), client_of(request))


def read_answer_event(event: gr.EventData) -> AnswerEvent:
    """Return what an ``act`` event brings, unchecked; whatever is not there is None."""
    given = read_event(event)
    turn, action, choice, label, point = (
        given.get(name) for name in ("turn", "action", "choice", "label", "point")
    )
    return AnswerEvent(turn, action, choice, label, point)


def _handle(
    context: AppContext, sessions: Sessions, event: gr.EventData, key: object, terms: Terms
) -> list[object]:
    """Return updates for the queue, the receipt code, what is told about it, and the status."""
    session = sessions.get(key)
    if session is None:
        return [gr.skip(), gr.skip(), gr.skip(), _status_update(gettext(GONE))]
    with session.lock:
        before = session.turn
        if session.dimension:
            problem = act_on_trace(context, session, read_event(event), terms)
        else:
            problem = act(context, session, read_answer_event(event), terms)
        if session.turn == before:  # twice, or from a page that shows something else
            return [gr.skip()] * 4
        value = (trace_value if session.dimension else queue_value)(context, session, problem)
        code = gr.update(value=_code(session.code), visible=True) if session.code else gr.skip()
        return [value, session.code or gr.skip(), code, gr.skip()]


def _code(code: str) -> str:
    text = gettext("Keep this code. It is the only way to list and erase your answers under My data.")
    return f"<p class='receipt' role='status'>{gettext('Your receipt code:')} <code>{code}</code> {text}</p>"


def _remember(context: AppContext, given: ResultRef, seen: Sequence[str]) -> object:
    """Return the digests of media whose results were shown, with that of a result that is shown now."""
    status = context.find(given.job)
    new = {one.media.sha256 for one in status.analyses} - set(seen) if status is not None else set()
    return (*seen, *new)[-MOST_SEEN:] if new else gr.skip()


def _options(mode: object) -> list[object]:
    """Return updates for the options: a trace has another one than labels."""
    return [gr.update(visible=mode in DIMENSIONS), *[gr.update(visible=mode == LABELS_MODE)] * 2]


def _statements(chosen: object) -> list[object]:
    """Return updates for the statements: the one on age is enough where only examples are asked about."""
    only = chosen == [EXAMPLE]
    return [gr.update(visible=not only), gr.update(visible=only)]


def _text(file: Path) -> str:
    return file.read_text("utf-8")
