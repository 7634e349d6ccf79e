"""Statements in words, for the page and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hsemotion_space.feedback.records import Values
from hsemotion_space.tasks import get_task


def about(kind: str, face: int, span_s: Sequence[float]) -> str:
    """Return which face a statement is about, such as ``clip, face 2, 1.5 to 3 s``."""
    span = f", {span_s[0]:g} to {span_s[1]:g} s" if span_s else ""
    return f"{kind}, face {face}{span}"


def said(corrected: Mapping[str, Values]) -> str:
    """Return what would be right, such as ``Expression: Fear; Action units: AU4``; empty if nothing was corrected."""
    return "; ".join(f"{get_task(name).title}: {_answer(name, values)}" for name, values in corrected.items())


def _answer(name: str, values: Values) -> str:
    task = get_task(name)
    if task.kind == "one_of":
        return ", ".join(values)
    if task.kind == "independent" and task.scope == "frame":
        middle = (task.low + task.high) / 2
        return ", ".join(label for label, value in values.items() if value >= middle) or "none visible"
    return ", ".join(f"{label} {value:g}" for label, value in values.items())
