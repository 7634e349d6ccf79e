from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from face_makers import draw_face
from PIL import Image
from torch import Tensor, nn

from hsemotion_space.backbones import BackboneError
from hsemotion_space.learn.augment import Augmentation
from hsemotion_space.learn.data import (
    DataError,
    FaceImages,
    VoteRegression,
    _name_targets,
    _vote_targets,
    blacked_out,
    fit_votes,
    fold_of,
    load_images,
)
from hsemotion_space.learn.evaluate import evaluate_expression, score_expression
from hsemotion_space.learn.losses import class_weights, concordance_loss, multitask_loss
from hsemotion_space.learn.train import BatchMaker, Recipe, Source, Trainer, load_sources, read_recipe
from hsemotion_space.metrics import concordance
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.types import ByteArray

NAN = float("nan")
RECIPE = Recipe(
    arch="mobilefacenet_small", size=32, sources=(Source("a", ("a.parquet",), 0.75), Source("b", ("b.parquet",), 0.25)), votes="votes.csv",
    steps=6, steps_per_epoch=2, batch=8, seed=3, compile=False, bfloat16=False,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def encoded(pixels: ByteArray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pictures(count: int, seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [encoded(np.roll(draw_face(40), rng.integers(-3, 4), 0) // 2 + rng.integers(10, 120, 3, np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources: ``a`` with names, ``b`` with votes, and a table of ratings."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    names = [EXPRESSION.label_names[number % 8] for number in range(80)]
    images = [{"bytes": content} for content in pictures(80, 1)]
    pq.write_table(pa.table({"image": images, "expression": names}), folder / "a.parquet")
    votes = rng.multinomial(4, np.full(8, 1 / 8), 60) + np.eye(8, dtype=int)[np.arange(60) % 8] * np.where(np.arange(60) % 5, 6, 1)[:, None]
    columns = {f"votes_{name.lower()}": votes[:, k].tolist() for k, name in enumerate(EXPRESSION.label_names)}
    pq.write_table(pa.table({"image": [{"bytes": content} for content in pictures(60, 2)], **columns}), folder / "b.parquet")
    shares = rng.dirichlet(np.ones(8), 50)
    truth = np.linspace(-0.8, 0.8, 8)
    rows = [
        ["set", *columns, "valence_mean", "arousal_mean"],
        *([f"set{n % 2}", *share, share @ truth, share @ truth[::-1]] for n, share in enumerate(shares)),
    ]
    (folder / "votes.csv").write_text("\n".join(",".join(map(str, row)) for row in rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def sources(data: Path) -> list[FaceImages]:
    return load_sources(RECIPE, data)[0]


# losses


def test_multitask_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    scores, target = rng.normal(0, 2, (6, 10)), rng.dirichlet(np.ones(8), 6)
    affect, weights, smoothing = rng.uniform(-1, 1, (6, 2)), rng.uniform(0.5, 2, 8), 0.1
    target[4] = NAN
    affect[1] = NAN
    terms = multitask_loss(*(torch.from_numpy(x) for x in (scores, target, affect, weights)), smoothing)
    logs = scores[:, :8] - np.log(np.exp(scores[:, :8]).sum(1, keepdims=True))
    rows = [0, 1, 2, 3, 5]
    expected = np.mean([-(weights * (target[row] * 0.9 + 0.1 / 8) * logs[row]).sum() for row in rows])
    assert float(terms["expression"]) == pytest.approx(expected)
    rated = [0, 2, 3, 4, 5]
    for k, name in enumerate(("valence", "arousal")):
        assert float(terms[name]) == pytest.approx((1 - concordance(scores[rated, 8 + k], affect[rated, k])) / 2)


def test_missing_labels_give_no_term() -> None:
    scores, weights = torch.zeros(3, 10), torch.ones(8)
    assert multitask_loss(scores, torch.full((3, 8), NAN), torch.full((3, 2), NAN), weights) == {}
    one = torch.full((3, 2), NAN)
    one[0] = 0.5
    assert list(multitask_loss(scores, torch.full((3, 8), 1 / 8), one, weights)) == ["expression"]


def test_masked_rows_get_no_gradient() -> None:
    scores = torch.randn(4, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expression = torch.full((4, 8), 1 / 8)
    expression[2] = NAN
    affect = torch.tensor([[0.1, 0.2], [0.3, -0.1], [-0.5, 0.4], [NAN, NAN]])
    sum(multitask_loss(scores, expression, affect, torch.ones(8)).values()).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[2, :8] == 0).all()
    assert (scores.grad[3, 8:] == 0).all()
    assert (scores.grad[:2] != 0).all()


def test_constant_predictions_keep_the_loss_finite() -> None:
    x = torch.full((4,), 0.5, requires_grad=True)
    loss = concordance_loss(x, torch.full((4,), 0.5))
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_class_weights() -> None:
    expression = torch.zeros(7, 8)
    expression[:4, 0] = 1
    expression[4:6, 1] = 1
    expression[6] = NAN
    assert class_weights(expression, 1.0).tolist() == [1, 2, 4, 4, 4, 4, 4, 4]
    assert class_weights(expression, 0.5)[1].item() == pytest.approx(2**0.5)
    assert class_weights(expression, 0.0).tolist() == [1] * 8


# data


def test_vote_targets() -> None:
    def row(**votes: float) -> dict[str, object]:
        return {f"votes_{name.lower()}": 0 for name in EXPRESSION.label_names} | {f"votes_{key}": value for key, value in votes.items()}

    target, sure = _vote_targets(row(fear=6, surprise=4)) or (None, None)
    assert target is not None
    assert (target[EXPRESSION.index("Fear")], target.sum(), sure) == (pytest.approx(0.6), pytest.approx(1), True)
    assert (_vote_targets(row(fear=5, surprise=4)) or (0, None))[1] is False
    assert (_vote_targets(row(fear=6, surprise=6)) or (0, None))[1] is False
    assert _vote_targets(row(fear=4, unknown=4)) is None
    assert _vote_targets(row(fear=4, nf=5)) is None
    assert _vote_targets(row()) is None


def test_name_targets() -> None:
    def named(text: str) -> dict[str, float] | None:
        result = _name_targets(text)
        if result is None:
            return None
        return {name: float(share) for name, share in zip(EXPRESSION.label_names, result[0], strict=True) if share}

    assert named("contempt") == {"Contempt": 1}
    assert named("Sadly fearful") == {"Fear": 0.5, "Sadness": 0.5}
    assert named("bored") is None
    assert named("Happily bored") is None
    assert [(_name_targets(text) or (0, None))[1] for text in ("Happy", "Happily surprised")] == [True, False]


def test_blacked_out_finds_the_background_and_nothing_else() -> None:
    ys, xs = np.mgrid[:80, :80]
    oval = ((xs - 40) / 30) ** 2 + ((ys - 40) / 36) ** 2 < 1
    pixels = np.where(oval[:, :, None], 150, 3).astype(np.uint8)
    pixels[30:40, 30:36] = 0  # a pupil
    mask = blacked_out(pixels)
    assert mask[~oval].all()
    assert not mask[30:40, 30:36].any()
    assert mask[oval].mean() < 0.15  # the seam
    dark_corner = np.full((80, 80, 3), 150, np.uint8)
    dark_corner[:15, :15] = 0
    assert not blacked_out(dark_corner).any()
    assert not blacked_out(np.full((80, 80, 3), 11, np.uint8)).any()


def test_a_source_is_loaded(sources: list[FaceImages]) -> None:
    named, voted = sources
    assert (named.images.shape, named.images.dtype, len(named)) == ((80, 36, 36, 4), np.uint8, 80)
    assert named.expression.argmax(1).tolist() == [number % 8 for number in range(80)]
    assert np.isnan(named.valence_arousal).all()
    assert named.counted.all()
    np.testing.assert_allclose(voted.expression.sum(1), 1, rtol=1e-5)
    assert not voted.counted.all()
    truth = np.linspace(-0.8, 0.8, 8)
    np.testing.assert_allclose(voted.valence_arousal, np.stack([voted.expression @ truth, voted.expression @ truth[::-1]], 1), atol=1e-4)


def test_the_split_is_fixed_and_follows_the_content(data: Path, sources: list[FaceImages], tmp_path: Path) -> None:
    assert fold_of(b"face") == 0x0282D9B79F42C74C / 2**64
    assert 0.02 < np.mean([fold_of(str(number).encode()) < 0.1 for number in range(1000)]) < 0.18
    table = pq.read_table(data / "a.parquet")
    pq.write_table(table.take(list(range(79, -1, -1))), tmp_path / "reversed.parquet")
    assert load_images("r", [tmp_path / "reversed.parquet"], 16).validation.tolist() == sources[0].validation.tolist()[::-1]
    subjects = table.append_column("subject", pa.array([f"s{number // 8}" for number in range(80)]))
    pq.write_table(subjects, tmp_path / "subjects.parquet")
    split = load_images("s", [tmp_path / "subjects.parquet"], 16).validation.reshape(10, 8)
    assert (split == split[:, :1]).all()


def test_a_file_named_validation_is_the_validation_split(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "a.parquet")
    files = [tmp_path / "a-train.parquet", tmp_path / "a-validation.parquet"]
    pq.write_table(table.slice(0, 5), files[0])
    pq.write_table(table.slice(5, 3), files[1])
    assert load_images("a", files, 16).validation.tolist() == [False] * 5 + [True] * 3


def test_annotated_faces_are_cut_out(tmp_path: Path) -> None:
    pixels = np.full((40, 80, 3), 200, np.uint8)
    pixels[10:30, 20:40] = (0, 0, 255)
    rows = {"image": [{"bytes": encoded(pixels)}], "category": ["Neutral"], "face_box": [[0.25, 0.25, 0.5, 0.75]]}
    pq.write_table(pa.table(rows), tmp_path / "boxes.parquet")
    image = load_images("boxes", [tmp_path / "boxes.parquet"], 20).images[0]
    assert (image == (0, 0, 255, 255)).all()


def test_unusable_data_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(pa.table({"image": [{"bytes": b""}], "expression": ["bored"]}), tmp_path / "unlabeled.parquet")
    for files, said in (([], "No file"), ([data / "c.parquet"], "does not exist"), ([tmp_path / "text.parquet"], r"text\.parquet"),
                        ([tmp_path / "unlabeled.parquet"], "No labeled image")):  # fmt: skip
        with pytest.raises(DataError, match=said):
            load_images("x", files, 16)


def test_a_source_needs_rows_to_train_on_and_to_score(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "a.parquet").slice(0, 3)
    pq.write_table(table, tmp_path / "a-validation.parquet")
    with pytest.raises(DataError, match="a needs at least one row for training"):
        load_sources(replace(RECIPE, sources=(Source("a", ("*.parquet",), 1.0),), votes=""), tmp_path)


def test_votes_are_fitted_out_of_sample(data: Path, tmp_path: Path) -> None:
    result: VoteRegression = fit_votes(data / "votes.csv")
    np.testing.assert_allclose(result.coefficients[:, 0], np.linspace(-0.8, 0.8, 8), atol=1e-5)
    assert result.ccc_out_of_sample == pytest.approx((1, 1))
    (tmp_path / "short.csv").write_text("set,votes_anger\na,1\nb,2\n")
    with pytest.raises(DataError, match="lacks the columns arousal_mean"):
        fit_votes(tmp_path / "short.csv")


# recipes


def test_recipe_files(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    good = 'arch = "x"\nsize = 64\nsteps = 5\n[augmentation]\ngray = 0.5\n[[sources]]\nname = "a"\nfiles = ["a-*.parquet"]\nshare = 1\n'
    file.write_text(good)
    assert read_recipe(file) == Recipe("x", 64, (Source("a", ("a-*.parquet",), 1.0),), steps=5, augmentation=Augmentation(gray=0.5))
    for old, new, said in (
        ("steps", "stepz", "stepz"), ('arch = "x"', "", "arch"), ("gray", "grey", "grey"), ("[[sources]]", "[[source]]", "sources"),
        ("share = 1", "", "share"), ("share = 1", 'share = "most"', "most"), ("size = 64", "size = ", "Invalid value"),
    ):  # fmt: skip
        file.write_text(good.replace(old, new))
        with pytest.raises(DataError, match=rf"recipe\.toml is not a usable recipe.*{said}"):
            read_recipe(file)
    with pytest.raises(DataError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")


def test_every_recipe_of_the_repository_can_be_read() -> None:
    files = list((Path(__file__).parent.parent / "checkpoints").glob("*/recipe.toml"))
    assert all(read_recipe(file).steps > 0 for file in files)


def test_learning_rate_rises_holds_and_falls_to_zero() -> None:
    recipe = replace(RECIPE, steps=1000, peak_lr=0.002, warmup=0.03, decay=0.4)
    assert recipe.lr(0) == pytest.approx(0.002 / 30)
    assert recipe.lr(29) == recipe.lr(600) == 0.002
    assert recipe.lr(800) == pytest.approx(0.001)
    assert recipe.lr(999) == pytest.approx(0.002 / 400)
    assert recipe.lr(1000) == 0


# training


def test_batches_depend_on_the_step_alone(sources: list[FaceImages]) -> None:
    straight, jumping = BatchMaker(RECIPE, sources), BatchMaker(RECIPE, sources)
    for step in range(12):
        straight(step)
    for first, second in zip(straight(40), jumping(40), strict=True):
        assert torch.equal(first.nan_to_num(9), second.nan_to_num(9))


def test_batches_mix_by_share_and_pass_over_every_training_row(sources: list[FaceImages]) -> None:
    batches = BatchMaker(RECIPE, sources)
    assert batches.counts.tolist() == [6, 2]
    images, expression, affect = batches(0)
    assert (images.shape, expression.shape, affect.shape) == ((8, 3, 32, 32), (8, 8), (8, 2))
    assert affect.isnan().any(1).tolist() == [True] * 6 + [False] * 2
    for number, rows in enumerate(batches.training):
        for start in (0, 2 * len(rows)):
            passed = [batches._pick(number, position) for position in range(start, start + len(rows))]
            assert sorted(passed) == rows.tolist()
            assert not sources[number].validation[passed].any()
        assert passed != [batches._pick(number, position) for position in range(len(rows))]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first.keys() | second.keys())


def test_a_killed_run_resumes_bit_for_bit(sources: list[FaceImages], tmp_path: Path) -> None:
    unbroken = Trainer(RECIPE, sources, tmp_path / "unbroken")
    assert unbroken.fit() is True
    killed = Trainer(RECIPE, sources, tmp_path / "killed")

    def report_then_die(after: int) -> None:
        while killed.step < after:
            killed._train_step()
            if killed.step % RECIPE.steps_per_epoch == 0:
                killed._finish_epoch([{"expression": 0.0}])

    report_then_die(3)  # the third step is lost with the process
    torch.randn(10)
    resumed = Trainer(RECIPE, sources, tmp_path / "killed")
    assert resumed.step == 2
    assert resumed.fit() is True
    assert same(resumed.model.state_dict(), unbroken.model.state_dict())
    assert same(resumed.average, unbroken.average)
    assert not same(resumed.average, dict(resumed.model.state_dict()))
    first, second = ((tmp_path / name / "log.jsonl").read_text().splitlines()[-1] for name in ("unbroken", "killed"))
    assert json.loads(first)["validation"] == json.loads(second)["validation"]


def test_a_run_stops_when_its_time_is_up_and_goes_on(sources: list[FaceImages], tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, sources, tmp_path)
    assert trainer.fit(minutes=0) is False
    assert (trainer.step, (tmp_path / "state.pt").exists()) == (0, True)
    with pytest.raises(DataError, match="another run folder"):
        Trainer(replace(RECIPE, size=48), sources, tmp_path)
    assert Trainer(RECIPE, sources, tmp_path).fit() is True
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert set(rows[-1]["validation"]) == {"a", "b"}
    assert set(torch.load(tmp_path / "state.pt", weights_only=True)) == {
        "arch",
        "size",
        "model",
        "average",
        "optimizer",
        "step",
        "elapsed_s",
    }


def test_training_learns(sources: list[FaceImages], tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=15, steps_per_epoch=15, batch=16, label_smoothing=0.0)
    trainer = Trainer(recipe, sources, tmp_path)
    losses = [trainer._train_step() for _ in range(15)]
    assert np.mean([row["valence"] for row in losses[-4:]]) < np.mean([row["valence"] for row in losses[:4]])
    assert all(np.isfinite(list(row.values())).all() for row in losses)


def test_other_architectures_take_no_image_size(sources: list[FaceImages], tmp_path: Path) -> None:
    trainer = Trainer(replace(RECIPE, arch="mobilenetv3_small_050"), sources, tmp_path / "timm")
    assert not trainer.averaged().training
    with pytest.raises(BackboneError, match="nonsense"):
        Trainer(replace(RECIPE, arch="nonsense"), sources, tmp_path / "nonsense")


# evaluation


def test_scores_are_compared_over_the_classes_that_are_there() -> None:
    targets = np.eye(8, dtype=np.float32)[[0, 0, 2, 2]]
    scores = np.zeros((4, 10), np.float32)
    scores[:, 1] = 9  # Contempt, which no target has
    scores[[0, 2, 3], [0, 2, 0]] = 5
    scores[1, 2] = 5
    result = score_expression(scores, targets)
    assert (result.count, result.accuracy, result.macro_f1) == (4, 0.5, 0.5)
    assert result.recall == {"Anger": 0.5, "Disgust": 0.5}
    assert result.confusion[0][:3] == [1, 0, 1]


def test_evaluation_takes_the_counted_validation_rows(sources: list[FaceImages]) -> None:
    class Brightest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 10)

    voted = sources[1]
    assert evaluate_expression(Brightest(), voted, RECIPE).count == int((voted.validation & voted.counted).sum())
