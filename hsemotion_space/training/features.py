"""Embeddings and scores of face crops in Parquet shards; :mod:`.feature_table` reads them."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.inference.network import Network
from hsemotion_space.training.batches import prefetched
from hsemotion_space.training.feature_table import PART, HalfArray, read_metadata
from hsemotion_space.training.files import DataError, replacing
from hsemotion_space.training.formats.crops import FaceFile
from hsemotion_space.training.pictures import open_picture
from hsemotion_space.types import ByteArray, FloatArray
from hsemotion_space.vision.engine import normalize

THREADS = 2  # that decode pictures
LISTED_SKIPS = 20  # pictures that could not be decoded are counted, and so many of them named
_ROW_GROUP = 8192


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """Contents of a features folder: ``rows`` of the listed ``faces``; pictures skipped, and why."""

    faces: int
    rows: int
    skipped: tuple[tuple[Path, str], ...]


@dataclass(slots=True)
class _Rows:
    """Rows of a shard that is still growing."""

    videos: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    embeddings: list[HalfArray] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)  # place in the shard, reason

    def add(
        self, start: int, faces: Sequence[FaceFile], pictures: Sequence[ByteArray | str], network: Network
    ) -> None:
        """Run a batch of decoded pictures of the shard; a str in place of a picture is a reason."""
        good = [place for place, picture in enumerate(pictures) if not isinstance(picture, str)]
        self.skipped += [
            (start + place, text) for place, text in enumerate(pictures) if isinstance(text, str)
        ]
        if not good:
            return
        spec = network.checkpoint.input
        embeddings, scores = network.run(
            normalize(np.stack([pictures[place] for place in good]), spec.mean, spec.std)
        )
        with np.errstate(over="ignore"):
            half = embeddings.astype(np.float16)
        if not (np.isfinite(half).all() and np.isfinite(scores).all()):
            template = (
                "{checkpoint} returns embeddings or scores that are not finite or too large for half"
                " precision."
            )
            raise DataError(template, code="not_finite", checkpoint=network.checkpoint.title)
        self.embeddings.append(half)
        self.scores.append(scores.astype(np.float32))
        self.videos += [faces[place].video for place in good]
        self.frames += [faces[place].frame for place in good]


def extract(
    faces: Iterable[FaceFile],
    network: Network,
    folder: Path,
    report: Callable[[int, float], None] | None = None,
    *,
    batch: int = 128,
    shard: int = 65_536,
) -> ExtractResult:
    """Run a backbone over face crops and write ``part-00000.parquet`` and so on, ``shard`` faces each.

    Each picture is squashed to the input size, bilinear, in RGB. One that cannot be decoded is skipped, so
    that its frame counts as one without a face. Called again with the same listing it resumes after the last
    complete shard; the listing may have grown. It is read as a stream, and no more than a shard is in memory.
    ``report`` gets the number of faces, those of earlier runs included, and the speed of this run in faces
    per second after every batch; an error in it ends the extraction.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listing, identity = iter(faces), _identity(network.checkpoint)
    number, result = _finished(listing, folder, identity)
    began, earlier = time.perf_counter(), result.faces
    while members := list(itertools.islice(listing, shard)):
        rows = _Rows()
        for index, (group, pictures) in enumerate(_decoded(members, network.checkpoint.input.size, batch)):
            rows.add(index * batch, group, pictures, network)
            if report is not None:
                count = result.faces + index * batch + len(group)
                report(count, (count - earlier) / max(time.perf_counter() - began, 1e-9))
        result = _write(rows, members, folder / PART.format(number), identity, result)
        number += 1
    return result


def _identity(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what must not change between the shards of a folder."""
    spec = checkpoint.input
    widths = {"dim": str(checkpoint.dim), "outputs": str(checkpoint.outputs)}
    return {
        "checkpoint": checkpoint.id,
        "sha256": checkpoint.sha256,
        **widths,
        "input": f"{spec.size} px, {spec.mean}, {spec.std}",
    }


def _digest(faces: Iterable[FaceFile]) -> str:
    return hashlib.sha256("".join(f"{face.video}/{face.frame}\n" for face in faces).encode()).hexdigest()


def _finished(
    listing: Iterator[FaceFile], folder: Path, identity: dict[str, str]
) -> tuple[int, ExtractResult]:
    """Drop the faces of complete shards from the listing; return the shards' number and content."""
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
            template = (
                "{file} belongs to other pictures; use another folder, or remove the features in this one."
            )
            raise DataError(template, code="other_faces", file=file)
        result = _extended(result, faces, json.loads(metadata["skipped"]), pq.read_metadata(file).num_rows)
    return len(files), result


def _extended(
    result: ExtractResult, faces: Sequence[FaceFile], skipped: Sequence[tuple[int, str]], rows: int
) -> ExtractResult:
    named = tuple((faces[place].image, reason) for place, reason in skipped)
    return ExtractResult(
        result.faces + len(faces), result.rows + rows, (result.skipped + named)[:LISTED_SKIPS]
    )


def _decoded(
    faces: Sequence[FaceFile], size: int, batch: int
) -> Iterator[tuple[Sequence[FaceFile], list[ByteArray | str]]]:
    """Yield batches of faces with their pictures or reasons for their lack; the next one is decoded ahead."""
    groups = [faces[start : start + batch] for start in range(0, len(faces), batch)]
    with ThreadPoolExecutor(THREADS) as pool:

        def decode(number: int) -> list[ByteArray | str]:
            return list(pool.map(partial(_decode, size=size), [face.image for face in groups[number]]))

        yield from zip(groups, prefetched(decode, 0, len(groups)), strict=True)


def _decode(file: Path, size: int) -> ByteArray | str:
    """Return (size, size, 3), or why there is no picture."""
    try:
        return np.asarray(open_picture(file.read_bytes()).resize((size, size), Image.Resampling.BILINEAR))
    except (DataError, OSError) as error:
        return str(error)


def _vectors(parts: Sequence[npt.NDArray[np.floating]], width: int, kind: pa.DataType) -> pa.Array:
    flat = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, kind.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(
        pa.array(flat, kind), type=pa.list_(pa.field("element", kind, nullable=False), width)
    )


def _write(
    rows: _Rows, faces: Sequence[FaceFile], file: Path, identity: dict[str, str], before: ExtractResult
) -> ExtractResult:
    """Write a shard; return what the folder holds with it."""
    own = {"faces": str(len(faces)), "start_row": str(before.rows), "listing": _digest(faces)}
    metadata = identity | own | {"skipped": json.dumps(rows.skipped[:LISTED_SKIPS])}
    columns = {
        "video": pa.array(rows.videos, pa.string()).dictionary_encode(),
        "frame": pa.array(rows.frames, pa.int64()),
        "embedding": _vectors(rows.embeddings, int(identity["dim"]), pa.float16()),
        "scores": _vectors(rows.scores, int(identity["outputs"]), pa.float32()),
    }
    schema = pa.schema(
        [pa.field(name, column.type, nullable=False) for name, column in columns.items()], metadata=metadata
    )
    table = pa.table(columns, schema=schema)
    with replacing(file) as partial:
        pq.write_table(
            table,
            partial,
            _ROW_GROUP,
            compression="zstd",
            use_dictionary=["video"],
            use_byte_stream_split=True,
        )
    return _extended(before, faces, rows.skipped, len(rows.frames))
