"""What the worker can be asked for, one dataclass for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, TypeAlias

from hsemotion_space.settings import PipelineConfig

Box: TypeAlias = tuple[float, float, float, float]
Kind: TypeAlias = Literal["image", "clip", "explanation", "frame"]
"""What jobs of similar length have in common."""
Lane: TypeAlias = Literal["short", "clip"]
"""Clips take a minute, everything else about a second."""
LANES: Final[tuple[Lane, Lane]] = ("short", "clip")


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
        PATIENCE_S: a job that nobody has asked for during this time is not worth the CPU. A browser asks once a minute for a page that
            has been in the background for long, so this must be longer than a minute.
    """

    KEPT_S: ClassVar[float | None] = None
    PATIENCE_S: ClassVar[float] = 120.0

    id: str
    path: Path
    config: PipelineConfig
    checkpoints: tuple[str, ...]
    kind: Literal["image", "clip"] = "image"

    @property
    def lane(self) -> Lane:
        """Where it waits."""
        return "clip" if self.kind == "clip" else "short"


class _ShortRequest:
    """What requests about a single face or frame have in common."""

    __slots__ = ()

    lane: ClassVar[Lane] = "short"
    checkpoint: str

    @property
    def config(self) -> PipelineConfig:
        """The configuration that is told of the job."""
        return PipelineConfig(self.checkpoint)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The one checkpoint."""
        return (self.checkpoint,)


@dataclass(frozen=True, slots=True)
class ExplainRequest(_ShortRequest):
    """Find out which part of a face makes a value: ``what`` is the name of a task and the name of one of its labels."""

    KEPT_S: ClassVar[float | None] = 60.0
    PATIENCE_S: ClassVar[float] = 30.0
    kind: ClassVar[Kind] = "explanation"

    id: str
    path: Path
    checkpoint: str
    place: Place
    what: tuple[str, str]


@dataclass(frozen=True, slots=True)
class LookRequest(_ShortRequest):
    """Analyze one picture of a camera, the bytes of an image file, which no disk ever sees."""

    KEPT_S: ClassVar[float | None] = 10.0
    PATIENCE_S: ClassVar[float] = 5.0
    kind: ClassVar[Kind] = "frame"

    id: str
    frame: bytes
    checkpoint: str


FileRequest: TypeAlias = AnalysisRequest | ExplainRequest
Request: TypeAlias = FileRequest | LookRequest
