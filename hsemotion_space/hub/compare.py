"""A table of all checkpoints with a training record, measured on the same pictures."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce

from hsemotion_space.hub.card import Record, markdown_table
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.tasks import ACTION_UNITS

Cell = Callable[[Checkpoint, Record], str]


def _figure(form: str, *keys: str) -> Cell:
    """Return the number at the end of a way through the tables of a record."""
    return lambda _, record: format(reduce(operator.getitem, keys, record), form)


def _ece(*keys: str) -> Cell:
    """Return the calibration errors before and after."""
    before, after = _figure(".3f", *keys, "before"), _figure(".3f", *keys, "after")
    return lambda checkpoint, record: f"{before(checkpoint, record)} → {after(checkpoint, record)}"


ROWS: tuple[tuple[str, Cell], ...] = (
    ("architecture", lambda checkpoint, _: f"`{checkpoint.arch}`"),
    ("parameters", lambda checkpoint, _: f"{checkpoint.parameters / 1e6:.2f} M"),
    ("size", lambda checkpoint, _: f"{checkpoint.weights_bytes / 1e6:.1f} MB"),
    ("minutes of training", _figure(".0f", "minutes")),
    ("pictures seen", lambda _, record: f"{record['steps'] * record['recipe']['batch'] / 1000:.0f} k"),
    ("accuracy, web faces (7)", _figure(".1%", "evaluation", "web_faces, black background", "accuracy")),
    ("accuracy, FER+ (8)", _figure(".1%", "evaluation", "ferplus", "accuracy")),
    ("accuracy, posed basic (7)", _figure(".1%", "evaluation", "posed", "accuracy")),
    (
        "macro F1, posed compound (7), trained head",
        _figure(".3f", "heads", "compound_expression", "trained", "value"),
    ),
    (
        "macro F1, posed compound (7), untrained rule",
        _figure(".3f", "heads", "compound_expression", "rule", "value"),
    ),
    ("mean F1, posed action units (12)", _figure(".3f", "heads", "action_units", "trained", "value")),
    ("calibration error, web faces", _ece("expression_calibration", "ece", "web_faces")),
    ("calibration error, FER+", _ece("expression_calibration", "ece", "ferplus")),
    ("calibration error, posed basic", _ece("expression_calibration", "ece", "posed")),
    ("calibration error, compound", _ece("heads", "compound_expression", "ece")),
    ("calibration error, units", _ece("heads", "action_units", "ece")),
    *(
        (f"F1 of {name}", _figure(".2f", "heads", "action_units", "trained", "per_label", name, "value"))
        for name in ACTION_UNITS.label_names
    ),
)


def comparison(starters: Sequence[tuple[Checkpoint, Record]]) -> str:
    """Return a Markdown table with a column per checkpoint.

    Args:
        starters: finished checkpoints with their training records.

    Raises:
        KeyError: if a record lacks a figure.
    """
    header = ["", *(checkpoint.title for checkpoint, _ in starters)]
    rows = [[name, *(cell(checkpoint, record) for checkpoint, record in starters)] for name, cell in ROWS]
    return markdown_table(header, rows, "---:") + "\n"
