"""Features as arrays, read from the shards of :mod:`hsemotion_space.training.features` or from any file.

A file needs the columns ``video`` (string), ``frame`` (integer) and ``embedding`` (fixed-size list of D
floating-point numbers), and may have ``scores`` (the same with K): a wav2vec2 vector per frame, for instance.
Our own shards also say in their metadata which weights and which part of a listing they are from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.training.files import DataError, reading
from hsemotion_space.types import FloatArray, IntArray, check_shape

HalfArray = npt.NDArray[np.float16]
PART = "part-{:05d}.parquet"


class Outputs(NamedTuple):
    """Outputs of a backbone for B pictures: embeddings (B, D) and scores (B, K)."""

    embeddings: FloatArray
    scores: FloatArray


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of many videos, sorted by video and frame.

    Attributes:
        videos: in rising order.
        starts: (V + 1,) the rows of video ``v`` begin at ``starts[v]`` and end before ``starts[v + 1]``.
        frames: (N,) frame numbers, rising inside a video; a frame without a row has no face.
        embeddings: (N, D).
        scores: (N, K) raw outputs of the backbone; K is 0 where there are none.
        checkpoint, sha256: which weights; empty for features from elsewhere.
    """

    videos: tuple[str, ...]
    starts: IntArray
    frames: IntArray
    embeddings: HalfArray
    scores: FloatArray
    checkpoint: str
    sha256: str

    def __post_init__(self) -> None:
        check_shape("FeatureTable", "starts", self.starts, (len(self.videos) + 1,))
        check_shape("FeatureTable", "embeddings", self.embeddings, (len(self.frames), None))
        check_shape("FeatureTable", "scores", self.scores, (len(self.frames), None))

    def rows(self, video: str) -> slice | None:
        """Return the rows of a video, None if it has none."""
        place = bisect_left(self.videos, video)
        if place == len(self.videos) or self.videos[place] != video:
            return None
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def outputs(self, rows: slice | None) -> Outputs:
        """Return some rows as the outputs of a backbone, in float32."""
        return Outputs(self.embeddings[rows].astype(np.float32), self.scores[rows])


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata of a shard."""
    with reading(file, "Parquet file"):
        metadata = pq.read_schema(file).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}


def read_features(source: Path) -> FeatureTable:
    """Read a folder of shards, or one file of the same columns by anyone, into arrays.

    Without our metadata ``checkpoint`` and ``sha256`` are empty, without the column ``scores`` these are (N,
    0).
    """
    files = sorted(source.glob("part-*.parquet")) if source.is_dir() else [source]
    if not files:
        template = "{folder} has no {part}; run `hsemotion-space learn features` first."
        raise DataError(template, code="no_shards", folder=source, part=PART.format(0))
    layouts = {_layout(file) for file in files}
    if len(layouts) > 1:
        raise DataError(
            "The shards in {folder} are of different checkpoints; keep those of one.",
            code="mixed",
            folder=source,
        )
    with reading(source, "file of features"):
        return _read(files, layouts.pop())


def assign_by_time(vectors: npt.NDArray[np.floating], frame_count: int) -> npt.NDArray[np.floating]:
    """Return a vector per frame (F, D) from vectors (T, D): frame f takes vector ``floor(f T / F)``.

    This is how HSEmotion gives wav2vec2 vectors (one per 20 ms) to frames; both must start and end together.
    """
    if not len(vectors):
        raise DataError(
            "There are no vectors to assign to frames; check whether the sound track is empty.",
            code="no_vectors",
        )
    return vectors[np.arange(frame_count) * len(vectors) // max(frame_count, 1)]


class _Layout(NamedTuple):
    """What all shards of a table share."""

    checkpoint: str
    sha256: str
    dim: int
    outputs: int


def _layout(file: Path) -> _Layout:
    metadata, schema = read_metadata(file), pq.read_schema(file)
    for name in ("video", "frame", "embedding"):
        if name not in schema.names:
            names = ", ".join(schema.names)
            raise DataError(
                "{file} has no column {name}; it has {names}.",
                code="columns",
                file=file,
                name=name,
                names=names,
            )
    widths = {"embedding": 0, "scores": 0}
    for name in widths.keys() & set(schema.names):
        kind = schema.field(name).type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            template = (
                "{file}: the column {name} must be a fixed-size list of floating-point numbers, found {kind}."
            )
            raise DataError(template, code="column_type", file=file, name=name, kind=kind)
        widths[name] = kind.list_size
    return _Layout(
        metadata.get("checkpoint", ""), metadata.get("sha256", ""), widths["embedding"], widths["scores"]
    )


def _read(files: Sequence[Path], layout: _Layout) -> FeatureTable:
    names, codes, frames = _keys(files)
    order = np.lexsort((frames, codes))
    place = np.empty(len(order), np.int64)  # row of the table for every row of the files
    place[order] = np.arange(len(order))
    codes, frames = codes[order], frames[order]
    doubles = np.flatnonzero((np.diff(codes) == 0) & (np.diff(frames) == 0))
    if len(doubles):
        frame, video = frames[doubles[0]], names[codes[doubles[0]]]
        raise DataError(
            "Frame {frame} of {video} is twice in {folder}.",
            code="twice",
            frame=frame,
            video=video,
            folder=files[0].parent,
        )
    found, starts = np.unique(codes, return_index=True)
    embeddings, scores = (
        np.empty((len(order), layout.dim), np.float16),
        np.empty((len(order), layout.outputs), np.float32),
    )
    _fill(files, "embedding", place, embeddings)
    if layout.outputs:
        _fill(files, "scores", place, scores)
    bounds = np.append(starts, len(order)).astype(np.int64)
    return FeatureTable(
        tuple(names[code] for code in found),
        bounds,
        frames,
        embeddings,
        scores,
        layout.checkpoint,
        layout.sha256,
    )


def _keys(files: Sequence[Path]) -> tuple[list[str], IntArray, IntArray]:
    """Return all video names in rising order, and for every row the index of its video and its frame."""
    tables = [pq.read_table(file, columns=["video", "frame"]) for file in files]
    columns = [
        pa.chunked_array([chunk for table in tables for chunk in table.column(name).cast(kind).chunks], kind)
        for name, kind in (("video", pa.string()), ("frame", pa.int64()))
    ]
    if any(column.null_count for column in columns):
        raise DataError(
            "{folder} has rows without a video or a frame number.", code="null", folder=files[0].parent
        )
    encoded = columns[0].combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = sorted(found)
    rank = np.searchsorted(np.array(names, object), np.array(found, object))
    return names, rank[encoded.indices.to_numpy()].astype(np.int64), columns[1].to_numpy()


def _fill(files: Sequence[Path], name: str, place: IntArray, result: npt.NDArray[np.floating]) -> None:
    """Read a column of vectors, each into its row of the result."""
    start = 0
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(columns=[name]):
                column, rows = batch.column(name), place[start : start + len(batch)]
                start += len(batch)
                if column.null_count or column.values.null_count:
                    raise DataError(
                        "{file}: the column {name} has rows without numbers.",
                        code="null",
                        file=file,
                        name=name,
                    )
                with np.errstate(over="ignore"):
                    result[rows] = column.flatten().to_numpy().reshape(len(rows), -1)
                if not np.isfinite(result[rows]).all():
                    template = (
                        "{file}: the column {name} has numbers that are not finite, or too large for {kind}."
                    )
                    raise DataError(template, code="not_finite", file=file, name=name, kind=result.dtype)
