"""A labeled picture of a face, whatever data set it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION
from hsemotion_space.training.data import CATEGORY_WORDS
from hsemotion_space.training.formats.text import normal

Split: TypeAlias = Literal["train", "validation"]

_WORDS = {normal(name): name for name in EXPRESSION.label_names} | {normal(word): name for word, name in CATEGORY_WORDS.items()}


@dataclass(frozen=True, slots=True)
class FaceSample:
    """One face with whichever labels it has.

    Attributes:
        image: file of the picture, or its encoded bytes.
        face_box_xyxy: in px of the picture, without margin; None if the picture is the crop.
        expression: index into the labels of the expression task.
        valence_arousal: in -1..1.
        action_units: 0 or 1 per label of the action unit task.
        split: ``train`` or ``validation``, as the data set says.
        group: key of what must not be divided when a split is made (a subject, else the picture).
    """

    image: Path | bytes
    face_box_xyxy: tuple[float, float, float, float] | None
    expression: int | None
    valence_arousal: tuple[float, float] | None
    action_units: tuple[int, ...] | None
    split: Split
    group: str

    def __post_init__(self) -> None:
        if self.expression is not None and not 0 <= self.expression < len(EXPRESSION.labels):
            raise ValueError(f"an expression from 0 to {len(EXPRESSION.labels) - 1}, not {self.expression}")
        if self.valence_arousal is not None and not all(-1 <= value <= 1 for value in self.valence_arousal):
            raise ValueError("valence and arousal from -1 to 1, not {} and {}".format(*self.valence_arousal))
        if self.action_units is not None and (len(self.action_units) != len(ACTION_UNITS.labels) or {*self.action_units} - {0, 1}):
            raise ValueError(f"{len(ACTION_UNITS.labels)} action units of 0 or 1, not {self.action_units}")


def expression_index(word: str) -> int:
    """Return the index of an expression by its name or a common form of it (``happy``, ``Sad``), in any case.

    Raises:
        ValueError: if the word names no expression; the message lists the names.
    """
    name = _WORDS.get(normal(word))
    if name is None:
        raise ValueError(f"one of the expressions {', '.join(EXPRESSION.label_names)} (or Happy, Sad, Angry ...), not {word!r}")
    return EXPRESSION.index(name)
