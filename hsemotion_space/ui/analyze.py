"""The picture tab and the clip tab: parse, call, format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gradio as gr
import numpy as np

from hsemotion_space import figures
from hsemotion_space.export import write
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, find_checkpoint
from hsemotion_space.jobs import JobError, JobRunner, JobStatus
from hsemotion_space.readout import reread
from hsemotion_space.settings import PipelineConfig, Settings, SettingsError
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis, FaceResult
from hsemotion_space.ui.parts import RawImage, RawVideo, checkpoint_card, face_table, in_words, notice_list, progress_bar

ALL_FACES = "All faces"
MOST_FACES = 6  # plotted together; the table always has all
Kind = Literal["image", "clip"]


@dataclass(frozen=True, slots=True)
class Desk:
    """What the handlers work with."""

    settings: Settings
    runner: JobRunner
    checkpoints: tuple[Checkpoint, ...]
    results: Path  # folder for files to download


@dataclass(frozen=True, slots=True)
class View:
    """The components that show one analysis."""

    job: gr.State
    progress: gr.HTML
    notices: gr.HTML
    picture: gr.Image
    faces: gr.Radio
    table: gr.HTML
    plots: tuple[gr.Plot, ...]
    csv: gr.DownloadButton
    json: gr.DownloadButton

    @property
    def shown(self) -> list[gr.components.Component]:
        """Components that an analysis fills, in the order of :func:`_fill`."""
        return [self.notices, self.picture, self.faces, self.table, *self.plots, self.csv, self.json]


def build_tab(kind: Kind, desk: Desk, picker: gr.Dropdown) -> None:
    """Lay out one tab and connect its events."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            if kind == "image":
                source: gr.components.Component = RawImage(label="Picture", sources=["upload", "webcam", "clipboard"], type="filepath")
            else:
                source = RawVideo(label="Clip", sources=["upload"], format=None)
            options = _options(kind, desk)
            with gr.Row():
                start = gr.Button("Analyze", variant="primary")
                cancel = gr.Button("Cancel", interactive=False)
        with gr.Column(scale=7, min_width=300):
            view = _build_view(kind)
    runs = [source, picker, *options[:1]] if kind == "clip" else [source, picker]
    smoothing = options[1] if kind == "clip" else None

    def run(path: str | None, checkpoint: str, sample_fps: float = 10.0, smoothing_factor: float = 1.0) -> Iterator[list[object]]:
        yield from _run(desk, view, kind, path, checkpoint, sample_fps, smoothing_factor)

    def show(job: str, face: str, factor: float = 1.0) -> list[object]:
        return _show_again(desk, job, face, factor)

    inputs = runs + ([smoothing] if smoothing is not None else [])
    started = start.click(
        run, inputs, [view.job, view.progress, cancel, *view.shown], concurrency_id="analyze", concurrency_limit=4,
        api_name=f"analyze_{kind}", show_progress="hidden",
    )  # fmt: skip
    if kind == "image":
        source.input(  # type: ignore[attr-defined]
            run, inputs, [view.job, view.progress, cancel, *view.shown], concurrency_id="analyze", api_visibility="private",
            show_progress="hidden",
        )  # fmt: skip
    cancel.click(lambda job: _cancel(desk, job), view.job, None, queue=False, api_visibility="private")
    again = [view.job, view.faces] + ([smoothing] if smoothing is not None else [])
    redrawn = [view.table, *view.plots, view.csv, view.json]
    view.faces.input(show, again, redrawn, queue=False, api_visibility="private", show_progress="hidden")
    if smoothing is not None:
        smoothing.release(show, again, redrawn, queue=False, api_visibility="private", show_progress="hidden")
    del started


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
        info="1 is each task's usual window (±1.67 s for expression), 0 shows every frame as it is. Changes at once, nothing is analyzed again.",
    )  # fmt: skip
    return [fps, smoothing]


