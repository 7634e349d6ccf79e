"""What the handlers of the page work with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import gradio as gr

from hsemotion_space.edits import Edits
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.service import Feedback
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.inference.postprocess import reread
from hsemotion_space.jobs import JobError, JobRunner, JobStatus
from hsemotion_space.messages import Message
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis
from hsemotion_space.ui.uploads import Uploads

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PICK_ONE = Message("Select a backbone.", code="no_backbone")
NOT_TAKEN = "This server does not accept corrections."
QUIET: Final[dict[str, Any]] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that answers at once and shows no progress of its own."""
Updates = dict[gr.blocks.Block, Any]
"""New values or properties by component, as a handler returns them."""


def unchanged() -> Updates:
    """Return what a handler with several outputs returns to change none of them."""
    return dict(gr.skip())


@cache
def example_digests() -> frozenset[str]:
    """Return the SHA-256 of the examples that come with the page."""
    files = [*EXAMPLES.glob("*.jpg"), *EXAMPLES.glob("*.mp4")]
    return frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


@dataclass(frozen=True, slots=True)
class ResultRef:
    """The result on the page: its job, its smoothing, and the numbers of the faces to correct."""

    job: str = ""
    smoothing: float | None = None
    faces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the handlers work with.

    Attributes:
        settings, runner, checkpoints: of the deployment.
        results: folder for files to download.
        uploads: what visitors uploaded.
        feedback: None if corrections are not taken.
        problem: why not; empty if the operator does not want them.
    """

    settings: Settings
    runner: JobRunner
    checkpoints: tuple[Checkpoint, ...]
    results: Path
    uploads: Uploads
    feedback: Feedback | None = None
    problem: str = ""

    @property
    def open_feedback(self) -> Feedback:
        """Where corrections go.

        Raises:
            FeedbackError: if they are not taken.
        """
        if self.feedback is None:
            raise FeedbackError(Message.joined(filter(None, [NOT_TAKEN, self.problem])))
        return self.feedback

    def analysis(self, job: object, smoothing: float | None) -> Analysis:
        """Return a job's finished analysis by its first checkpoint, smoothed anew unless that is None.

        Raises:
            JobError: if there is none.
            CheckpointError: if its checkpoint cannot be used any more or was changed in the meantime.
            SettingsError: if the smoothing is out of range.
            EditError: if its changes by hand do not fit it.
        """
        return self.analyses(self.runner.status(str(job)), smoothing)[0]

    def analyses(self, status: JobStatus, smoothing: float | None) -> tuple[Analysis, ...]:
        """Return the analyses of a job with its changes by hand, smoothed anew unless that is None.

        Raises:
            JobError, CheckpointError, SettingsError, EditError: as :meth:`analysis`.
        """
        if not status.analyses:
            raise JobError("There is no finished analysis. Press Analyze.", code="no_analysis")
        if smoothing is None and status.edits == Edits():
            return status.analyses
        config = status.config if smoothing is None else PipelineConfig(smoothing=smoothing)
        roots = self.settings.checkpoint_roots
        return tuple(
            reread(one, find_checkpoint(roots, one.checkpoint.id), config.smoothing, status.edits)
            for one in status.analyses
        )

    def find(self, job: object) -> JobStatus | None:
        """Return the status of a job; None if there is no such job, whatever the id is."""
        try:
            return self.runner.status(job) if isinstance(job, str) and job else None
        except JobError:  # it was deleted
            return None

    def cancel(self, job: object) -> None:
        """Cancel a job that waits or runs; one that has ended stays as it is."""
        status = self.find(job)
        if status is not None and not status.finished:
            self.runner.cancel(status.id)
