"""The picture tab and the clip tab: parse, call, format.

An analysis is a job with an id. A handler waits for it a moment, and after that a timer asks for it, so a page that was reloaded, a second
tab or a phone that slept finds it again.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gradio as gr

from hsemotion_space.feedback.consent import PROCESS
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.ui.clients import client_of
from hsemotion_space.ui.desk import EXAMPLES, PICK_ONE, Desk
from hsemotion_space.ui.feedback import Offer
from hsemotion_space.ui.parts import RawImage, RawSlider, RawVideo, progress_bar
from hsemotion_space.ui.picker import Picker, refresh
from hsemotion_space.ui.uploads import NamedFile, UploadError
from hsemotion_space.ui.view import Kind, View, build_summary, build_view, draw_again, emptied, fill, told
from hsemotion_space.ui.words import fixed, say, translate

MOST_OTHERS: Final = 3
AT_ONCE_S: Final = 0.8  # so long the first handler waits for a job
ASK_EVERY_S: Final = 0.5
QUIET: Final[dict[str, Any]] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, slots=True)
class Shared:
    """Components that both tabs use: the backbone picker, the tick that allows the analysis, the field for the receipt code."""

    picker: Picker
    agreed: gr.Checkbox
    receipt: gr.Textbox


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab: what it shows, and the components that run an analysis.

    Attributes:
        view: what it shows.
        cancel: its button.
        timer: asks for the job while it runs.
        kept: id of the job in the browser, by which the page finds it again after a reload.
        picker: of the page, which tells what an analysis found out about weights.
    """

    view: View
    cancel: gr.Button
    timer: gr.Timer
    kept: gr.BrowserState
    picker: Picker

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """Components in the order of :func:`_state` and ``View.shown``."""
        summary = self.view.summary
        return [summary.job, self.kept, self.timer, summary.progress, self.cancel, *self.picker.parts, *self.view.shown]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a visitor asks for; unchecked."""

    file: NamedFile | Path | None  # a path if it is the page's own
    checkpoint: object
    agreed: object
    others: object = ()
    sample_fps: Any = PipelineConfig().sample_fps
    smoothing: Any = PipelineConfig().smoothing


@dataclass(frozen=True, slots=True)
class _Asked:
    """The components that give a :class:`_Choice`, in its order."""

    source: RawImage | RawVideo
    checkpoint: gr.Dropdown
    agreed: gr.Checkbox
    others: gr.Dropdown
    options: Sequence[gr.Slider]

    @property
    def all(self) -> list[gr.blocks.Block]:
        return [self.source, self.checkpoint, self.agreed, self.others, *self.options]


def build_tab(kind: Kind, desk: Desk, shared: Shared) -> Tab:
    """Lay out one tab and connect its events."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            source: RawImage | RawVideo
            if kind == "image":
                source = RawImage(
                    label=fixed("Picture"), sources=["upload", "webcam", "clipboard"], type="filepath", buttons=["fullscreen"]
                )
            else:
                source = RawVideo(label=fixed("Clip"), sources=["upload"], format=None, elem_classes="clip-source")
            choices = [(one.title, one.id) for one in desk.checkpoints]
            others = gr.Dropdown(
                choices, value=[], multiselect=True, max_choices=MOST_OTHERS, label=fixed("Compare with"),
                info=fixed("The same faces, seen by other backbones too."),
            )  # fmt: skip
            options = _options(kind, desk)
            with gr.Row():
                start = gr.Button(fixed("Analyze"), variant="primary")
                cancel = gr.Button(fixed("Cancel"), interactive=False)
            words = fixed("Show an example picture") if kind == "image" else fixed("Show an example clip")
            example = gr.Button(words, size="sm", visible=EXAMPLES.is_dir())
        with gr.Column(scale=7, min_width=300):
            summary = build_summary(kind)
    view = build_view(kind, desk, summary, shared.receipt)
    timer = gr.Timer(ASK_EVERY_S, active=False)
    tab = Tab(view, cancel, timer, gr.BrowserState("", storage_key=f"hsemotion-{kind}"), shared.picker)
    _connect(desk, tab, _Asked(source, shared.picker.choice, shared.agreed, others, options), start, example)
    return tab


