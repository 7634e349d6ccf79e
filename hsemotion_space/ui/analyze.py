"""The tab Analyze: from a picture or a clip to its result.

An analysis is a job with an id. A handler waits for it a moment, and after that a timer asks for it, so a
page that was reloaded, a second tab or a phone that slept finds it again.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

import gradio as gr

from hsemotion_space.feedback.consent import PROCESS
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.inference.session import SUFFIX, SessionError, is_session
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.media.formats import MediaError
from hsemotion_space.messages import Message
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.context import PICK_ONE, QUIET, AppContext, ResultRef, Updates, unchanged
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate
from hsemotion_space.ui.inputs import RawFiles, RawImage, RawSlider, read_event
from hsemotion_space.ui.picker import Picker, picker_updates
from hsemotion_space.ui.result import Result, build_result, message_updates, result_updates
from hsemotion_space.ui.session import attach_media, open_files
from hsemotion_space.ui.source import EXAMPLE_FILES, build_source, source_value
from hsemotion_space.ui.status import job_progress
from hsemotion_space.ui.uploads import NamedFile

MOST_OTHERS: Final = 3
MOST_TOGETHER: Final = 2  # files at once: a session and its media
AT_ONCE_S: Final = 0.8  # so long the first handler waits for a job
ASK_EVERY_S: Final = 0.5
NO_FILE: Final = Message("Add a picture or a clip first.", code="no_file")
FORMATS: Final = (
    "JPEG, PNG or WebP up to {image} MB; MP4, MOV, MKV, WebM or AVI up to {clip} MB. The first {seconds}"
    " seconds and at most {frames} frames of a clip are analyzed."
)


@dataclass(frozen=True, slots=True)
class Shared:
    """Components of several tabs: backbone picker, consent to analysis, field for the receipt code."""

    picker: Picker
    agreed: gr.Checkbox
    receipt: gr.Textbox


@dataclass(frozen=True, slots=True)
class Source:
    """An uploaded file on this server with its original name, or the example, which needs no consent."""

    path: Path
    name: str
    example: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """The components of the tab.

    Attributes:
        added: state with the :class:`Source` that was added last, or None.
        job: state with the id of the job that runs or is shown.
        saved_job: the same in the browser, by which the page finds the job again after a reload.
        source, media, camera: where files come from.
        start, cancel: buttons.
        progress: of the job.
        timer: asks for the job while it runs.
        result: what is shown of it.
        picker: of the page, which shows what an analysis found out about weights.
        options: components whose values :class:`Choice` takes.
    """

    added: gr.State
    job: gr.State
    saved_job: gr.BrowserState
    source: gr.HTML
    media: RawFiles
    camera: RawImage
    start: gr.Button
    cancel: gr.Button
    progress: gr.HTML
    timer: gr.Timer
    result: Result
    picker: Picker
    options: tuple[gr.components.Component, ...]

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """Everything that handlers change."""
        own = [
            self.added,
            self.job,
            self.saved_job,
            self.source,
            self.media,
            self.camera,
            self.cancel,
            self.progress,
            self.timer,
        ]
        return [*own, *self.picker.outputs, *self.result.outputs]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a visitor asks for; unchecked, in the order of ``Workspace.options``."""

    checkpoint: object
    agreed: object
    others: object = ()
    sample_fps: Any = PipelineConfig().sample_fps
    smoothing: Any = PipelineConfig().smoothing


def build_workspace(context: AppContext, shared: Shared) -> Workspace:
    """Lay out the tab and connect its events."""
    limits, standard = context.settings.limits, PipelineConfig()
    with gr.Column(elem_classes="workspace"):
        media = RawFiles(
            label=gettext_lazy("Picture or clip: drop it anywhere on this page, or paste it"),
            file_types=["image", "video", SUFFIX],
            file_count="multiple",
            height=190,
            elem_classes="media",
        )
        with gr.Row(elem_classes="run", equal_height=False):
            source = build_source()
            start = gr.Button(gettext_lazy("Analyze"), variant="primary", size="md", scale=0, min_width=120)
            cancel = gr.Button(gettext_lazy("Cancel"), visible=False, size="md", scale=0, min_width=100)
            with gr.Accordion(gettext_lazy("Options"), open=False, elem_classes="options"):
                choices = [(one.title, one.id) for one in context.checkpoints]
                others = gr.Dropdown(
                    choices, value=[], multiselect=True, max_choices=MOST_OTHERS,
                    label=gettext_lazy("Compare with"),
                    info=gettext_lazy("Also analyzes the same faces with other backbones."),
                )  # fmt: skip
                fps = RawSlider(
                    1, 30, standard.sample_fps, step=1, label=gettext_lazy("Frames analyzed per second")
                )
                words = gettext_lazy(
                    FORMATS, image=limits.image_bytes // 2**20, clip=limits.clip_bytes // 2**20,
                    seconds=f"{limits.clip_duration_s:g}",
                    frames=limits.clip_frames,
                )  # fmt: skip
                gr.Markdown(words, elem_classes="fine")
            with gr.Accordion(gettext_lazy("Take a picture"), open=False, elem_classes="options camera"):
                camera = RawImage(
                    label=gettext_lazy("Camera"), sources=["webcam"], type="filepath", height=300
                )
        progress = gr.HTML(visible=False)
        result = build_result(context, shared.receipt)
    options = (shared.picker.choice, shared.agreed, others, fps, result.smoothing)
    saved = gr.BrowserState("", storage_key="hsemotion-job")
    workspace = Workspace(
        gr.State(None), gr.State(""), saved, source, media, camera, start, cancel, progress,
        gr.Timer(ASK_EVERY_S, active=False), result,
        shared.picker, options,
    )  # fmt: skip
    _connect(context, workspace, shared)
    return workspace


