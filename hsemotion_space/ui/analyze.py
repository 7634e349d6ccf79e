"""The picture tab and the clip tab: parse, call, format."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr

from hsemotion_space.feedback.consent import PROCESS
from hsemotion_space.hub.manifest import CheckpointError, find_checkpoint
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.ui.desk import Desk
from hsemotion_space.ui.parts import RawImage, RawVideo, progress_bar
from hsemotion_space.ui.picker import Picker, refresh_after
from hsemotion_space.ui.view import Kind, View, build_view, draw_again, emptied, fill, told

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOT_AGREED = f"Please tick “{PROCESS.title}” first. Without it nothing is analyzed."


@dataclass(frozen=True, slots=True)
class Shared:
    """Components that both tabs use: the backbone picker, the tick that allows the analysis, the field for the receipt code."""

    picker: Picker
    agreed: gr.Checkbox
    receipt: gr.Textbox


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a visitor asks for; unchecked."""

    path: str | None
    checkpoint: object
    agreed: object
    sample_fps: float = PipelineConfig().sample_fps
    smoothing: float = PipelineConfig().smoothing


def build_tab(kind: Kind, desk: Desk, shared: Shared) -> None:
    """Lay out one tab and connect its events."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            source: RawImage | RawVideo
            if kind == "image":
                source = RawImage(
                    label="Picture", sources=["upload", "webcam", "clipboard"], type="filepath", buttons=["fullscreen"]
                )  # fmt: skip
            else:
                source = RawVideo(label="Clip", sources=["upload"], format=None, elem_classes="clip-source")
            options = _options(kind, desk)
            with gr.Row():
                start = gr.Button("Analyze", variant="primary")
                cancel = gr.Button("Cancel", interactive=False)
            example = gr.Button(f"Show an example {'picture' if kind == 'image' else 'clip'}", size="sm", visible=EXAMPLES.is_dir())
        with gr.Column(scale=7, min_width=300):
            view = build_view(kind, desk, shared.receipt)
    smoothing, picker = options[1:], shared.picker

    def run(path: str | None, checkpoint: str, agreed: object, *numbers: float) -> Iterator[list[object]]:
        yield from _run(desk, view, _Choice(path, checkpoint, agreed, *numbers))

    def run_new(path: str | None, checkpoint: str, agreed: object) -> Iterator[list[object]]:
        if path:
            yield from run(path, checkpoint, agreed)
        else:
            yield _ended("", emptied(view))

    def run_example(checkpoint: str, *numbers: float) -> Iterator[list[object]]:
        path = _copy_example(desk, kind)
        yield [gr.update(value=path), *_ended("", emptied(view))]
        for updates in _run(desk, view, _Choice(path, checkpoint, True, *numbers), own=False):
            yield [gr.skip(), *updates]

    everything = [view.job, view.progress, cancel, *view.shown]
    asked = [source, picker.choice, shared.agreed]
    analyzed = start.click(
        run, [*asked, *options], everything, show_progress="hidden", api_visibility="private", concurrency_id="analyze",
        concurrency_limit=4, trigger_mode="always_last",
    )  # fmt: skip
    refresh_after(desk, analyzed, picker)
    shown = example.click(
        run_example, [picker.choice, *options], [source, *everything], show_progress="hidden", api_visibility="private",
        concurrency_id="analyze", concurrency_limit=4, trigger_mode="always_last",
    )  # fmt: skip
    refresh_after(desk, shown, picker)
    if isinstance(source, RawImage):
        source.input(lambda job: _cancel(desk, job), view.job, None, api_visibility="private", queue=False)
        shown = gr.on(
            [source.input, shared.agreed.input], run_new, asked, everything, show_progress="hidden", api_visibility="private",
            concurrency_id="analyze", trigger_mode="always_last",
        )  # fmt: skip
        refresh_after(desk, shown, picker)
    else:
        source.clear(
            lambda: _ended("", emptied(view)), None, everything, show_progress="hidden", api_visibility="private", queue=False
        )  # fmt: skip
    gr.on(
        [view.faces.input, *(slider.release for slider in smoothing)], lambda *chosen: draw_again(desk, *chosen),
        [view.job, view.faces, *smoothing], view.charts, show_progress="hidden", api_visibility="private", queue=False,
    )  # fmt: skip
    cancel.click(lambda job: _cancel(desk, job), view.job, None, api_visibility="private", queue=False)


def _options(kind: Kind, desk: Desk) -> list[gr.Slider]:
    if kind == "image":
        return []
    limits, standard = desk.settings.limits, PipelineConfig()
    gr.Markdown(
        f"MP4, MOV, MKV, WebM or AVI, up to {limits.clip_bytes // 2**20} MB. Of longer clips the first "
        f"{limits.clip_duration_s:g} seconds and at most {limits.clip_frames} frames are analyzed."
    )
    with gr.Accordion("Options", open=False):
        fps = gr.Slider(1, 30, standard.sample_fps, step=1, label="Frames analyzed per second")
    smoothing = gr.Slider(
        0, 3, standard.smoothing, step=0.25, label="Smoothing",
        info="1 is each task's usual window (±1.67 s for expression), 0 shows every frame as it is. Changes at once.",
    )  # fmt: skip
    return [fps, smoothing]


def _copy_example(desk: Desk, kind: Kind) -> str:
    """Return the path of a copy, which is swept like everything that visitors add."""
    name = {"image": "astronaut.jpg", "clip": "astronaut.mp4"}[kind]
    path = desk.results / uuid.uuid4().hex / name
    path.parent.mkdir(parents=True)
    shutil.copyfile(EXAMPLES / name, path)
    return str(path)


def _run(desk: Desk, view: View, choice: _Choice, *, own: bool = True) -> Iterator[list[object]]:
    """Queue an analysis and yield updates until it ends; a closed page cancels it."""
    if not choice.path:
        words = "Please add a picture first." if view.kind == "image" else "Please add a clip first."
        raise gr.Error(words, title="Nothing to analyze", print_exception=False)
    if choice.agreed is not True:
        yield _ended("", told(view, NOT_AGREED))
        return
    skipped: list[object] = [gr.skip() for _ in view.shown]
    job_id = ""
    try:
        config = PipelineConfig(_known_checkpoint(desk, choice.checkpoint), choice.sample_fps, choice.smoothing)
        job_id = desk.runner.submit(Path(choice.path), config)
        for status in desk.runner.watch(job_id):
            if status.finished:
                yield _ended(status.id, _shown(desk, view, status, own=own))
                return
            yield [job_id, gr.update(value=_progress(status), visible=True), gr.update(interactive=True), *skipped]
    except (JobError, SettingsError, CheckpointError) as error:
        raise gr.Error(str(error), title="Not analyzed", print_exception=False) from error
    finally:
        if job_id:
            _cancel(desk, job_id)


def _known_checkpoint(desk: Desk, checkpoint: object) -> str:
    if not isinstance(checkpoint, str):
        raise SettingsError("Please pick one backbone.")
    return find_checkpoint(desk.settings.checkpoint_roots, checkpoint).id


def _progress(status: JobStatus) -> str:
    if status.state == "queued":
        return progress_bar(0, 0, "Waiting for earlier analyses…")
    if status.phase == "download":
        of = f" of {status.total / 1e6:.1f}" if status.total else ""
        return progress_bar(status.done, status.total, f"Downloading the weights: {status.done / 1e6:.1f}{of} MB")
    if not status.total:
        return progress_bar(0, 0, "Starting…")
    return progress_bar(status.done, status.total, f"{status.done} of about {status.total} frames")


def _ended(job_id: str, shown: list[object]) -> list[object]:
    """Return updates for job, progress and cancel button, before those for ``View.shown``."""
    return [job_id, gr.update(value="", visible=False), gr.update(interactive=False), *shown]


def _shown(desk: Desk, view: View, status: JobStatus, *, own: bool) -> list[object]:
    if status.analysis is None:
        return told(view, status.message or "The analysis was cancelled.")
    analysis = status.analysis
    if analysis.media.kind != view.kind:
        other = "Picture" if view.kind == "clip" else "Clip"
        analysis = replace(analysis, notices=(*analysis.notices, f"This file is better placed in the {other} tab."))
    return fill(desk, view, status.id, analysis, own=own)


def _cancel(desk: Desk, job_id: str) -> None:
    if job_id:
        try:
            desk.runner.cancel(str(job_id))
        except JobError:
            return
