"""What an annotator does with the item that is shown: answer, skip, undo.

Everything from the browser is checked here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hsemotion_space.analysis.sampling import narrowed
from hsemotion_space.edits import Edits
from hsemotion_space.feedback.annotation import (
    CLASS_TASK,
    Answer,
    MajorityAnswer,
    agrees,
    known_answer,
    majority_answer,
    read_answer,
    to_correction,
)
from hsemotion_space.feedback.consent import CROP, LABELS
from hsemotion_space.feedback.form import Submission
from hsemotion_space.feedback.intake import Context, Receipt, read_predicted
from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, Values
from hsemotion_space.jobs import JobError
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, FaceResult
from hsemotion_space.ui.annotate.items import SAYS, Bundled, Item, bundled_answer, face_of
from hsemotion_space.ui.annotate.session import Entry, Session
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.feedback import REFUSALS, preprocessing_of
from hsemotion_space.ui.i18n import gettext, language, translate
from hsemotion_space.ui.tables import prediction_text

ACTIONS: Final = ("answer", "skip", "undo")


@dataclass(frozen=True, slots=True)
class AnswerEvent:
    """What comes from the browser, unchecked.

    Attributes:
        turn: of the page that it comes from.
        action: one of ``ACTIONS``.
        choice, label, point: as ``read_answer`` takes them.
    """

    turn: object
    action: object
    choice: object = None
    label: object = None
    point: object = None


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms answers are given, unchecked.

    Attributes:
        scopes: names of the steps that are selected.
        statement: whether that on age and permission is selected.
        adult: whether that on age is.
        code: what stands in the field for the receipt code.
        seen: digests of media whose results were shown elsewhere on the page.
        client: address.
    """

    scopes: Sequence[str]
    statement: object
    adult: object
    code: object
    seen: Collection[str]
    client: str


def act(context: AppContext, session: Session, given: AnswerEvent, terms: Terms) -> str:
    """Carry out what an annotator did; return what went wrong, in their language, or nothing.

    What comes twice, or from a page that shows something else by now, changes nothing.
    """
    if isinstance(given.turn, bool) or given.turn != session.turn or given.action not in ACTIONS:
        return ""
    session.turn += 1
    session.notice = ""
    try:
        if given.action == "undo":
            _undo(context, session)
        elif session.item is not None:
            _deal_with(context, session, session.item, given, terms)
    except JobError:
        return gone(session)
    except REFUSALS as error:
        return gettext("Not saved. {reason}", reason=translate(error))
    return ""


def gone(session: Session) -> str:
    """Remove the remaining items of a deleted analysis from the queue, and return a message on it."""
    count = session.drop(session.item.job) if session.item else 0
    return gettext(
        (
            "Results are kept for a short time only. Faces removed from the queue because their"
            " result has expired: {count}."
        ),
        count=count,
    )


def analysis_of(context: AppContext, item: Item) -> Analysis:
    """Return the analysis that an item is from, with the prediction for the item's stretch alone.

    Raises:
        JobError: if it is not kept any more.
    """
    status = replace(context.runner.status(item.job), edits=Edits())  # items are made without changes by hand
    return narrowed(context.analyses(status, None)[0], item.face, item.span_s)


def _deal_with(context: AppContext, session: Session, item: Item, given: AnswerEvent, terms: Terms) -> None:
    if given.action == "skip":
        session.settle(Entry(None))
        return
    answer = read_answer(given.choice, given.label, given.point if session.pad else ())
    analysis = analysis_of(context, item)
    before = _first_answer(context, analysis, item, code_of(session, terms))
    receipt = None
    if context.feedback is not None and LABELS.name in terms.scopes:
        blind = session.is_blind(item) and item.media not in terms.seen and not before.by_me
        receipt = _keep(context, session, analysis, answer, terms, blind=blind)
        session.code = receipt.code
    entry = _entry(item, analysis, answer, receipt, before)
    session.reveal(item)
    session.settle(entry)


def _keep(
    context: AppContext, session: Session, analysis: Analysis, answer: Answer, terms: Terms, *, blind: bool
) -> Receipt:
    item = session.items[session.at]
    verdict, corrected = to_correction(answer, read_predicted(analysis, item.face)[0])
    may_crop = item.picture and not item.bundled
    submission = Submission(
        face=item.face,
        verdict=verdict,
        corrected=corrected,
        span_s=list(item.span_s),
        comment="",
        scopes=[name for name in terms.scopes if name != CROP.name or may_crop],
        adult_and_permitted=terms.statement is True or (item.bundled and terms.adult is True),
        code=code_of(session, terms),
    )
    instead_of = session.replaced.get(item.key, "")
    known_here = Context(
        item.job, preprocessing_of(context, analysis), blind, item.bundled, instead_of, language()
    )
    return context.open_feedback.intake.answer(analysis, submission, terms.client, known_here)


def code_of(session: Session, terms: Terms) -> object:
    """Return the receipt code to use: what stands in the field, else that of the answers before."""
    return terms.code if isinstance(terms.code, str) and terms.code.strip() else session.code


