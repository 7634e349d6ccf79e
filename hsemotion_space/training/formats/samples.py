"""A labeled picture of a face, whatever data set it comes from, and folders of pictures by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.files import DataError, located
from hsemotion_space.training.formats.crops import picture_names, subfolders

Split: TypeAlias = Literal["train", "validation"]

CATEGORY_NAMES = {
    "Angry": "Anger", "Angrily": "Anger", "Disgusted": "Disgust", "Disgustedly": "Disgust", "Fearful": "Fear",
    "Fearfully": "Fear",
    "Happy": "Happiness", "Happily": "Happiness", "Neutral": "Neutral", "Sad": "Sadness", "Sadly": "Sadness",
    "Surprised": "Surprise",
}  # fmt: skip
"""Adjectives and adverbs of the expressions."""
SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "validation",
}


@dataclass(frozen=True, slots=True)
class FaceSample:
    """One face with whichever labels it has.

    Attributes:
        image: file of the picture, or its encoded bytes.
        face_box_xyxy: in px of the picture, without margin; None if the picture is the crop.
        expression: index into the labels of the expression task.
        valence_arousal: in -1..1.
        split: ``train`` or ``validation``, as the data set says.
        group: key of what must not be divided when a split is made (a subject, else the picture).
    """

    image: Path | bytes
    face_box_xyxy: tuple[float, float, float, float] | None
    expression: int | None
    valence_arousal: tuple[float, float] | None
    split: Split
    group: str

    def __post_init__(self) -> None:
        if self.expression is not None and not 0 <= self.expression < len(EXPRESSION.labels):
            raise DataError(
                "the expression {index} does not exist.", code="expression", index=self.expression
            )
        if self.valence_arousal is not None and not all(-1 <= value <= 1 for value in self.valence_arousal):
            valence, arousal = self.valence_arousal
            template = "valence and arousal must be from -1 to 1, found {valence} and {arousal}."
            raise DataError(template, code="affect", valence=valence, arousal=arousal)


def expression_index(name: str) -> int:
    """Return the index of an expression by its name or a common form (``happy``, ``Sad``), in any case."""
    capitalized = name.strip().capitalize()
    label = CATEGORY_NAMES.get(capitalized, capitalized)
    if label not in EXPRESSION.label_names:
        names = ", ".join(EXPRESSION.label_names)
        raise DataError(
            "{name!r} is not an expression; use {names} (or Happy, Sad, ...).",
            code="expression",
            name=name,
            names=names,
        )
    return EXPRESSION.index(label)


def read_image_folder(root: Path) -> Iterator[FaceSample]:
    """Yield the pictures of ``<root>/[<split>/]<expression>/*.jpg``, by class and name.

    Classes are named as the expressions or a common form of them (``happy``), in any case. Splits are
    ``train``, and ``validation``, ``val`` or ``test``, which are all held out; without them everything is
    ``train``.
    """
    splits = [
        (root / name, SPLIT_FOLDERS[name.lower()])
        for name in subfolders(root)
        if name.lower() in SPLIT_FOLDERS
    ]
    found = False
    for folder, split in splits or [(root, SPLIT_FOLDERS["train"])]:
        with located(folder):
            classes = [(folder / name, expression_index(name)) for name in subfolders(folder)]
        for place, expression in classes:
            for name in picture_names(place):
                found = True
                image = place / name
                yield FaceSample(image, None, expression, None, split, image.relative_to(root).as_posix())
    if not found:
        raise DataError(
            "{folder} has no pictures; expected <expression>/<name>.jpg, or train/<expression>/<name>.jpg.",
            code="empty",
            folder=root,
        )
