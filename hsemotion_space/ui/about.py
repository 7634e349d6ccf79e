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
from hsemotion_space.types import PROVENANCE_WORDS
from hsemotion_space.ui.context import QUIET, AppContext
from hsemotion_space.ui.tables import table
from hsemotion_space.ui.words import fixed, language, parts_of, say, translate

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
    numbers, rest = parts_of(TEXT)
    gr.Markdown(fixed(numbers))
    tasks = gr.HTML(_tasks())
    gr.Markdown(fixed(rest, minutes=minutes, kept=STORED if context.feedback is not None else NOT_STORED))
    with gr.Accordion(fixed("The texts that contributors agree to"), open=False):
        consent = gr.Markdown(_consent())
    gr.Markdown(fixed("## Checkpoints"))
    choices = [(one.title, one.id) for one in context.checkpoints]
    choice = gr.Dropdown(choices, value=context.checkpoints[0].id, label=fixed("Card of"))
    card = gr.Markdown(read_card(context.checkpoints[0]), elem_classes="model-card")
    choice.change(lambda chosen: _card(context.settings, chosen), choice, card, **QUIET)

    def tell(chosen: object) -> list[str]:  # in the language of the visitor
        return [_tasks(), _consent(), _card(context.settings, str(chosen))]

    tab.select(tell, choice, [tasks, consent, card], **QUIET)


def _tasks() -> str:
    rows = [
        [
            say(task.title),
            ", ".join(map(say, task.label_names)),
            _kind(task),
            say(task.metric),
            _window(task),
            say(task.citation),
        ]
        for task in TASKS
    ]
    return table(
        say("Tasks"),
        [
            say("Task"),
            say("Labels"),
            say("Values"),
            say("Official measure"),
            say("Smoothing"),
            say("Defined in"),
        ],
        rows,
    )


def _kind(task: Task) -> str:
    scale = say("{low} to {high}", low=f"{task.low:g}", high=f"{task.high:g}")
    return ", ".join([say(KINDS[task.kind]), scale, *([say("one per clip")] if task.scope == "clip" else [])])


def _window(task: Task) -> str:
    return f"±{task.smoothing_s:g} s" if task.smoothing_s else say("none")


def _consent() -> str:
    steps = "\n".join(f"- **{escape(say(step.title))}** {escape(say(step.text))}" for step in LADDER)
    return (
        f"{say('Version {version}', version=VERSIONS[language()])}\n\n{steps}\n- **{say('Statement')}**"
        f" {say(STATEMENT)}"
    )


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
            f"- {say(head.task.title)}: {say(PROVENANCE_WORDS[head.provenance])}. {translate(head.note)}"
            for head in checkpoint.heads
        )
        return f"# {checkpoint.title}\n\n{translate(checkpoint.summary)}\n\n{heads}"
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
