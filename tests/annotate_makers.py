"""An annotator at a context with a store, and a runner that analyzes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from analysis_makers import make_analysis

from hsemotion_space.feedback.record import FeedbackRecord
from hsemotion_space.feedback.service import Feedback, open_feedback
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.types import Analysis, CheckpointRef
from hsemotion_space.ui.annotate.answering import AnswerEvent, Terms, act
from hsemotion_space.ui.annotate.payload import queue_value
from hsemotion_space.ui.annotate.running import SHOWN, Wish, collect, follow, start
from hsemotion_space.ui.annotate.session import Session
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.uploads import Uploads

PICTURE, CLIP, STRANGER = "a" * 32, "b" * 32, "c" * 32
CHECKPOINT = CheckpointRef("efficientnet-lite0-starter", "Starter", "c" * 64)
TERMS = Terms(("labels",), True, False, "", frozenset(), "198.51.100.7")
PRACTICE = replace(TERMS, scopes=())
ANGER, *_, SURPRISE = EXPRESSION.label_names


@dataclass
class FakeRunner:
    """Knows finished analyses by their job; what is submitted waits until it is told what came of it."""

    jobs: dict[str, tuple[Analysis, ...]]
    failed: dict[str, str] = field(default_factory=dict)
    submitted: list[Path] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    full: str = ""
    media: dict[str, Path] = field(default_factory=dict)

    def media_of(self, job_id: str) -> Path | None:
        return self.media.get(job_id)

    def status(self, job_id: str) -> JobStatus:
        if job_id in self.failed:
            return JobStatus(job_id, "failed", message=self.failed[job_id])
        if job_id in self.jobs:
            return JobStatus(job_id, "done", analyses=self.jobs[job_id])
        if job_id.startswith("f") and int(job_id[-2:], 16) < len(self.submitted):
            return JobStatus(job_id, "running", phase="analysis", done=3, total=9)
        raise JobError("This analysis is not here any more.")

    def submit(self, path: Path, config: PipelineConfig, *, client: str) -> str:
        if self.full:
            raise JobError(self.full)
        self.clients.append(client)
        self.submitted.append(path)
        return f"{'f' * 30}{len(self.submitted) - 1:02x}"

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)


def made(kind: Literal["clip", "image"], seed: int, faces: int = 1) -> tuple[Analysis, ...]:
    analysis = make_analysis(faces=faces, frames=90, gap=False, kind=kind, seed=seed)
    return (replace(analysis, checkpoint=CHECKPOINT),)


@dataclass
class Visit:
    """A context with a real store, and one annotator at it."""

    context: AppContext
    session: Session = field(default_factory=Session)

    @property
    def kept(self) -> Feedback:
        return self.context.open_feedback

    @property
    def records(self) -> list[FeedbackRecord]:
        return self.kept.store.records()

    @property
    def runner(self) -> FakeRunner:
        return self.context.runner  # type: ignore[return-value]

    def start(self, *jobs: str, files: object = (), seen: bool = False) -> str:
        """Begin a queue of finished analyses: of files that were added here, or (``seen``) of another tab of
        the page."""
        told = start(self.context, self.session, Wish([SHOWN], files, CHECKPOINT.id, True, jobs, "192.0.2.1"))
        if not seen:
            self.session.shown.clear()
        return told or (
            collect(self.context, self.session) if follow(self.context, self.session) else "waits"
        )

    def value(self) -> dict[str, Any]:
        return json.loads(queue_value(self.context, self.session), parse_constant=pytest.fail)

    def act(
        self,
        action: object = "answer",
        choice: object = "label",
        label: object = ANGER,
        point: object = (),
        terms: Terms = TERMS,
    ) -> str:
        return act(
            self.context, self.session, AnswerEvent(self.session.turn, action, choice, label, point), terms
        )


@contextmanager
def make_visit(folder: Path) -> Iterator[Visit]:
    """Open a context with one picture of two faces and one clip of one face, and what a stranger had
    analyzed."""
    settings = Settings(cache=folder, feedback_data=folder / "data")
    runner = FakeRunner({PICTURE: made("image", 1, 2), CLIP: made("clip", 2), STRANGER: made("image", 3)})
    feedback = open_feedback(settings)
    context = AppContext(
        settings, runner, (), folder / "results", Uploads(folder / "uploads", folder / "claims"), feedback
    )  # type: ignore[arg-type]
    (folder / "clip.mp4").write_bytes(b"clip")
    runner.media[CLIP] = folder / "clip.mp4"
    try:
        yield Visit(context)
    finally:
        feedback.close()
