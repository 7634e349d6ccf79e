"""Features as arrays: read from the shards of :mod:`hsemotion_space.training.features`, or from a file by anyone.

A file needs the columns ``video`` (string), ``frame`` (integer) and ``embedding`` (fixed-size list of D floating-point numbers), and
may have ``scores`` (the same with K): a wav2vec2 vector per frame, for instance. Our own shards also say in their metadata which weights
and which part of a listing they are from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.training.data import DataError
from hsemotion_space.types import FloatArray, IntArray, check_shape

HalfArray = npt.NDArray[np.float16]
PART = "part-{:05d}.parquet"


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


def read_metadata(file: Path) -> dict[str, str]:
    """Return what a shard says about itself.

    Raises:
        DataError: if the file is no Parquet file.
    """
    try:
        found = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is not a usable Parquet file: {error}") from error
    return {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}


def read_features(source: Path, videos: Collection[str] | None = None) -> FeatureTable:
    """Read a folder of shards, or one file of the same columns, into arrays.

    Args:
        source: folder of shards, or a Parquet file by anyone (see the module); without our metadata its ``checkpoint``
            and ``sha256`` are empty, without ``scores`` these are (N, 0).
        videos: read only these; those that have no row are left out of the table.

    Raises:
        DataError: if there is nothing, a file has another form, files are of different checkpoints, or a frame is there twice.
    """
    files = sorted(source.glob("part-*.parquet")) if source.is_dir() else [source]
    if not files:
        raise DataError(f"{source} has no {PART.format(0)}; extract features into it first.")
    try:
        forms = {_form(file) for file in files}
        if len(forms) > 1:
            raise DataError(f"The shards in {source} are of different checkpoints; keep only those of one.")
        return _read(files, forms.pop(), videos)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source} cannot be read as features: {error}") from error


def assign_by_time(vectors: npt.NDArray[np.floating], frame_count: int) -> npt.NDArray[np.floating]:
    """Return a vector per frame (F, D) from vectors (T, D) at a constant rate: frame f of F, from 0, takes vector ``floor(f T / F)``.

    This is how HSEmotion gives wav2vec2 vectors (one per 20 ms) to frames; both must start and end together.

    Raises:
        DataError: if there is no vector.
    """
    if not len(vectors):
        raise DataError("There are no vectors to assign to frames; the sound track may be empty.")
    return vectors[np.arange(frame_count) * len(vectors) // max(frame_count, 1)]


class _Form(NamedTuple):
    """What all shards of a table share."""

    checkpoint: str
    sha256: str
    dim: int
    outputs: int


def _form(file: Path) -> _Form:
    metadata, schema = read_metadata(file), pq.read_schema(file)
    for name in ("video", "frame", "embedding"):
        if name not in schema.names:
            raise DataError(f"{file} has no column {name}; it has {', '.join(schema.names)}.")
    widths = {"embedding": 0, "scores": 0}
    for name in widths.keys() & set(schema.names):
        kind = schema.field(name).type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise DataError(f"{file}: {name} must be a fixed-size list of floating-point numbers, not {kind}.")
        widths[name] = kind.list_size
    return _Form(metadata.get("checkpoint", ""), metadata.get("sha256", ""), widths["embedding"], widths["scores"])


def _read(files: Sequence[Path], form: _Form, videos: Collection[str] | None) -> FeatureTable:
    names, codes, frames = _keys(files)
    order = np.lexsort((frames, codes))
    if videos is not None:
        order = order[np.isin(codes[order], [code for code, name in enumerate(names) if name in videos])]
    place = np.full(len(codes), -1, np.int64)  # row of the table for every row of the files
    place[order] = np.arange(len(order))
    codes, frames = codes[order], frames[order]
    doubles = np.flatnonzero((np.diff(codes) == 0) & (np.diff(frames) == 0))
    if len(doubles):
        raise DataError(f"Frame {frames[doubles[0]]} of {names[codes[doubles[0]]]} is there twice in {files[0].parent}.")
    found, starts = np.unique(codes, return_index=True)
    embeddings, scores = np.empty((len(order), form.dim), np.float16), np.empty((len(order), form.outputs), np.float32)
    _fill(files, "embedding", place, embeddings)
    if form.outputs:
        _fill(files, "scores", place, scores)
    bounds = np.append(starts, len(order)).astype(np.int64)
    return FeatureTable(tuple(names[code] for code in found), bounds, frames, embeddings, scores, form.checkpoint, form.sha256)


def _keys(files: Sequence[Path]) -> tuple[list[str], IntArray, IntArray]:
    """Return the names of all videos in rising order, and for every row of the files the place of its video and its frame number."""
    tables = [pq.read_table(file, columns=["video", "frame"]) for file in files]
    videos = pa.chunked_array([chunk for table in tables for chunk in table.column("video").cast(pa.string()).chunks], pa.string())
    frames = pa.chunked_array([chunk for table in tables for chunk in table.column("frame").cast(pa.int64()).chunks], pa.int64())
    if videos.null_count or frames.null_count:
        raise DataError(f"{files[0].parent} has rows without a video or a frame number.")
    encoded = videos.combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = sorted(found)
    rank = np.searchsorted(np.array(names, object), np.array(found, object))
    return names, rank[encoded.indices.to_numpy()].astype(np.int64), frames.to_numpy()


def _fill(files: Sequence[Path], name: str, place: IntArray, result: npt.NDArray[np.floating]) -> None:
    """Read a column of vectors, each into its row of the result; row groups without a wanted row are not decoded."""
    row = 0
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                target = place[row : row + parquet.metadata.row_group(group).num_rows]
                row += len(target)
                wanted = target >= 0
                if not wanted.any():
                    continue
                column = parquet.read_row_group(group, columns=[name]).column(name).combine_chunks()
                if column.null_count or column.values.null_count:
                    raise DataError(f"{file}: {name} has rows without numbers.")
                numbers = column.flatten().to_numpy().reshape(len(target), -1)[wanted]
                with np.errstate(over="ignore"):
                    result[target[wanted]] = numbers
                if not np.isfinite(result[target[wanted]]).all():
                    raise DataError(f"{file}: {name} has numbers that are not finite, or too large for {result.dtype}.")
