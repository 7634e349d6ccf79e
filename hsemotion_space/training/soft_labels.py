"""Soft labels: what teacher networks say about every picture of some sources, in one Parquet file.

Columns: ``source``, ``row`` (its place in the loaded order), ``probabilities`` (8, in the order of the expression task), ``valence`` and
``arousal`` (NaN if no teacher rates them), and, if wanted, ``embedding``. The metadata names the teachers, the number of views, and the
digest of every source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import DataError, FaceImages
from hsemotion_space.types import FloatArray, check_shape

METADATA = b"hsemotion_space.soft_labels"
AGAIN = "Run `hsemotion-space learn teach` again."

HalfArray = npt.NDArray[np.float16]
Origin = dict[str, object]  # teachers, views, whether there are embeddings, and by source its digest


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
        """Return (N, 8): ``labels`` mixed with softened probabilities, these alone where a row of ``labels`` is NaN.

        Args:
            labels: (N, 8) target distributions.
            weight: share of the teacher in rows that have a label.
            temperature: see :class:`~hsemotion_space.training.recipe.Teaching`.
        """
        powers = np.asarray(np.maximum(self.expression, 1e-12) ** (1 / temperature), np.float32)
        softened = powers / powers.sum(1, keepdims=True)
        mixed = (1 - weight) * labels + weight * softened
        return np.asarray(np.where(np.isnan(labels).any(1, keepdims=True), softened, mixed), np.float32)

    def affect(self, given: FloatArray) -> FloatArray:
        """Return (N, 2) valence and arousal: the given ones, the teacher's where these are NaN."""
        return np.where(np.isnan(given).any(1, keepdims=True), self.valence_arousal, given)


@dataclass(frozen=True, slots=True)
class SoftLabelFile:
    """What a run reads from a file: its name and digest, its teachers, and the labels of every source in the order of the recipe."""

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
        return {"file": self.file, "sha256": self.sha256, "teachers": [dict(teacher) for teacher in self.teachers]}


def write_soft_labels(file: Path, source: str, labels: SoftLabels, origin: Origin) -> None:
    """Write the labels of one source; the file is there either wholly or not at all."""
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
    partial = file.with_name(file.name + ".partial")
    pq.write_table(pa.table(columns).replace_schema_metadata({METADATA: json.dumps(origin)}), partial)
    partial.replace(file)


def join_soft_labels(parts: Sequence[Path], out: Path, origin: Origin) -> None:
    """Write the files of single sources into one, source by source."""
    partial = out.with_name(out.name + ".partial")
    schema = pq.read_schema(parts[0]).with_metadata({METADATA: json.dumps(origin)})
    with pq.ParquetWriter(partial, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).replace_schema_metadata(schema.metadata))
    partial.replace(out)


def read_origin(file: Path) -> Origin:
    """Return what a file says about itself; empty if it is none of ours.

    Raises:
        DataError: if it is no Parquet file.
    """
    try:
        metadata = pq.read_schema(file).metadata or {}
        origin: Origin = json.loads(metadata.get(METADATA, "{}"))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{file} is not a readable file of soft labels: {error}. {AGAIN}") from error
    return origin


def read_soft_labels(file: Path, sources: Sequence[FaceImages]) -> SoftLabelFile:
    """Read the soft labels of some sources.

    Args:
        file: from ``learn teach``; it may have more sources.
        sources: as they are trained on.

    Raises:
        DataError: if the file lacks a source, belongs to other data, or has a value that is not finite.
    """
    origin = read_origin(file)
    digests, teachers = origin.get("sources"), origin.get("teachers")
    if not isinstance(digests, dict) or not isinstance(teachers, list):
        raise DataError(f"{file} does not say which data it is about. {AGAIN}")
    labels = []
    for source in sources:
        if source.source not in digests:
            raise DataError(f"{file} lacks the source {source.source}. {AGAIN}")
        if digests[source.source] != source.sha256:
            raise DataError(f"{file} was made from other data of {source.source}. {AGAIN}")
        labels.append(_read_source(file, source))
    return SoftLabelFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), tuple(teachers), tuple(labels))


def _read_source(file: Path, source: FaceImages) -> SoftLabels:
    try:
        table = pq.read_table(file, filters=[("source", "==", source.source)]).combine_chunks()
        rows = table["row"].to_numpy()
        expression = _list_values(table["probabilities"])
        affect = np.stack([table[name].to_numpy() for name in ("valence", "arousal")], 1).astype(np.float32)
        embedding = _list_values(table["embedding"]) if "embedding" in table.column_names else np.zeros((len(rows), 0))
        labels = SoftLabels(expression.astype(np.float32), affect, embedding.astype(np.float16))
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{file} is not a usable file of soft labels: {error}. {AGAIN}") from error
    if rows.tolist() != list(range(len(source))):
        raise DataError(f"{file} has {len(rows)} rows of {source.source}, the recipe has {len(source)}. {AGAIN}")
    absent = bool(np.isnan(affect).all())
    for name, values in (("probabilities", expression), ("valence and arousal", affect), ("embedding", embedding)):
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad) and not (absent and values is affect):
            raise DataError(f"{file} has a value that is not finite: {name} of {source.source}, row {bad[0] + 1}. {AGAIN}")
    return labels


def _list_column(values: npt.NDArray[np.generic]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _list_values(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Return a column of fixed-size lists as (N, D); a null in it becomes NaN."""
    values = column.combine_chunks()
    return np.asarray(values.flatten().to_numpy(zero_copy_only=False)).reshape(len(values), values.type.list_size)
