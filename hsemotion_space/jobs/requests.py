"""What the worker can be asked for, one dataclass for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from hsemotion_space.settings import PipelineConfig

Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is: ``time_s``, presentation time of a frame (0 in a picture), and ``box_xyxy`` in px of the decoded picture."""

    time_s: float
    box_xyxy: Box


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """Analyze one file with one checkpoint or several.

    Attributes:
        KEPT_S: how long an answer is kept; None for as long as the deployment keeps results, which are bounded in number and size.
        PATIENCE_S: a job that nobody has asked for during this time is not worth the CPU.
    """

    KEPT_S: ClassVar[float | None] = None
    PATIENCE_S: ClassVar[float] = 600.0

    id: str
    path: Path
    config: PipelineConfig
    checkpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """Find out which part of a face makes a value: ``what`` is the name of a task and the name of one of its labels."""

    KEPT_S: ClassVar[float | None] = 60.0
    PATIENCE_S: ClassVar[float] = 30.0

    id: str
    path: Path
    checkpoint: str
    place: Place
    what: tuple[str, str]

    @property
    def config(self) -> PipelineConfig:
        """The configuration that is told of the job."""
        return PipelineConfig(self.checkpoint)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The one checkpoint."""
        return (self.checkpoint,)


@dataclass(frozen=True, slots=True)
class LookRequest:
    """Analyze one picture of a camera, the bytes of an image file, which no disk ever sees."""

    KEPT_S: ClassVar[float | None] = 10.0
    PATIENCE_S: ClassVar[float] = 5.0

    id: str
    frame: bytes
    checkpoint: str

    @property
    def config(self) -> PipelineConfig:
        """The configuration that is told of the job."""
        return PipelineConfig(self.checkpoint)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The one checkpoint."""
        return (self.checkpoint,)


FileRequest: TypeAlias = AnalysisRequest | ExplainRequest
Request: TypeAlias = FileRequest | LookRequest
