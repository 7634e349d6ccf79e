"""Embeddings and scores of face crops: extracted once into Parquet shards, then read as arrays.

A shard has the columns ``video`` (string), ``frame`` (integer), ``embedding`` (fixed-size list of D floating-point numbers) and,
where there are any, ``scores`` (the same with K). Features from elsewhere (a wav2vec2 vector per frame, for instance) need no more
than these columns in one file; our own shards also say in their metadata which weights and which part of a listing they are from.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hsemotion_space.engine import normalize
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.learn.data import DataError
from hsemotion_space.pipeline import Network
from hsemotion_space.types import ByteArray, FloatArray, IntArray, check_shape

HalfArray = npt.NDArray[np.float16]
PART = "part-{:05d}.parquet"
LISTED_SKIPS = 20  # pictures that could not be decoded are counted, and so many of them named
_AHEAD = 3  # batches that are decoded while the network runs
_ROW_GROUP = 8192


class Face(Protocol):
    """A picture of one face: the whole picture is the crop."""

    @property
    def video(self) -> str:
        """Which video it is from."""

    @property
    def frame(self) -> int:
        """Its frame number."""

    @property
    def image(self) -> Path:
        """The file."""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """``batch`` faces per run of the network, ``shard`` faces of the listing per file, ``threads`` that decode pictures."""

    batch: int = 128
    shard: int = 65_536
    threads: int = 2


@dataclass(frozen=True, slots=True)
class ExtractProgress:
    """``done`` faces of the listing, those of earlier runs included; ``images_per_s`` in this run."""

    done: int
    images_per_s: float


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """What a folder of features holds.

    Attributes:
        faces: length of the listing.
        rows: how many of them have features.
        skipped: the first pictures that could not be decoded, each with the reason.
    """

    faces: int
    rows: int
    skipped: tuple[tuple[Path, str], ...]

    @property
    def skipped_count(self) -> int:
        """Number of all pictures that could not be decoded."""
        return self.faces - self.rows


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


@dataclass(slots=True)
class _Shard:
    """A shard that is still growing; ``faces`` are all that it covers, with those that are skipped."""

    videos: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    embeddings: list[HalfArray] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)  # place in the shard, reason
    faces: list[Face] = field(default_factory=list)

    def add(self, faces: Sequence[Face], pictures: Sequence[ByteArray | str], network: Network) -> None:
        """Run a batch of decoded pictures; a text instead of a picture is the reason why there is none."""
        good = [place for place, picture in enumerate(pictures) if not isinstance(picture, str)]
        self.skipped += [(len(self.faces) + place, text) for place, text in enumerate(pictures) if isinstance(text, str)]
        self.faces += faces
        if not good:
            return
        spec = network.checkpoint.input
        embeddings, scores = network.run(normalize(np.stack([pictures[place] for place in good]), spec.mean, spec.std))
        with np.errstate(over="ignore"):
            half = embeddings.astype(np.float16)
        if not (np.isfinite(half).all() and np.isfinite(scores).all()):
            raise DataError(f"{network.checkpoint.title} gives embeddings or scores that are no numbers or too large for half precision.")
        self.embeddings.append(half)
        self.scores.append(scores.astype(np.float32))
        self.videos += [faces[place].video for place in good]
        self.frames += [faces[place].frame for place in good]


def extract(
    faces: Iterable[Face],
    network: Network,
    folder: Path,
    options: ExtractOptions | None = None,
    report: Callable[[ExtractProgress], None] | None = None,
) -> ExtractResult:
    """Run a backbone over face crops and write ``part-00000.parquet`` and so on.

    Each picture is squashed to the input size, bilinear, in RGB. One that cannot be decoded is left out, so that its frame counts
    as one without a face. Called again with the same listing it goes on after the last complete shard; the listing may have grown.

    Args:
        faces: the listing, always in the same order; it is read as a stream, and no more than a shard is in memory.
        network: its embeddings are stored as float16, its scores as float32.
        folder: made if it does not exist; a shard that is not complete has another name.
        options: sizes of batches and shards.
        report: called after every batch; what it raises ends the extraction.

    Raises:
        DataError: if the folder has features of another checkpoint or listing, or the outputs cannot be stored.
    """
    options = options or ExtractOptions()
    folder.mkdir(parents=True, exist_ok=True)
    listing, identity = iter(faces), _identity(network.checkpoint)
    number, result = _finished(listing, folder, identity)
    began, earlier, shard = time.perf_counter(), result.faces, _Shard()
    for batch, pictures in _decoded(listing, network.checkpoint.input.size, options):
        shard.add(batch, pictures, network)
        if len(shard.faces) == options.shard:
            result = _write(shard, folder / PART.format(number), identity, result)
            number, shard = number + 1, _Shard()
        if report is not None:
            done = result.faces + len(shard.faces)
            report(ExtractProgress(done, (done - earlier) / max(time.perf_counter() - began, 1e-9)))
    return _write(shard, folder / PART.format(number), identity, result) if shard.faces else result


def _identity(checkpoint: Checkpoint) -> dict[str, str]:
    """Say what must not change between the shards of a folder."""
    spec = checkpoint.input
    widths = {"dim": str(checkpoint.dim), "outputs": str(checkpoint.outputs)}
    return {"checkpoint": checkpoint.id, "sha256": checkpoint.sha256, **widths, "input": f"{spec.size} px, {spec.mean}, {spec.std}"}


def _digest(faces: Iterable[Face]) -> str:
    return hashlib.sha256("".join(f"{face.video}/{face.frame}\n" for face in faces).encode()).hexdigest()


def _finished(listing: Iterator[Face], folder: Path, identity: dict[str, str]) -> tuple[int, ExtractResult]:
    """Take the faces of complete shards off the listing; return how many shards there are and what they hold."""
    result = ExtractResult(0, 0, ())
    files = sorted(folder.glob("part-*.parquet"))
    for number, file in enumerate(files, 1):
        found = _metadata(file)
        if file.name != PART.format(number - 1):
            raise DataError(f"{folder} has {file.name} but not {PART.format(number - 1)}; remove the shards after the gap.")
        for key, value in identity.items():
            if found.get(key) != value:
                raise DataError(f"{file} belongs to another checkpoint ({key} {found.get(key)!r}, not {value!r}); use another folder.")
        faces = list(itertools.islice(listing, int(found["faces"])))
        if len(faces) < int(found["faces"]) or _digest(faces) != found["listing"]:
            raise DataError(f"{file} belongs to another listing of faces; use another folder, or remove the features in this one.")
        result = _extended(result, faces, json.loads(found["skipped"]), pq.read_metadata(file).num_rows)
    return len(files), result


def _extended(result: ExtractResult, faces: Sequence[Face], skipped: Sequence[tuple[int, str]], rows: int) -> ExtractResult:
    named = tuple((faces[place].image, reason) for place, reason in skipped)
    return ExtractResult(result.faces + len(faces), result.rows + rows, (result.skipped + named)[:LISTED_SKIPS])


def _batches(faces: Iterator[Face], options: ExtractOptions) -> Iterator[list[Face]]:
    """Cut a listing into batches that end with the shards, so that a resumed run has the same batches."""
    while shard := list(itertools.islice(faces, options.shard)):
        yield from (shard[start : start + options.batch] for start in range(0, len(shard), options.batch))


def _decoded(faces: Iterator[Face], size: int, options: ExtractOptions) -> Iterator[tuple[list[Face], list[ByteArray | str]]]:
    waiting: deque[tuple[list[Face], list[Future[ByteArray | str]]]] = deque()
    with ThreadPoolExecutor(options.threads) as pool:
        try:
            for batch in _batches(faces, options):
                waiting.append((batch, [pool.submit(_decode, face.image, size) for face in batch]))
                if len(waiting) > _AHEAD:
                    ready, jobs = waiting.popleft()
                    yield ready, [job.result() for job in jobs]
            for ready, jobs in waiting:
                yield ready, [job.result() for job in jobs]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(file: Path, size: int) -> ByteArray | str:
    """Return (size, size, 3), or why there is no picture."""
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:  # noqa: BLE001  whatever a decoder says of damaged bytes
        return f"{type(error).__name__}: {error}"


def _vectors(parts: Sequence[npt.NDArray[np.floating]], width: int, kind: pa.DataType) -> pa.Array:
    flat = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, kind.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind), type=pa.list_(pa.field("element", kind, nullable=False), width))


def _write(shard: _Shard, file: Path, identity: dict[str, str], before: ExtractResult) -> ExtractResult:
    """Write a shard under a partial name, then rename it; return what the folder holds with it."""
    own = {"faces": str(len(shard.faces)), "start_row": str(before.rows), "listing": _digest(shard.faces)}
    metadata = identity | own | {"skipped": json.dumps(shard.skipped[:LISTED_SKIPS])}
    columns = {
        "video": pa.array(shard.videos, pa.string()).dictionary_encode(),
        "frame": pa.array(shard.frames, pa.int64()),
        "embedding": _vectors(shard.embeddings, int(identity["dim"]), pa.float16()),
        "scores": _vectors(shard.scores, int(identity["outputs"]), pa.float32()),
    }
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()], metadata=metadata)
    partial = file.with_name(file.name + ".partial")
    table = pa.table(columns, schema=schema)
    pq.write_table(table, partial, _ROW_GROUP, compression="zstd", use_dictionary=["video"], use_byte_stream_split=True)
    partial.replace(file)
    return _extended(before, shard.faces, shard.skipped, len(shard.frames))


def _metadata(file: Path) -> dict[str, str]:
    try:
        found = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is not a usable Parquet file: {error}") from error
    return {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}


def read_features(source: Path, videos: Collection[str] | None = None) -> FeatureTable:
    """Read a folder of shards, or one file of the same columns, into arrays.

    Args:
        source: folder of :func:`extract`, or a Parquet file by anyone (see the module); without our metadata its ``checkpoint``
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
    metadata, schema = _metadata(file), pq.read_schema(file)
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
                result[target[wanted]] = column.flatten().to_numpy().reshape(len(target), -1)[wanted]
