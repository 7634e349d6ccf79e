"""What the browser gets of the item that is asked about, as plain JSON.

Before a blind answer nothing of a prediction is in it.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Final, TypedDict

from PIL import Image

from hsemotion_space.analysis.sampling import within
from hsemotion_space.feedback.annotation import CLASS_TASK, MIN_ITEMS, PLANE_TASK, AgreementCount
from hsemotion_space.feedback.crops import preview
from hsemotion_space.jobs import JobError
from hsemotion_space.types import Analysis
from hsemotion_space.ui.annotate.answering import analysis_of, answered, gone, network_lines
from hsemotion_space.ui.annotate.items import Item, face_of
from hsemotion_space.ui.annotate.session import Session
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.i18n import gettext, script_texts
from hsemotion_space.ui.viewer import media_url

BOX_DIGITS: Final = 4
TIME_DIGITS: Final = 3


class ClipEntry(TypedDict):
    """The part of a clip to be judged.

    ``start`` and ``end`` in seconds, ``width`` and ``height`` in px, and ``boxes`` of that face alone: time,
    then left, top, right and bottom in shares of the picture.
    """

    url: str
    start: float
    end: float
    width: int
    height: int
    boxes: list[list[float]]


class Choice(TypedDict):
    """One label: ``name`` as the server wants it, and what is read: ``text`` and, as a help, ``hint``."""

    name: str
    text: str
    hint: str


class ItemEntry(TypedDict):
    """What is asked about: ``picture`` is a ``data:`` URL or empty, ``note`` says what would be kept of it.

    ``shown`` is what the network says, term and text; nothing if that is hidden until the answer.
    """

    picture: str
    clip: ClipEntry | None
    note: str
    shown: list[list[str]]


class QueueValue(TypedDict):
    """The value of the component.

    ``turn`` must come back with every event, and ``begins`` tells that the queue is new. ``place`` says where
    the annotator is, ``share`` (0..1) how much is done. ``item`` is None at the end. ``last`` is what is told
    about the answer before, term and text. ``texts`` has the texts of the script.
    """

    turn: int
    begins: bool
    place: str
    share: float
    item: ItemEntry | None
    choices: list[Choice]
    pad: bool
    bounds: list[float]
    can_undo: bool
    last: list[list[str]]
    totals: list[str]
    problem: str
    notice: str
    announce: str
    texts: dict[str, str]


def queue_value(
    context: AppContext, session: Session, problem: str = "", notice: str = "", begins: bool = False
) -> str:
    """Return the component's current state as JSON; items of a deleted analysis leave the queue.

    Args:
        context: of the page.
        session: of the annotator; what is shown of a prediction is noted there.
        problem: what went wrong.
        notice: what must be said besides.
        begins: whether the queue is new.
    """
    entry = None
    while session.item is not None and entry is None:
        try:
            entry = _item(context, session, session.item)
        except JobError:
            notice = f"{notice} {gone(session)}".strip()
    last, total = session.last, len(session.items)
    place = (
        gettext("Face {number} of {total}", number=session.at + 1, total=total) if entry else _end(session)
    )
    value: QueueValue = {
        "turn": session.turn, "begins": begins, "place": place, "share": session.at / total if total else 0.0,
        "item": entry,
        "choices": [
            {"name": one.name, "text": gettext(one.name), "hint": gettext(one.description)}
            for one in CLASS_TASK.labels
        ],
        "pad": session.pad, "bounds": [PLANE_TASK.low, PLANE_TASK.high], "can_undo": bool(session.path),
        "last": [list(line) for line in last.lines] if last else [],
        "totals": _totals(session),
        "problem": problem,
        "notice": f"{session.notice} {notice}".strip(),
        "announce": f"{_announcement(session)} {place}".strip(),
        "texts": dict(script_texts("annotate")),
    }  # fmt: skip
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _end(session: Session) -> str:
    return gettext(
        "Finished: {answered} answered, {skipped} skipped.",
        answered=session.counts["answered"],
        skipped=session.counts["skipped"],
    )


def _announcement(session: Session) -> str:
    if session.last is None:
        return ""
    answer = session.last.answer
    return gettext("Your answer: {answer}.", answer=answered(answer)) if answer else gettext("Skipped.")


def _item(context: AppContext, session: Session, item: Item) -> ItemEntry:
    """Return an item; without blind mode, what the network says is shown with it, which is noted.

    Raises:
        JobError: if its analysis is not kept any more.
    """
    analysis = analysis_of(context, item)
    if not session.hides:
        session.reveal(item)
    lines = [] if session.hides else network_lines(face_of(analysis, item.face), item)
    return {
        "picture": _picture(analysis, item) if item.picture else "",
        "clip": clip_entry(context, analysis, item) if item.kind == "clip" else None,
        "note": _note(item),
        "shown": [list(line) for line in lines],
    }


def _note(item: Item) -> str:
    if item.bundled:
        return gettext("This is an example of this page; its picture is not saved.")
    if not item.picture:
        return gettext("No picture would be saved: the sharpest picture of this face is from another moment.")
    return gettext("This is the picture that would be saved if you select that.")


def _picture(analysis: Analysis, item: Item) -> str:
    out = io.BytesIO()
    Image.fromarray(preview(analysis, item.face)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def clip_entry(context: AppContext, analysis: Analysis, item: Item) -> ClipEntry | None:
    """Return the part of a clip that is asked about; None if the browser cannot get the file."""
    media = context.runner.media_of(item.job)
    if media is None:
        return None
    track, size = face_of(analysis, item.face).track, analysis.media
    rows = within(track, item.span_s)
    times = track.times_s[rows]
    shares = track.boxes_xyxy[rows] / [size.width, size.height, size.width, size.height]
    boxes = [
        [round(float(time_s), TIME_DIGITS), *(round(float(edge), BOX_DIGITS) for edge in box)]
        for time_s, box in zip(times, shares, strict=True)
    ]
    return {
        "url": media_url(media), "start": round(float(times[0]), TIME_DIGITS),
        "end": round(float(times[-1]), TIME_DIGITS),
        "width": size.width, "height": size.height, "boxes": boxes,
    }  # fmt: skip


def _totals(session: Session) -> list[str]:
    """Return where the annotator stands: how many items, and how often they were of one mind with others."""
    counts, (known, others) = session.counts, session.tallies
    sentences = [gettext("Answered: {answered}, skipped: {skipped}, left: {left}", **counts)]
    if known.items:
        sentences.append(gettext("You agree with known answers: {tally}", tally=_tally(known)))
    if others.items:
        sentences.append(
            gettext("You agree with the majority of other people: {tally}", tally=_tally(others))
        )
    if known.items or others.items:
        sentences.append(
            gettext("Too few items to judge by; from {few} items on, a percentage is shown.", few=MIN_ITEMS)
        )
    return sentences


def _tally(tally: AgreementCount) -> str:
    text = gettext("{same} of {items}", same=tally.same, items=tally.items)
    return text if tally.share is None else f"{text} ({tally.share:.0%})".replace("%", "\u00a0%")
