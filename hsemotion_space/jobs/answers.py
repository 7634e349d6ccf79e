"""What the worker does with a request. It brings torch, so it is imported inside the worker process alone."""

from __future__ import annotations

import logging
import time
import uuid
from multiprocessing.connection import Connection
from typing import Final

import numpy as np

from hsemotion_space.alignment import align_face
from hsemotion_space.engine import EngineError
from hsemotion_space.explain import ExplainError, explain
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.jobs.requests import AnalysisRequest, ExplainRequest, LookRequest, Request
from hsemotion_space.jobs.status import Explained, Phase
from hsemotion_space.media import MediaError, read_frame, read_image, sniff
from hsemotion_space.pipeline import LIVE, Cancelled, Pipeline
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import FloatArray

PROGRESS_EVERY_S: Final = 0.1

log = logging.getLogger(__name__)


def warm_pipeline(settings: Settings) -> Pipeline:
    """Return a pipeline with the networks that most requests need, as far as they can be had; the first job tells if they cannot."""
    pipeline = Pipeline(settings)
    try:
        pipeline.network("")
        for config in (PipelineConfig(), LIVE):
            pipeline.detector(config)
    except (CheckpointError, EngineError):
        pass
    except Exception:  # a worker that is not warm still answers, and says more than one that has died
        log.exception("the worker could not be warmed up")
    return pipeline


def respond(pipeline: Pipeline, connection: Connection) -> None:
    """Wait for one request and answer it; nothing of either stays here afterwards.

    Raises:
        EOFError, OSError: if the other side has closed the connection.
    """
    request = connection.recv()
    if isinstance(request, str):
        return  # a cancel that arrived after its job had finished
    try:
        answer = _answer(pipeline, request, _Reporter(connection))
    except Exception:  # the job fails, the worker lives
        reference = uuid.uuid4().hex[:8]
        log.exception("job %s failed (%s)", request.id, reference)
        answer = ("failed", f"The analysis failed for an unexpected reason. Please report it with the code {reference}.")
    connection.send(answer)


def _answer(pipeline: Pipeline, request: Request, reporter: _Reporter) -> tuple[object, ...]:
    """Return what is sent back: a word for how it went, and what belongs to it."""
    loading = ""
    try:
        for loading in request.checkpoints:
            pipeline.network(loading, reporter.downloading)
        match request:
            case AnalysisRequest():
                return "done", pipeline.analyze_all(request.path, request.checkpoints, request.config, reporter.analyzing)
            case ExplainRequest():
                return "done", _explain(pipeline, request, reporter)
            case LookRequest():
                return "done", (pipeline.look(request.frame, request.checkpoint),)
    except Cancelled:
        reporter.connection.recv()
        return ("cancelled",)
    except CheckpointError as error:
        return "unavailable", str(error), loading
    except (MediaError, EngineError, ExplainError) as error:
        return "failed", str(error)


def _explain(pipeline: Pipeline, request: ExplainRequest, reporter: _Reporter) -> Explained:
    """Cut the face out of its frame, as the analysis did, and find out what of it makes the value.

    Raises:
        ExplainError, MediaError, CheckpointError, EngineError: with a sentence for the user.
    """
    network, limits, place = pipeline.network(request.checkpoint), pipeline.settings.limits, request.place
    is_image = sniff(request.path) == "image"
    frame = read_image(request.path, limits)[1] if is_image else read_frame(request.path, limits, place.time_s)
    try:
        face = align_face(frame.rgb, np.array(place.box_xyxy), network.checkpoint.input)
    except ValueError as error:
        raise ExplainError(str(error)) from error

    def run(faces: FloatArray) -> tuple[FloatArray, ...]:
        reporter.analyzing(0, 0)  # this is where it hears of a cancel
        return network.run(faces)

    return Explained(explain(run, network.checkpoint, face, request.what), face)


class _Reporter:
    """Sends progress of one job, not too often; a message from the other side means that the job is to stop."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.last = connection, 0.0

    def downloading(self, done: int, total: int) -> None:
        """Report bytes."""
        self._send("download", done, total)

    def analyzing(self, done: int, total: int) -> None:
        """Report frames."""
        self._send("analysis", done, total)

    def _send(self, phase: Phase, done: int, total: int) -> None:
        if self.connection.poll():
            raise Cancelled
        if time.monotonic() - self.last >= PROGRESS_EVERY_S:
            self.last = time.monotonic()
            self.connection.send(("progress", phase, done, total))
