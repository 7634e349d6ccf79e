"""Soft labels: outputs of teacher networks for every picture of some sources, in one Parquet file.

Columns: ``source``, ``row`` (its place in the loaded order), ``probabilities`` (8, in the order of the
expression task), ``valence`` and ``arousal`` (NaN if no teacher rates them), and, optionally ``embedding``.
The metadata names the teachers, the number of views, and the digest of every source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import FaceImages
from hsemotion_space.training.files import DataError, reading, replacing
from hsemotion_space.types import FloatArray, check_shape

METADATA = b"hsemotion_space.soft_labels"
KIND = "file of soft labels; run `hsemotion-space learn teach` again"

HalfArray = npt.NDArray[np.float16]
Origin = dict[str, Any]  # teachers, views, whether there are embeddings, and by source its digest


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Targets of one source, row by row.

    Attributes:
        expression: (N, 8) probabilities.
        valence_arousal: (N, 2) in -1..1, NaN if no teacher rates them.
        embedding: (N, D), of every teacher with length 1, side by side; D is 0 where there are none.
    """

    expression: FloatArray
    valence_arousal: FloatArray
    embedding: HalfArray

    def __post_init__(self) -> None:
        count = len(self.expression)
        check_shape("SoftLabels", "expression", self.expression, (count, len(EXPRESSION.labels)))
        check_shape("SoftLabels", "valence_arousal", self.valence_arousal, (count, 2))
        check_shape("SoftLabels", "embedding", self.embedding, (count, None))

    def targets(self, labels: FloatArray, weight: float, temperature: float) -> FloatArray:
        """Return (N, 8): ``labels`` mixed with softened probabilities; these alone where labels are NaN.

        ``weight`` is the share of the teacher in rows that have a label.
        """
        powers = np.asarray(np.maximum(self.expression, 1e-12) ** (1 / temperature), np.float32)
        softened = powers / powers.sum(1, keepdims=True)
        mixed = (1 - weight) * labels + weight * softened
        return np.asarray(np.where(np.isnan(labels).any(1, keepdims=True), softened, mixed), np.float32)

    def affect(self, labels: FloatArray) -> FloatArray:
        """Return (N, 2) valence and arousal: those of the labels, the teacher's where these are NaN."""
        return np.where(np.isnan(labels).any(1, keepdims=True), self.valence_arousal, labels)


@dataclass(frozen=True, slots=True)
class SoftLabelFile:
    """What a run reads from a file of soft labels: name, digest, teachers, and labels of every source."""

    file: str
    sha256: str
    teachers: tuple[Mapping[str, str], ...]
    sources: tuple[SoftLabels, ...]

    @property
    def dim(self) -> int:
        """Width of the embeddings, 0 without any."""
        return int(self.sources[0].embedding.shape[1])

    def describe(self) -> dict[str, object]:
        """Return what ``training.json`` and the state of a run record."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "teachers": [dict(teacher) for teacher in self.teachers],
        }


def write_soft_labels(file: Path, source: str, labels: SoftLabels, origin: Origin) -> None:
    """Write the labels of one source; the file replaces an old one when it is complete."""
    rows = len(labels.expression)
    columns: dict[str, pa.Array] = {
        "source": pa.array([source] * rows).dictionary_encode(),
        "row": pa.array(np.arange(rows, dtype=np.int32)),
        "probabilities": _list_column(labels.expression),
        "valence": pa.array(labels.valence_arousal[:, 0]),
        "arousal": pa.array(labels.valence_arousal[:, 1]),
    }
    if labels.embedding.shape[1]:
        columns["embedding"] = _list_column(labels.embedding)
    with replacing(file) as partial:
        pq.write_table(pa.table(columns).replace_schema_metadata({METADATA: json.dumps(origin)}), partial)


def join_soft_labels(files: Sequence[Path], out: Path, origin: Origin) -> None:
    """Write the files of single sources into one, source by source."""
    schema = pq.read_schema(files[0]).with_metadata({METADATA: json.dumps(origin)})
    with replacing(out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for file in files:
            writer.write_table(pq.read_table(file).replace_schema_metadata(schema.metadata))


def read_origin(file: Path) -> Origin:
    """Return the metadata of a file of soft labels; empty for another Parquet file."""
    with reading(file, KIND, "soft_labels"):
        return json.loads((pq.read_schema(file).metadata or {}).get(METADATA, "{}"))  # type: ignore[no-any-return]


def read_soft_labels(file: Path, sources: Sequence[FaceImages]) -> SoftLabelFile:
    """Read the soft labels of some sources; the file may have more."""
    origin = read_origin(file)
    with reading(file, KIND, "soft_labels"):
        digests, teachers = dict(origin["sources"]), tuple(origin["teachers"])
        for source in sources:
            if digests.get(source.source, source.sha256) != source.sha256:
                template = (
                    "{file} was made from other data of {source}. Run `hsemotion-space learn teach` again."
                )
                raise DataError(template, code="other_data", file=file, source=source.source)
        labels = tuple(_read_source(file, source) for source in sources)
    return SoftLabelFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), teachers, labels)


def _read_source(file: Path, source: FaceImages) -> SoftLabels:
    table = pq.read_table(file, filters=[("source", "==", source.source)]).combine_chunks()
    rows = table["row"].to_numpy()
    if rows.tolist() != list(range(len(source))):
        template = (
            "{file} has {rows} rows of {source}, the recipe has {expected}. Run `hsemotion-space learn teach`"
            " again."
        )
        raise DataError(
            template, code="other_rows", file=file, rows=len(rows), source=source.source, expected=len(source)
        )
    expression = _list_values(table["probabilities"]).astype(np.float32)
    affect = np.stack([table[name].to_numpy() for name in ("valence", "arousal")], 1).astype(np.float32)
    embedding = (
        _list_values(table["embedding"]) if "embedding" in table.column_names else np.zeros((len(rows), 0))
    )
    for values in (expression, *([] if np.isnan(affect).all() else [affect]), embedding):
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad):
            template = (
                "{file} has a value that is not finite in row {row} of {source}. Run `hsemotion-space learn"
                " teach` again."
            )
            raise DataError(template, code="not_finite", file=file, row=bad[0] + 1, source=source.source)
    return SoftLabels(expression, affect, embedding.astype(np.float16))


def _list_column(values: npt.NDArray[np.generic]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _list_values(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Return a column of fixed-size lists as (N, D); a null in it becomes NaN."""
    values = column.combine_chunks()
    return np.asarray(values.flatten().to_numpy(zero_copy_only=False)).reshape(
        len(values), values.type.list_size
    )
