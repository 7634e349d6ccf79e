"""Labeled face pictures: labels as target distributions, a fixed split, and Parquet datasets."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy import ndimage

from hsemotion_space.messages import MessageError
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.types import BoolArray, ByteArray, FloatArray, IntArray

TRAINING, TUNING, TEST = 0, 1, 2  # values of `FaceImages.split`
TEST_SHARE = 0.1
DARK_LEVEL = 10  # a pixel whose brightest channel is below this counts as blacked out
MASKED_SHARE = 0.08  # an image with a larger blacked-out border region is a masked one
SQUARE_MARGIN = 1.0  # crops of annotated faces: side of the square in longer sides of the face box
CATEGORY_WORDS = {
    "Angry": "Anger", "Angrily": "Anger", "Disgusted": "Disgust", "Disgustedly": "Disgust", "Fearful": "Fear", "Fearfully": "Fear",
    "Happy": "Happiness", "Happily": "Happiness", "Neutral": "Neutral", "Sad": "Sadness", "Sadly": "Sadness", "Surprised": "Surprise",
}  # fmt: skip


Crop = Literal["square", "box"]  # of a face box: the square around its middle, or the box itself squashed to a square (AffectNet)


class DataError(MessageError, ValueError):
    """A dataset cannot be used; the message says which file and why."""


class Pictures(Protocol):
    """Pictures of one size: an array, or files that are decoded when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, rows: IntArray, /) -> ByteArray:
        """Return (len(rows), S, S, 4) RGBA."""


@dataclass(frozen=True, slots=True)
class FaceImages:
    """Labeled face crops of one source, decoded.

    Attributes:
        source: short name for logs.
        images: (N, S, S, 4) RGBA; alpha 0 where a Parquet source blacked the background out.
        expression: (N, 8) target distribution in the order of the expression task; a row of NaN has no label.
        valence_arousal: (N, 2) in -1..1, NaN where there is none.
        split: (N,) `TRAINING`, `TUNING` (choices are made on it) or `TEST` (only figures are reported on it); fixed by a hash.
        counted: (N,) True where the label is sure enough to be scored (for votes: a majority of at least six).
        sha256: digest of the files' bytes; of a source of single pictures, of their names, sizes, boxes and labels.
    """

    source: str
    images: Pictures
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


def _vote_targets(row: dict[str, object]) -> tuple[FloatArray, bool] | None:
    votes = np.array([float(row[f"votes_{name.lower()}"]) for name in EXPRESSION.label_names], np.float32)  # type: ignore[arg-type]
    rejected = max(float(row.get("votes_unknown") or 0), float(row.get("votes_nf") or 0))  # type: ignore[arg-type]
    if votes.sum() == 0 or votes.max() <= rejected:
        return None
    sure = votes.max() >= 6 and np.sort(votes)[-2] < votes.max()
    return votes / votes.sum(), bool(sure)


def _is_no_face(row: dict[str, object]) -> bool:
    """Tell whether no expression got more votes than "not a face"."""
    votes = [float(row.get(f"votes_{name.lower()}") or 0) for name in EXPRESSION.label_names]  # type: ignore[arg-type]
    return 0 < float(row.get("votes_nf") or 0) >= max(votes)  # type: ignore[arg-type]


def _name_targets(text: str) -> tuple[FloatArray, bool] | None:
    words = [word.capitalize() for word in text.split()]
    names = [word if word in EXPRESSION.label_names else CATEGORY_WORDS.get(word) for word in words]
    if not names or None in names:
        return None
    target = np.zeros(len(EXPRESSION.labels), np.float32)
    for name in names:
        target[EXPRESSION.index(str(name))] = 1 / len(names)
    return target, len(names) == 1


def _targets(row: dict[str, object]) -> tuple[FloatArray, bool] | None:
    """Read whichever label the row has: ``votes_*``, ``expression`` or ``category`` (one or two expression words)."""
    if f"votes_{EXPRESSION.label_names[0].lower()}" in row:
        return _vote_targets(row)
    text = row.get("expression") or row.get("category")
    return _name_targets(str(text)) if text else None


def blacked_out(rgb: ByteArray) -> BoolArray:
    """Return (H, W), True where darkness is connected to the border and large enough to be a cut-out background."""
    labels, count = ndimage.label(rgb.max(2) < DARK_LEVEL)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])) if count else np.zeros(0, int)
    region = np.isin(labels, border[border > 0])
    if region.mean() < MASKED_SHARE:
        return np.zeros(region.shape, np.bool_)
    return np.asarray(ndimage.binary_dilation(region, iterations=2), np.bool_)


