"""Soft labels of a teacher: made, read, mixed into the targets, and distilled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from training_makers import RECIPE, pictures, same, soft_labels

from hsemotion_space.inference.heads import softmax
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training import teach as teaching
from hsemotion_space.training.batches import BatchMaker
from hsemotion_space.training.data import FaceImages, open_images
from hsemotion_space.training.files import DataError
from hsemotion_space.training.losses import embedding_loss
from hsemotion_space.training.recipe import Teaching, read_recipe
from hsemotion_space.training.run import export_run, train
from hsemotion_space.training.soft_labels import SoftLabels, read_soft_labels, write_soft_labels
from hsemotion_space.training.sources import load_sources, open_source
from hsemotion_space.training.teach import Teacher, teach
from hsemotion_space.training.train import Trainer
from hsemotion_space.types import FloatArray

TAUGHT = replace(
    RECIPE,
    teaching=Teaching("soft.parquet", weight=0.5, weights={"b": 0.25}, temperature=2.0, embedding_weight=0.7),
)
TOML = """arch = "test_byobnet"
size = 32
votes = "votes.csv"
steps = 2
batch = 8
compile = false
bfloat16 = false
[teaching]
file = "soft.parquet"
weight = 0.75
embedding_weight = 0.5
[[sources]]
name = "a"
files = ["a.parquet"]
share = 0.5
tuning = 0.2
unlabeled = true
[[sources]]
name = "wild"
files = ["wild.parquet"]
share = 0.5
unlabeled = true
"""


@pytest.fixture(scope="session")
def data(data: Path) -> Path:
    """Two labeled sources, one without labels, and a recipe."""
    wild = pa.table({"image": [{"bytes": content} for content in pictures(20, 7)]})
    pq.write_table(wild, data / "wild.parquet")
    (data / "recipe.toml").write_text(TOML)
    return data


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Teacher, ...]:
    """Two networks with inputs of 48 and 64 px."""
    folder = tmp_path_factory.mktemp("teachers")
    made = [make_checkpoint(folder / f"t{size}", size=size, seed=size, settled=True) for size in (48, 64)]
    return tuple(Teacher(checkpoint, folder) for checkpoint in made)


# rows without a label


def test_open_images_with_unlabeled_rows(tmp_path: Path) -> None:
    votes = np.zeros((5, 8), int)
    votes[0, 2], votes[1, 2], votes[2, 2] = 7, 3, 3
    columns = {f"votes_{name.lower()}": votes[:, k].tolist() for k, name in enumerate(EXPRESSION.label_names)}
    columns |= {"votes_unknown": [0, 5, 0, 0, 0], "votes_nf": [0, 0, 3, 9, 0]}
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [{"bytes": content} for content in pictures(5, 0)], **columns}), file)
    assert len(open_images("x", [file], 16)) == 1
    # not the two that most voters took for something else
    faces = open_images("x", [file], 16, unlabeled=True)
    assert np.isnan(faces.expression).all(1).tolist() == [False, True, True]
    assert faces.counted.tolist() == [True, False, False]


def test_load_sources_without_any_label(data: Path) -> None:
    recipe = read_recipe(data / "recipe.toml")
    first, second = recipe.sources
    labeled, wild = load_sources(recipe, data)[0]
    assert (len(labeled), len(wild), wild.counted.any()) == (80, 20, False)
    for code, sources in (("no_labels", (second,)), ("no_label", (first, replace(second, unlabeled=False)))):
        with raises_code(DataError, code):
            load_sources(replace(recipe, sources=sources), data)


# targets


def test_soft_labels_mix_with_labels() -> None:
    teacher = np.full((3, 8), 0.02, np.float32)
    teacher[:, 4] = 0.86
    labels = np.eye(8, dtype=np.float32)[[1, 4, 0]]
    labels[2] = np.nan
    soft = SoftLabels(teacher, np.array([[0.5, -0.5]] * 3, np.float32), np.zeros((3, 0), np.float16))
    roots = np.sqrt(teacher[0]) / np.sqrt(teacher[0]).sum()
    mixed = [0.75 * labels[0] + 0.25 * roots, 0.75 * labels[1] + 0.25 * roots, roots]
    np.testing.assert_allclose(soft.targets(labels, 0.25, 2.0), mixed, 1e-5)
    np.testing.assert_allclose(soft.targets(labels, 0.0, 1.0)[:2], labels[:2])
    np.testing.assert_allclose(soft.targets(labels, 1.0, 1.0), teacher, 1e-5)
    given = np.array([[0.1, 0.2], [np.nan, 0.2], [np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(soft.affect(given), [[0.1, 0.2], [0.5, -0.5], [0.5, -0.5]])


def test_batch_maker_with_soft_labels(sources: list[FaceImages]) -> None:
    soft = soft_labels(sources, 6)
    plain, taught = BatchMaker(RECIPE, sources), BatchMaker(TAUGHT, sources, soft.sources)
    for step in (0, 31):
        untaught, batch = plain(step), taught(step)
        assert torch.equal(untaught.images, batch.images)
        start = 0
        for number, (weight, count) in enumerate(zip((0.5, 0.25), (6, 2), strict=True)):
            positions = range(step * count, (step + 1) * count)
            rows = np.array([taught._pick(number, position) for position in positions])
            here, own = slice(start, start + count), soft.sources[number]
            roots = np.sqrt(own.expression[rows])
            roots *= weight / roots.sum(1, keepdims=True)
            mixed = (1 - weight) * untaught.expression[here].numpy() + roots
            np.testing.assert_allclose(batch.expression[here], mixed, atol=1e-6)
            assert (batch.embedding[here].numpy() == own.embedding[rows]).all()
            # the first source has no valence and arousal of its own
            affect = own.valence_arousal[rows] if number == 0 else untaught.valence_arousal[here].numpy()
            assert (batch.valence_arousal[here].numpy() == affect).all()
            start += count
    assert torch.equal(plain.class_weights, taught.class_weights)


def test_batch_maker_weighs_classes_by_labels_alone(sources: list[FaceImages]) -> None:
    half = sources[0].expression.copy()
    half[:20] = np.nan
    fewer = [replace(sources[0], expression=half), sources[1]]
    maker = BatchMaker(TAUGHT, fewer, soft_labels(fewer).sources)
    parts = zip(fewer, maker.training, maker.counts, strict=True)
    mass = sum(np.nansum(faces.expression[rows], 0) * count / len(rows) for faces, rows, count in parts)
    np.testing.assert_allclose(
        maker.class_weights, (mass / mass.max()) ** -RECIPE.class_weight_power, rtol=1e-4
    )


# runs


def test_trainer_draws_the_embedding_to_the_teacher(sources: list[FaceImages], tmp_path: Path) -> None:
    trainer = Trainer(replace(TAUGHT, args={}, batch=16), sources, tmp_path, soft=soft_labels(sources, 6))
    before = {key: value.clone() for key, value in trainer.trained.projection.state_dict().items()}
    losses = [trainer._train_step(trainer.batches(step % 3))["embedding"] for step in range(12)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) < 0.7 * 2
    assert not same(before, trainer.trained.projection.state_dict())
    assert not [key for key in trainer.weights() if "projection" in key]
    x, y = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert float(embedding_loss(x, y)) == pytest.approx(0.5)


def test_trainer_trains_and_resumes_the_projection(sources: list[FaceImages], tmp_path: Path) -> None:
    recipe, soft = replace(TAUGHT, head_steps=2), soft_labels(sources, 6)
    trainer = Trainer(recipe, sources, tmp_path, soft=soft)
    before = {key: value.clone() for key, value in trainer.trained.state_dict().items()}
    trainer._train_step(trainer.batches(0))
    after = trainer.trained.state_dict()
    assert {key for key in after if not torch.equal(after[key], before[key])} == {
        "projection.weight", "projection.bias", "model.head.fc.weight", "model.head.fc.bias"
    }  # fmt: skip
    trainer._save()
    assert same(Trainer(recipe, sources, tmp_path, soft=soft).trained.state_dict(), after)


def test_trainer_refuses_another_teacher(sources: list[FaceImages], tmp_path: Path) -> None:
    Trainer(TAUGHT, sources, tmp_path, soft=soft_labels(sources, 6)).fit(minutes=0)
    soft = soft_labels(sources, 6)
    plain = replace(TAUGHT, teaching=Teaching("x"))
    for recipe, given in ((TAUGHT, replace(soft, sha256="2" * 64)), (RECIPE, None), (plain, soft)):
        with raises_code(DataError, "other_teacher"):
            Trainer(recipe, sources, tmp_path, soft=given)
    with raises_code(DataError, "no_soft_labels"):
        Trainer(TAUGHT, sources, tmp_path)
    with raises_code(DataError, "no_embeddings"):
        Trainer(TAUGHT, sources, tmp_path, soft=soft_labels(sources))


# files


def write(file: Path, sources: list[FaceImages], **changes: FloatArray) -> Path:
    labels = replace(soft_labels(sources, 3).sources[0], **changes)
    write_soft_labels(file, "a", labels, {"teachers": [{"id": "t"}], "sources": {"a": sources[0].sha256}})
    return file


def test_read_soft_labels_of_written_ones(sources: list[FaceImages], tmp_path: Path) -> None:
    read = read_soft_labels(write(tmp_path / "soft.parquet", sources), sources[:1])
    expected = soft_labels(sources, 3).sources[0]
    for name in ("expression", "valence_arousal", "embedding"):
        assert (getattr(read.sources[0], name) == getattr(expected, name)).all()
    assert (read.dim, read.file, read.teachers) == (3, "soft.parquet", ({"id": "t"},))
    table = pq.read_table(tmp_path / "soft.parquet")
    assert table.column_names == ["source", "row", "probabilities", "valence", "arousal", "embedding"]
    assert not list(tmp_path.glob("*.partial"))
    nothing = np.full((80, 2), np.nan, np.float32)
    unrated = write(tmp_path / "unrated.parquet", sources, valence_arousal=nothing)
    assert np.isnan(read_soft_labels(unrated, sources[:1]).sources[0].valence_arousal).all()


def test_read_soft_labels_that_do_not_fit(data: Path, sources: list[FaceImages], tmp_path: Path) -> None:
    file = write(tmp_path / "soft.parquet", sources)
    changed, fewer = replace(sources[0], sha256="0" * 64), sources[0].images[np.arange(70)]
    shorter = replace(sources[0], images=fewer)
    for given, code in ((sources, "other_rows"), ([changed], "other_data"), ([shorter], "other_rows")):
        with raises_code(DataError, code, file=file):
            read_soft_labels(file, given)
    for name, shape in (("expression", (80, 8)), ("valence_arousal", (80, 2)), ("embedding", (80, 3))):
        values = np.full(shape, 0.5, np.float16 if name == "embedding" else np.float32)
        values[6, 1] = np.nan
        with raises_code(DataError, "not_finite", row=7, source="a"):
            read_soft_labels(write(tmp_path / "bad.parquet", sources, **{name: values}), sources[:1])
    with raises_code(DataError, "soft_labels"):
        read_soft_labels(data / "a.parquet", sources)
    (tmp_path / "text.parquet").write_text("no")
    for name, code in (("text", "soft_labels"), ("none", "unreadable")):
        with raises_code(DataError, code, file=tmp_path / f"{name}.parquet"):
            read_soft_labels(tmp_path / f"{name}.parquet", sources)


# teachers


def test_teach_averages_views_and_networks(data: Path, teachers: tuple[Teacher, ...], tmp_path: Path) -> None:
    out = tmp_path / "soft.parquet"
    teach(data / "recipe.toml", data, teachers, out, embeddings=True)
    recipe = read_recipe(data / "recipe.toml")
    labels = read_soft_labels(out, load_sources(recipe, data)[0]).sources[1]
    expected, affects, embeddings = [], [], []
    for teacher in teachers:
        spec = teacher.checkpoint.input
        images = open_source(recipe.sources[1], data, spec.size * 9 // 8).images[np.arange(20)]
        x = teaching.normalize(teaching.plain(torch.from_numpy(images), spec.size), 0.5, 0.5)
        with torch.inference_mode():
            outputs = [[part.numpy() for part in teacher._backbone(view)] for view in (x, x.flip(3))]
        expected += [softmax(scores[:, :8]) for _, scores in outputs]
        affects += [np.clip(scores[:, 8:], -1, 1) for _, scores in outputs]
        mean = np.mean([embedding for embedding, _ in outputs], 0)
        embeddings.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    np.testing.assert_allclose(labels.expression, np.mean(expected, 0), atol=1e-5)
    np.testing.assert_allclose(labels.valence_arousal, np.mean(affects, 0), atol=1e-5)
    np.testing.assert_allclose(labels.embedding, np.concatenate(embeddings, 1), atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["soft.parquet"]


def test_teach_resumes_with_the_next_source(
    data: Path, teachers: tuple[Teacher, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label, asked = teaching._label, []

    def die_at_the_second(faces: list[FaceImages], *options: object) -> SoftLabels:
        asked.append(faces[0].source)
        if asked == ["a", "wild"]:
            raise KeyboardInterrupt
        return label(faces, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(teaching, "_label", die_at_the_second)
    out = tmp_path / "soft.parquet"
    with pytest.raises(KeyboardInterrupt):
        teach(data / "recipe.toml", data, teachers[:1], out, views=1)
    assert not out.exists()
    teach(data / "recipe.toml", data, teachers[:1], out, views=1)
    assert asked == ["a", "wild", "wild"]
    teach(data / "recipe.toml", data, teachers[:1], tmp_path / "unbroken.parquet", views=1)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "unbroken.parquet"))
    left = tmp_path / "again.parquet.parts" / "0.parquet"
    left.parent.mkdir()
    write_soft_labels(left, "a", soft_labels(load_sources(RECIPE, data)[0]).sources[0], {})
    # what another call left does not count
    teach(data / "recipe.toml", data, teachers[:1], tmp_path / "again.parquet", views=1)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "again.parquet"))


def test_teacher_with_fewer_expressions(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "t", size=48)
    seven = EXPRESSION.subset([name for name in EXPRESSION.label_names if name != "Contempt"])
    head = replace(checkpoint.heads[0], task=seven, columns=tuple(range(7)))
    teacher = Teacher(replace(checkpoint, heads=(head,)), tmp_path)
    labels = teacher(np.full((2, 54, 54, 4), 255, np.uint8), 1)
    assert (labels.expression[:, EXPRESSION.index("Contempt")] == 0).all()
    np.testing.assert_allclose(labels.expression.sum(1), 1, rtol=1e-5)
    assert np.isnan(labels.valence_arousal).all()
    with raises_code(DataError, "no_expression"):
        Teacher(replace(checkpoint, heads=()), tmp_path)


def test_export_run_of_a_taught_run(data: Path, teachers: tuple[Teacher, ...], tmp_path: Path) -> None:
    recipe, folder = data / "recipe.toml", tmp_path / "student"
    with raises_code(DataError, "unreadable"):
        train(recipe, data, tmp_path / "run", None)
    teach(recipe, data, teachers, data / "soft.parquet", views=1, embeddings=True)
    assert train(recipe, data, tmp_path / "run", None) is True
    export_run(recipe, data, tmp_path / "run", folder)
    record = json.loads((folder / "training.json").read_text())
    identities = [{"id": t.checkpoint.id, "sha256": t.checkpoint.sha256} for t in teachers]
    assert record["teaching"]["teachers"] == identities
    assert record["recipe"]["teaching"]["weight"] == 0.75
    assert list(record["evaluation"]) == ["a"]
    assert record["epochs"][0]["tuning"].keys() == {"a"}
    assert record["epochs"][0]["loss"].keys() == {"expression", "valence", "arousal", "embedding"}


def test_teacher_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def compiled(network: torch.nn.Module) -> object:
        return lambda x: shapes.append((x.shape[0], torch.is_autocast_enabled("cpu"))) or network(x)

    monkeypatch.setattr(torch, "compile", compiled)
    checkpoint = make_checkpoint(tmp_path / "t", size=48, settled=True)
    slow, fast = Teacher(checkpoint, tmp_path), Teacher(checkpoint, tmp_path, fast=True)
    images = np.random.default_rng(0).integers(0, 256, (3, slow.size, slow.size, 4), np.uint8)
    exact, rounded = slow(images, 2), fast(images, 2)
    assert shapes == [(teaching.EVALUATION_BATCH, True)] * 2, "one shape, so that it is compiled once"
    assert rounded.expression.shape == exact.expression.shape == (3, 8)
    assert rounded.expression == pytest.approx(exact.expression, abs=0.03)
    assert rounded.valence_arousal == pytest.approx(exact.valence_arousal, abs=0.03)
    assert (exact.embedding.astype(np.float32) * rounded.embedding.astype(np.float32)).sum(1).min() > 0.99
    assert not np.array_equal(rounded.expression, exact.expression)
