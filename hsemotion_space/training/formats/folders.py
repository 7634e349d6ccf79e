"""Pictures in a folder per expression, and Parquet tables with a column of pictures as on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.training.data import DataError
from hsemotion_space.training.formats.listing import inside, natural_key, picture_names, subfolders
from hsemotion_space.training.formats.samples import FaceSample, Split, expression_index

LEVELS: dict[str, Split] = {"train": "train", "validation": "validation", "val": "validation", "test": "validation"}
BATCH_ROWS = 64
PARQUET_COLUMNS = ("image", "expression", "valence", "arousal", "subject")


def read_image_folder(root: Path) -> Iterator[FaceSample]:
    """Yield the pictures of ``<root>/<expression>/*.jpg`` or ``<root>/<split>/<expression>/*.jpg``, by class and natural order.

    Args:
        root: class folders are named as the expressions or a common form of them (``happy``), in any case. Splits are ``train``,
            and ``validation``, ``val`` or ``test``, which are all held out; without them everything is ``train``.

    Raises:
        DataError: if a folder is no expression (before the first picture), or there is no picture.
    """
    levels = [(name, LEVELS[name.lower()]) for name in subfolders(root) if name.lower() in LEVELS]
    found = False
    for folder, split in [(root / name, split) for name, split in levels] or [(root, LEVELS["train"])]:
        for name, expression in _classes(folder):
            for picture in sorted(picture_names(folder / name), key=natural_key):
                found = True
                image = folder / name / picture
                yield FaceSample(image, None, expression, None, None, split, image.relative_to(root).as_posix())
    if not found:
        raise DataError(f"{root} has no pictures; expected <expression>/<any name>.jpg, or train/<expression>/<any name>.jpg.")


def _classes(folder: Path) -> list[tuple[str, int]]:
    try:
        return [(name, expression_index(name)) for name in subfolders(folder)]
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"The folders in {folder} must be named by classes: expected {error}.") from error


def read_parquet(file: Path, split: Split, labels: Sequence[str] | None = None) -> Iterator[FaceSample]:
    """Yield the pictures of a Parquet table in small batches; rows without any label are skipped.

    Args:
        file: column ``image`` (struct of ``bytes`` and ``path``, the path relative to the file), ``expression`` (name or index) or
            both ``valence`` and ``arousal``, and optionally ``subject``, whose pictures then stay together.
        split: what the table is.
        labels: names of the classes where ``expression`` is an index.

    Raises:
        DataError: if a column is missing or a row is not of that form.
    """
    try:
        classes = [expression_index(name) for name in labels or ()]
    except ValueError as error:
        raise DataError(f"The labels given for {file} must be classes: expected {error}.") from error
    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if "image" not in names or not ("expression" in names or {"valence", "arousal"} <= set(names)):
            raise DataError(f"{file} has the columns {', '.join(names)}; expected image, and expression or valence and arousal.")
        number = 0
        for batch in table.iter_batches(BATCH_ROWS, columns=[name for name in PARQUET_COLUMNS if name in names]):
            for row in batch.to_pylist():
                number += 1
                try:
                    sample = _row_sample(row, file.parent, split, classes)
                except ValueError as error:
                    raise DataError(f"{file}, row {number}: expected {error}.") from error
                if sample is not None:
                    yield sample
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is not a usable Parquet file: {error}.") from error


def _row_sample(row: dict[str, object], folder: Path, split: Split, classes: Sequence[int]) -> FaceSample | None:
    expression = _expression(row.get("expression"), classes)
    affect = _affect(row.get("valence"), row.get("arousal"))
    if expression is None and affect is None:
        return None
    image = _image(row["image"], folder)
    group = str(row["subject"]) if row.get("subject") is not None else _identity(image)
    return FaceSample(image, None, expression, affect, None, split, group)


def _expression(value: object, classes: Sequence[int]) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        return expression_index(value)
    if isinstance(value, int) and 0 <= value < len(classes):
        return classes[value]
    given = f"an index below {len(classes)}" if classes else "the names of the classes to be given, as it is an index"
    raise ValueError(f"an expression by name or {given}, not {value!r}")


def _affect(valence: object, arousal: object) -> tuple[float, float] | None:
    """Return the pair; None if one of them is null or NaN."""
    if valence is None or arousal is None:
        return None
    if not isinstance(valence, int | float) or not isinstance(arousal, int | float):
        raise ValueError(f"numbers for valence and arousal, not {valence!r} and {arousal!r}")
    return None if math.isnan(valence) or math.isnan(arousal) else (float(valence), float(arousal))


def _image(value: object, folder: Path) -> Path | bytes:
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
    if isinstance(content, bytes) and content:
        return content
    if isinstance(path, str) and path:
        return inside(folder, path)
    raise ValueError("an image with bytes or a path")


def _identity(image: Path | bytes) -> str:
    return hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else image.as_posix()
