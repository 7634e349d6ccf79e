"""From sources to a queue: analyses of uploads and examples, two at a time, then their items."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsemotion_space.feedback.consent import PROCESS
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import JobError
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.ui.annotate.items import Item, in_order, make_clip_faces, make_items
from hsemotion_space.ui.annotate.session import Session
from hsemotion_space.ui.context import EXAMPLES, PICK_ONE, AppContext
from hsemotion_space.ui.i18n import gettext, translate
from hsemotion_space.ui.status import progress_bar
from hsemotion_space.ui.uploads import NamedFile

SHOWN, EXAMPLE = "shown", "examples"
SOURCES: Final = (SHOWN, EXAMPLE)
MOST_FILES: Final = 12
AT_ONCE: Final = 2
"""Analyses of one visitor that wait or run, so that others get their turn."""
FILES: Final = ("astronaut.jpg", "astronaut.mp4", "two_people.mp4")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a visitor wants to annotate, unchecked.

    Attributes:
        sources: some of ``SOURCES``.
        files: what the request names as added here.
        checkpoint: to analyze it with.
        agreed: whether what they add may be analyzed.
        jobs: analyses that the page shows; empty ones are none.
        client: the network that this came from.
    """

    sources: object
    files: object
    checkpoint: object
    agreed: object
    jobs: tuple[str, ...]
    client: str


def start(context: AppContext, session: Session, wish: Wish) -> str:
    """Record the sources of a queue and start the analyses; return why not, or an empty text."""
    for job in session.running:
        context.cancel(job)
    session.client = wish.client
    session.todo, session.running, session.finished, session.problems = [], [], [], []
    sources = [name for name in SOURCES if isinstance(wish.sources, list | tuple) and name in wish.sources]
    files = (
        [file for file in wish.files if isinstance(file, NamedFile)]
        if isinstance(wish.files, list | tuple)
        else []
    )
    if len(files) > MOST_FILES:
        return gettext("Add at most {count} files at once.", count=MOST_FILES)
    if files and wish.agreed is not True:
        return gettext("Select “{tick}” first. Without it, nothing is analyzed.", tick=gettext(PROCESS.title))
    try:
        if not isinstance(wish.checkpoint, str):
            raise SettingsError(PICK_ONE)
        session.checkpoint = find_checkpoint(context.settings.checkpoint_roots, wish.checkpoint).id
        added = [context.uploads.claim(file) for file in files]
    except (SettingsError, CheckpointError) as error:
        return translate(error)
    statuses = list(filter(None, map(context.find, wish.jobs)))
    session.shown |= {one.media.sha256 for status in statuses for one in status.analyses}
    session.finished = [status.id for status in statuses] if SHOWN in sources else []
    session.todo = [
        *added,
        *((EXAMPLES / name for name in FILES) if EXAMPLE in sources and EXAMPLES.is_dir() else ()),
    ]
    if not session.todo and not session.finished:
        return gettext(
            "There is nothing to annotate yet. Add files here, analyze a picture or a clip, or"
            " select the examples."
        )
    follow(context, session)
    return ""


def follow(context: AppContext, session: Session) -> bool:
    """Look after the analyses, start those that are next, and return whether all have ended."""
    for job in list(session.running):
        status = context.find(job)
        if status is not None and not status.finished:
            continue
        session.running.remove(job)
        if status is not None and status.analyses:
            session.finished.append(job)
        elif status is not None and status.message:
            session.problems.append(translate(status.message))
    while session.todo and len(session.running) < AT_ONCE:
        try:
            _submit(context, session, session.todo[0])
        except JobError as error:
            if not session.running:  # nothing of this visitor will end and make room
                session.problems.append(translate(error))
                session.todo.clear()
            break
        session.todo.pop(0)
    return not session.running and not session.todo


def _submit(context: AppContext, session: Session, file: Path) -> None:
    """Start the analysis of a file, unless it was analyzed before and is still there."""
    key = (str(file), session.checkpoint)
    job = session.made.get(key, "")
    if not job or context.find(job) is None:
        path = _copied(context, file) if file.parent == EXAMPLES else file
        job = session.made[key] = context.runner.submit(
            path, PipelineConfig(session.checkpoint), client=session.client
        )
    session.running.append(job)


def _copied(context: AppContext, file: Path) -> Path:
    """Return a copy of an example, which is swept like everything that visitors add."""
    path = context.results / uuid.uuid4().hex / file.name
    path.parent.mkdir(parents=True)
    shutil.copyfile(file, path)
    return path


def collect(context: AppContext, session: Session) -> str:
    """Queue the items of finished analyses; return a message, for example if there is nothing to annotate."""
    items: list[Item] = []
    hidden = 0
    for job in dict.fromkeys(session.finished):
        status = context.find(job)
        if status is not None and status.analyses and not status.analyses[0].imported:
            has_media = context.runner.media_of(job) is not None
            if session.dimension:
                items += make_clip_faces(job, status.analyses[0], has_media)
                continue
            found, left_out = make_items(job, status.analyses, has_media)
            items, hidden = [*items, *found], hidden + left_out
    session.begin(in_order(items))
    sentences = list(dict.fromkeys(session.problems))
    if hidden:
        sentences.append(
            gettext(
                (
                    "Faces left out because their picture cannot be distinguished from that of another face:"
                    " {count}."
                ),
                count=hidden,
            )
        )
    if not session.items and session.dimension:
        sentences.append(gettext("No clip has a face that is visible for at least 2 seconds."))
    elif not session.items:
        sentences.append(gettext("No face was found that can be annotated."))
    return " ".join(sentences)


def progress(context: AppContext, session: Session) -> str:
    """Return how far the analyses are as HTML."""
    left = len(session.running) + len(session.todo)
    done = total = 0
    for status in filter(None, (context.find(job) for job in session.running[:1])):
        done, total = (status.done, status.total) if status.phase == "analysis" else (0, 0)
    return progress_bar(done, total, gettext("Preparing the faces; files left: {count}", count=left))
