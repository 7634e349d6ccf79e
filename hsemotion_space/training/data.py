"""Labeled face pictures: labels as target distributions, and a fixed split into training, tuning and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.files import DataError, reading
from hsemotion_space.training.formats.samples import CATEGORY_NAMES, FaceSample
from hsemotion_space.training.pictures import Crop, LazyPictures, Picture
from hsemotion_space.types import BoolArray, ByteArray, FloatArray, IntArray

TRAINING, TUNING, TEST = 0, 1, 2  # values of `FaceImages.split`
TEST_SHARE = 0.1
NO_LABELED_ROW = (
    "{source} has no labeled picture; the Parquet files need the columns image, and expression, category or"
    " votes_*."
)
NO_LABELED_SAMPLE = "{source} has no picture with an expression or with valence and arousal."
NO_LABEL = np.full(len(EXPRESSION.labels), np.nan, np.float32)


@dataclass(frozen=True, slots=True)
class FaceImages:
    """Labeled face crops of one source.

    Attributes:
        source: short name for logs.
        images: (N, S, S, 4) RGBA, in memory or decoded when indexed; alpha 0 where the background is blacked
            out.
        expression: (N, 8) target distribution in the order of the expression task; a row of NaN has no label.
        valence_arousal: (N, 2) in -1..1, NaN where there is none.
        split: (N,) `TRAINING`, `TUNING` (choices are made on it) or `TEST` (only reported); fixed by a hash.
        counted: (N,) True where the label is sure enough to be scored (for votes: a majority of at least
            six).
        sha256: digest of the files' bytes; of a source of single pictures, of their names, sizes, boxes and
            labels.
    """

    source: str
    images: ByteArray | LazyPictures
    expression: FloatArray
    valence_arousal: FloatArray
    split: ByteArray
    counted: BoolArray
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, split: int, counted: bool = False) -> IntArray:
        """Return the indices of a split, only those with a sure label if ``counted``."""
        return np.flatnonzero((self.split == split) & (self.counted | (not counted)))


def fold_of(key: bytes) -> float:
    """Return a number in 0..1 that depends on ``key`` alone: the fixed hash of every split."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64


def split_of(key: bytes, held_out: bool | None, tuning: float) -> int:
    """Return the split of one row; ``held_out`` is None where the source sets no part aside for the test."""
    fold = fold_of(key)
    if held_out if held_out is not None else fold < TEST_SHARE:
        return TEST
    start = TEST_SHARE if held_out is None else 0.0
    return TUNING if fold < start + tuning else TRAINING


def _votes(row: dict[str, object], *names: str) -> FloatArray:
    return np.array([float(row.get(f"votes_{name.lower()}") or 0) for name in names], np.float32)  # type: ignore[arg-type]


def _vote_targets(row: dict[str, object]) -> tuple[FloatArray, bool] | None:
    votes = _votes(row, *EXPRESSION.label_names)
    if votes.sum() == 0 or votes.max() <= _votes(row, "unknown", "nf").max():
        return None
    sure = votes.max() >= 6 and np.sort(votes)[-2] < votes.max()
    return votes / votes.sum(), bool(sure)


def _is_no_face(row: dict[str, object]) -> bool:
    """Tell whether no expression got more votes than "not a face"."""
    return bool(0 < _votes(row, "nf")[0] >= _votes(row, *EXPRESSION.label_names).max())


def _name_targets(text: str) -> tuple[FloatArray, bool] | None:
    forms = [form.capitalize() for form in text.split()]
    names = [form if form in EXPRESSION.label_names else CATEGORY_NAMES.get(form) for form in forms]
    if not names or None in names:
        return None
    target = np.zeros(len(EXPRESSION.labels), np.float32)
    for name in names:
        target[EXPRESSION.index(str(name))] = 1 / len(names)
    return target, len(names) == 1


def _targets(row: dict[str, object]) -> tuple[FloatArray, bool] | None:
    """Read the row's label: ``votes_*``, ``expression`` or ``category`` (one or two expression words)."""
    if f"votes_{EXPRESSION.label_names[0].lower()}" in row:
        return _vote_targets(row)
    text = row.get("expression") or row.get("category")
    return _name_targets(str(text)) if text else None


