"""Statements in words, for the page and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hsemotion_space.feedback.records import Values
from hsemotion_space.tasks import get_task


def about(kind: str, face: int, span_s: Sequence[float]) -> str:
    """Return which face a statement is about, such as ``clip, face 2, 1.5 to 3 s``."""
    span = f", {span_s[0]:g} to {span_s[1]:g} s" if span_s else ""
    return f"{kind}, face {face}{span}"


def said(corrected: Mapping[str, Values], tell: Callable[[str], str] = str) -> str:
    """Return what would be right, such as ``Expression: Fear; Action units: AU4``; empty if nothing was corrected.

    Args:
        corrected: by task.
        tell: puts a title or a label into the language of the reader.
    """
    return "; ".join(f"{tell(get_task(name).title)}: {answered(name, values, tell)}" for name, values in corrected.items())


def answered(name: str, values: Values, tell: Callable[[str], str] = str) -> str:
    """Return what would be right of one task, such as ``Fear``; the arguments are those of :func:`said`."""
    task = get_task(name)
    if task.kind == "one_of":
        return ", ".join(map(tell, values))
    if task.kind == "independent" and task.scope == "frame":
        middle = (task.low + task.high) / 2
        return ", ".join(tell(label) for label, value in values.items() if value >= middle) or tell("none visible")
    return ", ".join(f"{tell(label)} {value:g}" for label, value in values.items())