def _build_view(kind: Kind) -> View:
    job = gr.State("")
    progress = gr.HTML(visible=False)
    notices = gr.HTML(visible=False)
    picture = gr.Image(
        label="Faces found" if kind == "image" else "The frame with most faces", interactive=False, format="png", height=420, visible=False
    )
    faces = gr.Radio([ALL_FACES], value=ALL_FACES, label="Show", visible=False)
    table = gr.HTML(_invitation(kind))
    plots = tuple(gr.Plot(label=task.title, visible=False) for task in TASKS)
    with gr.Row():
        csv = gr.DownloadButton("Download CSV", visible=False, size="sm")
        json = gr.DownloadButton("Download JSON", visible=False, size="sm")
    return View(job, progress, notices, picture, faces, table, plots, csv, json)


def _invitation(kind: Kind) -> str:
    words = "Add a picture to see who looks how." if kind == "image" else "Add a clip and press Analyze to see how faces change over time."
    return f"<p class='invitation'>{words}</p>"


def _run(
    desk: Desk, view: View, kind: Kind, path: str | None, checkpoint: str, sample_fps: float, smoothing: float
) -> Iterator[list[object]]:
    """Queue an analysis and yield updates until it ends; a closed page cancels it."""
    if not path:
        if kind == "image":
            yield ["", gr.skip(), gr.skip(), *[gr.skip() for _ in view.shown]]
            return
        raise gr.Error("Please add a clip first.", title="Nothing to analyze", print_exception=False)
    skipped: list[object] = [gr.skip() for _ in view.shown]
    job_id = ""
    try:
        known = _known_checkpoint(desk, checkpoint)
        config = PipelineConfig(checkpoint=known.id, sample_fps=sample_fps, smoothing=smoothing)
        job_id = desk.runner.submit(Path(path), config)
        for status in desk.runner.watch(job_id):
            if status.finished:
                yield _finish(desk, view, kind, status)
                return
            yield [job_id, gr.update(value=_progress(status), visible=True), gr.update(interactive=True), *skipped]
    except (JobError, SettingsError, CheckpointError) as error:
        raise gr.Error(str(error), title="Not analyzed", print_exception=False) from error
    finally:
        if job_id:
            _cancel(desk, job_id)


def _known_checkpoint(desk: Desk, checkpoint: object) -> Checkpoint:
    if not isinstance(checkpoint, str):
        raise SettingsError("Please pick one backbone.")
    return find_checkpoint(desk.settings.checkpoints, checkpoint)


def _progress(status: JobStatus) -> str:
    if status.state == "queued":
        return progress_bar(0, 0, "Waiting for earlier analyses…")
    if not status.total:
        return progress_bar(0, 0, "Starting…")
    return progress_bar(status.done, status.total, f"{status.done} of about {status.total} frames")


def _finish(desk: Desk, view: View, kind: Kind, status: JobStatus) -> list[object]:
    bar, button = gr.update(value="", visible=False), gr.update(interactive=False)
    if status.analysis is None:
        words = status.message or "The analysis was cancelled."
        hidden: list[object] = [gr.update(visible=False) for _ in view.shown]
        hidden[0] = gr.update(value=notice_list([words]), visible=True)
        return [status.id, bar, button, *hidden]
    analysis = status.analysis
    if analysis.media.kind != kind:
        other = "Picture" if kind == "clip" else "Clip"
        analysis = _with_notice(analysis, f"This file is better placed in the {other} tab.")
    return [status.id, bar, button, *_fill(desk, status.id, analysis, ALL_FACES)]


def _with_notice(analysis: Analysis, words: str) -> Analysis:
    from dataclasses import replace  # noqa: PLC0415

    return replace(analysis, notices=(*analysis.notices, words))


def _fill(desk: Desk, job_id: str, analysis: Analysis, face: str) -> list[object]:
    """Return updates for every component of ``View.shown``."""
    found = bool(analysis.faces)
    choices = [ALL_FACES, *(f"Face {item.track.track_id}" for item in analysis.faces)]
    return [
        gr.update(value=notice_list(analysis.notices), visible=bool(analysis.notices)),
        gr.update(value=_annotated(analysis), visible=True),
        gr.update(choices=choices, value=face, visible=len(analysis.faces) > 1),
        *_charts(desk, job_id, analysis, face),
    ] if found else [
        gr.update(value=notice_list(analysis.notices), visible=True),
        gr.update(value=analysis.preview, visible=True),
        gr.update(choices=[ALL_FACES], value=ALL_FACES, visible=False),
        *_charts(desk, job_id, analysis, face),
    ]  # fmt: skip


