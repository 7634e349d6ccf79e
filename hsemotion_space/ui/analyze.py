"""The picture tab and the clip tab: parse, call, format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import gradio as gr
import numpy as np

from hsemotion_space import figures
from hsemotion_space.export import write
from hsemotion_space.hub.manifest import CheckpointError, find_checkpoint
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.readout import reread
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis, FaceResult, Prediction
from hsemotion_space.ui.desk import Desk
from hsemotion_space.ui.parts import RawImage, RawVideo, face_table, in_words, notice_list, progress_bar
from hsemotion_space.ui.picker import Picker, refresh_after

ALL_FACES = "All faces"
MOST_FACES = 6  # plotted together; the table always has all
Kind = Literal["image", "clip"]


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


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a visitor asks for; unchecked."""

    path: str | None
    checkpoint: object
    sample_fps: float = PipelineConfig().sample_fps
    smoothing: float = PipelineConfig().smoothing


def build_tab(kind: Kind, desk: Desk, picker: Picker) -> None:
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
        with gr.Column(scale=7, min_width=300):
            view = _build_view(kind)
    smoothing = options[1:]

    def run(path: str | None, checkpoint: str, *numbers: float) -> Iterator[list[object]]:
        yield from _run(desk, view, kind, _Choice(path, checkpoint, *numbers))

    def run_new(path: str | None, checkpoint: str) -> Iterator[list[object]]:
        if path:
            yield from run(path, checkpoint)
        else:
            yield _emptied(view, kind)

    def show(job: str, face: str, *factor: float) -> list[object]:
        return _show_again(desk, job, face, *factor)

    everything = [view.job, view.progress, cancel, *view.shown]
    analyzed = start.click(
        run, [source, picker.choice, *options], everything, show_progress="hidden", api_visibility="private", concurrency_id="analyze",
        concurrency_limit=4, trigger_mode="always_last",
    )  # fmt: skip
    refresh_after(desk, analyzed, picker)
    if isinstance(source, RawImage):
        source.input(lambda job: _cancel(desk, job), view.job, None, api_visibility="private", queue=False)
        shown = source.input(
            run_new, [source, picker.choice], everything, show_progress="hidden", api_visibility="private", concurrency_id="analyze",
            trigger_mode="always_last",
        )  # fmt: skip
        refresh_after(desk, shown, picker)
    else:
        source.clear(lambda: _emptied(view, kind), None, everything, show_progress="hidden", api_visibility="private", queue=False)
    gr.on(
        [view.faces.input, *(slider.release for slider in smoothing)], show, [view.job, view.faces, *smoothing],
        [view.table, *view.plots, view.csv, view.json], show_progress="hidden", api_visibility="private", queue=False,
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


def _build_view(kind: Kind) -> View:
    job = gr.State("")
    progress = gr.HTML(visible=False)
    notices = gr.HTML(visible=False)
    picture = gr.Image(
        label="Faces found" if kind == "image" else "The frame with most faces",
        interactive=False,
        format="png",
        height=420,
        visible=False,
        buttons=["download", "fullscreen"],
    )
    faces = gr.Radio([ALL_FACES], value=ALL_FACES, label="Show", visible=False)
    table = gr.HTML(_invitation(kind))
    with gr.Row(equal_height=False) if kind == "image" else gr.Column():
        plots = tuple(gr.Plot(label=task.title, visible=False, min_width=340) for task in TASKS)
    with gr.Row():
        csv = gr.DownloadButton("Download CSV", visible=False, size="sm")
        json = gr.DownloadButton("Download JSON", visible=False, size="sm")
    return View(job, progress, notices, picture, faces, table, plots, csv, json)


def _invitation(kind: Kind) -> str:
    words = (
        "Add a picture to see how each face in it looks to the network."
        if kind == "image"
        else "Add a clip and press Analyze to see how faces change over time."
    )
    return f"<p class='invitation'>{words}</p>"


def _run(desk: Desk, view: View, kind: Kind, choice: _Choice) -> Iterator[list[object]]:
    """Queue an analysis and yield updates until it ends; a closed page cancels it."""
    if not choice.path:
        words = "Please add a picture first." if kind == "image" else "Please add a clip first."
        raise gr.Error(words, title="Nothing to analyze", print_exception=False)
    skipped: list[object] = [gr.skip() for _ in view.shown]
    job_id = ""
    try:
        config = PipelineConfig(_known_checkpoint(desk, choice.checkpoint), choice.sample_fps, choice.smoothing)
        job_id = desk.runner.submit(Path(choice.path), config)
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


def _emptied(view: View, kind: Kind) -> list[object]:
    """Return updates for a tab whose input was taken away: job, progress, cancel button, then ``View.shown``."""
    shown: list[object] = [gr.update(visible=False) for _ in view.shown]
    shown[view.shown.index(view.table)] = gr.update(value=_invitation(kind), visible=True)
    return ["", gr.update(value="", visible=False), gr.update(interactive=False), *shown]


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
        analysis = replace(analysis, notices=(*analysis.notices, f"This file is better placed in the {other} tab."))
    return [status.id, bar, button, *_fill(desk, status.id, analysis, ALL_FACES)]


def _fill(desk: Desk, job_id: str, analysis: Analysis, face: str) -> list[object]:
    """Return updates for every component of ``View.shown``."""
    choices = [ALL_FACES, *(f"Face {item.track.track_id}" for item in analysis.faces)]
    return [
        gr.update(value=notice_list(analysis.notices), visible=bool(analysis.notices)),
        gr.update(value=_annotated(analysis), visible=True),
        gr.update(choices=choices, value=face, visible=len(analysis.faces) > 1),
        *_charts(desk, job_id, analysis, face),
    ]


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


def _at(face: FaceResult, row: int) -> Prediction:
    """Return the first task's values in one frame."""
    return replace(face.predictions[0], values=face.timelines[0].values[row])


def _annotated(analysis: Analysis) -> np.ndarray:
    """Draw the faces that the preview frame shows."""
    scale = analysis.preview.shape[1] / analysis.media.width
    boxes, captions, ids = [], [], []
    for face in analysis.faces:
        here = np.flatnonzero(face.track.times_s == analysis.preview_time_s)
        if here.size:
            boxes.append(face.track.boxes_xyxy[here[0]] * scale)
            captions.append(in_words(_at(face, int(here[0]))).replace("\u00a0", " "))  # the drawing font lacks the no-break space
            ids.append(face.track.track_id)
    return figures.annotate(analysis.preview, np.array(boxes, np.float32).reshape(-1, 4), captions, ids)


def _show_again(desk: Desk, job_id: str, face: str, smoothing: float = PipelineConfig().smoothing) -> list[object]:
    """Redraw a finished analysis for another face or smoothing."""
    try:
        status = desk.runner.status(str(job_id))
        if status.analysis is None:
            raise JobError("There is no finished analysis to show. Please press Analyze.")
        checkpoint = find_checkpoint(desk.settings.checkpoint_roots, status.analysis.checkpoint.id)
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
