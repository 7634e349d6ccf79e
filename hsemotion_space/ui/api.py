"""Endpoints for programs: the same analyses and corrections as on the page, typed and described.

``gradio_client.Client(URL).view_api()`` lists them; the README has an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypedDict

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api

from hsemotion_space.analysis.export import Json, document
from hsemotion_space.feedback.form import Submission
from hsemotion_space.feedback.intake import Context
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.weights import locate
from hsemotion_space.jobs import JobError
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.feedback import REFUSALS, face_numbers, preprocessing_of
from hsemotion_space.ui.uploads import NamedFile

Kind = Literal["image", "clip"]
NO_CONSENT: Final = (
    "Nothing is analyzed unless consent is true: the persons shown agree that this server analyzes the file"
    " now and deletes it."
)


class CheckpointInfo(TypedDict):
    """One checkpoint: where its weights are, and the provenance of each task's numbers."""

    id: str
    title: str
    family: str
    license: str
    weights: str
    tasks: dict[str, str]


class AnalysisResult(TypedDict):
    """An analysis in the form of the JSON export, and its id.

    ``tickets`` has the number of each face, for programs of version 0.1 that send one back.
    """

    job: str
    analysis: dict[str, Json]
    tickets: dict[str, str]


class Statement(TypedDict, total=False):
    """What a person says about one face, as :func:`build_api` describes it."""

    verdict: str
    corrected: dict[str, Json]
    span_s: list[float]
    comment: str
    receipt_code: str


class ConsentGiven(TypedDict):
    """What may be stored (``labels``, ``crop``, ``publish``), and whether all are permitting adults."""

    keep: list[str]
    adult_and_permitted: bool


NO_STATEMENT: Final = Statement()
NO_SCOPES: Final = ConsentGiven(keep=[], adult_and_permitted=False)
OUTDATED: Final = (
    "The argument `ticket` is not used any more and will be removed; send `face`, the number of the face."
)


class ReceiptInfo(TypedDict):
    """The code to list and erase by, the id of the record, whether it is new, and a sentence."""

    receipt_code: str
    record: str
    created: bool
    message: str


def build_api(context: AppContext) -> None:
    """Add the endpoints to the page."""

    def analyze_image(
        request: gr.Request, image: FileData, consent: bool, checkpoint: str = ""
    ) -> AnalysisResult:
        """Analyze every face of a picture.

        Give the file with ``gradio_client.handle_file``, ``consent`` as true if everybody shown agrees that
        the file is analyzed now, and the id of a checkpoint (empty for the usual one).
        """
        return _analyze(
            context, "image", image, consent, PipelineConfig(checkpoint), client=client_of(request)
        )

    def analyze_clip(  # noqa: PLR0917  the endpoint's inputs
        request: gr.Request, clip: FileData, consent: bool, checkpoint: str = "", sample_fps: float = 10.0,
        smoothing: float = PipelineConfig().smoothing,
    ) -> AnalysisResult:  # fmt: skip
        """Analyze the faces of a clip over time.

        Give the file with ``gradio_client.handle_file``, ``consent`` as true if everybody shown agrees that
        the file is analyzed now, the id of a checkpoint (empty for the usual one), frames analyzed per second
        (0 for all, at most 60), and the factor on each task's smoothing window (0 to 3).
        """
        config = _config(checkpoint, sample_fps, smoothing)
        return _analyze(context, "clip", clip, consent, config, client=client_of(request))

    def submit_feedback(  # noqa: PLR0917  the endpoint's inputs
        request: gr.Request, job: str, face: int = 0, statement: Statement = NO_STATEMENT,
        consent: ConsentGiven = NO_SCOPES, ticket: str = "",
    ) -> ReceiptInfo:  # fmt: skip
        """Say whether a result is right, and what would be right instead.

        Take ``job`` and the number of the ``face`` from an analysis of the last minutes; ``ticket`` is of an
        earlier version, leave it out. The statement has a ``verdict`` (correct, wrong, cannot_tell,
        not_a_face), for "wrong" what would be ``corrected`` by task, and if you like a time range ``span_s``
        of a clip, a ``comment``, and the ``receipt_code`` of earlier corrections. The consent says what to
        ``keep`` (labels, crop, publish) and with ``adult_and_permitted`` that everybody is 18 or older and
        permitted it.
        """
        submission = _submission(face, ticket, statement, consent)
        return _submit(context, job, submission, request, outdated=bool(ticket) or isinstance(face, str))

    def list_the_checkpoints() -> list[CheckpointInfo]:
        """List the checkpoints, with the provenance of each task's numbers."""
        return _checkpoints(context)

    api(analyze_image, api_name="analyze_image", concurrency_id="analyze", concurrency_limit=4)
    api(analyze_clip, api_name="analyze_clip", concurrency_id="analyze", concurrency_limit=4)
    api(submit_feedback, api_name="submit_feedback", queue=False)
    api(list_the_checkpoints, api_name="list_checkpoints", queue=False)


