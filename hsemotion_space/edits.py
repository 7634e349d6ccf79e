"""What a person adds to a finished analysis by hand: names, merged faces, own neutrals, markers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from hsemotion_space.messages import MessageError

MOST_MARKERS: Final = 500
MOST_FACES: Final = 1000
MOST_CHARACTERS: Final = 80
LATEST_S: Final = 1e6
MarkerKind = Literal["event", "exclusion"]


class EditError(MessageError, ValueError):
    """A change cannot be made."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment or a stretch of a clip that a person marked.

    Attributes:
        kind: ``event``, or ``exclusion`` for time in which nothing is predicted.
        start_s, end_s: presentation times; equal for a moment, which cannot be excluded.
        label: what the person calls it; may be empty.
    """

    kind: MarkerKind
    start_s: float
    end_s: float
    label: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(MarkerKind) or not 0 <= self.start_s <= self.end_s <= LATEST_S:
            raise EditError("A marker needs a start and an end in the clip.", code="marker_time")
        if self.kind == "exclusion" and self.start_s == self.end_s:
            raise EditError("Select a range first, then exclude it.", code="no_range")
        object.__setattr__(self, "label", clean(self.label))


@dataclass(frozen=True, slots=True)
class Edits:
    """All changes of one analysis; track ids are those of the analysis before the changes.

    Attributes:
        names: of people by track id. They are never part of feedback.
        merged: track ids of faces that count as an earlier one, with the id of that one.
        neutral_s: presentation time at which a face is neutral, by track id.
        markers: by start.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    merged: Mapping[int, int] = field(default_factory=dict)
    neutral_s: Mapping[int, float] = field(default_factory=dict)
    markers: tuple[Marker, ...] = ()

    def __post_init__(self) -> None:
        numbers = (*self.names, *self.neutral_s, *self.merged, *self.merged.values())
        if len(numbers) > MOST_FACES or not all(0 < number < 2**31 for number in numbers):
            raise EditError("This face does not exist.", code="no_face")
        if any(into >= number or into in self.merged for number, into in self.merged.items()):
            raise EditError("A face can be merged only with a face of a smaller number.", code="merged_order")
        if not all(0 <= time_s <= LATEST_S for time_s in self.neutral_s.values()):
            raise EditError("The neutral moment must lie in the clip.", code="neutral_time")
        if len(self.markers) > MOST_MARKERS:
            raise EditError("A clip can have at most {count} markers.", code="markers", count=MOST_MARKERS)
        names = {number: text for number, name in self.names.items() if (text := clean(name))}
        object.__setattr__(self, "names", names)
        markers = sorted(self.markers, key=lambda marker: (marker.start_s, marker.end_s))
        object.__setattr__(self, "markers", tuple(markers))

    def merge(self, one: int, other: int) -> Edits:
        """Return edits in which two faces are one person, under the smaller number."""
        into, number = sorted(self.merged.get(face, face) for face in (one, other))
        if into == number:
            raise EditError("Select another face.", code="same_face")
        moved = {face: into for face, before in self.merged.items() if before == number}
        return replace(self, merged={**self.merged, **moved, number: into})

    def split(self, number: int) -> Edits:
        """Return edits in which no other face counts as this one."""
        return replace(self, merged={face: into for face, into in self.merged.items() if into != number})

    def to_json(self) -> dict[str, object]:
        """Return the edits as JSON types; :func:`read_edits` reads them."""
        return {
            "names": {str(number): name for number, name in self.names.items()},
            "merged": {str(number): into for number, into in self.merged.items()},
            "neutral_s": {str(number): time_s for number, time_s in self.neutral_s.items()},
            "markers": [[mark.kind, mark.start_s, mark.end_s, mark.label] for mark in self.markers],
        }


def read_edits(value: object) -> Edits:
    """Return edits from JSON types, which may be anything.

    Raises:
        EditError: if it is not what :meth:`Edits.to_json` returns.
    """
    match value:
        case {
            "names": dict(names),
            "merged": dict(merged),
            "neutral_s": dict(neutral_s),
            "markers": list(marks),
        }:
            pass
        case _:
            raise EditError(UNREADABLE, code="edits")
    return Edits(
        {read_face(number): read_text(name) for number, name in names.items()},
        {read_face(number): read_face(into) for number, into in merged.items()},
        {read_face(number): read_time(time_s) for number, time_s in neutral_s.items()},
        tuple(map(read_marker, marks)),
    )


UNREADABLE: Final = "The manual changes cannot be read."


def read_marker(value: object) -> Marker:
    """Return a marker from a list of kind, start, end and label.

    Raises:
        EditError: if it is something else.
    """
    match value:
        case ["event" | "exclusion" as kind, start_s, end_s, label]:
            return Marker(kind, read_time(start_s), read_time(end_s), read_text(label))
    raise EditError(UNREADABLE, code="edits")


def read_face(value: object) -> int:
    """Return the number of a face, which JSON has as a text where it is a key.

    Raises:
        EditError: if it is none.
    """
    if type(value) is int or (
        isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    ):
        return int(value)
    raise EditError(UNREADABLE, code="edits")


def read_time(value: object) -> float:
    """Return a time in seconds.

    Raises:
        EditError: if it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LATEST_S:
        return round(float(value), 4)
    raise EditError(UNREADABLE, code="edits")


def read_text(value: object) -> str:
    """Return a text.

    Raises:
        EditError: if it is none.
    """
    if isinstance(value, str):
        return value
    raise EditError(UNREADABLE, code="edits")


def clean(text: str) -> str:
    """Return a text of one line and at most ``MOST_CHARACTERS``, without characters that cannot be seen."""
    shown = "".join(sign for sign in " ".join(text[:1000].split()) if sign.isprintable())
    return shown[:MOST_CHARACTERS].strip()