def _connect(context: AppContext, workspace: Workspace, shared: Shared) -> None:
    """Connect the events of the tab."""
    current, options = [workspace.job, workspace.added], workspace.options

    def run(request: gr.Request, job: str, added: Source | None, *chosen: Any) -> Updates:
        return _start(
            context, workspace, job, added or _source_of(context, job), Choice(*chosen), client_of(request)
        )

    def add(
        request: gr.Request, job: str, _: object, given: list[NamedFile] | NamedFile | None, *chosen: Any
    ) -> Updates:
        files = [file for file in (given if isinstance(given, list) else [given]) if file is not None]
        if not files:
            return unchanged()
        emptied: Updates = {workspace.media: None, workspace.camera: None}
        choice, client = Choice(*chosen), client_of(request)
        try:
            added = [
                Source(context.uploads.claim(file), PurePath(str(file.name)).name)
                for file in files[:MOST_TOGETHER]
            ]
            opened = _open(context, workspace, job, added, client)
        except (SettingsError, SessionError, CheckpointError, JobError, MediaError) as error:
            return {**emptied, **_failed(context, workspace, None, choice.checkpoint, translate(error))}
        started = opened or _start(context, workspace, job, added[0], choice, client)
        return {**message_updates(workspace.result, ""), **started, **emptied}

    def add_example(request: gr.Request, event: gr.EventData, job: str, *chosen: Any) -> Updates:
        added = _copy_example(context, read_event(event).get("kind"))
        started = _start(context, workspace, job, added, Choice(*chosen), client_of(request))
        return {**message_updates(workspace.result, ""), **started}

    def agree(request: gr.Request, job: str, added: Source | None, *chosen: Any) -> Updates:
        return run(request, job, added, *chosen) if added is not None else unchanged()

    def stop(job: str, added: Source | None, checkpoint: object) -> Updates:
        context.cancel(job)
        return _failed(context, workspace, added, checkpoint, gettext("The analysis was canceled."))

    def remove(job: str, checkpoint: object) -> Updates:
        context.cancel(job)
        return _failed(context, workspace, None, checkpoint, "")

    outputs = workspace.outputs
    workspace.start.click(run, [*current, *options], outputs, **QUIET)
    for component, event in (
        (workspace.media, workspace.media.upload),
        (workspace.camera, workspace.camera.input),
    ):
        event(add, [*current, component, *options], outputs, trigger_mode="always_last", **QUIET)
    workspace.source.example(add_example, [workspace.job, *options], outputs, **QUIET)
    shared.agreed.input(agree, [*current, *options], outputs, trigger_mode="always_last", **QUIET)
    asked = [*current, workspace.picker.choice, workspace.result.shown]
    workspace.timer.tick(lambda *known: _ask(context, workspace, *known), asked, outputs, **QUIET)
    workspace.cancel.click(stop, [*current, workspace.picker.choice], outputs, **QUIET)
    workspace.source.remove(remove, [workspace.job, workspace.picker.choice], outputs, **QUIET)


def find_job(
    context: AppContext, workspace: Workspace, job: object, saved: object, chosen: object
) -> Updates:
    """Return updates for a loaded page: texts in the visitor's language, and the last job of this browser."""
    start = {workspace.source: source_value(), **picker_updates(context, workspace.picker, chosen)}
    if job or context.find(saved) is None:  # the visitor may have started something already
        return start
    return {**start, **_ask(context, workspace, str(saved), None, chosen, ResultRef())}


def _open(
    context: AppContext, workspace: Workspace, job: str, added: Sequence[Source], client: str
) -> Updates:
    """Return updates if a session is added, or the media of the session on the page; otherwise nothing.

    Raises:
        SessionError, CheckpointError, JobError, MediaError: if the session cannot be opened.
    """
    opened = open_files(context, [source.path for source in added], client)
    if opened:
        context.cancel(job)
    elif attach_media(context, context.find(job), added[0].path):
        opened = job
    else:
        return {}
    named = next((source for source in added if not is_session(source.path)), added[0])
    checkpoint = context.runner.status(opened).config.checkpoint
    kept = named if context.runner.media_of(opened) is not None else None
    return {**_ask(context, workspace, opened, named, checkpoint, ResultRef()), workspace.added: kept}


