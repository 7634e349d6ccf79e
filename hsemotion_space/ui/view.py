"""What one tab shows of an analysis: quality flags, table, linked viewer, comparison, downloads, and the correction form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import gradio as gr

from hsemotion_space.analysis.disagreement import disagreements
from hsemotion_space.analysis.export import write
from hsemotion_space.analysis.image_quality import quality
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.types import Analysis
from hsemotion_space.ui.compare import Comparison, build_comparison, comparison_updates
from hsemotion_space.ui.desk import Desk, example_digests
from hsemotion_space.ui.explain import Explanation, build_explanation, explanation_updates
from hsemotion_space.ui.feedback import Form, Offer, build_form, connect_viewer, form_updates, make_offer
from hsemotion_space.ui.parts import face_table, notice_list
from hsemotion_space.ui.tables import timeline_tables
from hsemotion_space.ui.viewer import as_text, build_viewer, media_url, viewer_value
from hsemotion_space.ui.words import fixed, say, translate

Kind = Literal["image", "clip"]
INVITATIONS: Final[dict[Kind, str]] = {
    "image": "<p class='invitation'>Add a picture to see how each face in it looks to the network.</p>",
    "clip": "<p class='invitation'>Add a clip and press Analyze to see how faces change over time.</p>",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """The components beside the input: job and offer are states, the others show what is said first."""

    job: gr.State
    offer: gr.State
    progress: gr.HTML
    notices: gr.HTML
    table: gr.HTML
    csv: gr.DownloadButton
    json: gr.DownloadButton


@dataclass(frozen=True, slots=True)
class View:
    """The components that show one analysis."""

    kind: Kind
    summary: Summary
    viewer: gr.HTML
    numbers: gr.HTML
    comparison: Comparison
    explanation: Explanation
    form: Form | None

    @property
    def charts(self) -> list[gr.blocks.Block]:
        """Components that change with the smoothing, in the order of :func:`draw`."""
        summary = self.summary
        return [summary.table, self.viewer, self.numbers, summary.csv, summary.json, summary.offer, *self.comparison.filled]

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """Components that an analysis fills, in the order of :func:`fill`."""
        return [self.summary.notices, *self.charts, *self.explanation.filled, *(self.form.filled if self.form else [])]


def build_summary(kind: Kind) -> Summary:
    """Lay out the components beside the input, empty."""
    job, offer = gr.State(""), gr.State(Offer())
    progress = gr.HTML(visible=False)
    notices = gr.HTML(visible=False)
    table = gr.HTML(fixed(INVITATIONS[kind]))
    with gr.Row():
        csv = gr.DownloadButton(fixed("Download CSV"), visible=False, size="sm")
        json = gr.DownloadButton(fixed("Download JSON"), visible=False, size="sm")
    return Summary(job, offer, progress, notices, table, csv, json)


def build_view(kind: Kind, desk: Desk, summary: Summary, receipt: gr.Textbox) -> View:
    """Lay out the components below the input, empty, and connect them with each other."""
    viewer = build_viewer(visible=False)
    numbers = gr.HTML(visible=False)
    comparison = build_comparison(desk, summary.offer)
    explanation = build_explanation(desk, summary.offer, viewer)
    form = build_form(kind, desk, summary.offer, receipt) if desk.feedback is not None else None
    if form is not None:
        connect_viewer(form, viewer, summary.offer)
    return View(kind, summary, viewer, numbers, comparison, explanation, form)


def emptied(view: View) -> list[object]:
    """Return updates for ``View.shown`` when the input was taken away."""
    updates = told(view, "")
    updates[view.shown.index(view.summary.table)] = gr.update(value=say(INVITATIONS[view.kind]), visible=True)
    return updates


def told(view: View, words: str) -> list[object]:
    """Return updates for ``View.shown`` when there is no analysis, and why, in the language of the visitor."""
    hidden = [gr.update(visible=False), gr.update(value=None, visible=False), *[gr.update(visible=False)] * 3, Offer()]
    form = form_updates(view.form, None) if view.form is not None else []
    return [
        gr.update(value=notice_list([words]) if words else "", visible=bool(words)),
        *hidden,
        *comparison_updates((), ""),
        *explanation_updates((), ""),
        *form,
    ]


def fill(desk: Desk, view: View, status: JobStatus) -> list[object]:
    """Return updates for ``View.shown`` from a job that is done; an example of the page is nobody's to correct."""
    analysis = status.analyses[0]
    form = form_updates(view.form, None if analysis.media.sha256 in example_digests() else analysis) if view.form is not None else []
    explained = explanation_updates(status.analyses, status.id)
    return [_notices(desk, view, status), *draw(desk, status, None), *explained, *form]


