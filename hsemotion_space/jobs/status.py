"""What is told of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from hsemotion_space.explain import Saliency
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import PipelineConfig
from hsemotion_space.types import Analysis, ByteArray, check_shape

State = Literal["queued", "running", "done", "failed", "cancelled"]
Phase = Literal["download", "analysis"]
FINISHED: Final[tuple[State, ...]] = ("done", "failed", "cancelled")


class JobError(MessageError, RuntimeError):
    """A job cannot be accepted or is not known; the message can be shown."""


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, with ``face`` (S, S, 3) uint8 as the network saw it, over which the map of the saliency lies."""

    saliency: Saliency
    face: ByteArray

    def __post_init__(self) -> None:
        check_shape("Explained", "face", self.face, (*self.saliency.map.shape, 3))


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is.

    Attributes:
        id: 32 hexadecimal digits that cannot be guessed; whoever has them can watch and cancel the job.
        state: ``queued`` and ``running``, then one of ``done``, ``failed`` and ``cancelled``.
        phase: in ``download`` the weights are being fetched, and ``done`` and ``total`` are bytes; in ``analysis`` they are frames.
        done, total: progress while running; ``total`` is 0 as long as nothing is known.
        message: why it failed or was cancelled, if there is a reason to tell.
        analyses: one per checkpoint in the order they were asked for, when the job is done; () before.
        explained: the answer to a job that explains, when it is done.
        ahead: number of jobs that come before it on its worker, that which is running included; 0 when it runs itself or has ended.
        wait_s: expected seconds until it runs, rounded up as people are told them; None if that is not known, or it does not wait.
        checkpoints: ids that were asked for, each once; an empty one stands for the usual checkpoint.
        config: what was asked for, so that a page that comes back can show it.
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
    explained: Explained | None = None

    @property
    def finished(self) -> bool:
        """Whether the status is final."""
        return self.state in FINISHED

    @property
    def analysis(self) -> Analysis | None:
        """The analysis by the first checkpoint, None unless the job is done."""
        return self.analyses[0] if self.analyses else None

    @property
    def mark(self) -> tuple[object, ...]:
        """What changes whenever there is something new to show."""
        return self.state, self.phase, self.done, self.total, self.ahead, self.wait_s