def _connect(desk: Desk, tab: Tab, asked: _Asked, start: gr.Button, example: gr.Button) -> None:
    """Connect the events of one tab."""
    source = asked.source
    job, running = tab.view.summary.job, [tab.view.summary.job, tab.picker.choice]

    def run(request: gr.Request, earlier: str, *given: Any) -> list[object]:  # the values of _Choice
        return _start(desk, tab, earlier, _Choice(*given), client_of(request))

    def run_new(request: gr.Request, earlier: str, file: NamedFile | None, checkpoint: str, *given: Any) -> list[object]:
        if file is not None:
            return run(request, earlier, file, checkpoint, *given)
        _cancel(desk, earlier)
        return [*_state(desk, checkpoint), *emptied(tab.view)]

    def take(request: gr.Request, earlier: str, file: NamedFile | None, *given: Any) -> list[object]:
        # Gradio tells of a picture that was taken away with its old path, if the server had put it there
        return run_new(request, earlier, None if file is not None and _is_shown(desk, earlier, file) else file, *given)

    def run_example(request: gr.Request, earlier: str, checkpoint: str, *given: Any) -> list[object]:
        path = _copy_example(desk, tab.view.kind)
        return [str(path), *run(request, earlier, path, checkpoint, True, *given)]

    def clear(request: gr.Request, earlier: str, chosen: str) -> list[object]:
        return run_new(request, earlier, None, chosen)

    start.click(run, [job, *asked.all], tab.outputs, **QUIET)
    example.click(run_example, [job, asked.checkpoint, asked.others, *asked.options], [source, *tab.outputs], **QUIET)
    if isinstance(source, RawImage):
        source.input(take, [job, *asked.all], tab.outputs, trigger_mode="always_last", **QUIET)
        asked.agreed.input(run_new, [job, *asked.all], tab.outputs, trigger_mode="always_last", **QUIET)
    else:
        source.clear(clear, running, tab.outputs, **QUIET)
    tab.timer.tick(lambda *known: _ask(desk, tab, *known), [*running, tab.view.summary.offer], tab.outputs, **QUIET)
    tab.cancel.click(lambda *known: _stop(desk, tab, *known), running, tab.outputs, **QUIET)
    for slider in asked.options[1:]:
        again = [tab.view.summary.notices, *tab.view.charts]
        slider.release(lambda *chosen: draw_again(desk, tab.view, *chosen), [job, slider], again, **QUIET)


def attach(desk: Desk, tab: Tab, moment: Callable[..., object]) -> None:
    """Let the page find the last job of a tab again.

    Args:
        desk: of the page.
        tab: whose job is sought.
        moment: event at which its components are there: the loading of the page, or the first time the tab is chosen.
    """

    def find(shown: object, kept: object, chosen: object) -> list[object]:
        if shown or not _is_known(desk, kept):  # then nothing is touched: the visitor may have started something already
            return [gr.skip() for _ in tab.outputs]
        return _ask(desk, tab, kept, chosen)

    moment(find, [tab.view.summary.job, tab.kept, tab.picker.choice], tab.outputs, **QUIET)


def _options(kind: Kind, desk: Desk) -> list[gr.Slider]:
    if kind == "image":
        return []
    limits, standard = desk.settings.limits, PipelineConfig()
    words = fixed(
        "MP4, MOV, MKV, WebM or AVI, up to {size} MB. Of longer clips the first {seconds} seconds and at most {frames} frames are "
        "analyzed.",
        size=limits.clip_bytes // 2**20, seconds=f"{limits.clip_duration_s:g}", frames=limits.clip_frames,
    )  # fmt: skip
    gr.Markdown(words)
    with gr.Accordion(fixed("Options"), open=False):
        fps = RawSlider(1, 30, standard.sample_fps, step=1, label=fixed("Frames analyzed per second"))
    smoothing = RawSlider(
        0, 3, standard.smoothing, step=0.25, label=fixed("Smoothing"),
        info=fixed("1 is each task's usual window (±1.67 s for expression), 0 shows every frame as it is. Changes at once."),
    )  # fmt: skip
    return [fps, smoothing]


def _copy_example(desk: Desk, kind: Kind) -> Path:
    """Return the path of a copy, which is swept like everything that visitors add."""
    name = {"image": "astronaut.jpg", "clip": "astronaut.mp4"}[kind]
    path = desk.results / uuid.uuid4().hex / name
    path.parent.mkdir(parents=True)
    shutil.copyfile(EXAMPLES / name, path)
    return path


def _is_shown(desk: Desk, job: object, file: NamedFile) -> bool:
    """Return whether a file has the content of the one that belongs to a result."""
    try:
        return desk.is_media_of(job, desk.uploads.claim(file))
    except UploadError:  # it is told when the file is to be analyzed
        return False


def _is_known(desk: Desk, job: object) -> bool:
    try:
        return isinstance(job, str) and bool(job) and bool(desk.runner.status(job))
    except JobError:  # it was kept long enough
        return False


