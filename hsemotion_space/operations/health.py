"""The health of a running server: what works, what does not, and why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.service import Feedback, database_url
from hsemotion_space.feedback.status import PublishStatus
from hsemotion_space.feedback.store import RESERVE_BYTES
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.hub.source import CheckpointError
from hsemotion_space.hub.weights import locate
from hsemotion_space.jobs import JobRunner
from hsemotion_space.messages import Message
from hsemotion_space.settings import Settings

MB: Final = 2**20
START_LIMIT_S: Final = 600.0  # a worker that takes no request after this time never will
NEEDED: Final = ("page", "workers", "checkpoint", "space")
"""Checks without which a server must get no visitors."""
UNKNOWN: Final = -1
"""Free space of a folder that cannot be read."""


@dataclass(frozen=True, slots=True)
class Check:
    """The state of one part of a server.

    Attributes:
        state: ``off`` if the operator does not want it.
        reason: a sentence; may be empty.
        values: what is known beside it.
    """

    state: Literal["ok", "starting", "failing", "off"]
    reason: str = ""
    values: Mapping[str, str | int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """All checks by the names of their parts."""

    checks: Mapping[str, Check]

    @property
    def failing(self) -> bool:
        """Return whether any part fails."""
        return any(check.state == "failing" for check in self.checks.values())

    @property
    def ready(self) -> bool:
        """Return whether visitors can be served."""
        return all(name in self.checks and self.checks[name].state == "ok" for name in NEEDED)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running server.

    Attributes:
        settings, runner: of it.
        temporary: folder for what visitors add.
        feedback: None if corrections are not taken.
        problem: why not; empty if the operator does not want them.
        started_s: monotonic.
    """

    settings: Settings
    runner: JobRunner
    temporary: Path
    feedback: Feedback | None = None
    problem: str = ""
    started_s: float = field(default_factory=time.monotonic)


def examine(deployment: Deployment) -> Health:
    """Return the health of a server; asks the database, but neither the Hub nor a worker."""
    publisher = deployment.feedback.publisher if deployment.feedback is not None else None
    try:
        status = publisher.status() if publisher is not None else None
        store = _check_store(deployment)
    except FeedbackError as error:
        status, store = None, Check("failing", error.message)
    stops = Message("The server is shutting down.")
    return Health(
        {
            "page": Check("failing", stops) if deployment.runner.stopping else Check("ok"),
            "workers": _check_workers(deployment),
            "checkpoint": _check_checkpoint(deployment),
            "store": store,
            "publish": _check_publishing(status) if store.state == "ok" else Check("off"),
            "space": _check_space(deployment),
        }
    )


def _check_workers(deployment: Deployment) -> Check:
    workers = deployment.runner.workers()
    values = {
        "workers": len(workers),
        "ready": sum(worker.state == "ready" for worker in workers),
        "busy": sum(worker.busy for worker in workers),
        "waiting": sum(worker.waiting for worker in workers),
    }
    if any(worker.state == "stopped" for worker in workers):
        return Check("failing", Message("A worker has stopped. Restart the server."), values)
    if all(worker.state != "starting" for worker in workers):
        return Check("ok", values=values)
    if time.monotonic() - deployment.started_s > START_LIMIT_S:
        return Check("failing", Message("A worker does not start. Read the log."), values)
    return Check("starting", values=values)


def _check_checkpoint(deployment: Deployment) -> Check:
    """Check the default checkpoint without reading it; the workers have tried to load it."""
    settings = deployment.settings
    try:
        checkpoint = find_checkpoint(settings.checkpoint_roots, "")
    except CheckpointError as error:
        return Check("failing", error.message)
    found, values = locate(checkpoint, settings.cache), {"id": checkpoint.id}
    problem = deployment.runner.problems.get(checkpoint.id, "")
    if not problem and found.place != "here":
        problem = Message("{title} is {state}.", title=checkpoint.title, state=found.message)
    return Check("failing", problem, values) if problem else Check("ok", values=values)


def _check_store(deployment: Deployment) -> Check:
    if deployment.settings.feedback == "off":
        return Check("off")
    if deployment.feedback is None:
        return Check("failing", deployment.problem)
    records = sum(deployment.feedback.store.counts().values())
    database = database_url(deployment.settings).partition(":")[0].partition("+")[0]
    return Check("ok", values={"database": database, "records": records})


def _check_publishing(status: PublishStatus | None) -> Check:
    if status is None:
        return Check("off")
    last = datetime.fromtimestamp(status.last_commit_s, UTC).isoformat(timespec="seconds")
    values = {
        "last_commit": last if status.last_commit_s else None,
        "waiting": status.saved + status.sealed,
        "published": status.published,
        "erasures": status.erasures,
    }
    return Check("failing" if status.error else "ok", status.error, values)


def _check_space(deployment: Deployment) -> Check:
    settings = deployment.settings
    uploads, corrections = free_bytes(deployment.temporary), free_bytes(settings.feedback_data)
    values = {"uploads_free_mb": uploads // MB, "data_free_mb": corrections // MB}
    problems = []
    if uploads < settings.free_mb * MB:
        text = "Uploads are refused: less than {limit} MB are free for them. Free some space."
        problems.append(Message(text, limit=settings.free_mb))
    if deployment.feedback is not None and not settings.feedback_database and corrections < RESERVE_BYTES:
        text = "Corrections are refused: less than {limit} MB are free in their folder. Free some space."
        problems.append(Message(text, limit=RESERVE_BYTES // MB))
    return Check("failing" if problems else "ok", Message.joined(problems), values)


def free_bytes(folder: Path) -> int:
    """Return the free bytes where a folder is or would be, UNKNOWN if that cannot be read."""
    try:
        return shutil.disk_usage(nearest(folder)).free
    except OSError:
        return UNKNOWN


def nearest(folder: Path) -> Path:
    """Return a folder or, if it does not exist, the nearest existing one above it."""
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)
