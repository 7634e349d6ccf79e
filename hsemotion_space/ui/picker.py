"""The backbone picker: what there is, how it can be had, what its numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import gradio as gr

from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints
from hsemotion_space.hub.weights import locate
from hsemotion_space.ui.desk import Desk
from hsemotion_space.ui.parts import checkpoint_card
from hsemotion_space.ui.words import fixed, say

BESIDE: Final = {"here": "", "download": "download", "import": "not on this server", "missing": "missing"}


@dataclass(frozen=True, slots=True)
class Picker:
    """The components that choose a checkpoint and tell about it."""

    choice: gr.Dropdown
    card: gr.HTML

    @property
    def parts(self) -> list[gr.components.Component]:
        """Components in the order of :func:`refresh`."""
        return [self.choice, self.card]


def build_picker(desk: Desk) -> Picker:
    """Lay out the backbone picker with a card for the choice."""
    first = find_checkpoint(desk.settings.checkpoint_roots, "").id if any(item.weights_bytes for item in desk.checkpoints) else ""
    first = first or desk.checkpoints[0].id
    choices, card = describe(desk, first)
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            choice = gr.Dropdown(choices, value=first, label=fixed("Backbone"))
        with gr.Column(scale=7, min_width=300):
            told = gr.HTML(card)
    picker = Picker(choice, told)
    choice.change(lambda chosen: describe(desk, chosen)[1], choice, told, queue=False, api_visibility="private")
    return picker


def describe(desk: Desk, chosen: object) -> tuple[list[tuple[str, str]], str]:
    """Return the choices of the picker as they are now, each with what keeps it from being used at once, and the card of one of them."""
    choices, card = [], ""
    try:
        checkpoints = list_checkpoints(desk.settings.checkpoint_roots)
    except CheckpointError:  # a manifest was changed while the page runs
        checkpoints = desk.checkpoints
    for checkpoint in checkpoints:
        where, problem = locate(checkpoint, desk.settings.cache), desk.runner.problems.get(checkpoint.id, "")
        beside = say("could not be had") if problem else say(BESIDE[where.place])
        choices.append((f"{checkpoint.title} · {beside}" if beside else checkpoint.title, checkpoint.id))
        if checkpoint.id == chosen:
            card = checkpoint_card(checkpoint, where, problem)
    return choices, card


def refresh(desk: Desk, chosen: object) -> list[object]:
    """Return updates for the components of :class:`Picker`."""
    choices, card = describe(desk, chosen)
    return [gr.update(choices=choices), card]
