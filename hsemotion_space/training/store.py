"""Pictures in files, decoded when they are asked for: sources that do not fit into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import Crop, DataError, FaceImages, cut_face, open_picture, split_of
from hsemotion_space.training.formats.samples import FaceSample
from hsemotion_space.types import BoolArray, ByteArray, FloatArray, IntArray

MOST_THREADS = 8


class PictureFiles:
    """Faces in picture files; indexing with rows decodes them in a few threads.

    Args:
        pictures: of each face, its file, or the bytes of one, and its box in px or None for the whole picture.
        size: side of the decoded pictures in px.
        crop: how a box is cut out.
    """

    def __init__(self, pictures: Sequence[tuple[Path | bytes, tuple[float, float, float, float] | None]], size: int, crop: Crop) -> None:
        self._pictures, self._size, self._crop = pictures, size, crop
        self._threads = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "decode")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, rows: IntArray, /) -> ByteArray:
        """Return (len(rows), S, S, 4) RGBA, opaque.

        Raises:
            DataError: naming the file that cannot be read.
        """
        pictures = list(self._threads.map(self._decode, rows.tolist()))
        return np.stack(pictures) if pictures else np.zeros((0, self._size, self._size, 4), np.uint8)

    def _decode(self, row: int) -> ByteArray:
        source, box = self._pictures[row]
        name = f"Picture {row + 1}" if isinstance(source, bytes) else str(source)
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
            return cut_face(open_picture(data), box, self._size, self._crop)
        except DataError as error:
            raise DataError(f"{name} {error}") from error
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror}.") from error


def faces_from_samples(
    source: str, samples: Iterable[FaceSample], size: int, tuning: float, *, crop: Crop = "square", unlabeled: bool = False
) -> FaceImages:
    """Make a source of single pictures, which are decoded when they are asked for.

    Args:
        source: name for logs and results.
        samples: faces in files. Those marked ``validation`` are the test split; if there are none, it is a tenth of the groups. The
            others are divided into training and tuning by group.
        size: side of the pictures in px.
        tuning: share of the groups in the tuning split.
        crop: how the box of a face is cut out.
        unlabeled: whether faces with neither an expression nor valence and arousal count as well.

    Raises:
        DataError: if a file does not exist or nothing has a label.
    """
    pictures: list[tuple[Path | bytes, tuple[float, float, float, float] | None]] = []
    targets, affects, groups, digest = [], [], [], hashlib.sha256()
    for sample in samples:
        if sample.expression is None and sample.valence_arousal is None and not unlabeled:
            continue
        pictures.append((sample.image, sample.face_box_xyxy))
        targets.append(-1 if sample.expression is None else sample.expression)
        affects.append(sample.valence_arousal or (np.nan, np.nan))
        groups.append((sample.group.encode(), sample.split == "validation"))
        digest.update(f"{_identity(sample.image)} {sample.face_box_xyxy} {targets[-1]} {affects[-1]} {sample.split}\n".encode())
    if not pictures:
        raise DataError(f"{source} has no picture with an expression or with valence and arousal.")
    given_split = any(held_out for _, held_out in groups)
    split = np.array([split_of(group, held_out if given_split else None, tuning) for group, held_out in groups], np.uint8)
    expression, labeled = _one_hot(np.array(targets))
    images = PictureFiles(pictures, size, crop)
    return FaceImages(source, images, expression, np.array(affects, np.float32), split, labeled, digest.hexdigest())


def _identity(image: Path | bytes) -> str:
    """Return name and size of a file, which is all that the digest of hundreds of thousands can take in, or a digest of bytes."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        return f"{image.name} {image.stat().st_size}"
    except OSError as error:
        raise DataError(f"{image} cannot be read: {error.strerror}.") from error


def _one_hot(targets: IntArray) -> tuple[FloatArray, BoolArray]:
    """Return (N, 8) target distributions, NaN for -1, and (N,) whether there is one."""
    table = np.eye(len(EXPRESSION.labels), dtype=np.float32)
    labeled = targets >= 0
    return np.where(labeled[:, None], table[targets], np.float32(np.nan)), labeled