def open_picture(data: bytes) -> Image.Image:
    """Decode a picture to RGB.

    Raises:
        DataError: if it is damaged; the caller puts the place in front.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # Pillow raises whatever its codecs raise
        raise DataError(f"is not a readable picture: {error}") from error


def cut_face(image: Image.Image, box_xyxy: Sequence[float] | None, size: int, crop: Crop = "square", cutout: bool = False) -> ByteArray:
    """Return a face as (size, size, 4) RGBA.

    Args:
        image: an RGB picture.
        box_xyxy: the face in px, None for the whole picture.
        size: side of the result in px.
        crop: what is cut out around the box; ``box`` ends where the picture ends, ``square`` is black beyond it.
        cutout: whether a blacked-out background becomes transparent; else everything is opaque.

    Raises:
        DataError: if the box is empty; the caller puts the place in front.
    """
    if box_xyxy is not None:
        image = image.crop(_region(box_xyxy, image.size, crop))
    rgb = np.asarray(image)
    opaque = ~blacked_out(rgb) if cutout else np.ones(rgb.shape[:2], np.bool_)
    rgba = Image.fromarray(np.dstack([rgb, np.where(opaque, 255, 0).astype(np.uint8)]))
    return np.asarray(rgba.resize((size, size), Image.Resampling.BILINEAR if image.width < 2 * size else Image.Resampling.BOX))


def _region(box_xyxy: Sequence[float], size: tuple[int, int], crop: Crop) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box_xyxy
    if crop == "square":
        half, cx, cy = SQUARE_MARGIN * max(x1 - x0, y1 - y0) / 2, (x0 + x1) / 2, (y0 + y1) / 2
        region = round(cx - half), round(cy - half), round(cx + half), round(cy + half)
    else:
        region = max(0, round(x0)), max(0, round(y0)), min(size[0], round(x1)), min(size[1], round(y1))
    if region[0] >= region[2] or region[1] >= region[3]:
        raise DataError(f"has no pixel inside the face box {tuple(box_xyxy)}.")
    return region


class EncodedPictures:
    """Pictures of Parquet rows, decoded when they are asked for; a blacked-out background becomes transparent.

    Args:
        pictures: of each row, its encoded bytes, its face box in shares of the picture (None for all of it), and its place for messages.
        size: side of the decoded pictures in px.
        crop: how a face box is cut out.
    """

    def __init__(self, pictures: Sequence[tuple[object, object, str]], size: int, crop: Crop) -> None:
        self._pictures, self._size, self._crop = pictures, size, crop

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, rows: IntArray, /) -> ByteArray:
        """Return (len(rows), S, S, 4) RGBA.

        Raises:
            DataError: with file and row of the picture that cannot be read.
        """
        with ThreadPoolExecutor(2) as pool:
            pictures = list(pool.map(self._decode, rows.tolist()))
        return np.stack(pictures) if pictures else np.zeros((0, self._size, self._size, 4), np.uint8)

    def _decode(self, row: int) -> ByteArray:
        data, face_box, where = self._pictures[row]
        try:
            if not isinstance(data, bytes):
                raise DataError("has no picture in the column image.")
            image, box = open_picture(data), None
            if isinstance(face_box, list):
                box = [value * scale for value, scale in zip(face_box, image.size * 2, strict=True)]
            return cut_face(image, box, self._size, self._crop, cutout=True)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where} {error}" if isinstance(error, DataError) else f"{where} has an unusable face box: {error}."
            ) from error


def _rows(files: Sequence[Path]) -> Iterator[dict[str, object]]:
    for file in files:
        try:
            for batch in pq.ParquetFile(file).iter_batches(512):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise DataError(f"{file} is not a usable Parquet file: {error}") from error


def split_of(key: bytes, in_test_file: bool | None, tuning: float) -> int:
    """Return the split of one row; ``in_test_file`` is None where no part of the source is set aside for the test."""
    fold = fold_of(key)
    if in_test_file if in_test_file is not None else fold < TEST_SHARE:
        return TEST
    start = TEST_SHARE if in_test_file is None else 0.0
    return TUNING if fold < start + tuning else TRAINING


def open_images(
    source: str, files: Sequence[Path], size: int, tuning: float = 0.05, *, crop: Crop = "square", unlabeled: bool = False
) -> FaceImages:
    """Read the labels of one source; its pictures are decoded when they are asked for.

    Args:
        source: name for logs and results.
        files: Parquet files with an ``image`` struct of ``bytes`` and one kind of label; a file with ``validation`` in its name is
            the test split, else a ``subject`` column or the image bytes decide by a fixed hash.
        size: side of the decoded images in px.
        tuning: share of the rows (of the subjects, where there are any) in the tuning split.
        crop: how a ``face_box``, given in shares of the picture, is cut out.
        unlabeled: whether rows without a label count as well, but for those that most voters say show no face.

    Raises:
        DataError: if a file cannot be read, or no row has a label.
    """
    if not files:
        raise DataError(f"No file was given for {source!r}.")
    given_split = any("validation" in file.name for file in files)
    pictures, targets, sure, split, digest = [], [], [], [], hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} does not exist.")
        digest.update(file.read_bytes())
        for number, row in enumerate(_rows([file]), 1):
            label, image = _targets(row), row.get("image")
            if label is None and unlabeled and not _is_no_face(row):
                label = np.full(len(EXPRESSION.labels), np.nan, np.float32), False
            if label is None or not isinstance(image, dict):
                continue
            pictures.append((image.get("bytes"), row.get("face_box"), f"{file}, row {number},"))
            targets.append(label[0])
            sure.append(label[1])
            key = str(row["subject"]).encode() if "subject" in row else image.get("bytes") or b""
            split.append(split_of(key, "validation" in file.name if given_split else None, tuning))
    if not pictures:
        raise DataError(f"No labeled image in {', '.join(map(str, files))}; columns expected: image and expression, category or votes_*.")
    affect = np.full((len(pictures), 2), np.nan, np.float32)
    images = EncodedPictures(pictures, size, crop)
    return FaceImages(source, images, np.stack(targets), affect, np.array(split, np.uint8), np.array(sure), digest.hexdigest())


def load_images(
    source: str, files: Sequence[Path], size: int, tuning: float = 0.05, *, crop: Crop = "square", unlabeled: bool = False
) -> FaceImages:
    """Decode one source into memory; takes and raises what :func:`open_images` does.

    Raises:
        DataError: if a picture cannot be read, with its file and row (the first is 1).
    """
    faces = open_images(source, files, size, tuning, crop=crop, unlabeled=unlabeled)
    return replace(faces, images=faces.images[np.arange(len(faces))])
