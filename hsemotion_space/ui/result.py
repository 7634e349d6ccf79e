"""What the page shows of an analysis: viewer, downloads, tables, comparison, explanation, correction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import gradio as gr

from hsemotion_space.analysis.disagreement import disagreements
from hsemotion_space.analysis.export import write
from hsemotion_space.analysis.image_quality import KINDS, Kind, quality
from hsemotion_space.analysis.markers import write_markers
from hsemotion_space.edits import EditError
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.inference.session import SessionError
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.media.formats import MediaError, identify
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.types import Analysis
from hsemotion_space.ui.compare import Comparison, build_comparison, comparison_updates
from hsemotion_space.ui.context import QUIET, AppContext, ResultRef, Updates
from hsemotion_space.ui.data_uri import data_uri
from hsemotion_space.ui.edit import change
from hsemotion_space.ui.explain import Explanation, build_explanation, explanation_updates
from hsemotion_space.ui.feedback import Form, build_form, connect_viewer, face_numbers, form_updates, refer_to
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate
from hsemotion_space.ui.inputs import RawSlider, read_event
from hsemotion_space.ui.session import save_session
from hsemotion_space.ui.status import notice_list
from hsemotion_space.ui.tables import face_choices, face_table, folded, timeline_tables
from hsemotion_space.ui.viewer import as_text, build_viewer, media_url, viewer_value
from hsemotion_space.ui.viewer.payload import WarningEntry

KIND_TITLES: Final[dict[Kind, str]] = {
    "unsure": "Perhaps not a face",
    "small": "Small",
    "blurred": "Blurred",
    "outside": "Cropped",
    "turned": "Turned away",
    "undecided": "Close call",
    "divided": "Backbones disagree",
}
SESSION_FILE: Final = "session-file"
HAND_OUT: Final = f"() => document.querySelector('#{SESSION_FILE}')?.click()"
SMOOTHING: Final = (
    "0.15 (±0.25 s for expression) keeps events of half a second, 1 is the window of the ABAW challenge"
    " (±1.67 s), 0 turns smoothing off."
)


@dataclass(frozen=True, slots=True)
class Result:
    """The components that show one analysis.

    Attributes:
        shown: state with the :class:`ResultRef` of what is shown.
        notices: sentences about the media, or why there is no result.
        viewer, smoothing, csv, json, markers, save, numbers, comparison, explanation: from top to bottom.
        form: None where corrections are not taken.
    """

    shown: gr.State
    notices: gr.HTML
    viewer: gr.HTML
    smoothing: gr.Slider
    csv: gr.DownloadButton
    json: gr.DownloadButton
    markers: gr.DownloadButton
    save: gr.Button
    numbers: gr.HTML
    comparison: Comparison
    explanation: Explanation
    form: Form | None

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """Everything that an analysis changes."""
        files = [self.csv, self.json, self.markers, self.save]
        own = [self.shown, self.notices, self.viewer, self.smoothing, *files, self.numbers]
        form = self.form.outputs if self.form is not None else []
        return [*own, *self.comparison.outputs, *self.explanation.outputs, *form]


def build_result(context: AppContext, receipt: gr.Textbox) -> Result:
    """Lay out the components, empty, and connect them with each other."""
    shown = gr.State(ResultRef())
    notices = gr.HTML(visible=False)
    viewer = build_viewer(visible=False)
    with gr.Row(elem_classes="downloads"):
        smoothing = RawSlider(
            0, 3, PipelineConfig().smoothing, step=0.05, visible=False, scale=4,
            label=gettext_lazy("Smoothing"), info=gettext_lazy(SMOOTHING),
        )  # fmt: skip
        csv = gr.DownloadButton(
            gettext_lazy("Download CSV"), visible=False, size="sm", scale=0, min_width=150
        )
        json = gr.DownloadButton(
            gettext_lazy("Download JSON"), visible=False, size="sm", scale=0, min_width=150
        )
        save = gr.Button(gettext_lazy("Save session"), visible=False, size="sm", scale=0, min_width=150)
        session = gr.DownloadButton("", elem_id=SESSION_FILE, elem_classes="handed-out")
        marks = gr.DownloadButton(
            gettext_lazy("Download markers"), visible=False, size="sm", scale=0, min_width=150
        )
    numbers = gr.HTML(visible=False)
    comparison = build_comparison(context, shown)
    explanation = build_explanation(context, shown, viewer)
    form = None
    if context.feedback is not None:
        form = build_form(context, shown, receipt)
        connect_viewer(form, viewer, shown)
    result = Result(
        shown, notices, viewer, smoothing, csv, json, marks, save, numbers, comparison, explanation, form
    )
    smoothing.release(
        lambda *chosen: smooth_again(context, result, *chosen), [shown, smoothing], result.outputs, **QUIET
    )

    def edit(event: gr.EventData, given: ResultRef) -> Updates:
        return edit_by_hand(context, result, given, read_event(event))

    def write_file(given: ResultRef) -> Updates:
        try:
            return {session: str(save_session(context, given))}
        except (JobError, SessionError) as error:
            return {session: gr.update(value=None), **notice_updates(result, [translate(error)])}

    viewer.edit(edit, shown, result.outputs, **QUIET)
    saved = save.click(write_file, shown, [session, notices], **QUIET)
    saved.then(None, None, None, js=HAND_OUT)
    return result


def result_updates(context: AppContext, result: Result, status: JobStatus) -> Updates:
    """Return updates that show the analyses of a job that is done.

    Raises:
        CheckpointError: if its changes by hand cannot be made again.
    """
    return {
        **_faces(result, context.analyses(status, None), status.id),
        **_charts(context, result, status, None),
        result.smoothing: gr.update(value=status.config.smoothing, visible=_is_clip(status.analyses[0])),
    }


def _faces(result: Result, analyses: Sequence[Analysis], job: str) -> Updates:
    """Return updates for notices and for what is chosen by face."""
    return {
        **notice_updates(result, list(map(translate, analyses[0].notices))),
        **explanation_updates(result.explanation, analyses, job),
        **(form_updates(result.form, analyses[0]) if result.form is not None else {}),
    }


def _is_clip(analysis: Analysis) -> bool:
    return analysis.media.kind == "clip" and bool(analysis.faces)


def message_updates(result: Result, text: str) -> Updates:
    """Return updates that show no analysis, and why in the visitor's language; empty text shows nothing."""
    files = (result.csv, result.json, result.markers, result.save)
    hidden = (result.viewer, result.smoothing, *files, result.numbers)
    return {
        **dict.fromkeys(hidden, gr.update(visible=False)),
        **notice_updates(result, [text] if text else []),
        result.shown: ResultRef(),
        **comparison_updates(result.comparison, ()),
        **explanation_updates(result.explanation, (), ""),
        **(form_updates(result.form, None) if result.form is not None else {}),
    }


