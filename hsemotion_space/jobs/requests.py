"""What the runner can be asked for, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal, TypeAlias

from hsemotion_space.analysis.saliency import Saliency
from hsemotion_space.edits import Edits
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import PipelineConfig
from hsemotion_space.types import Analysis, ByteArray, check_shape

Box: TypeAlias = tuple[float, float, float, float]
Kind: TypeAlias = Literal["image", "clip", "explanation", "frame"]
"""What jobs of similar duration have in common."""
Lane: TypeAlias = Literal["short", "clip"]
"""Clips take a minute, everything else about a second."""
LANES: Final[tuple[Lane, Lane]] = ("short", "clip")
State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
Phase: TypeAlias = Literal["download", "analysis"]
WorkerState: TypeAlias = Literal["ready", "starting", "restarting", "stopped"]
FINISHED: Final[tuple[State, ...]] = ("done", "failed", "cancelled")


class JobError(MessageError, RuntimeError):
    """A job cannot be accepted or is not known."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is: presentation time of a frame (0 in a picture) and a box in decoded px."""

    time_s: float
    box_xyxy: Box


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """Analyze one file with one checkpoint or several.

    Attributes:
        gpu: whether the worker may ask the page for a GPU.
        KEPT_S: how long a result is kept; None for as long as the deployment keeps results.
        PATIENCE_S: a job whose status nobody requests for so long is cancelled. Browsers run the timers of a
            background tab once a minute, so this must be longer.
    """

    KEPT_S: ClassVar[float | None] = None
    PATIENCE_S: ClassVar[float] = 120.0

    id: str
    path: Path
    config: PipelineConfig
    checkpoints: tuple[str, ...]
    kind: Literal["image", "clip"] = "image"
    gpu: bool = False

    @property
    def lane(self) -> Lane:
        """Return where the job waits."""
        return "clip" if self.kind == "clip" else "short"


class _ShortRequest:
    """What requests about a single face or frame have in common."""

    __slots__ = ()

    lane: ClassVar[Lane] = "short"
    checkpoint: str

    @property
    def config(self) -> PipelineConfig:
        """Return the configuration that the status reports."""
        return PipelineConfig(self.checkpoint)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Return the one checkpoint."""
        return (self.checkpoint,)


@dataclass(frozen=True, slots=True)
class ExplainRequest(_ShortRequest):
    """Find the part of a face that a value depends on; ``what`` is the name of a task and of its label."""

    KEPT_S: ClassVar[float | None] = 60.0
    PATIENCE_S: ClassVar[float] = 30.0
    kind: ClassVar[Kind] = "explanation"

    id: str
    path: Path
    checkpoint: str
    place: Place
    what: tuple[str, str]


@dataclass(frozen=True, slots=True)
class FrameRequest(_ShortRequest):
    """Analyze one camera frame: the bytes of an image file, which are never written to a disk."""

    KEPT_S: ClassVar[float | None] = 10.0
    PATIENCE_S: ClassVar[float] = 5.0
    kind: ClassVar[Kind] = "frame"

    id: str
    frame: bytes
    checkpoint: str


FileRequest: TypeAlias = AnalysisRequest | ExplainRequest
Request: TypeAlias = FileRequest | FrameRequest


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, with ``face`` (S, S, 3) uint8, the input of the network, under the saliency map."""

    saliency: Saliency
    face: ByteArray

    def __post_init__(self) -> None:
        check_shape("Explained", "face", self.face, (*self.saliency.map.shape, 3))


Answer: TypeAlias = tuple[Analysis, ...] | Explained


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The state of a job.

    Attributes:
        id: 32 hexadecimal digits that cannot be guessed; whoever has them can watch and cancel the job.
        state: ``queued`` and ``running``, then one of ``done``, ``failed`` and ``cancelled``.
        phase: ``download`` while weights are downloaded; ``done`` and ``total`` are bytes, otherwise frames.
        done, total: progress while running; ``total`` is 0 while it is unknown.
        message: why it failed or was cancelled; may be empty.
        analyses: one per checkpoint in the order of the request when the job is done; () before.
        ahead: number of jobs before it on its worker, the running one included.
        wait_s: expected seconds until it runs, rounded up; None if unknown, or if it does not wait.
        checkpoints: ids in the request, each once; an empty one stands for the default checkpoint.
        config: of the request, so that a reloaded page can show it.
        edits: what was changed by hand; ``analyses`` are without these changes.
        explained: the result of an explanation.
    """

    id: str
    state: State
    phase: Phase = "analysis"
    done: int = 0
    total: int = 0
    message: str = ""
    analyses: tuple[Analysis, ...] = ()
    ahead: int = 0
    wait_s: int | None = None
    checkpoints: tuple[str, ...] = ()
    config: PipelineConfig = field(default_factory=PipelineConfig)
    edits: Edits = field(default_factory=Edits)
    explained: Explained | None = None

    @property
    def finished(self) -> bool:
        """Return whether the state is final."""
        return self.state in FINISHED

    @property
    def analysis(self) -> Analysis | None:
        """Return the analysis by the first checkpoint, None unless the job is done."""
        return self.analyses[0] if self.analyses else None

    @property
    def mark(self) -> tuple[object, ...]:
        """Return what changes whenever there is something new to show."""
        return self.state, self.phase, self.done, self.total, self.ahead, self.wait_s


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker process and its queue are.

    Attributes:
        state: ``starting`` until it first takes requests, ``restarting`` until it takes them again;
            ``stopped`` if nothing starts it any more.
        pid: of the process; 0 if there is none.
        restarts: how often it was replaced.
        waiting: jobs in its queue.
        busy: whether it runs a job.
    """

    state: WorkerState
    pid: int
    restarts: int
    waiting: int
    busy: bool
