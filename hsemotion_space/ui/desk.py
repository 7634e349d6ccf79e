"""What the handlers of the page work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsemotion_space.feedback.records import FeedbackError
from hsemotion_space.feedback.service import Feedback
from hsemotion_space.hub.manifest import Checkpoint, find_checkpoint
from hsemotion_space.jobs import JobError, JobRunner
from hsemotion_space.readout import reread
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis

NOT_TAKEN = "Corrections are not taken on this server."


@dataclass(frozen=True, slots=True)
class Desk:
    """What the handlers work with.

    Attributes:
        settings, runner, checkpoints: of the deployment.
        results: folder for files to download.
        feedback: None if corrections are not taken.
        problem: why not; empty if the operator does not want them.
    """

    settings: Settings
    runner: JobRunner
    checkpoints: tuple[Checkpoint, ...]
    results: Path
    feedback: Feedback | None = None
    problem: str = ""

    @property
    def open_feedback(self) -> Feedback:
        """Where corrections go.

        Raises:
            FeedbackError: if they are not taken.
        """
        if self.feedback is None:
            raise FeedbackError(f"{NOT_TAKEN} {self.problem}".strip())
        return self.feedback

    def analysis(self, job_id: object, smoothing: float | None) -> Analysis:
        """Return a finished analysis, read again with another smoothing unless that is None.

        Raises:
            JobError: if there is none.
            CheckpointError: if its checkpoint cannot be used any more.
            SettingsError: if the smoothing is out of range.
            ValueError: if its checkpoint was changed in the meantime.
        """
        status = self.runner.status(str(job_id))
        if status.analysis is None:
            raise JobError("There is no finished analysis to show. Please press Analyze.")
        if smoothing is None:
            return status.analysis
        checkpoint = find_checkpoint(self.settings.checkpoint_roots, status.analysis.checkpoint.id)
        return reread(status.analysis, checkpoint, PipelineConfig(smoothing=smoothing).smoothing)