def _config(checkpoint: object, sample_fps: object, smoothing: object) -> PipelineConfig:
    try:
        return PipelineConfig(str(checkpoint), sample_fps, smoothing)  # type: ignore[arg-type]  # it checks them
    except SettingsError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _analyze(
    context: AppContext, kind: Kind, media: object, consent: object, config: PipelineConfig, *, client: str
) -> AnalysisResult:
    try:
        if consent is not True:
            raise SettingsError(NO_CONSENT)
        path = context.uploads.claim(NamedFile(media.get("path") if isinstance(media, Mapping) else None))
        checkpoint = find_checkpoint(context.settings.checkpoint_roots, config.checkpoint).id
        job = context.runner.submit(
            path, PipelineConfig(checkpoint, config.sample_fps, config.smoothing), client=client
        )
        *_, last = context.runner.watch(job)
        if last.analysis is None:
            raise JobError(last.message or "The analysis was canceled.")
        if last.analysis.media.kind != kind:
            raise JobError(
                f"This is no {'picture' if kind == 'image' else 'clip'}; use"
                f" analyze_{last.analysis.media.kind}."
            )
    except REFUSALS as error:
        raise gr.Error(str(error), print_exception=False) from error
    return {
        "job": job,
        "analysis": document([last.analysis]),
        "tickets": {number: number for number in face_numbers(last.analysis)},
    }


def _submission(face: object, ticket: object, statement: object, consent: object) -> Submission:
    chosen = ticket if ticket and not face else face
    # the second argument was the ticket once
    if isinstance(chosen, str) and chosen.isdecimal() and len(chosen) < 10:
        chosen = int(chosen)
    fields = statement if isinstance(statement, Mapping) else {}
    given = consent if isinstance(consent, Mapping) else {}
    return Submission(
        face=chosen, verdict=fields.get("verdict"), corrected=fields.get("corrected", {}),
        span_s=fields.get("span_s"),
        comment=fields.get("comment", ""), scopes=given.get("keep"),
        adult_and_permitted=given.get("adult_and_permitted"),
        code=fields.get("receipt_code"),
    )  # fmt: skip


def _submit(
    context: AppContext, job: object, submission: Submission, request: gr.Request, *, outdated: bool
) -> ReceiptInfo:
    try:
        analysis = context.analysis(job, None)
        known = Context(str(job), preprocessing_of(context, analysis))
        receipt = context.open_feedback.intake.submit(analysis, submission, client_of(request), known)
    except REFUSALS as error:
        raise gr.Error(str(error), print_exception=False) from error
    return {
        "receipt_code": receipt.code,
        "record": receipt.record_id,
        "created": receipt.created,
        "message": f"{receipt.message} {OUTDATED}" if outdated else receipt.message,
    }


def _checkpoints(context: AppContext) -> list[CheckpointInfo]:
    try:
        found = list_checkpoints(context.settings.checkpoint_roots)
    except CheckpointError as error:
        raise gr.Error(str(error), print_exception=False) from error
    return [
        {
            "id": one.id, "title": one.title, "family": one.family, "license": one.license,
            "weights": locate(one, context.settings.cache).place,
            "tasks": {head.task.name: head.provenance for head in one.heads},
        }
        for one in found
    ]  # fmt: skip
