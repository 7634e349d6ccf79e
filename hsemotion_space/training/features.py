"""Embeddings and scores of face crops, extracted once into Parquet shards; :mod:`hsemotion_space.training.feature_table` reads them."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.inference.pipeline import Network
from hsemotion_space.training.feature_table import PART, HalfArray, read_metadata
from hsemotion_space.training.files import DataError, replacing
from hsemotion_space.training.formats.crops import FaceFile
from hsemotion_space.types import ByteArray, FloatArray
from hsemotion_space.vision.engine import normalize

LISTED_SKIPS = 20  # pictures that could not be decoded are counted, and so many of them named
_AHEAD = 3  # batches that are decoded while the network runs
_ROW_GROUP = 8192


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
    """What a folder of features holds: ``rows`` of the ``faces`` of the listing, and the first pictures without, with reasons."""

    faces: int
    rows: int
    skipped: tuple[tuple[Path, str], ...]

    @property
    def skipped_count(self) -> int:
        """Number of all pictures that could not be decoded."""
        return self.faces - self.rows


@dataclass(slots=True)
class _Shard:
    """A shard that is still growing; ``faces`` are all that it covers, with those that are skipped."""

    videos: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    embeddings: list[HalfArray] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)  # place in the shard, reason
    faces: list[FaceFile] = field(default_factory=list)

    def add(self, faces: Sequence[FaceFile], pictures: Sequence[ByteArray | str], network: Network) -> None:
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
            template = "{checkpoint} returns embeddings or scores that are not finite or too large for half precision."
            raise DataError(template, code="not_finite", checkpoint=network.checkpoint.title)
        self.embeddings.append(half)
        self.scores.append(scores.astype(np.float32))
        self.videos += [faces[place].video for place in good]
        self.frames += [faces[place].frame for place in good]


def extract(
    faces: Iterable[FaceFile],
    network: Network,
    folder: Path,
    options: ExtractOptions | None = None,
    report: Callable[[ExtractProgress], None] | None = None,
) -> ExtractResult:
    """Run a backbone over face crops and write ``part-00000.parquet`` and so on.

    Each picture is squashed to the input size, bilinear, in RGB. One that cannot be decoded is skipped, so that its frame
    counts as one without a face. Called again with the same listing it resumes after the last complete shard; the listing may
    have grown. It is read as a stream, and no more than a shard is in memory. ``report`` is called after every batch.
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
    """Return what must not change between the shards of a folder."""
    spec = checkpoint.input
    widths = {"dim": str(checkpoint.dim), "outputs": str(checkpoint.outputs)}
    return {"checkpoint": checkpoint.id, "sha256": checkpoint.sha256, **widths, "input": f"{spec.size} px, {spec.mean}, {spec.std}"}


def _digest(faces: Iterable[FaceFile]) -> str:
    return hashlib.sha256("".join(f"{face.video}/{face.frame}\n" for face in faces).encode()).hexdigest()


def _finished(listing: Iterator[FaceFile], folder: Path, identity: dict[str, str]) -> tuple[int, ExtractResult]:
    """Take the faces of complete shards off the listing; return how many shards there are and what they hold."""
    result = ExtractResult(0, 0, ())
    files = sorted(folder.glob("part-*.parquet"))
    for number, file in enumerate(files):
        metadata, expected = read_metadata(file), PART.format(number)
        if file.name != expected:
            template = "{folder} has {name} but not {expected}; remove the shards after the gap."
            raise DataError(template, code="gap", folder=folder, name=file.name, expected=expected)
        if different := [key for key, value in identity.items() if metadata.get(key) != value]:
            template = "{file} belongs to another checkpoint (other {keys}); use another folder."
            raise DataError(template, code="other_checkpoint", file=file, keys=", ".join(different))
        faces = list(itertools.islice(listing, int(metadata["faces"])))
        if len(faces) < int(metadata["faces"]) or _digest(faces) != metadata["listing"]:
            template = "{file} belongs to other pictures; use another folder, or remove the features in this one."
            raise DataError(template, code="other_faces", file=file)
        result = _extended(result, faces, json.loads(metadata["skipped"]), pq.read_metadata(file).num_rows)
    return len(files), result


def _extended(result: ExtractResult, faces: Sequence[FaceFile], skipped: Sequence[tuple[int, str]], rows: int) -> ExtractResult:
    named = tuple((faces[place].image, reason) for place, reason in skipped)
    return ExtractResult(result.faces + len(faces), result.rows + rows, (result.skipped + named)[:LISTED_SKIPS])


def _batches(faces: Iterator[FaceFile], options: ExtractOptions) -> Iterator[list[FaceFile]]:
    """Cut a listing into batches that end with the shards, so that a resumed run has the same batches."""
    while shard := list(itertools.islice(faces, options.shard)):
        yield from (shard[start : start + options.batch] for start in range(0, len(shard), options.batch))


def _decoded(faces: Iterator[FaceFile], size: int, options: ExtractOptions) -> Iterator[tuple[list[FaceFile], list[ByteArray | str]]]:
    waiting: deque[tuple[list[FaceFile], list[Future[ByteArray | str]]]] = deque()
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
    """Write a shard; return what the folder holds with it."""
    own = {"faces": str(len(shard.faces)), "start_row": str(before.rows), "listing": _digest(shard.faces)}
    metadata = identity | own | {"skipped": json.dumps(shard.skipped[:LISTED_SKIPS])}
    columns = {
        "video": pa.array(shard.videos, pa.string()).dictionary_encode(),
        "frame": pa.array(shard.frames, pa.int64()),
        "embedding": _vectors(shard.embeddings, int(identity["dim"]), pa.float16()),
        "scores": _vectors(shard.scores, int(identity["outputs"]), pa.float32()),
    }
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()], metadata=metadata)
    table = pa.table(columns, schema=schema)
    with replacing(file) as partial:
        pq.write_table(table, partial, _ROW_GROUP, compression="zstd", use_dictionary=["video"], use_byte_stream_split=True)
    return _extended(before, shard.faces, shard.skipped, len(shard.frames))
