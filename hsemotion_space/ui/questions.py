"""The questions of the correction form, one per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import gradio as gr

from hsemotion_space.tasks import Task
from hsemotion_space.ui.context import QUIET
from hsemotion_space.ui.i18n import gettext_lazy
from hsemotion_space.ui.inputs import RawSlider

NOT_SAID: Final = ""


@dataclass(frozen=True, slots=True)
class Question:
    """The components that ask for one task.

    Attributes:
        task: that is asked for.
        box: all of them.
        fields: one for a class; else a tick that the answer counts, then the answer.
    """

    task: Task
    box: gr.Group
    fields: tuple[gr.components.Component, ...]

    @property
    def empty(self) -> list[object]:
        """Values of the fields before anything is answered."""
        if self.task.kind == "one_of":
            return [NOT_SAID]
        return (
            [False, []]
            if _is_checklist(self.task)
            else [False, *[_middle(self.task)] * len(self.task.labels)]
        )

    def answer(self, values: Sequence[object]) -> object:
        """Return the answer, unchecked, or None if there is none."""
        if self.task.kind == "one_of":
            return None if values[0] == NOT_SAID else values[0]
        if values[0] is not True:
            return None
        if _is_checklist(self.task):
            present = values[1] if isinstance(values[1], list) else []
            return {label.name: float(label.name in present) for label in self.task.labels}
        return dict(zip(self.task.label_names, values[1:], strict=True))


def _is_checklist(task: Task) -> bool:
    return task.kind == "independent" and task.scope == "frame"


def _middle(task: Task) -> float:
    return (task.low + task.high) / 2 if task.kind == "continuous" else task.low


def build_question(task: Task) -> Question:
    """Lay out the fields of a task."""
    with gr.Group(elem_id=f"question-{task.name}") as box:
        if task.kind == "one_of":
            choices = [
                (gettext_lazy("no answer"), NOT_SAID),
                *((gettext_lazy(label.name), label.name) for label in task.labels),
            ]
            return Question(
                task, box, (gr.Dropdown(choices, value=NOT_SAID, label=gettext_lazy(task.title)),)
            )
        count = gr.Checkbox(False, label=gettext_lazy("Correct: {task}", task=task.title))
        with gr.Group(visible=False) as answers:
            if _is_checklist(task):
                choices = [
                    (gettext_lazy("{unit} {what}", unit=label.short, what=label.description), label.name)
                    for label in task.labels
                ]
                words = gettext_lazy("{task}: select all that are visible", task=task.title)
                fields: list[gr.components.Component] = [gr.CheckboxGroup(choices, label=words)]
            else:
                fields = [
                    RawSlider(
                        task.low,
                        task.high,
                        _middle(task),
                        step=0.05,
                        label=gettext_lazy(label.name),
                        info=gettext_lazy(label.description),
                    )
                    for label in task.labels
                ]
    count.change(lambda yes: gr.update(visible=yes is True), count, answers, **QUIET)
    return Question(task, box, (count, *fields))
