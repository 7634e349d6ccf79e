"""AffectNet: the original tables with face boxes, and the folders of the release of 2021."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.listing import inside, natural_key, picture_names
from hsemotion_space.training.formats.samples import FaceSample, Split
from hsemotion_space.training.formats.text import normal, read_rows, wrong

NATIVE_ORDER = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
NOT_RATED = -2
ANNOTATION_BYTES = 4096  # an annotation is one number
FOLDERS: dict[Split, str] = {"train": "train_set", "validation": "val_set"}


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"a number for {what}, not {text!r}") from error


def _expression(text: str) -> int | None:
    """Return our index of a native class; None for the ones that are no expression (8 None, 9 Uncertain, 10 No-Face)."""
    native = _number("the expression", text)
    if native < 0 or not native.is_integer():
        raise ValueError(f"an expression from 0 to {len(NATIVE_ORDER) - 1} (8 and above are skipped), not {text}")
    return EXPRESSION.index(NATIVE_ORDER[int(native)]) if native < len(NATIVE_ORDER) else None


def _affect(valence: str, arousal: str) -> tuple[float, float] | None:
    pair = _number("valence", valence), _number("arousal", arousal)
    return None if NOT_RATED in pair else pair


def read_manual_csv(csv: Path, images: Path, split: Split) -> Iterator[FaceSample]:
    """Yield the faces of a table of the original release; rows without an expression or with a box of no size are skipped.

    Args:
        csv: ``training.csv`` or ``validation.csv``, with or without header (the second has none).
        images: folder that ``subDirectory_filePath`` is relative to; whether a picture exists is not checked.
        split: which of the two it is.

    Raises:
        DataError: if a column is missing or a row is not of that form.
    """
    rows = read_rows(csv)
    line, first = next(rows, (1, [""]))
    names = [normal(cell) for cell in first]
    if normal("expression") in names:
        missing = [name for name in COLUMNS if normal(name) not in names]
        if missing:
            raise wrong(csv, line, f"the columns {', '.join(missing)} in the header", ",".join(first))
        places, width = [names.index(normal(name)) for name in COLUMNS], len(first)
    else:
        places, width = list(range(len(COLUMNS))), len(COLUMNS)
        rows = _again(line, first, rows)
    for number, cells in rows:
        if len(cells) != width:
            raise wrong(csv, number, f"{width} columns ({', '.join(COLUMNS)})", ",".join(cells))
        try:
            sample = _row_sample([cells[place] for place in places], images, split)
        except ValueError as error:
            raise wrong(csv, number, str(error), ",".join(cells)) from error
        if sample is not None:
            yield sample


def _again(line: int, cells: list[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield line, cells
    yield from rows


def _row_sample(cells: Sequence[str], images: Path, split: Split) -> FaceSample | None:
    location, x, y, width, height, _, native, valence, arousal = cells
    expression = _expression(native)
    if expression is None:
        return None
    left, top, across, down = (_number("the face box", text) for text in (x, y, width, height))
    if not all(map(math.isfinite, (left, top, across, down))):
        raise ValueError("a face box of finite numbers")
    if across <= 0 or down <= 0:
        return None
    box = (left, top, left + across, top + down)
    return FaceSample(inside(images, location), box, expression, _affect(valence, arousal), None, split, location)


def read_folder_2021(root: Path, split: Split) -> Iterator[FaceSample]:
    """Yield the face crops of the release of 2021: ``train_set`` or ``val_set`` with ``images`` and ``annotations``, sorted by id.

    Annotations are ``<id>_exp.npy``, ``<id>_val.npy`` and ``<id>_aro.npy``, each one number or its text; pickles are refused.

    Raises:
        DataError: if there are no pictures, or an annotation is missing or of another form.
    """
    folder = root / FOLDERS[split]
    names = sorted(picture_names(folder / "images"), key=natural_key)
    if not names:
        raise DataError(f"{folder / 'images'} has no pictures; expected <id>.jpg.")
    for name in names:
        stem = name.rpartition(".")[0]
        native, valence, arousal = (_annotation(folder / "annotations" / f"{stem}_{kind}.npy") for kind in ("exp", "val", "aro"))
        try:
            expression = _expression(native)
            if expression is not None:
                yield FaceSample(folder / "images" / name, None, expression, _affect(valence, arousal), None, split, stem)
        except ValueError as error:
            raise DataError(f"The annotations {folder / 'annotations' / stem}_*.npy: expected {error}.") from error


def _annotation(file: Path) -> str:
    """Return the one number of an annotation as text."""
    if not file.is_file():
        raise DataError(f"The annotation {file} is missing.")
    try:
        if file.stat().st_size > ANNOTATION_BYTES:
            raise ValueError(f"more than {ANNOTATION_BYTES} bytes")
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.size != 1:
            raise ValueError("not one value")
        text = str(array.reshape(-1)[0])
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The annotation {file} is unusable ({error}); expected an array of one number or its text.") from error
    return text