def table_rows(file: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of a Parquet file."""
    with reading(file, "Parquet file"), pq.ParquetFile(file) as table:
        for batch in table.iter_batches(512):
            yield from batch.to_pylist()


def open_images(
    source: str,
    files: Sequence[Path],
    size: int,
    tuning: float = 0.05,
    *,
    crop: Crop = "square",
    unlabeled: bool = False,
) -> FaceImages:
    """Read the labels of one source; its pictures are decoded when they are asked for.

    Args:
        source: name for logs and results.
        files: Parquet files with an ``image`` struct of ``bytes`` and one kind of label; a file with
            ``validation`` in its name is the test split, else a ``subject`` column or the image bytes decide
            by a fixed hash.
        size: side of the decoded images in px.
        tuning: share of the rows (of the subjects, where there are any) in the tuning split.
        crop: how a ``face_box``, given in shares of the picture, is cut out.
        unlabeled: whether rows without a label count as well, except those that most voters call no face.
    """
    held_out = [file for file in files if "validation" in file.name]
    pictures, targets, sure, split, digest = [], [], [], [], hashlib.sha256()
    for file in files:
        with reading(file, "Parquet file"):
            digest.update(file.read_bytes())
        for number, row in enumerate(table_rows(file), 1):
            label, image = _targets(row), row.get("image")
            if label is None and unlabeled and not _is_no_face(row):
                label = NO_LABEL, False
            if label is None or not isinstance(image, dict):
                continue
            pictures.append(Picture(image.get("bytes"), row.get("face_box"), f"{file}, row {number}"))  # type: ignore[arg-type]
            targets.append(label[0])
            sure.append(label[1])
            key = str(row["subject"]).encode() if "subject" in row else image.get("bytes") or b""
            split.append(split_of(key, file in held_out if held_out else None, tuning))
    if not pictures:
        raise DataError(NO_LABELED_ROW, code="no_label", source=source)
    images = LazyPictures(pictures, size, crop, relative=True, cutout=True)
    affect = np.full((len(pictures), 2), np.nan, np.float32)
    splits = np.array(split, np.uint8)
    return FaceImages(source, images, np.stack(targets), affect, splits, np.array(sure), digest.hexdigest())


def faces_from_samples(
    source: str,
    samples: Iterable[FaceSample],
    size: int,
    tuning: float,
    *,
    crop: Crop = "square",
    unlabeled: bool = False,
) -> FaceImages:
    """Make a source of single pictures, with the options of :func:`open_images`.

    Samples marked ``validation`` are the test split; without any, it is a tenth of the groups. The others are
    divided into training and tuning by group.
    """
    usable = [item for item in samples if unlabeled or item.expression is not None or item.valence_arousal]
    if not usable:
        raise DataError(NO_LABELED_SAMPLE, code="no_label", source=source)
    digest, pictures, splits = hashlib.sha256(), [], []
    expression = np.full((len(usable), len(EXPRESSION.labels)), np.nan, np.float32)
    affect = np.full((len(usable), 2), np.nan, np.float32)
    has_test = any(sample.split == "validation" for sample in usable)
    for row, sample in enumerate(usable):
        digest.update(_description(sample).encode())
        name = f"picture {row + 1}" if isinstance(sample.image, bytes) else str(sample.image)
        pictures.append(Picture(sample.image, sample.face_box_xyxy, name))
        splits.append(
            split_of(sample.group.encode(), sample.split == "validation" if has_test else None, tuning)
        )
        if sample.expression is not None:
            expression[row] = np.arange(len(EXPRESSION.labels)) == sample.expression
        affect[row] = sample.valence_arousal or np.nan
    labeled = np.array([sample.expression is not None for sample in usable])
    images = LazyPictures(pictures, size, crop)
    return FaceImages(
        source, images, expression, affect, np.array(splits, np.uint8), labeled, digest.hexdigest()
    )


def _description(sample: FaceSample) -> str:
    """Return the line that stands for a sample in the digest of its source."""
    label = -1 if sample.expression is None else sample.expression
    affect = sample.valence_arousal or (np.nan, np.nan)
    return f"{_identity(sample.image)} {sample.face_box_xyxy} {label} {affect} {sample.split}\n"


def _identity(image: Path | bytes) -> str:
    """Return name and size of a file (reading hundreds of thousands takes too long), or a digest of bytes."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    with reading(image, "picture"):
        return f"{image.name} {image.stat().st_size}"