def _undo(context: AppContext, session: Session) -> None:
    """Go back to the previous item and withdraw its answer, or say that this is no longer possible."""
    entry = session.back()
    if entry is None or not entry.record or context.feedback is None:
        return
    taken_back = context.feedback.store.withdraw(entry.record, context.feedback.keys.contributor(entry.code))
    if not taken_back:
        session.replaced[session.items[session.at].key] = entry.record
        session.notice = gettext("Your last answer is already being published. A new answer replaces it.")


@dataclass(frozen=True, slots=True)
class _Before:
    """What is stored about an item before its answer, its record name, the annotator; empty if unknown."""

    records: Sequence[FeedbackRecord] = ()
    name: str = ""
    me: str = ""

    @property
    def by_me(self) -> bool:
        """Whether the annotator answered on an earlier visit, and was told the prediction then."""
        return any(one.contributor == self.me for one in self.records)


def _first_answer(context: AppContext, analysis: Analysis, item: Item, code: object) -> _Before:
    """Look up what is kept about an item; ``code`` is the receipt code of the annotator, unchecked."""
    if context.feedback is None:
        return _Before()
    name = context.feedback.intake.item(analysis, item.face, item.span_s)
    try:
        me = context.feedback.keys.contributor(str(code))
    except FeedbackError:  # none yet, or mistyped while practicing
        me = ""
    try:
        return _Before(context.feedback.store.records_of_items([name]), name, me)
    except FeedbackError:  # only the comparison is missing; if nothing can be saved either, that is told
        return _Before((), name, me)


def _entry(item: Item, analysis: Analysis, answer: Answer, receipt: Receipt | None, before: _Before) -> Entry:
    """Return what is noted and told about an answer, the prediction and known answers among it."""
    face = face_of(analysis, item.face)
    bundled = bundled_answer(analysis, item.face)
    gold = known_answer(before.records, before.name, bundled.values if bundled else None, before.me)
    others = majority_answer(before.records, before.name, CLASS_TASK.name, before.me)
    with_known = agrees(answer, gold)
    lines = [
        (gettext("You"), answered(answer)),
        *network_lines(face, item),
        *_known_lines(gold, with_known, bundled if bundled and gold == bundled.values else None),
        *_panel_lines(others),
        (gettext("Saved"), translate(receipt.message) if receipt else gettext("Nothing; this is practice.")),
    ]
    with_others = agrees(answer, {CLASS_TASK.name: others.values}) if others else None
    record, signed = (receipt.record_id, receipt.code) if receipt else ("", "")
    return Entry(answer, record, signed, with_known, with_others, tuple(lines))


def answered(answer: Answer) -> str:
    """Return an answer in words."""
    if answer.choice == "cannot_tell":
        return gettext("I cannot tell")
    if answer.choice == "not_a_face":
        return gettext("Not a face")
    label = answer.label
    return ", ".join([gettext(label), *(f"{number:+.2f}" for number in answer.point)])


def network_lines(face: FaceResult, item: Item) -> list[tuple[str, str]]:
    """Return the prediction for an item and the reason to ask about it; nothing for blind annotation."""
    texts = [
        gettext(
            "{value} ({source})",
            value=prediction_text(one),
            source=gettext(PROVENANCE_LABELS[one.provenance]),
        )
        for one in face.predictions
        if one.task.name == CLASS_TASK.name or one.task.kind == "continuous"
    ]
    lines = [(gettext("The network"), "; ".join(texts) or gettext("no prediction"))]
    if item.reason == "disagreement":
        lines.append(
            (
                gettext("Reason for asking"),
                gettext("the backbones disagree: {score}", score=f"{item.score:.2f}"),
            )
        )
    elif item.reason == "uncertainty":
        lines.append(
            (
                gettext("Reason for asking"),
                gettext("the network is uncertain: {score}", score=f"{item.score:.2f}"),
            )
        )
    return lines


def _answer_text(values: Values) -> str:
    label = next(iter(values), "")
    return gettext(label) if label else gettext("Not a face")


def _known_lines(
    gold: Mapping[str, Values], right: bool | None, bundled: Bundled | None
) -> list[tuple[str, str]]:
    if CLASS_TASK.name not in gold:
        return []
    text = _answer_text(gold[CLASS_TASK.name])
    if right is not None:
        text = (
            gettext("{answer}: you agree", answer=text)
            if right
            else gettext("{answer}: you disagree", answer=text)
        )
    lines = [(gettext("Known answer"), text)]
    return [*lines, (gettext("Source"), gettext(SAYS[bundled.says]))] if bundled else lines


def _panel_lines(others: MajorityAnswer | None) -> list[tuple[str, str]]:
    if others is None:
        return [(gettext("Others"), gettext("no answers yet"))]
    text = gettext(
        "{answer}: {support} of {people}",
        answer=_answer_text(others.values),
        support=others.support,
        people=others.people,
    )
    return [(gettext("Others"), text)]
