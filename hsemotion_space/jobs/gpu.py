"""The GPU of a ZeroGPU Space: runs the networks of large jobs in a process that ``spaces`` forks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Final, TypeGuard

import numpy as np

from hsemotion_space.environment import is_zero_gpu
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.source import CheckpointError
from hsemotion_space.hub.weights import locate
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.settings import Settings
from hsemotion_space.types import ByteArray, FloatArray

SECONDS: Final = 10  # declared for a call; visitors without enough quota for them are refused at once
PATIENCE_S: Final = 45.0  # for a GPU, then a job goes on by CPU
BATCH: Final = 256  # faces per run of a network
USED: Final = Message("The networks ran on a GPU, which counts toward your ZeroGPU quota.", code="gpu_used")
NO_QUOTA: Final = Message(
    "Your ZeroGPU quota does not cover this analysis, so the networks ran on the CPU.", code="gpu_quota"
)
NO_GPU: Final = Message("No GPU was available, so the networks ran on the CPU.", code="gpu_absent")

Faces = Mapping[str, ByteArray]
"""Faces (N, S, S, 3) for the input of each network, by the id of its checkpoint."""
Outputs = dict[str, tuple[FloatArray, ...]]
Answer = tuple[Outputs | None, Message]
"""The outputs of the networks, None if there was no GPU, and a notice."""
log = logging.getLogger(__name__)


class Gpu:
    """The one function of the page that ZeroGPU gives a GPU to.

    Networks whose weights are on this machine are loaded at once, which places them where ``spaces`` moves
    them to the GPU from; others are loaded by the process that has the GPU. To be created in the main thread,
    before the page is launched and before anything else imports torch.

    Args:
        settings: of the deployment.

    Raises:
        ImportError: if ``spaces`` is not installed.
        RuntimeError: if it cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        import spaces  # noqa: PLC0415  here alone, and before torch

        from hsemotion_space.inference.pipeline import Pipeline  # noqa: PLC0415  imports torch

        self._pipeline = Pipeline(replace(settings.without_secrets(), engine="torch"))
        for checkpoint in list_checkpoints(settings.checkpoint_roots):
            if locate(checkpoint, settings.cache).place == "here":
                with suppress(MessageError):  # the worker says what is wrong with it
                    self._pipeline.network(checkpoint.id)
        self._run = spaces.GPU(duration=SECONDS)(self._run_networks)
        self._calls = ThreadPoolExecutor(settings.workers, thread_name_prefix="gpu")

    def accepts(self, faces: object, checkpoints: tuple[str, ...]) -> TypeGuard[Faces]:
        """Return whether faces from a worker are what the networks of its job take; a worker may lie."""
        roots = self._pipeline.settings.checkpoint_roots
        try:
            inputs = {one.id: one.input.size for one in (find_checkpoint(roots, id_) for id_ in checkpoints)}
        except CheckpointError:  # removed in the meantime
            return False
        return isinstance(faces, dict) and len(faces) > 0 and all(
            isinstance(array, np.ndarray)
            and array.dtype == np.uint8
            and array.ndim == 4
            and array.shape[1:] == (inputs.get(name), inputs.get(name), 3)
            for name, array in faces.items()
        )  # fmt: skip

    def ask(self, visitor: Context, faces: Faces) -> Future[Answer]:
        """Run networks on a GPU, in a thread.

        Args:
            visitor: context of the request, by which ZeroGPU knows whose quota is used.
            faces: that :meth:`accepts` accepted.
        """
        return self._calls.submit(visitor.run, self._call, faces)

    def _call(self, faces: Faces) -> Answer:
        try:
            return self._run(faces), USED
        except Exception as error:  # noqa: BLE001  a refusal, or whatever befell the process with the GPU
            title = str(getattr(error, "title", ""))
            log.warning("the networks run on the CPU: %s %s", type(error).__name__, title)
            return None, NO_QUOTA if "quota" in title.lower() else NO_GPU

    def _run_networks(self, faces: Faces) -> Outputs:
        """Return the outputs of each network; in the process that has the GPU."""
        from hsemotion_space.vision.engine import normalize  # noqa: PLC0415  imports torch

        outputs = {}
        for name, pictures in faces.items():
            network = self._pipeline.network(name)
            spec = network.checkpoint.input
            parts = [
                network.run(normalize(pictures[start : start + BATCH], spec.mean, spec.std))
                for start in range(0, len(pictures), BATCH)
            ]
            outputs[name] = tuple(np.concatenate(rows) for rows in zip(*parts, strict=True))
        return outputs


@dataclass(slots=True)
class Loan:
    """What a worker waits for from the GPU, if anything."""

    answer: Future[Answer] | None = None
    asked_s: float = 0.0

    def take(self, now_s: float) -> Answer | None:
        """Return the answer once, when it is there or took too long."""
        answer = self.answer
        if answer is None or not (answer.done() or now_s - self.asked_s > PATIENCE_S):
            return None
        self.answer = None
        return answer.result() if answer.done() else (None, NO_GPU)


def open_gpu(settings: Settings) -> Gpu | None:
    """Return the GPU of a ZeroGPU Space; None elsewhere, and where it cannot be used."""
    if not is_zero_gpu():
        return None
    try:
        return Gpu(settings)
    except (ImportError, RuntimeError) as error:
        words = f"Everything runs on the CPU, because the package spaces cannot be used: {error}"
        print(words, file=sys.stderr)  # noqa: T201
        return None
