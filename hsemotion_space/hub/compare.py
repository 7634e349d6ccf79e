"""A table of all checkpoints that have a training record: what was measured for each, on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hsemotion_space.hub.card import Record, mapping, number
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.tasks import ACTION_UNITS

Cell = Callable[[Checkpoint, Record], str]


def _accuracy(source: str) -> Cell:
    return lambda _, record: f"{number(mapping(mapping(record['evaluation'])[source])['accuracy']):.1%}"


def _head(task: str, system: str = "trained") -> Cell:
    return lambda _, record: f"{number(mapping(mapping(mapping(record['heads'])[task])[system])['value']):.3f}"


def _before_after(row: Record) -> str:
    return f"{number(row['before']):.3f} → {number(row['after']):.3f}"


def _expression_ece(source: str) -> Cell:
    return lambda _, record: _before_after(mapping(mapping(mapping(record["expression_calibration"])["ece"])[source]))


def _unit(name: str) -> Cell:
    return lambda _, record: (
        f"{number(mapping(mapping(mapping(mapping(mapping(record['heads'])['action_units'])['trained'])['per_label'])[name])['value']):.2f}"
    )


ROWS: tuple[tuple[str, Cell], ...] = (
    ("architecture", lambda checkpoint, _: f"`{checkpoint.arch}`"),
    ("parameters", lambda checkpoint, _: f"{checkpoint.parameters / 1e6:.2f} M"),
    ("size", lambda checkpoint, _: f"{checkpoint.weights_bytes / 1e6:.1f} MB"),
    ("minutes of training", lambda _, record: f"{number(record['minutes']):.0f}"),
    ("pictures seen", lambda _, record: f"{number(record['steps']) * number(mapping(record['recipe'])['batch']) / 1000:.0f} k"),
    ("accuracy, web faces (7)", _accuracy("web_faces, black background")),
    ("accuracy, FER+ (8)", _accuracy("ferplus")),
    ("accuracy, posed basic (7)", _accuracy("posed")),
    ("macro F1, posed compound (7), trained head", _head("compound_expression")),
    ("macro F1, posed compound (7), untrained rule", _head("compound_expression", "rule")),
    ("mean F1, posed action units (12)", _head("action_units")),
    ("calibration error, web faces", _expression_ece("web_faces")),
    ("calibration error, FER+", _expression_ece("ferplus")),
    ("calibration error, posed basic", _expression_ece("posed")),
    (
        "calibration error, compound",
        lambda _, record: _before_after(mapping(mapping(mapping(record["heads"])["compound_expression"])["ece"])),
    ),
    ("calibration error, units", lambda _, record: _before_after(mapping(mapping(mapping(record["heads"])["action_units"])["ece"]))),
    *((f"F1 of {name}", _unit(name)) for name in ACTION_UNITS.label_names),
)


def comparison(starters: Sequence[tuple[Checkpoint, Record]]) -> str:
    """Return a Markdown table with a column per checkpoint.

    Args:
        starters: finished checkpoints with their training records.

    Raises:
        KeyError: if a record lacks a figure.
        TypeError: if a figure is of another kind.
    """
    lines = ["| | " + " | ".join(checkpoint.title for checkpoint, _ in starters) + " |", "|---|" + "---:|" * len(starters)]
    lines += [f"| {name} | " + " | ".join(cell(checkpoint, record) for checkpoint, record in starters) + " |" for name, cell in ROWS]
    return "\n".join(lines) + "\n"
