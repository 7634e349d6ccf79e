"""The backbone picker: what there is, how it can be had, what its numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

import gradio as gr

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.weights import Availability, locate
from hsemotion_space.tasks import TASKS
from hsemotion_space.types import PROVENANCE_LABELS
from hsemotion_space.ui.context import QUIET, AppContext, Updates
from hsemotion_space.ui.i18n import gettext, gettext_lazy, translate

BESIDE: Final = {"here": "", "download": "download", "import": "not on this server", "missing": "missing"}


@dataclass(frozen=True, slots=True)
class Picker:
    """The components that choose a checkpoint and tell about it."""

    choice: gr.Dropdown
    card: gr.HTML

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """Both."""
        return [self.choice, self.card]


def build_picker(context: AppContext) -> Picker:
    """Lay out the backbone picker with a card for the choice."""
    first = (
        find_checkpoint(context.settings.checkpoint_roots, "").id
        if any(item.weights_bytes for item in context.checkpoints)
        else ""
    )
    first = first or context.checkpoints[0].id
    choices, card = describe(context, first)
    with gr.Column(scale=4, min_width=280, elem_classes="picker"):
        choice = gr.Dropdown(choices, value=first, label=gettext_lazy("Backbone"))
    with gr.Column(scale=4, min_width=280):
        picker = Picker(choice, gr.HTML(card))
    picker.choice.change(lambda chosen: describe(context, chosen)[1], picker.choice, picker.card, **QUIET)
    return picker


def describe(context: AppContext, chosen: object) -> tuple[list[tuple[str, str]], str]:
    """Return the picker's current choices, each with what prevents its use, and the card of one."""
    choices, card = [], ""
    try:
        checkpoints = list_checkpoints(context.settings.checkpoint_roots)
    except CheckpointError:  # a manifest was changed while the page runs
        checkpoints = context.checkpoints
    for checkpoint in checkpoints:
        where, problem = (
            locate(checkpoint, context.settings.cache),
            context.runner.problems.get(checkpoint.id, ""),
        )
        beside = gettext("could not be downloaded") if problem else gettext(BESIDE[where.place])
        choices.append((f"{checkpoint.title} · {beside}" if beside else checkpoint.title, checkpoint.id))
        if checkpoint.id == chosen:
            card = checkpoint_card(checkpoint, where, problem)
    return choices, card


def picker_updates(context: AppContext, picker: Picker, chosen: object) -> Updates:
    """Return updates from where the weights are now."""
    choices, card = describe(context, chosen)
    return {picker.choice: gr.update(choices=choices), picker.card: card}


def checkpoint_card(checkpoint: Checkpoint, where: Availability, problem: str = "") -> str:
    """Return what a user should know before picking a checkpoint.

    Args:
        checkpoint: its manifest.
        where: how its weights can be had.
        problem: why the last download failed.
    """
    size = (checkpoint.weights_bytes or where.size_bytes) / 1e6
    facts = [
        checkpoint.family,
        (
            gettext("{count} M parameters", count=f"{checkpoint.parameters / 1e6:.2f}")
            if checkpoint.parameters
            else ""
        ),
        f"{size:.1f} MB" if size else "",
        gettext("{size} px input", size=checkpoint.input.size),
        translate(checkpoint.license),
    ]
    heads = "".join(
        f"<li><strong>{escape(gettext(head.task.title))}</strong>:"
        f" {escape(gettext(PROVENANCE_LABELS[head.provenance]))}"
        f"{'. ' + escape(translate(head.note)) if head.note else ''}</li>"
        for head in checkpoint.heads
    )
    heads += "".join(
        f"<li><strong>{escape(gettext(task.title))}</strong>:"
        f" {escape(gettext('not predicted by this checkpoint'))}</li>"
        for task in TASKS
        if checkpoint.head(task.name) is None
    )
    if not any(head.reliability for head in checkpoint.heads):
        heads += f"<li>{escape(gettext('Its accuracy was not measured.'))}</li>"
    state = translate(problem) or (
        where.message and gettext("The weights are {state}.", state=translate(where.message))
    )
    state = (
        f"<p class='{'problem' if problem else 'state'}' role='status'>{escape(state)}</p>" if state else ""
    )
    line = " · ".join(escape(fact) for fact in facts if fact)
    summary = escape(translate(checkpoint.summary))
    details = f"<details><summary>{line}</summary><p>{summary}</p><ul>{heads}</ul></details>"
    return f"<div class='card'>{details}{state}</div>"
