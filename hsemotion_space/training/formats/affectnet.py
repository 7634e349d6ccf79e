"""AffectNet: the original tables with face boxes, and the folders of the release of 2021."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.files import DataError, located, reading, unexpected
from hsemotion_space.training.formats.crops import path_inside, picture_names
from hsemotion_space.training.formats.samples import FaceSample, Split
from hsemotion_space.training.formats.tables import normalized, read_rows

NATIVE_ORDER = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
    "expression", "valence", "arousal",
)  # fmt: skip
NOT_RATED = -2
ANNOTATION_BYTES = 4096  # an annotation is one number
FOLDERS: dict[Split, str] = {"train": "train_set", "validation": "val_set"}


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise unexpected(f"a number for the {name}", text, "number") from error


def _expression(text: str) -> int | None:
    """Return our index of a native class; None for non-expressions (8 None, 9 Uncertain, 10 No-Face)."""
    native = _number("expression", text)
    if native < 0 or not native.is_integer():
        raise unexpected(
            f"an expression from 0 to {len(NATIVE_ORDER) - 1} (8 and above are skipped)", text, "expression"
        )
    return EXPRESSION.index(NATIVE_ORDER[int(native)]) if native < len(NATIVE_ORDER) else None


def _affect(valence: str, arousal: str) -> tuple[float, float] | None:
    pair = _number("valence", valence), _number("arousal", arousal)
    return None if NOT_RATED in pair else pair


def read_manual_csv(csv: Path, images: Path, split: Split) -> Iterator[FaceSample]:
    """Yield the faces of the original release's table; rows without expression or box are skipped.

    ``training.csv`` has a header, ``validation.csv`` has none. ``subDirectory_filePath`` is relative to
    ``images``; whether a picture exists is not checked.
    """
    rows = read_rows(csv)
    line, first = next(rows, (1, [""]))
    names, columns, width = [normalized(cell) for cell in first], list(range(len(COLUMNS))), len(COLUMNS)
    if normalized("expression") in names:
        if missing := [name for name in COLUMNS if normalized(name) not in names]:
            with located(f"{csv}, line {line}"):
                raise unexpected(f"the columns {', '.join(missing)} in the header", ",".join(first), "header")
        columns, width = [names.index(normalized(name)) for name in COLUMNS], len(first)
    else:
        rows = chain([(line, first)], rows)
    for number, cells in rows:
        with located(f"{csv}, line {number}"):
            if len(cells) != width:
                raise unexpected(f"{width} columns ({', '.join(COLUMNS)})", ",".join(cells), "columns")
            sample = _sample([cells[column] for column in columns], images, split)
        if sample is not None:
            yield sample


def _sample(cells: Sequence[str], images: Path, split: Split) -> FaceSample | None:
    location, x, y, width, height, _, native, valence, arousal = cells
    expression = _expression(native)
    if expression is None:
        return None
    left, top, across, down = (_number("face box", text) for text in (x, y, width, height))
    if not all(map(math.isfinite, (left, top, across, down))):
        raise unexpected("a face box of finite numbers", f"{x},{y},{width},{height}", "face_box")
    if across <= 0 or down <= 0:
        return None
    box = (left, top, left + across, top + down)
    return FaceSample(
        path_inside(images, location), box, expression, _affect(valence, arousal), split, location
    )


def read_folder_2021(root: Path, split: Split) -> Iterator[FaceSample]:
    """Yield the face crops of the 2021 release by id: ``images`` and ``annotations`` of either set.

    Annotations are ``<id>_exp.npy``, ``<id>_val.npy`` and ``<id>_aro.npy``, each one number or its text;
    pickles are refused.
    """
    folder = root / FOLDERS[split]
    names = picture_names(folder / "images")
    if not names:
        raise DataError(
            "{folder} has no pictures; expected <id>.jpg.", code="empty", folder=folder / "images"
        )
    for name in names:
        stem = name.rpartition(".")[0]
        native, valence, arousal = (
            _annotation(folder / "annotations" / f"{stem}_{kind}.npy") for kind in ("exp", "val", "aro")
        )
        with located(folder / "annotations" / f"{stem}_*.npy"):
            expression = _expression(native)
            if expression is None:
                continue
            sample = FaceSample(
                folder / "images" / name, None, expression, _affect(valence, arousal), split, stem
            )
        yield sample


def _annotation(file: Path) -> str:
    """Return the one number of an annotation as text."""
    with reading(file, "annotation of one number or its text", "annotation"), file.open("rb") as stream:
        if file.stat().st_size > ANNOTATION_BYTES:
            raise ValueError(f"more than {ANNOTATION_BYTES} bytes")
        array = np.load(stream, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.size != 1:
            raise ValueError("not one value")
        return str(array.reshape(-1)[0])