def notice_updates(result: Result, texts: Sequence[str]) -> Updates:
    """Return updates that show some sentences, or none."""
    return {result.notices: gr.update(value=notice_list(texts), visible=bool(texts))}


def smooth_again(context: AppContext, result: Result, shown: ResultRef, smoothing: Any) -> Updates:
    """Return updates for another smoothing; an emptied field shows 0 when it is left."""
    try:
        factor = PipelineConfig(smoothing=0.0 if smoothing is None else smoothing).smoothing
        return _charts(context, result, context.runner.status(shown.job), factor)
    except (JobError, CheckpointError, SettingsError) as error:
        return notice_updates(result, [translate(error)])


def edit_by_hand(context: AppContext, result: Result, shown: ResultRef, sent: dict[str, object]) -> Updates:
    """Return updates after a change by hand, or why it cannot be made; an open form stays if the faces do."""
    try:
        status = context.runner.status(shown.job)
        before = context.analyses(status, shown.smoothing)
        status = replace(status, edits=change(status.edits, before[0], sent))
        after = context.analyses(status, shown.smoothing)
        context.runner.edit(shown.job, status.edits)
        same = face_numbers(before[0]) == face_numbers(after[0])
        faces = _renamed(result, after[0]) if same else _faces(result, after, status.id)
        return {**faces, **_charts(context, result, status, shown.smoothing)}
    except (JobError, CheckpointError, SettingsError, EditError) as error:
        return notice_updates(result, [translate(error)])