def _start(desk: Desk, tab: Tab, earlier: str, choice: _Choice, client: str) -> list[object]:
    """Queue an analysis in the place of an earlier one, and return updates for ``Tab.outputs``: its end, if that comes at once."""
    if choice.file is None:
        words = say("Please add a picture first.") if tab.view.kind == "image" else say("Please add a clip first.")
        return [*_state(desk, choice.checkpoint), *told(tab.view, words)]
    _cancel(desk, earlier)
    if choice.agreed is not True:
        words = say("Please tick “{tick}” first. Without it nothing is analyzed.", tick=say(PROCESS.title))
        return [*_state(desk, choice.checkpoint), *told(tab.view, words)]
    try:
        config = PipelineConfig(_known_checkpoint(desk, choice.checkpoint), choice.sample_fps, choice.smoothing)
        path = choice.file if isinstance(choice.file, Path) else desk.uploads.claim(choice.file)
        job = desk.runner.submit(path, config, _compared(desk, config.checkpoint, choice.others), client=client)
    except (JobError, SettingsError, CheckpointError) as error:
        return [*_state(desk, choice.checkpoint), *told(tab.view, translate(error))]
    until_s = time.monotonic() + AT_ONCE_S
    for _ in desk.runner.watch(job, 0.1):
        if time.monotonic() > until_s:
            break
    return _ask(desk, tab, job, choice.checkpoint)


def _ask(desk: Desk, tab: Tab, job: object, chosen: object, offer: Offer | None = None) -> list[object]:
    """Return updates for ``Tab.outputs`` from where a job is.

    Args:
        desk: of the page.
        tab: whose job it is.
        job: its id.
        chosen: checkpoint that the picker shows.
        offer: what is shown; the same result is not shown twice, as that would empty a form that somebody is filling.
    """
    status = desk.runner.status(str(job)) if _is_known(desk, job) else None
    if status is None or (status.state == "cancelled" and not status.message):  # by whoever shows something else now
        return [gr.skip(), "", gr.Timer(active=False), *[gr.skip() for _ in tab.outputs[3:]]]
    if not status.finished or (offer is not None and offer.job == status.id):
        return [*_state(desk, chosen, status), *[gr.skip() for _ in tab.view.shown]]
    shown = fill(desk, tab.view, status) if status.analyses else told(tab.view, translate(status.message))
    return [*_state(desk, chosen, status), *shown]


def _stop(desk: Desk, tab: Tab, job: str, chosen: object) -> list[object]:
    """Cancel a job, unless it has just finished."""
    _cancel(desk, job)
    return [*_state(desk, chosen), *told(tab.view, say("The analysis was cancelled."))]


def _state(desk: Desk, chosen: object, status: JobStatus | None = None) -> list[object]:
    """Return updates for the part of ``Tab.outputs`` that tells whether something runs."""
    runs = status is not None and not status.finished
    job = status.id if status is not None else ""
    bar = gr.update(value=_progress(status), visible=True) if status is not None and runs else gr.update(value="", visible=False)
    weights = [gr.skip(), gr.skip()] if runs else refresh(desk, chosen)  # the analysis may have found out something about them
    return [job, job, gr.Timer(active=runs), bar, gr.update(interactive=runs), *weights]


def _known_checkpoint(desk: Desk, checkpoint: object) -> str:
    if not isinstance(checkpoint, str):
        raise SettingsError(PICK_ONE)
    return find_checkpoint(desk.settings.checkpoint_roots, checkpoint).id


def _compared(desk: Desk, first: str, others: object) -> list[str]:
    if not isinstance(others, list | tuple) or len(others) > MOST_OTHERS:
        raise SettingsError("Select at most {limit} backbones to compare with.", code="too_many_backbones", limit=MOST_OTHERS)
    return [first, *(_known_checkpoint(desk, other) for other in others)]


def _progress(status: JobStatus) -> str:
    if status.state == "queued" and status.ahead:
        return progress_bar(0, 0, _waiting(status))
    if status.phase == "download":
        done = f"{status.done / 1e6:.1f} / {status.total / 1e6:.1f}" if status.total else f"{status.done / 1e6:.1f}"
        return progress_bar(status.done, status.total, say("Downloading the weights: {done} MB", done=done))
    if not status.total:
        return progress_bar(0, 0, say("Starting…"))
    return progress_bar(status.done, status.total, say("{done} of about {total} frames", done=status.done, total=status.total))


def _waiting(status: JobStatus) -> str:
    ahead, seconds = status.ahead, status.wait_s
    if seconds is None:
        one = say("Waiting for 1 earlier analysis…")
        return one if ahead == 1 else say("Waiting for {number} earlier analyses…", number=ahead)
    one = say("Waiting for 1 earlier analysis, about {seconds} s…", seconds=seconds)
    return one if ahead == 1 else say("Waiting for {number} earlier analyses, about {seconds} s…", number=ahead, seconds=seconds)


def _cancel(desk: Desk, job: object) -> None:
    """Cancel a job that runs for this page; one that has ended stays as it is."""
    if isinstance(job, str) and job:
        try:
            desk.runner.cancel(job)
        except JobError:
            return
