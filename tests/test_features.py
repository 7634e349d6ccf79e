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
SOURCE = Source("", Digest("ab" * 32), Digest(), None, None)
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


def test_features_are_what_the_network_says_of_the_squashed_picture(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops")
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    table = read_features(tmp_path / "features")
    assert (result.faces, result.rows, result.skipped, result.skipped_count) == (22, 22, (), 0)
    assert (table.videos, table.starts.tolist(), table.checkpoint, table.sha256) == (
        ("v0", "v2"),
        [0, 13, 22],
        "plain",
        "ab" * 32,
    )
    assert table.frames.tolist() == [crop.frame for crop in crops]
    for row, crop in enumerate(crops):
        pixels = np.asarray(Image.open(crop.image).resize((8, 8), Image.Resampling.BILINEAR))
        embeddings, scores = colors(normalize(pixels[None], SPEC.mean, SPEC.std))
        np.testing.assert_array_equal(table.embeddings[row], embeddings[0].astype(np.float16))
        np.testing.assert_allclose(table.scores[row], scores[0], atol=1e-6)


def test_a_real_checkpoint_gives_the_same_features_as_a_direct_run(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (3,))
    Image.fromarray(draw_face(90)).save(crops[1].image)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    network = load_network(checkpoint, EngineOptions("torch", threads=1))
    extract(crops, network, tmp_path / "features")
    table = read_features(tmp_path / "features")
    pictures = [
        np.asarray(Image.open(crop.image).resize((64, 64), Image.Resampling.BILINEAR)) for crop in crops
    ]
    embeddings, scores = network.run(
        normalize(np.stack(pictures), checkpoint.input.mean, checkpoint.input.std)
    )
    assert (table.embeddings.shape, table.scores.shape) == ((3, 512), (3, 10))
    np.testing.assert_array_equal(table.embeddings, embeddings.astype(np.float16))
    np.testing.assert_array_equal(table.scores, scores)


def test_shards_have_the_documented_layout(tmp_path: Path) -> None:
    extract(make_crops(tmp_path / "crops"), NETWORK, tmp_path / "features", **SMALL)
    files = sorted((tmp_path / "features").iterdir())
    assert [file.name for file in files] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    schema = pq.read_schema(files[1])
    assert schema.names == ["video", "frame", "embedding", "scores"]
    assert (schema.field("embedding").type.list_size, schema.field("embedding").type.value_type) == (
        6,
        pa.float16(),
    )
    assert (schema.field("scores").type.list_size, schema.field("scores").type.value_type) == (
        2,
        pa.float32(),
    )
    assert pa.types.is_dictionary(schema.field("video").type)
    found = schema.metadata
    assert (found[b"checkpoint"], found[b"sha256"], found[b"dim"], found[b"outputs"]) == (
        b"plain",
        b"ab" * 32,
        b"6",
        b"2",
    )
    assert (found[b"start_row"], found[b"faces"]) == (b"8", b"8")


@pytest.mark.parametrize("faces", [3, 8, 11, 16, 21, 22])
def test_a_stopped_extraction_goes_on_to_the_same_values(tmp_path: Path, faces: int) -> None:
    crops = make_crops(tmp_path / "crops")
    crops[5].image.write_bytes(b"no picture")
    crops[15].image.write_bytes(b"")  # the last face of the second shard
    whole = extract(crops, NETWORK, tmp_path / "whole", **SMALL)
    with pytest.raises(Stopped):
        extract(iter(crops), NETWORK, tmp_path / "broken", stop_at(faces), **SMALL)
    assert len(list((tmp_path / "broken").glob("*.parquet"))) == (faces - 1) // 8
    assert extract(iter(crops), NETWORK, tmp_path / "broken", **SMALL) == whole
    assert same(read_features(tmp_path / "broken"), read_features(tmp_path / "whole"))


def test_finished_shards_are_not_computed_again(tmp_path: Path) -> None:
    crops, batches = make_crops(tmp_path / "crops"), []

    def counted(batch: FloatArray) -> tuple[FloatArray, FloatArray]:
        batches.append(len(batch))
        return colors(batch)

    network = replace(NETWORK, run=counted)
    with pytest.raises(Stopped):
        extract(crops, network, tmp_path / "features", stop_at(17), **SMALL)
    assert batches == [3, 3, 2, 3, 3, 2, 3]
    batches.clear()
    extract(crops, network, tmp_path / "features", **SMALL)
    assert batches == [3, 3]
    extract(crops, network, tmp_path / "features", **SMALL)
    assert batches == [3, 3]


def test_a_shard_killed_while_it_was_written_leaves_no_shard(
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


def test_progress_counts_the_listing_and_the_faces_of_this_run(tmp_path: Path) -> None:
    crops, seen = make_crops(tmp_path / "crops"), []
    with pytest.raises(Stopped):
        extract(crops, NETWORK, tmp_path / "features", stop_at(9), **SMALL)
    extract(crops, NETWORK, tmp_path / "features", lambda done, speed: seen.append((done, speed)), **SMALL)
    assert [done for done, _ in seen] == [11, 14, 16, 19, 22]
    assert all(speed > 0 for _, speed in seen)


def test_a_listing_may_grow(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops")
    extract(crops[:11], NETWORK, tmp_path / "features", **SMALL)
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    extract(crops, NETWORK, tmp_path / "whole", **SMALL)
    assert (result.faces, result.rows) == (22, 22)
    assert same(read_features(tmp_path / "features"), read_features(tmp_path / "whole"))


def test_pictures_that_cannot_be_decoded_are_left_out_and_named(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (40,))
    content = crops[0].image.read_bytes()
    crops[0].image.write_bytes(content[: len(content) // 2])
    crops[1].image.unlink()
    crops[2].image.write_bytes(content[:20] + b"\xff\xff\xff" + content[23:])
    for crop in crops[10:35]:
        crop.image.write_bytes(b"GIF89a")
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    assert (result.faces, result.rows, result.skipped_count, len(result.skipped)) == (40, 12, 28, 20)
    assert [path for path, _ in result.skipped] == [crop.image for crop in (*crops[:3], *crops[10:27])]
    assert all(": " in reason for _, reason in result.skipped)
    assert read_features(tmp_path / "features").frames.tolist() == [
        crop.frame for crop in (*crops[3:10], *crops[35:])
    ]


def test_pictures_of_any_mode_are_read_in_rgb(tmp_path: Path) -> None:
    crops = [
        FaceFile("v", frame, tmp_path / f"{mode}.png")
        for frame, mode in enumerate(("L", "P", "RGBA", "1"), 1)
    ]
    for crop in crops:
        Image.new("L", (9, 9), 255).convert(crop.image.stem).save(crop.image)
    assert extract(crops, NETWORK, tmp_path / "features").rows == 4
    assert np.array_equal(read_features(tmp_path / "features").embeddings, np.ones((4, 6), np.float16))


def test_without_any_picture_the_table_is_empty(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (9,))
    for crop in crops:
        crop.image.write_bytes(b"")
    result = extract(crops, NETWORK, tmp_path / "features", **SMALL)
    table = read_features(tmp_path / "features")
    assert (result.rows, result.skipped_count) == (0, 9)
    assert (table.videos, table.starts.tolist(), table.embeddings.shape, table.scores.shape) == (
        (),
        [0],
        (0, 6),
        (0, 2),
    )
    assert table.rows("v0") is None
    assert extract([], NETWORK, tmp_path / "nothing").faces == 0


def test_a_folder_of_another_listing_or_checkpoint_is_refused(tmp_path: Path) -> None:
    crops, folder = make_crops(tmp_path / "crops"), tmp_path / "features"
    extract(crops, NETWORK, folder, **SMALL)
    for wrong in (
        crops[1:],
        crops[:12],
        [*crops[:3], replace(crops[3], frame=99), *crops[4:]],
        [replace(crop, video="w") for crop in crops],
    ):
        with raises_code(DataError, "other_faces"):
            extract(wrong, NETWORK, folder, **SMALL)
    for change in (
        {"source": replace(SOURCE, weights=Digest("cd" * 32))},
        {"id": "other"},
        {"input": replace(SPEC, size=16)},
    ):
        with raises_code(DataError, "other_checkpoint"):
            extract(crops, Network(replace(CHECKPOINT, **change), colors), folder, **SMALL)
    (folder / "part-00001.parquet").unlink()
    with raises_code(DataError, "gap"):
        extract(crops, NETWORK, folder, **SMALL)
    (folder / "part-00000.parquet").write_bytes(b"PAR1")
    with raises_code(DataError, "unusable"):
        extract(crops, NETWORK, folder, **SMALL)


@pytest.mark.parametrize("factor", [np.nan, 1e6])
def test_numbers_that_cannot_be_stored_are_refused(tmp_path: Path, factor: float) -> None:
    network = replace(
        NETWORK,
        run=lambda batch: (
            np.full((len(batch), 6), factor, np.float32),
            np.zeros((len(batch), 2), np.float32),
        ),
    )
    with raises_code(DataError, "not_finite"):
        extract(make_crops(tmp_path / "crops", (2,)), network, tmp_path / "features")


def test_rows_are_sorted_by_video_and_frame_whatever_their_order(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (6, 7, 8))
    extract(crops, NETWORK, tmp_path / "sorted")
    shuffled = [crops[place] for place in np.random.default_rng(1).permutation(len(crops))]
    extract(shuffled, NETWORK, tmp_path / "shuffled", **SMALL)
    expected, table = read_features(tmp_path / "sorted"), read_features(tmp_path / "shuffled")
    assert same(table, expected)
    assert (table.rows("v0"), table.rows("v1"), table.rows("v2")) == (
        slice(0, 6),
        slice(6, 13),
        slice(13, 21),
    )
    assert (table.rows("v"), table.rows("v11"), table.rows("w")) == (None, None, None)


def test_files_by_anyone_need_no_scores_and_no_metadata(tmp_path: Path) -> None:
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


def test_files_that_are_no_features_are_refused(tmp_path: Path) -> None:
    file, vectors = tmp_path / "some.parquet", np.zeros((2, 3), np.float32)
    with raises_code(DataError, "unreadable", file=file):
        read_features(file)
    write_plain(file, ["a", "a"], [5, 5], vectors)
    with raises_code(DataError, "twice", frame=5, video="a"):
        read_features(file)
    write_plain(file, ["a", None], [5, 6], vectors)
    with raises_code(DataError, "null"):
        read_features(file)
    write_plain(file, ["a", "a"], [5, 6], vectors, scores=pa.array([[1.0], [2.0]]))
    with raises_code(DataError, "column_type", name="scores"):
        read_features(file)
    pq.write_table(
        pa.table(
            {
                "video": ["a", "a"],
                "frame": [1, 2],
                "embedding": pa.array([[1.0], None], pa.list_(pa.float32(), 1)),
            }
        ),
        file,
    )
    with raises_code(DataError, "null", name="embedding"):
        read_features(file)
    pq.write_table(pa.table({"video": ["a"], "time": [5]}), file)
    with raises_code(DataError, "columns", name="frame"):
        read_features(file)


def test_shards_of_different_checkpoints_are_not_mixed(tmp_path: Path) -> None:
    crops = make_crops(tmp_path / "crops", (4,))
    extract(crops, NETWORK, tmp_path / "features")
    extract(
        crops,
        Network(replace(CHECKPOINT, source=replace(SOURCE, weights=Digest("cd" * 32))), colors),
        tmp_path / "other",
    )
    (tmp_path / "other/part-00000.parquet").rename(tmp_path / "features/part-00001.parquet")
    with raises_code(DataError, "mixed"):
        read_features(tmp_path / "features")


def test_frames_take_the_vector_of_their_share_of_the_time() -> None:
    vectors = np.arange(5, dtype=np.float32)[:, None]
    assert assign_by_time(vectors, 3)[:, 0].tolist() == [0, 1, 3]  # floor(0), floor(5 / 3), floor(10 / 3)
    assert assign_by_time(vectors, 10)[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert assign_by_time(vectors, 5)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert assign_by_time(vectors, 0).shape == (0, 1)
    with raises_code(DataError, "no_vectors"):
        assign_by_time(np.zeros((0, 4), np.float32), 3)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, 1e6):  # too large for half precision
        vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, value], pa.float32()), 2)
        pq.write_table(pa.table({"video": ["a"], "frame": [1], "embedding": vectors}), tmp_path / "f.parquet")
        with raises_code(DataError, "not_finite"):
            read_features(tmp_path / "f.parquet")
