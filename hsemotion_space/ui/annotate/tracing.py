"""Tracing a face of a clip: passes are checked and kept, and compared once there are two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, TypedDict, cast

from hsemotion_space.feedback.consent import LABELS
from hsemotion_space.feedback.intake import Context
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.trace import ATTEMPTS, Attempt, TraceSubmission, read_trace
from hsemotion_space.jobs import JobError
from hsemotion_space.traces import Trace, agreement, differences, on_scale
from hsemotion_space.ui.annotate.answering import Terms, analysis_of, code_of, gone
from hsemotion_space.ui.annotate.items import Item, face_of
from hsemotion_space.ui.annotate.payload import ClipEntry, clip_entry
from hsemotion_space.ui.annotate.session import Entry, Session
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.feedback import REFUSALS, preprocessing_of
from hsemotion_space.ui.i18n import gettext, language, script_texts, translate

LOWEST: Final = {"Valence": "unpleasant", "Arousal": "calm"}
HIGHEST: Final = {"Valence": "pleasant", "Arousal": "excited"}


def act_on_trace(context: AppContext, session: Session, sent: Mapping[str, object], terms: Terms) -> str:
    """Take a pass or go on to the next face; return what went wrong, in the visitor's language, or nothing.

    What comes twice, or from a page that shows something else by now, changes nothing.

    Args:
        context: of the page.
        session: of the annotator.
        sent: by the browser, unchecked: ``turn``, ``action`` (``trace`` or ``next``), and of a pass
            ``attempt``, ``device``, ``times_s`` and ``values``.
        terms: under which it is kept.
    """
    known = sent.get("action") in ("trace", "next") and session.dimension and session.item is not None
    if isinstance(sent.get("turn"), bool) or sent.get("turn") != session.turn or not known:
        return ""
    session.turn, session.notice = session.turn + 1, ""
    try:
        if sent["action"] == "next":
            session.settle(Entry(None))
        else:
            _take_pass(context, session, session.items[session.at], sent, terms)
    except JobError:
        return gone(session)
    except REFUSALS as error:
        return gettext("Not saved. {reason}", reason=translate(error))
    return ""


def _take_pass(
    context: AppContext, session: Session, item: Item, sent: Mapping[str, object], terms: Terms
) -> None:
    """Check a pass and keep it, unless this is practice."""
    analysis = analysis_of(context, item)
    submission = TraceSubmission(
        item.face, session.dimension, sent.get("attempt"), session.bounded, sent.get("device"),
        sent.get("times_s"), sent.get("values"), list(terms.scopes),
        terms.statement is True or (item.bundled and terms.adult is True), code_of(session, terms),
    )  # fmt: skip
    trace = read_trace(submission, face_of(analysis, item.face).track)
    attempt = str(submission.attempt)
    earlier = ATTEMPTS[: ATTEMPTS.index(cast("Attempt", attempt))]
    if not {*earlier} <= session.passes.keys():
        raise FeedbackError("Trace the first pass before the second.", code="trace_order")
    session.notice = gettext("This is practice; nothing is saved.")
    if context.feedback is not None and LABELS.name in terms.scopes:
        blind = session.is_blind(item) and item.media not in terms.seen
        known = Context(
            item.job, preprocessing_of(context, analysis), blind, item.bundled, language=language()
        )
        receipt = context.open_feedback.intake.trace(analysis, submission, terms.client, known)
        session.code, session.notice = receipt.code, translate(receipt.message)
    # a new first pass takes the later ones out of the comparison
    session.passes = {**{name: session.passes[name] for name in earlier}, attempt: trace}


class TraceValue(TypedDict):
    """The value of the component.

    ``turn``, ``begins``, ``problem``, ``notice`` and ``texts`` are those of the queue. ``dimension``, ``low``
    and ``high`` are read; ``attempt`` is what comes next. ``passes`` has times and values of the first and of
    the last pass on the scale -1 to 1, ``raw`` those of the last as given, ``agreement`` how far they agree,
    and ``apart`` starts and ends of where they do not: nothing of that before the second pass, which must not
    be guided by the first.
    """

    turn: int
    begins: bool
    place: str
    clip: ClipEntry | None
    dimension: str
    low: str
    high: str
    bounded: bool
    attempt: str
    passes: list[list[list[float]]]
    raw: list[list[float]]
    agreement: list[str]
    apart: list[list[float]]
    problem: str
    notice: str
    texts: dict[str, str]


def trace_value(context: AppContext, session: Session, problem: str = "", begins: bool = False) -> str:
    """Return the component's current state as JSON; faces of a deleted analysis leave the queue."""
    clip = None
    while session.item is not None and clip is None:
        try:
            clip = _clip_of(context, session.item)
        except JobError:
            session.drop(session.item.job)
    label = session.dimension
    done = [session.passes[name] for name in ATTEMPTS if name in session.passes]
    compared = (done[0], done[-1]) if len(done) > 1 else ()
    value: TraceValue = {
        "turn": session.turn, "begins": begins, "clip": clip,
        "place": gettext("Face {number} of {total}", number=session.at + 1, total=len(session.items))
        if clip else gettext("That was the last face."),
        "dimension": gettext(label), "low": gettext(LOWEST[label]), "high": gettext(HIGHEST[label]),
        "bounded": session.bounded, "attempt": ATTEMPTS[min(len(done), len(ATTEMPTS) - 1)],
        "passes": [_samples(on_scale(one)) for one in compared],
        "raw": _samples(done[-1]) if compared else [],
        "agreement": _agreement(*compared) if compared else [],
        "apart": [list(span) for span in differences(*compared)] if compared else [],
        "problem": problem, "notice": session.notice, "texts": dict(script_texts("trace")),
    }  # fmt: skip
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _clip_of(context: AppContext, item: Item) -> ClipEntry | None:
    """Return a face's clip; a file that the browser cannot get any more counts as a deleted analysis.

    Raises:
        JobError: if its analysis is not kept any more.
    """
    entry = clip_entry(context, analysis_of(context, item), item)
    if entry is None:
        raise JobError("There is no finished analysis. Press Analyze.", code="no_analysis")
    return entry


def _samples(trace: Trace) -> list[list[float]]:
    return [trace.times_s.round(3).tolist(), trace.values.round(4).tolist()]


def _agreement(first: Trace, last: Trace) -> list[str]:
    """Return how far two passes of one person agree, in sentences."""
    found = agreement(first, last)
    if found is None:
        return [gettext("The passes share too few seconds to compare them.")]
    sentences = []
    if found.concordance is not None:
        sentences.append(gettext("Agreement of your passes (CCC): {value}", value=f"{found.concordance:.2f}"))
    sentences.append(
        gettext("Agreement on higher and lower (Kendall's tau): {value}", value=f"{found.ordinal:.2f}")
    )
    if abs(found.lag_s) >= 0.3:
        sentences.append(
            gettext(
                "Your passes agree best when the later one is shifted by {lag} s.", lag=f"{-found.lag_s:+.1f}"
            )
        )
    return sentences
