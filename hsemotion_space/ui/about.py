"""What the numbers mean and what they must not be used for, what is kept, and the card of every checkpoint."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import gradio as gr

from hsemotion_space.feedback.consent import LADDER, STATEMENT, VERSION
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, find_checkpoint
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import PROVENANCE_WORDS
from hsemotion_space.ui.desk import Desk
from hsemotion_space.ui.parts import table

TEXT = Path(__file__).with_name("about.md")
TASKS_HERE = "<!-- tasks -->"
STORED = "until you erase them with your receipt code."
NOT_STORED = "this server takes none."


def build_about(desk: Desk, minutes: int) -> None:
    """Lay out the tab.

    Args:
        desk: of the page.
        minutes: after which everything that a visitor added is deleted.
    """
    numbers, rest = TEXT.read_text("utf-8").split(TASKS_HERE)
    gr.Markdown(numbers)
    gr.HTML(_tasks())
    gr.Markdown(rest.format(minutes=minutes, kept=STORED if desk.feedback is not None else NOT_STORED))
    with gr.Accordion("The texts that contributors agree to", open=False):
        gr.Markdown(_consent())
    gr.Markdown("## Checkpoints")
    choices = [(one.title, one.id) for one in desk.checkpoints]
    choice = gr.Dropdown(choices, value=desk.checkpoints[0].id, label="Card of")
    card = gr.Markdown(read_card(desk.checkpoints[0]), elem_classes="model-card")
    choice.change(lambda chosen: _card(desk.settings, chosen), choice, card, queue=False, show_progress="hidden", api_visibility="private")


def _tasks() -> str:
    rows = [[task.title, ", ".join(task.label_names), _kind(task), task.metric, _window(task), task.citation] for task in TASKS]
    return table("Tasks", ["Task", "Labels", "Values", "Official measure", "Smoothing", "Defined in"], rows)


def _kind(task: Task) -> str:
    scale = f"{task.low:g} to {task.high:g}"
    words = {"one_of": "one of them, probabilities", "continuous": "a number each", "independent": "a number for each by itself"}
    return f"{words[task.kind]}, {scale}{', one per clip' if task.scope == 'clip' else ''}"


def _window(task: Task) -> str:
    return f"±{task.smoothing_s:g} s" if task.smoothing_s else "none"


def _consent() -> str:
    steps = "\n".join(f"- **{escape(step.title)}** {escape(step.text)}" for step in LADDER)
    return f"Version {VERSION}\n\n{steps}\n- **Statement** {STATEMENT}"


def _card(settings: Settings, chosen: object) -> str:
    try:
        return read_card(find_checkpoint(settings.checkpoint_roots, str(chosen)))
    except CheckpointError as error:
        return escape(str(error))


def read_card(checkpoint: Checkpoint) -> str:
    """Return the model card of a checkpoint as Markdown without its metadata, or what its manifest says if there is none."""
    try:
        text = (checkpoint.folder / "README.md").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        heads = "\n".join(f"- {head.task.title}: {PROVENANCE_WORDS[head.provenance]}. {head.note}" for head in checkpoint.heads)
        return f"# {checkpoint.title}\n\n{checkpoint.summary}\n\n{heads}"
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
