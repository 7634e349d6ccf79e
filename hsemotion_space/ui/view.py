"""What one tab shows of an analysis: picture, table, charts, downloads, and the correction form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import gradio as gr
import numpy as np

from hsemotion_space import figures
from hsemotion_space.export import write
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.jobs import JobError
from hsemotion_space.settings import SettingsError
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis, FaceResult, Prediction
from hsemotion_space.ui.desk import Desk
from hsemotion_space.ui.feedback import Form, Offer, build_form, form_updates, make_offer
from hsemotion_space.ui.parts import face_table, in_words, notice_list

ALL_FACES = "All faces"
MOST_FACES = 6  # plotted together; the table always has all
Kind = Literal["image", "clip"]


@dataclass(frozen=True, slots=True)
class View:
    """The components that show one analysis."""

    kind: Kind
    job: gr.State
    offer: gr.State
    progress: gr.HTML
    notices: gr.HTML
    picture: gr.Image
    faces: gr.Radio
    table: gr.HTML
    form: Form | None
    plots: tuple[gr.Plot, ...]
    csv: gr.DownloadButton
    json: gr.DownloadButton

    @property
    def charts(self) -> list[gr.blocks.Block]:
        """Components that change with face and smoothing, in the order of :func:`draw`."""
        return [self.table, *self.plots, self.csv, self.json, self.offer]

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """Components that an analysis fills, in the order of :func:`fill`."""
        return [self.notices, self.picture, self.faces, *self.charts, *(self.form.filled if self.form else [])]


def build_view(kind: Kind, desk: Desk, receipt: gr.Textbox) -> View:
    """Lay out the components, empty."""
    job, offer = gr.State(""), gr.State(Offer())
    progress = gr.HTML(visible=False)
    notices = gr.HTML(visible=False)
    picture = gr.Image(
        label="Faces found" if kind == "image" else "The frame with most faces", interactive=False, format="png", height=420,
        visible=False, buttons=["download", "fullscreen"],
    )  # fmt: skip
    faces = gr.Radio([ALL_FACES], value=ALL_FACES, label="Show", visible=False)
    table = gr.HTML(_invitation(kind))
    form = build_form(kind, desk, offer, receipt) if desk.feedback is not None else None
    with gr.Row(equal_height=False) if kind == "image" else gr.Column():
        plots = tuple(gr.Plot(label=task.title, visible=False, min_width=340) for task in TASKS)
    with gr.Row():
        csv = gr.DownloadButton("Download CSV", visible=False, size="sm")
        json = gr.DownloadButton("Download JSON", visible=False, size="sm")
    return View(kind, job, offer, progress, notices, picture, faces, table, form, plots, csv, json)


def _invitation(kind: Kind) -> str:
    words = (
        "Add a picture to see how each face in it looks to the network."
        if kind == "image"
        else "Add a clip and press Analyze to see how faces change over time."
    )
    return f"<p class='invitation'>{words}</p>"


def emptied(view: View) -> list[object]:
    """Return updates for ``View.shown`` when the input was taken away."""
    updates = told(view, "")
    updates[view.shown.index(view.table)] = gr.update(value=_invitation(view.kind), visible=True)
    return updates


def told(view: View, words: str) -> list[object]:
    """Return updates for ``View.shown`` when there is no analysis, and why."""
    updates: list[object] = [gr.update(visible=False) for _ in view.shown]
    updates[view.shown.index(view.notices)] = gr.update(value=notice_list([words]) if words else "", visible=bool(words))
    updates[view.shown.index(view.offer)] = Offer()
    if view.form is not None:
        updates[-len(view.form.filled) :] = form_updates(None)
    return updates


def fill(desk: Desk, view: View, job_id: str, analysis: Analysis, *, own: bool = True) -> list[object]:
    """Return updates for ``View.shown``; what is not the visitor's ``own``, such as an example, cannot be corrected."""
    choices = [ALL_FACES, *(f"Face {item.track.track_id}" for item in analysis.faces)]
    return [
        gr.update(value=notice_list(analysis.notices), visible=bool(analysis.notices)),
        gr.update(value=_annotated(analysis), visible=True),
        gr.update(choices=choices, value=ALL_FACES, visible=len(analysis.faces) > 1),
        *draw(desk, job_id, analysis, ALL_FACES, None),
        *(form_updates(analysis if own else None) if view.form is not None else []),
    ]


def draw(desk: Desk, job_id: str, analysis: Analysis, face: str, smoothing: float | None) -> list[object]:
    """Return updates for ``View.charts``.

    Args:
        desk: of the page.
        job_id: of the analysis.
        analysis: as it is to be shown.
        face: caption of the face to show, or ALL_FACES.
        smoothing: with which it was read again; None if it is as the job left it.
    """
    chosen = [item for item in analysis.faces if face in (ALL_FACES, f"Face {item.track.track_id}")] or list(analysis.faces)
    plots = [_plot(task, chosen[:MOST_FACES], analysis) for task in TASKS]
    folder = desk.results / job_id
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"hsemotion-{analysis.media.sha256[:8]}.{suffix}" for suffix in ("csv", "json")]
    for file in files:
        write([analysis], file)
    downloads = [gr.update(value=str(file), visible=True) for file in files]
    table = gr.update(value=face_table(analysis), visible=bool(analysis.faces))
    return [table, *plots, *downloads, make_offer(desk, job_id, analysis, smoothing)]


def draw_again(desk: Desk, job_id: str, face: str, smoothing: float | None = None) -> list[object]:
    """Return updates for ``View.charts`` when another face or smoothing was chosen."""
    try:
        analysis = desk.analysis(job_id, smoothing)
    except (JobError, CheckpointError, SettingsError, ValueError) as error:
        raise gr.Error(str(error), title="Not shown", print_exception=False) from error
    return draw(desk, str(job_id), analysis, str(face), smoothing)


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
