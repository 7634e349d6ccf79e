"""Several backbones on the same faces: lines in one plot, their distance, the moments of disagreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import gradio as gr

from hsemotion_space import figures
from hsemotion_space.analysis.disagreement import Moment, disagreements, most_disagreed
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.jobs import JobError
from hsemotion_space.settings import SettingsError
from hsemotion_space.tasks import TASKS
from hsemotion_space.types import PROVENANCE_LABELS, Analysis
from hsemotion_space.ui.context import QUIET, AppContext, ResultRef, Updates, unchanged
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate
from hsemotion_space.ui.tables import comparison_tables, face_choices, prediction_text, table_of

MOMENTS: Final = 8
GO_TO: Final = Path(__file__).with_name("moments.js")
ABOUT: Final = (
    "The difference between backbones shows how uncertain such networks are about a face. It"
    " does not show which of them is right, and all of them can be wrong. 0 means no"
    " difference, 1 the largest possible difference. Scales differ between tasks, so compare"
    " moments within one task."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The components of a comparison."""

    box: gr.Accordion
    face: gr.Dropdown
    task: gr.Dropdown
    lines: gr.Plot
    apart: gr.Plot
    numbers: gr.HTML
    moments: gr.HTML

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """All of them."""
        return [self.box, self.face, self.task, self.lines, self.apart, self.numbers, self.moments]


def build_comparison(context: AppContext, shown: gr.State) -> Comparison:
    """Lay out the components, hidden until several backbones were run, and connect them."""
    with gr.Accordion(gettext_lazy("Comparison of backbones"), open=True, visible=False) as box:
        gr.Markdown(gettext_lazy(ABOUT))
        with gr.Row():
            face = gr.Dropdown([], label=gettext_lazy("Compared face"), min_width=120)
            tasks = [(gettext_lazy(task.title), task.name) for task in TASKS]
            task = gr.Dropdown(tasks, value=TASKS[0].name, label=gettext_lazy("Compared task"), min_width=120)
        lines = gr.Plot(label=gettext_lazy("Values by backbone"))
        apart = gr.Plot(label=gettext_lazy("Difference between the backbones"))
        numbers = gr.HTML()
        moments = gr.HTML(js_on_load=GO_TO.read_text("utf-8"))
    comparison = Comparison(box, face, task, lines, apart, numbers, moments)

    def choose(given: ResultRef, number: object, name: object) -> Updates:
        try:
            status = context.runner.status(given.job)
            return _drawn(comparison, context.analyses(status, given.smoothing), number, name)
        except (JobError, CheckpointError, SettingsError, ValueError):
            return unchanged()

    gr.on([face.input, task.input], choose, [shown, face, task], comparison.outputs, **QUIET)
    return comparison


def comparison_updates(comparison: Comparison, analyses: Sequence[Analysis]) -> Updates:
    """Return updates for the result that is shown; hidden unless there are several analyses with a face."""
    if len(analyses) < 2 or not analyses[0].faces:
        return {comparison.box: gr.update(visible=False)}
    choices = face_choices(analyses[0])
    return {
        comparison.box: gr.update(visible=True),
        comparison.face: gr.update(choices=choices, value=choices[0][1]),
        comparison.task: TASKS[0].name,
        **_drawn(comparison, analyses, choices[0][1], TASKS[0].name),
    }


def _drawn(comparison: Comparison, analyses: Sequence[Analysis], number: object, name: object) -> Updates:
    """Return updates for both figures, their numbers and the moments, for one face and one task.

    Raises:
        ValueError: if there is no such face or task.
    """
    track_id = int(str(number))
    every = disagreements(analyses)
    found = [one for one in every if one.track_id == track_id and one.task.name == name]
    lines = figures.comparison(analyses, track_id, str(name), translate=translate)
    apart = figures.disagreement(found, analyses[0].frame_times_s, translate=translate)
    numbers = comparison_tables(analyses, every, track_id, str(name))
    return {
        comparison.lines: lines,
        comparison.apart: gr.update(value=apart, visible=bool(found)),
        comparison.numbers: numbers,
        comparison.moments: _moments(most_disagreed(found, MOMENTS)),
    }


def _moments(moments: Sequence[Moment]) -> str:
    """Return the moments of most disagreement as a table; each time moves the tab's viewer there."""
    if not moments:
        return ""
    names = [escape(checkpoint.title) for checkpoint in moments[0].checkpoints]
    rows = [
        [
            _leads_to(moment),
            f"{moment.score:.2f}",
            *(
                escape(f"{prediction_text(one)} ({gettext(PROVENANCE_LABELS[one.provenance])})")
                for one in moment.predictions
            ),
        ]
        for moment in moments
    ]
    return table_of(
        gettext("Moments with the largest differences"),
        [gettext("Time"), gettext("Difference"), *names],
        rows,
    )


def _leads_to(moment: Moment) -> str:
    text = gettext("{time} s", time=f"{moment.time_s:.2f}")
    return (
        f"<button type='button' data-time='{moment.time_s!r}'"
        f" data-face='{moment.track_id}'>{escape(text)}</button>"
    )
