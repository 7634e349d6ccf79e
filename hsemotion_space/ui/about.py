"""What the numbers mean, what not to use them for, what is stored, and every checkpoint's card."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import gradio as gr

from hsemotion_space.feedback.consent import LADDER, STATEMENT, VERSIONS
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import PROVENANCE_LABELS
from hsemotion_space.ui.context import QUIET, AppContext
from hsemotion_space.ui.i18n import gettext, gettext_lazy, language, split_page, translate
from hsemotion_space.ui.tables import table

TEXT = Path(__file__).with_name("about.md")
KINDS = {
    "one_of": "one of them, probabilities",
    "continuous": "a number each",
    "independent": "a number for each by itself",
}
STORED = "until you erase them with your receipt code."
NOT_STORED = "this server takes none."


def build_about(context: AppContext, tab: gr.Tab, minutes: int) -> None:
    """Lay out the tab.

    Args:
        context: of the page.
        tab: in which it stands.
        minutes: after which everything that a visitor added is deleted.
    """
    numbers, rest = split_page(TEXT)
    gr.Markdown(gettext_lazy(numbers))
    tasks = gr.HTML(_tasks())
    gr.Markdown(
        gettext_lazy(rest, minutes=minutes, kept=STORED if context.feedback is not None else NOT_STORED)
    )
    with gr.Accordion(gettext_lazy("The texts that contributors agree to"), open=False):
        consent = gr.Markdown(_consent())
    gr.Markdown(gettext_lazy("## Checkpoints"))
    choices = [(one.title, one.id) for one in context.checkpoints]
    choice = gr.Dropdown(choices, value=context.checkpoints[0].id, label=gettext_lazy("Card of"))
    card = gr.Markdown(read_card(context.checkpoints[0]), elem_classes="model-card")
    choice.change(lambda chosen: _card(context.settings, chosen), choice, card, **QUIET)

    def translated(chosen: object) -> list[str]:  # in the language of the visitor
        return [_tasks(), _consent(), _card(context.settings, str(chosen))]

    tab.select(translated, choice, [tasks, consent, card], **QUIET)


def _tasks() -> str:
    rows = [
        [
            gettext(task.title),
            ", ".join(map(gettext, task.label_names)),
            _kind(task),
            gettext(task.metric),
            _window(task),
            gettext(task.citation),
        ]
        for task in TASKS
    ]
    return table(
        gettext("Tasks"),
        [
            gettext("Task"),
            gettext("Labels"),
            gettext("Values"),
            gettext("Official measure"),
            gettext("Smoothing"),
            gettext("Defined in"),
        ],
        rows,
    )


def _kind(task: Task) -> str:
    scale = gettext("{low} to {high}", low=f"{task.low:g}", high=f"{task.high:g}")
    return ", ".join(
        [gettext(KINDS[task.kind]), scale, *([gettext("one per clip")] if task.scope == "clip" else [])]
    )


def _window(task: Task) -> str:
    return f"±{task.smoothing_s:g} s" if task.smoothing_s else gettext("none")


def _consent() -> str:
    steps = "\n".join(f"- **{escape(gettext(step.title))}** {escape(gettext(step.text))}" for step in LADDER)
    version = gettext("Version {version}", version=VERSIONS[language()])
    return f"{version}\n\n{steps}\n- **{gettext('Statement')}** {gettext(STATEMENT)}"


def _card(settings: Settings, chosen: object) -> str:
    try:
        return read_card(find_checkpoint(settings.checkpoint_roots, str(chosen)))
    except CheckpointError as error:
        return escape(translate(error))


def read_card(checkpoint: Checkpoint) -> str:
    """Return a checkpoint's model card as Markdown without metadata, else its manifest's text."""
    try:
        text = (checkpoint.folder / "README.md").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        heads = "\n".join(
            f"- {gettext(head.task.title)}: {gettext(PROVENANCE_LABELS[head.provenance])}."
            f" {translate(head.note)}"
            for head in checkpoint.heads
        )
        return f"# {checkpoint.title}\n\n{translate(checkpoint.summary)}\n\n{heads}"
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
