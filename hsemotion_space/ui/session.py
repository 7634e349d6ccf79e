"""Save a result as a session file, and open one again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.inference.session import (
    SUFFIX,
    Session,
    is_session,
    read_session,
    restore,
    write_session,
)
from hsemotion_space.jobs import JobStatus
from hsemotion_space.media.formats import file_sha256
from hsemotion_space.settings import PipelineConfig
from hsemotion_space.ui.context import AppContext, ResultRef


def save_session(context: AppContext, shown: ResultRef) -> Path:
    """Write the result on the page into a session file and return its path.

    Raises:
        JobError: if the result is not kept any more.
        SessionError: if it is too large.
    """
    status = context.runner.status(shown.job)
    smoothing = status.config.smoothing if shown.smoothing is None else shown.smoothing
    config = PipelineConfig(status.config.checkpoint, status.config.sample_fps, smoothing)
    folder = context.results / shown.job
    folder.mkdir(parents=True, exist_ok=True)
    name = f"hsemotion-{status.analyses[0].media.sha256[:8]}"
    return write_session(Session(config, status.edits, status.analyses), folder / f"{name}{SUFFIX}")


def open_files(context: AppContext, files: Sequence[Path], client: str) -> str:
    """Open a session file that was added, alone or with its media, and return the id of the job; else ``""``.

    Args:
        context: of the page.
        files: that were added together.
        client: the network they came from.

    Raises:
        SessionError, CheckpointError, JobError: if the session cannot be opened.
    """
    file = next(filter(is_session, files), None)
    if file is None:
        return ""
    read, roots = read_session(file), context.settings.checkpoint_roots
    session = restore(read, [find_checkpoint(roots, one.checkpoint.id) for one in read.analyses])
    job = context.runner.add_finished(session.analyses, session.config, session.edits, client)
    for media in files:
        attach_media(context, context.runner.status(job), media)
    return job


def attach_media(context: AppContext, status: JobStatus | None, file: Path) -> bool:
    """Return whether a file is the media that an opened session lacks; it is then shown with it."""
    if status is None or not status.analyses or not status.analyses[0].imported:
        return False
    if context.runner.media_of(status.id) is not None or file_sha256(file) != status.analyses[0].media.sha256:
        return False
    context.runner.attach(status.id, file)
    return True
