from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from face_makers import draw_face
from PIL import Image

from hsemotion_space.hub.manifest import Checkpoint, InputSpec
from hsemotion_space.hub.source import Digest, Source
from hsemotion_space.inference.network import Network, load_network
from hsemotion_space.training.feature_table import FeatureTable, assign_by_time, read_features
from hsemotion_space.training.features import extract
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.crops import FaceFile
from hsemotion_space.types import FloatArray
from hsemotion_space.vision.engine import EngineOptions, normalize

SPEC = InputSpec(8, "box", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SOURCE, OTHER_SOURCE = (Source("", Digest(digits * 32), Digest(), None, None) for digits in ("ab", "cd"))
CHECKPOINT = Checkpoint("plain", "Plain", "MobileFaceNet", "none", Path(), SOURCE, "none", 6, 2, SPEC, ())
SMALL = {"batch": 3, "shard": 8}


def colors(batch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A network of its own kind: means of the channels and of the upper half are the embedding, twice the
    first two the scores."""
    embeddings = np.concatenate([batch.mean(axis=(2, 3)), batch[:, :, :4].mean(axis=(2, 3))], 1)
    return embeddings, 2 * embeddings[:, :2]


NETWORK = Network(CHECKPOINT, colors)


class Stopped(Exception):
    pass


def make_crops(folder: Path, counts: Sequence[int] = (13, 0, 9), seed: int = 0) -> list[FaceFile]:
    """Write small pictures of video ``v0``, ``v1``, ...; frame numbers have gaps."""
    rng, crops = np.random.default_rng(seed), []
    for number, count in enumerate(counts):
        for frame in np.cumsum(rng.integers(1, 4, count)):
            file = folder / f"v{number}" / f"{frame:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (10, 7, 3), np.uint8)).save(file)
            crops.append(FaceFile(f"v{number}", int(frame), file))
    return crops


def stop_at(faces: int) -> Callable[[int, float], None]:
    def report(done: int, speed: float) -> None:
        if done >= faces:
            raise Stopped

    return report


def same(one: FeatureTable, other: FeatureTable) -> bool:
    arrays = (
        (getattr(one, name), getattr(other, name)) for name in ("starts", "frames", "embeddings", "scores")
    )
    plain = (one.videos, one.checkpoint, one.sha256) == (other.videos, other.checkpoint, other.sha256)
    return plain and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays
    )


def write_plain(
    file: Path, videos: Sequence[str], frames: Sequence[int], vectors: FloatArray, **more: pa.Array
) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"video": videos, "frame": frames, "embedding": lists, **more}), file)


def test_extract_writes_outputs_of_the_squashed_picture(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops")
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    table = read_features(tmp_path / "features")
    assert (result.faces, result.rows, result.skipped) == (22, 22, ())
    assert (table.videos, table.starts.tolist()) == (("v0", "v2"), [0, 13, 22])
    assert (table.checkpoint, table.sha256) == ("plain", "ab" * 32)
    assert table.frames.tolist() == [crop.frame for crop in crops]
    for row, crop in enumerate(crops):
        pixels = np.asarray(Image.open(crop.image).resize((8, 8), Image.Resampling.BILINEAR))
        embeddings, scores = colors(normalize(pixels[None], SPEC.mean, SPEC.std))
        np.testing.assert_array_equal(table.embeddings[row], embeddings[0].astype(np.float16))
        np.testing.assert_allclose(table.scores[row], scores[0], atol=1e-6)


def test_extract_with_a_real_checkpoint(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (3,))
    Image.fromarray(draw_face(90)).save(crops[1].image)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    network = load_network(checkpoint, EngineOptions("torch", threads=1))
    extract(crops, network, tmp_path / "features")
    table = read_features(tmp_path / "features")
    faces = np.stack([Image.open(crop.image).resize((64, 64), Image.Resampling.BILINEAR) for crop in crops])
    embeddings, scores = network.run(normalize(faces, checkpoint.input.mean, checkpoint.input.std))
    assert (table.embeddings.shape, table.scores.shape) == ((3, 512), (3, 10))
    np.testing.assert_array_equal(table.embeddings, embeddings.astype(np.float16))
    np.testing.assert_array_equal(table.scores, scores)


def test_extract_writes_the_documented_layout(tmp_path: Path) -> None:
    extract(make_crops(tmp_path / "crops"), NETWORK, tmp_path / "features", **SMALL)
    files = sorted((tmp_path / "features").iterdir())
    assert [file.name for file in files] == [f"part-0000{number}.parquet" for number in range(3)]
    schema = pq.read_schema(files[1])
    assert schema.names == ["video", "frame", "embedding", "scores"]
    lists = [schema.field(name).type for name in ("embedding", "scores")]
    assert [(kind.list_size, kind.value_type) for kind in lists] == [(6, pa.float16()), (2, pa.float32())]
    assert pa.types.is_dictionary(schema.field("video").type)
    found = {name.decode(): value.decode() for name, value in schema.metadata.items()}
    own = {"dim": "6", "outputs": "2", "start_row": "8", "faces": "8"}
    assert found.items() >= ({"checkpoint": "plain", "sha256": "ab" * 32} | own).items()


@pytest.mark.parametrize("faces", [3, 8, 11, 16, 21, 22])
def test_extract_resumes_after_the_last_complete_shard(tmp_path: Path, faces: int) -> None:
    crops, batches, progress = make_crops(tmp_path / "crops"), [], []
    crops[5].image.write_bytes(b"no picture")
    crops[15].image.write_bytes(b"")  # the last face of the second shard

    def counted(batch: FloatArray) -> tuple[FloatArray, FloatArray]:
        batches.append(len(batch))
        return colors(batch)

    network = replace(NETWORK, run=counted)
    whole = extract(crops, network, tmp_path / "whole", **SMALL)
    assert batches == [3, 2, 2, 3, 3, 1, 3, 3]
    with pytest.raises(Stopped):
        extract(iter(crops), network, tmp_path / "broken", stop_at(faces), **SMALL)
    complete = len(list((tmp_path / "broken").glob("*.parquet")))
    assert complete == (faces - 1) // 8
    for expected in (batches[3 * complete : 8], []):  # computed once, then never again
        batches_before = len(batches)
        resumed = extract(
            iter(crops), network, tmp_path / "broken", lambda *done: progress.append(done), **SMALL
        )
        assert (resumed, batches[batches_before:]) == (whole, expected)
    assert [done for done, _ in progress] == [3, 6, 8, 11, 14, 16, 19, 22][3 * complete :]
    assert all(speed > 0 for _, speed in progress)
    assert same(read_features(tmp_path / "broken"), read_features(tmp_path / "whole"))


def test_extract_killed_while_it_writes_leaves_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, write = make_crops(tmp_path / "crops"), pq.write_table

    def killed(table: pa.Table, file: Path, *args: object, **options: object) -> None:
        write(table, file, *args, **options)
        os.truncate(file, file.stat().st_size // 2)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", killed)
        with pytest.raises(Stopped):
            extract(crops, NETWORK, tmp_path / "features", **SMALL)
    with raises_code(DataError, "no_shards"):
        read_features(tmp_path / "features")
    extract(crops, NETWORK, tmp_path / "features", **SMALL)
    assert len(read_features(tmp_path / "features").frames) == 22
    assert not list((tmp_path / "features").glob("*.partial"))


def test_extract_of_a_longer_listing(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops")
    extract(crops[:11], NETWORK, tmp_path / "features", **SMALL)
    assert extract(crops, NETWORK, tmp_path / "features", **SMALL).rows == 22
    extract(crops, NETWORK, tmp_path / "whole", **SMALL)
    assert same(read_features(tmp_path / "features"), read_features(tmp_path / "whole"))


def test_extract_names_pictures_that_cannot_be_decoded(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (40,))
    content = crops[0].image.read_bytes()
    crops[0].image.write_bytes(content[: len(content) // 2])
    crops[1].image.unlink()
    crops[2].image.write_bytes(content[:20] + b"\xff\xff\xff" + content[23:])
    for crop in crops[10:35]:
        crop.image.write_bytes(b"GIF89a")
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    assert (result.faces, result.rows, len(result.skipped)) == (40, 12, 20)
    assert [path for path, _ in result.skipped] == [crop.image for crop in (*crops[:3], *crops[10:27])]
    assert all(reason for _, reason in result.skipped)
    good = [crop.frame for crop in (*crops[3:10], *crops[35:])]
    assert read_features(tmp_path / "features").frames.tolist() == good


def test_extract_reads_pictures_of_any_mode_in_rgb(tmp_path: Path) -> None:
    modes = enumerate(("L", "P", "RGBA", "1"), 1)
    crops = [FaceFile("v", frame, tmp_path / f"{mode}.png") for frame, mode in modes]
    for crop in crops:
        Image.new("L", (9, 9), 255).convert(crop.image.stem).save(crop.image)
    assert extract(crops, NETWORK, tmp_path / "features").rows == 4
    assert np.array_equal(read_features(tmp_path / "features").embeddings, np.ones((4, 6), np.float16))


def test_extract_without_any_picture(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (9,))
    for crop in crops:
        crop.image.write_bytes(b"")
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    table = read_features(tmp_path / "features")
    assert (result.faces, result.rows, table.videos, table.starts.tolist()) == (9, 0, (), [0])
    assert (table.embeddings.shape, table.scores.shape, table.rows("v0")) == ((0, 6), (0, 2), None)
    assert extract([], NETWORK, tmp_path / "nothing").faces == 0


def test_extract_refuses_a_folder_of_another_listing_or_checkpoint(tmp_path: Path) -> None:
    crops, folder = make_crops(tmp_path / "crops"), tmp_path / "features"
    extract(crops, NETWORK, folder, **SMALL)
    other_frame = [*crops[:3], replace(crops[3], frame=99), *crops[4:]]
    for wrong in (crops[1:], crops[:12], other_frame, [replace(crop, video="w") for crop in crops]):
        with raises_code(DataError, "other_faces"):
            extract(wrong, NETWORK, folder, **SMALL)
    for change in ({"source": OTHER_SOURCE}, {"id": "other"}, {"input": replace(SPEC, size=16)}):
        with raises_code(DataError, "other_checkpoint"):
            extract(crops, Network(replace(CHECKPOINT, **change), colors), folder, **SMALL)
    (folder / "part-00001.parquet").unlink()
    with raises_code(DataError, "gap"):
        extract(crops, NETWORK, folder, **SMALL)
    (folder / "part-00000.parquet").write_bytes(b"PAR1")
    with raises_code(DataError, "unusable"):
        extract(crops, NETWORK, folder, **SMALL)


@pytest.mark.parametrize("factor", [np.nan, 1e6])
def test_extract_refuses_numbers_that_cannot_be_stored(tmp_path: Path, factor: float) -> None:
    def run(batch: FloatArray) -> tuple[FloatArray, FloatArray]:
        return np.full((len(batch), 6), factor, np.float32), np.zeros((len(batch), 2), np.float32)

    with raises_code(DataError, "not_finite"):
        extract(make_crops(tmp_path / "crops", (2,)), replace(NETWORK, run=run), tmp_path / "features")


def test_read_features_sorts_by_video_and_frame(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (6, 7, 8))
    extract(crops, NETWORK, tmp_path / "sorted")
    shuffled = [crops[place] for place in np.random.default_rng(1).permutation(len(crops))]
    extract(shuffled, NETWORK, tmp_path / "shuffled", **SMALL)
    table = read_features(tmp_path / "shuffled")
    assert same(table, read_features(tmp_path / "sorted"))
    places = {name: table.rows(name) for name in ("v0", "v1", "v2", "v", "v11", "w")}
    found = {"v0": slice(0, 6), "v1": slice(6, 13), "v2": slice(13, 21)}
    assert places == dict.fromkeys(places) | found


def test_read_features_without_scores_and_metadata(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_plain(tmp_path / "audio.parquet", ["b", "a", "b", "a"], [2, 1, 1, 7], vectors)
    table = read_features(tmp_path / "audio.parquet")
    assert (table.videos, table.starts.tolist(), table.frames.tolist()) == (
        ("a", "b"),
        [0, 2, 4],
        [1, 7, 1, 2],
    )
    assert np.array_equal(table.embeddings, vectors[[1, 3, 2, 0]].astype(np.float16))
    assert (table.scores.shape, table.checkpoint, table.sha256) == ((4, 0), "", "")


def vectors_of(values: list[list[float] | None]) -> pa.Array:
    return pa.array(values, pa.list_(pa.float32(), 1))


PLAIN = {"video": ["a", "a"], "frame": [5, 6], "embedding": vectors_of([[1.0], [2.0]])}


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({**PLAIN, "frame": [5, 5]}, "twice"),
        ({**PLAIN, "video": ["a", None]}, "null"),
        ({**PLAIN, "embedding": vectors_of([[1.0], None])}, "null"),
        ({**PLAIN, "embedding": vectors_of([[1.0], [np.nan]])}, "not_finite"),
        ({**PLAIN, "embedding": vectors_of([[1.0], [1e6]])}, "not_finite"),  # too large for half precision
        ({**PLAIN, "scores": pa.array([[1.0], [2.0]])}, "column_type"),
        ({"video": ["a"], "time": [5]}, "columns"),
        ({}, "unreadable"),
    ],
)
def test_read_features_refuses_other_files(tmp_path: Path, columns: dict[str, object], code: str) -> None:
    if columns:
        pq.write_table(pa.table(columns), tmp_path / "some.parquet")
    with raises_code(DataError, code):
        read_features(tmp_path / "some.parquet")


def test_read_features_of_two_checkpoints(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (4,))
    extract(crops, NETWORK, tmp_path / "features")
    extract(crops, Network(replace(CHECKPOINT, source=OTHER_SOURCE), colors), tmp_path / "other")
    (tmp_path / "other/part-00000.parquet").rename(tmp_path / "features/part-00001.parquet")
    with raises_code(DataError, "mixed"):
        read_features(tmp_path / "features")


def test_assign_by_time_takes_the_share_of_the_time() -> None:
    vectors = np.arange(5, dtype=np.float32)[:, None]
    assert assign_by_time(vectors, 3)[:, 0].tolist() == [0, 1, 3]  # floor(0), floor(5 / 3), floor(10 / 3)
    assert assign_by_time(vectors, 10)[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert assign_by_time(vectors, 5)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert assign_by_time(vectors, 0).shape == (0, 1)
    with raises_code(DataError, "no_vectors"):
        assign_by_time(np.zeros((0, 4), np.float32), 3)