def _source_of(context: AppContext, job: str) -> Source | None:
    """Return the file of a job that was found again after a reload."""
    path = context.runner.media_of(job)
    return Source(path, "") if path is not None else None


def _copy_example(context: AppContext, kind: object) -> Source:
    """Return an example as a copy, which is swept like everything that visitors add."""
    file = {str(name): file for name, file in EXAMPLE_FILES.items()}.get(str(kind), EXAMPLE_FILES["image"])
    path = context.results / uuid.uuid4().hex / file.name
    path.parent.mkdir(parents=True)
    shutil.copyfile(file, path)
    return Source(path, file.name, example=True)


def _start(  # noqa: PLR0917
    context: AppContext, workspace: Workspace, earlier: str, added: Source | None, choice: Choice, client: str
) -> Updates:
    """Queue an analysis in place of an earlier one and return updates: its result, if it ends at once."""
    context.cancel(earlier)
    try:
        if added is None:
            raise SettingsError(NO_FILE)
        if choice.agreed is not True and not added.example:
            raise SettingsError("Select “{tick}” first. Without it, nothing is analyzed.", tick=PROCESS.title)
        config = PipelineConfig(
            _known_checkpoint(context, choice.checkpoint), choice.sample_fps, choice.smoothing
        )
        job = context.runner.submit(
            added.path, config, _compared(context, config.checkpoint, choice.others), client=client
        )
    except (JobError, SettingsError, CheckpointError) as error:
        return _failed(context, workspace, added, choice.checkpoint, translate(error))
    until_s = time.monotonic() + AT_ONCE_S
    for _ in context.runner.watch(job, 0.1):
        if time.monotonic() > until_s:
            break
    return {workspace.added: added, **_ask(context, workspace, job, added, choice.checkpoint, ResultRef())}


def _ask(  # noqa: PLR0917
    context: AppContext,
    workspace: Workspace,
    job: str,
    added: Source | None,
    chosen: object,
    shown: ResultRef,
) -> Updates:
    """Return updates on a job; a result on screen is not repeated, as that would empty an open form."""
    status = context.find(job)
    # by whoever shows something else now
    if status is None or (status.state == "cancelled" and not status.message):
        return {workspace.saved_job: "", workspace.timer: gr.Timer(active=False)}
    name = added.name if added is not None else ""
    if not status.finished:
        return {**_running(workspace, status), workspace.source: source_value(name or gettext("Analysis"))}
    if shown.job == status.id:
        return _ended(context, workspace, chosen, status.id)
    if not status.analyses:
        return _failed(context, workspace, added, chosen, translate(status.message))
    try:
        updates = result_updates(context, workspace.result, status)
    except CheckpointError as error:  # a manifest was changed while the page runs
        return _failed(context, workspace, added, chosen, translate(error))
    media = source_value(name, status.analyses[0].media)
    return {**_ended(context, workspace, chosen, status.id), workspace.source: media, **updates}


def _running(workspace: Workspace, status: JobStatus) -> Updates:
    return {
        workspace.job: status.id, workspace.saved_job: status.id, workspace.timer: gr.Timer(active=True),
        workspace.progress: gr.update(value=job_progress(status), visible=True),
        workspace.cancel: gr.update(visible=True),
    }  # fmt: skip


def _ended(context: AppContext, workspace: Workspace, chosen: object, job: str) -> Updates:
    """Return updates when nothing runs any more; the analysis may have found out something about weights."""
    return {
        workspace.job: job, workspace.saved_job: job, workspace.timer: gr.Timer(active=False),
        workspace.progress: gr.update(value="", visible=False), workspace.cancel: gr.update(visible=False),
        **picker_updates(context, workspace.picker, chosen),
    }  # fmt: skip


def _failed(
    context: AppContext, workspace: Workspace, added: Source | None, chosen: object, text: str
) -> Updates:
    """Return updates that show no result, and why; the uploaded file stays, so that it can be retried."""
    return {
        **_ended(context, workspace, chosen, ""),
        workspace.added: added,
        workspace.source: source_value(added.name if added is not None else ""),
        **message_updates(workspace.result, text),
    }


def _known_checkpoint(context: AppContext, checkpoint: object) -> str:
    if not isinstance(checkpoint, str):
        raise SettingsError(PICK_ONE)
    return find_checkpoint(context.settings.checkpoint_roots, checkpoint).id


def _compared(context: AppContext, first: str, others: object) -> list[str]:
    if not isinstance(others, list | tuple) or len(others) > MOST_OTHERS:
        raise SettingsError(
            "Select at most {limit} backbones to compare with.", code="too_many_backbones", limit=MOST_OTHERS
        )
    return [first, *(_known_checkpoint(context, other) for other in others)]