def _renamed(result: Result, analysis: Analysis) -> Updates:
    """Return updates that clear notices and rename the faces to choose from; what is selected stays."""
    choices = [result.explanation.face, *([result.form.face] if result.form is not None else [])]
    return {
        **notice_updates(result, list(map(translate, analysis.notices))),
        **dict.fromkeys(choices, gr.update(choices=face_choices(analysis))),
    }


def _charts(context: AppContext, result: Result, status: JobStatus, smoothing: float | None) -> Updates:
    """Return updates for what changes with the smoothing.

    Args:
        context: of the page.
        result: whose components are updated.
        status: of a job that is done.
        smoothing: with which it is read again; None if it is to be as the job left it.

    Raises:
        JobError, CheckpointError, SettingsError: if it cannot be read again.
    """
    analyses = context.analyses(status, smoothing)
    analysis, media = analyses[0], context.runner.media_of(status.id)
    faces = bool(analysis.faces)
    shown = refer_to(context, status.id, analysis, smoothing)
    value = None
    if faces and (media is not None or analysis.imported):
        url = _shown_url(media, analysis) if media is not None else ""
        raw, warnings = context.analyses(status, 0.0)[0], list_warnings(context, analyses)
        value = as_text(viewer_value(analysis, url, raw, warnings=warnings, correctable=bool(shown.faces)))
    numbers = (
        folded(gettext("Values as a table"), face_table(analysis)) + timeline_tables(analysis)
        if faces
        else ""
    )
    csv, json, markers = _write(context, status.id, analyses)
    return {
        result.shown: shown,
        result.viewer: gr.update(value=value, visible=value is not None),
        result.smoothing: gr.update(visible=_is_clip(analysis)),
        result.csv: gr.update(value=csv, visible=True),
        result.json: gr.update(value=json, visible=True),
        result.markers: gr.update(value=markers, visible=bool(analysis.edits.markers)),
        result.save: gr.update(visible=faces),
        result.numbers: gr.update(value=numbers, visible=faces),
        **comparison_updates(result.comparison, analyses),
    }


def _shown_url(media: Path, analysis: Analysis) -> str:
    """Return where the browser gets the media; the preview of a HEIC photo, which few browsers can decode."""
    with suppress(MediaError):
        if analysis.preview.size and identify(media) == "HEIF":
            height, width = analysis.preview.shape[:2]
            return data_uri(analysis.preview, (width, height))
    return media_url(media)


def _write(context: AppContext, job: str, analyses: Sequence[Analysis]) -> list[str]:
    """Write the files to download and return their paths."""
    folder = context.results / job
    folder.mkdir(parents=True, exist_ok=True)
    name = f"hsemotion-{analyses[0].media.sha256[:8]}"
    files = [write(list(analyses), folder / f"{name}.{suffix}") for suffix in ("csv", "json")]
    return [*map(str, files), str(write_markers(analyses[0], folder / f"{name}-markers.csv"))]


def list_warnings(context: AppContext, analyses: Sequence[Analysis]) -> list[WarningEntry]:
    """Return the warnings about the faces of the first analysis by kind, the most serious kind first."""
    try:
        spec = find_checkpoint(context.settings.checkpoint_roots, analyses[0].checkpoint.id).input
    except CheckpointError:  # its manifest was changed while the page runs
        return []
    found: dict[Kind, WarningEntry] = {}
    for face in quality(analyses[0], spec, disagreements(analyses) if len(analyses) > 1 else ()):
        for flag in face.flags:
            entry = found.setdefault(
                flag.kind, {"title": gettext(KIND_TITLES[flag.kind]), "faces": [], "details": []}
            )
            if face.track_id not in entry["faces"]:
                entry["faces"].append(face.track_id)
            entry["details"].append(
                gettext("Face {number}: {text}", number=face.track_id, text=translate(flag.text))
            )
    return [found[kind] for kind in KINDS if kind in found]
