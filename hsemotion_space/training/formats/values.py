"""What a row of values looks like in the challenge files of a task: columns, ranges, marks for what is not annotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsemotion_space.tasks import Task
from hsemotion_space.types import FloatArray


@dataclass(frozen=True, slots=True)
class RowForm:
    """Values of one row in the form of labels.

    Attributes:
        columns: number of values: one for a class, else one per label.
        whole: whether they are whole numbers.
        low, high: range of every value, both ends allowed.
        missing: what stands for a value that is not annotated; None where an empty cell does.
    """

    columns: int
    whole: bool
    low: float
    high: float
    missing: int | None

    @property
    def expected(self) -> str:
        """A phrase for messages."""
        kind = ("whole number" if self.whole else "number") + ("s" if self.columns > 1 else "")
        absent = "nothing" if self.missing is None else str(self.missing)
        return f"{self.columns} {kind} from {self.low:g} to {self.high:g} (or {absent} if not annotated)"

    def parse(self, cells: Sequence[str]) -> list[float]:
        """Return the values of a row; NaN in all columns if any of them is not annotated.

        Raises:
            ValueError: with :attr:`expected`, if the row is anything else.
        """
        if len(cells) != self.columns:
            raise ValueError(self.expected)
        values = [self._number(cell) for cell in cells]
        return values if None not in values else [float("nan")] * self.columns  # type: ignore[return-value]

    def _number(self, cell: str) -> float | None:
        if self.missing is None and not cell:
            return None
        try:
            value = float(int(cell) if self.whole else float(cell))
        except ValueError as error:
            raise ValueError(self.expected) from error
        if self.missing is not None and value == self.missing:
            return None
        if not self.low <= value <= self.high or "_" in cell:
            raise ValueError(self.expected)
        return value

    def write(self, values: FloatArray) -> str:
        """Return a row of labels (columns,) as text that :meth:`parse` reads back to the same float32 values.

        Raises:
            ValueError: with :attr:`expected`, if a value is out of range or should be whole.
        """
        if np.isnan(values).any():
            return ",".join(["" if self.missing is None else str(self.missing)] * self.columns)
        fractional = self.whole and np.any(values != np.round(values))
        if len(values) != self.columns or fractional or values.min() < self.low or values.max() > self.high:
            raise ValueError(self.expected)
        return ",".join(str(int(value)) if self.whole else np.format_float_positional(value, trim="0") for value in values)


def row_form(task: Task) -> RowForm:
    """Return the form of the rows of a task: -5 marks missing continuous values, -1 classes and units, nothing intensities of clips."""
    count = len(task.labels)
    if task.kind == "continuous":
        return RowForm(count, False, task.low, task.high, -5)
    if task.kind == "one_of":
        return RowForm(1, True, 0, count - 1, -1)
    if task.scope == "clip":
        return RowForm(count, False, task.low, task.high, None)
    return RowForm(count, True, 0, 1, -1)


def column_names(task: Task) -> tuple[str, ...]:
    """Return the names of the labels as the official headers write them: ``valence``, ``Fearfully_Surprised``, ``AU1``."""
    if task.kind == "continuous":
        return tuple(name.lower() for name in task.label_names)
    if task.kind == "one_of":
        return tuple(name.title().replace(" ", "_") for name in task.label_names)
    return task.label_names