def _charts(desk: Desk, job_id: str, analysis: Analysis, face: str) -> list[object]:
    """Return updates for the table, the plots and the downloads."""
    chosen = [item for item in analysis.faces if face in (ALL_FACES, f"Face {item.track.track_id}")] or list(analysis.faces)
    plots = [_plot(task, chosen[:MOST_FACES], analysis) for task in TASKS]
    folder = desk.results / job_id
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"hsemotion-{analysis.media.sha256[:8]}.{suffix}" for suffix in ("csv", "json")]
    for file in files:
        write([analysis], file)
    downloads = [gr.update(value=str(file), visible=True) for file in files]
    return [gr.update(value=face_table(analysis), visible=bool(analysis.faces)), *plots, *downloads]


def _plot(task: Task, faces: Sequence[FaceResult], analysis: Analysis) -> object:
    pairs = [(face, prediction) for face in faces for prediction in face.predictions if prediction.task.name == task.name]
    if not pairs:
        return gr.update(visible=False, value=None)
    predictions, ids = [prediction for _, prediction in pairs], [face.track.track_id for face, _ in pairs]
    if analysis.media.kind == "clip" and task.scope == "frame" and len(analysis.frame_times_s) > 1:
        figure = figures.timeline([face for face, _ in pairs], task.name, analysis.frame_times_s)
    elif task.kind == "continuous":
        figure = figures.circumplex(predictions, ids, None)
    else:
        figure = figures.bars(predictions, ids)
    return gr.update(value=figure, visible=True)


def _annotated(analysis: Analysis) -> np.ndarray:
    """Draw the faces that the preview frame shows."""
    scale = analysis.preview.shape[1] / analysis.media.width
    boxes, captions = [], []
    for face in analysis.faces:
        here = np.flatnonzero(face.track.times_s == analysis.preview_time_s)
        if here.size:
            boxes.append(face.track.boxes_xyxy[here[0]] * scale)
            captions.append(f"{face.track.track_id} {in_words(face.predictions[0])}")
    return figures.annotate(analysis.preview, np.array(boxes, np.float32).reshape(-1, 4), captions)


def _show_again(desk: Desk, job_id: str, face: str, smoothing: float) -> list[object]:
    """Redraw a finished analysis for another face or smoothing."""
    try:
        status = desk.runner.status(str(job_id))
        if status.analysis is None:
            raise JobError("There is no finished analysis to show. Please press Analyze.")
        checkpoint = find_checkpoint(desk.settings.checkpoints, status.analysis.checkpoint.id)
        config = PipelineConfig(smoothing=smoothing)
        analysis = reread(status.analysis, checkpoint, config.smoothing)
    except (JobError, CheckpointError, SettingsError, ValueError) as error:
        raise gr.Error(str(error), title="Not shown", print_exception=False) from error
    return _charts(desk, job_id, analysis, str(face))


def _cancel(desk: Desk, job_id: str) -> None:
    if job_id:
        try:
            desk.runner.cancel(str(job_id))
        except JobError:
            return


def build_picker(desk: Desk) -> gr.Dropdown:
    """Lay out the backbone picker with a card for the choice."""
    usable = [checkpoint for checkpoint in desk.checkpoints if checkpoint.weights_bytes]
    first = usable[0] if usable else desk.checkpoints[0]
    with gr.Row(equal_height=False):
        picker = gr.Dropdown(
            [(checkpoint.title, checkpoint.id) for checkpoint in desk.checkpoints], value=first.id, label="Backbone", scale=2, min_width=260
        )
        card = gr.HTML(checkpoint_card(first), scale=5, min_width=300)
    cards = {checkpoint.id: checkpoint_card(checkpoint) for checkpoint in desk.checkpoints}
    picker.change(
        lambda chosen: cards.get(chosen, "") if isinstance(chosen, str) else "", picker, card, queue=False, api_visibility="private"
    )
    return picker