def _notices(desk: Desk, view: View, status: JobStatus) -> object:
    """Return the update for what is said of the media and against the numbers."""
    analysis = status.analyses[0]
    notices = [*map(translate, analysis.notices), *_flags(desk, status.analyses)]
    if analysis.media.kind != view.kind:
        tab = say("Picture") if view.kind == "clip" else say("Clip")
        notices.append(say("This file is better placed in the tab “{tab}”.", tab=tab))
    return gr.update(value=notice_list(notices), visible=bool(notices))


def _flags(desk: Desk, analyses: Sequence[Analysis]) -> list[str]:
    """Return what speaks against the numbers that the first analysis has for each face, the most serious first."""
    try:
        spec = find_checkpoint(desk.settings.checkpoint_roots, analyses[0].checkpoint.id).input
    except CheckpointError:  # its manifest was changed while the page runs
        return []
    faces = quality(analyses[0], spec, disagreements(analyses) if len(analyses) > 1 else ())
    return [say("Face {number}: {text}", number=face.track_id, text=translate(flag.text)) for face in faces for flag in face.flags]


def draw(desk: Desk, status: JobStatus, smoothing: float | None) -> list[object]:
    """Return updates for ``View.charts``.

    Args:
        desk: of the page.
        status: of a job that is done.
        smoothing: with which it is read again; None if it is to be as the job left it.

    Raises:
        JobError, CheckpointError, SettingsError: if it cannot be read again.
    """
    analyses = desk.analyses(status, smoothing)
    analysis, raw = analyses[0], desk.analyses(status, 0.0)[0]
    folder = desk.results / status.id
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"hsemotion-{analysis.media.sha256[:8]}.{suffix}" for suffix in ("csv", "json")]
    for file in files:
        write(list(analyses), file)
    downloads = [gr.update(value=str(file), visible=True) for file in files]
    table = gr.update(value=face_table(analysis), visible=bool(analysis.faces))
    media = desk.runner.media_of(status.id)
    value = as_text(viewer_value(analysis, media_url(media), unsmoothed=raw)) if media else None
    viewer = gr.update(value=value, visible=value is not None and bool(analysis.faces))
    numbers = timeline_tables(analysis)
    shown = gr.update(value=numbers, visible=bool(numbers))
    return [table, viewer, shown, *downloads, make_offer(desk, status.id, analysis, smoothing), *comparison_updates(analyses, status.id)]


def draw_again(desk: Desk, view: View, job_id: object, smoothing: Any) -> list[object]:
    """Return updates for the notices and ``View.charts`` when another smoothing was chosen; an emptied field shows 0 when it is left."""
    if not job_id:  # there is nothing to draw yet
        return [gr.skip() for _ in (view.summary.notices, *view.charts)]
    try:
        factor = PipelineConfig(smoothing=0.0 if smoothing is None else smoothing).smoothing
        status = desk.runner.status(str(job_id))
        charts = draw(desk, status, factor)
    except (JobError, CheckpointError, SettingsError) as error:
        return [gr.update(value=notice_list([translate(error)]), visible=True), *[gr.skip() for _ in view.charts]]
    return [_notices(desk, view, status), *charts]
