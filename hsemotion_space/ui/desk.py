"""What the handlers of the page work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.jobs import JobRunner
from hsemotion_space.settings import Settings


@dataclass(frozen=True, slots=True)
class Desk:
    """What the handlers work with."""

    settings: Settings
    runner: JobRunner
    checkpoints: tuple[Checkpoint, ...]
    results: Path  # folder for files to download
