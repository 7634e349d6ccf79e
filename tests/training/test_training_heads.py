from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from error_codes import raises_code
from scipy.stats import pearsonr
from sklearn.metrics import log_loss

from hsemotion_space.inference.heads import run_layers, sigmoid, softmax
from hsemotion_space.metrics import concordance
from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    CHALLENGE,
    EXPRESSION,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.training.calibration import (
    calibrate,
    calibration_of,
    fit_temperature,
    negative_log_likelihood,
)
from hsemotion_space.training.challenge import train_head, tuning_videos
from hsemotion_space.training.feature_table import FeatureTable
from hsemotion_space.training.files import DataError
from hsemotion_space.training.heads import (
    MIMICRY_WEIGHTS,
    HeadOptions,
    balanced_binary_cross_entropy,
    balanced_cross_entropy,
    correlation_loss,
    fit_head,
    fit_scale,
    make_loss,
    paper_options,
    undo_balance,
)
from hsemotion_space.training.series import Series, recording_of
from hsemotion_space.training.trained_head import (
    TrainedHead,
    challenge_task,
    join_labels,
    load_head,
    predict,
    save_head,
)

RNG = np.random.default_rng(0)


def table(videos: dict[str, np.ndarray], embeddings: dict[str, np.ndarray]) -> FeatureTable:
    names = tuple(sorted(videos))
    starts = np.cumsum([0, *(len(videos[name]) for name in names)])
    frames, vectors = (np.concatenate([of[name] for name in names]) for of in (videos, embeddings))
    no_scores = np.zeros((len(frames), 0), np.float32)
    return FeatureTable(names, starts, frames, vectors.astype(np.float16), no_scores, "c", "ab" * 32)


def exact(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64))
    return shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("task", "width", "count"),
    [
        (VALENCE_AROUSAL, 10, 22),
        (AFF_WILD2_EXPRESSION, 1280, 165_000),
        (ACTION_UNITS, 1280, 165_516),
        (MIMICRY_INTENSITY, 40, 3_014),
    ],
)
def test_paper_options_give_the_sizes_of_the_paper(task: Task, width: int, count: int) -> None:
    features = RNG.normal(0, 1, (4, width)).astype(np.float32)
    labels = np.arange(4) if task.kind == "one_of" else RNG.random((4, len(task.labels))).round()
    fitted = fit_head(task, features, labels, replace(paper_options(task), epochs=1))
    assert sum(weight.size + bias.size for weight, bias in fitted.layers) == count
    weights = np.array(MIMICRY_WEIGHTS) / sum(MIMICRY_WEIGHTS)
    np.testing.assert_allclose(weights, [0.471, 0.059, 0.118, 0.235, 0.059, 0.059], atol=5e-4)


def test_balanced_cross_entropy_against_scikit_learn() -> None:
    targets = np.array([0, 0, 0, 0, 1, 1, 2])
    logits = RNG.normal(0, 2, (7, 3)).astype(np.float32)
    weights = np.array([1, 2, 4])[targets]
    expected = log_loss(targets, exact(logits), sample_weight=weights, normalize=False) / len(targets)
    made = balanced_cross_entropy(targets, 3)(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(made) == pytest.approx(expected, rel=1e-4)
    absent = balanced_cross_entropy(np.array([0, 0, 2]), 4)(torch.zeros(2, 4), torch.tensor([1, 3]))
    assert float(absent) == 0, "a class that never occurs has no weight"


def test_balanced_binary_cross_entropy_against_numpy() -> None:
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.float32)  # shares of ones: a quarter each
    p = 1 / (1 + np.exp(-np.array([[0.5, -1], [2, 0], [-3, 1], [0, 0.2]])))
    weights = np.where(targets == 1, 4 / (2 * 1), 4 / (2 * 3))
    expected = -(weights * (targets * np.log(p) + (1 - targets) * np.log(1 - p))).mean()
    made = balanced_binary_cross_entropy(targets)(
        torch.tensor(np.log(p / (1 - p))).float(), torch.from_numpy(targets)
    )
    assert float(made) == pytest.approx(expected, rel=1e-5)


def test_undo_balance_of_rare_units() -> None:
    x = RNG.normal(0, 1, (4000, 3)).astype(np.float32)
    targets = (x[:, :1] * 2 + RNG.normal(0, 1, (4000, 1)) > 3.5).astype(np.float32)
    task = ACTION_UNITS.subset(["AU1"])
    fitted = fit_head(task, x, targets, HeadOptions(hidden=0, epochs=30, lr=0.02))
    before, after = (
        sigmoid(run_layers(layers, x)).mean()
        for layers in (fitted.layers, undo_balance(fitted.layers, targets))
    )
    assert targets.mean() < 0.1
    assert before > 2 * targets.mean()
    assert after == pytest.approx(targets.mean(), rel=0.2)
    assert np.isfinite(undo_balance(fitted.layers, np.zeros((4, 1), np.float32))[0][1]).all()


def test_correlation_loss_against_scipy() -> None:
    x, y = RNG.normal(0, 1, (50, 3)), RNG.random((50, 3))
    weights = np.array([0.5, 0.3, 0.2])
    expected = 1 - sum(weight * pearsonr(x[:, k], y[:, k])[0] for k, weight in enumerate(weights))
    made = correlation_loss(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weights))
    assert float(made) == pytest.approx(expected, rel=1e-6)


def test_make_loss_of_valence_and_arousal() -> None:
    raw, target = RNG.normal(0, 1, (40, 2)).astype(np.float32), RNG.uniform(-1, 1, (40, 2)).astype(np.float32)
    expected = 1 - np.mean([concordance(np.tanh(raw[:, k]), target[:, k]) for k in (0, 1)])
    made = make_loss(VALENCE_AROUSAL, target)(torch.from_numpy(raw), torch.from_numpy(target))
    assert float(made) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("task", CHALLENGE, ids=lambda task: task.name)
def test_fit_head_learns_a_signal_in_raw_features(task) -> None:
    x = (RNG.normal(0, 1, (600, 12)) * np.linspace(0.1, 30, 12) + 5).astype(np.float16)
    signal = (x.astype(np.float32) - 5) / np.linspace(0.1, 30, 12)
    count = len(task.labels)
    if task.kind == "one_of":
        targets = signal[:, :count].argmax(1)
    else:
        targets = (
            np.tanh(signal[:, :count])
            if task.kind == "continuous"
            else (signal[:, :count] > 0.5).astype(np.float32)
        )
    options = HeadOptions(hidden=0 if task.kind == "continuous" else 32, epochs=40, batch=64, lr=0.01)
    fitted = fit_head(task, x[:400], targets[:400], options)
    raw = run_layers(fitted.layers, x[400:].astype(np.float32))
    held = targets[400:]
    if task.kind == "one_of":
        assert (raw.argmax(1) == held).mean() > 0.8
    else:
        reached = [np.corrcoef(np.tanh(raw[:, k]), held[:, k])[0, 1] for k in range(count)]
        assert min(reached) > 0.8
    assert fitted.losses[-1] < fitted.losses[0] / 2


def test_fit_head_returns_the_best_epoch() -> None:
    x, y = RNG.normal(0, 1, (64, 4)).astype(np.float32), RNG.random((64, 2)).astype(np.float32)
    seen = []

    def measure(layers) -> float:
        seen.append(layers)
        return [0.1, 0.5, 0.3][len(seen) - 1]

    fitted = fit_head(VALENCE_AROUSAL, x, y, HeadOptions(hidden=0, epochs=3, batch=16), measure)
    assert (fitted.epoch, fitted.measures) == (2, (0.1, 0.5, 0.3))
    first, best, last = (layers[0][0] for layers in seen)
    assert np.array_equal(fitted.layers[0][0], best)
    assert not np.array_equal(best, first) and not np.array_equal(best, last)


def test_fit_head_depends_on_its_seed_alone() -> None:
    x, y = RNG.normal(0, 1, (64, 4)).astype(np.float32), RNG.integers(0, 8, 64)
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    first, again = (fit_head(EXPRESSION, x, y, HeadOptions(epochs=2, dropout=0.5)) for _ in range(2))
    other = fit_head(EXPRESSION, x, y, HeadOptions(epochs=2, dropout=0.5, seed=1))
    assert torch.equal(torch.rand(1), before)
    assert np.array_equal(first.layers[0][0], again.layers[0][0])
    assert not np.array_equal(first.layers[0][0], other.layers[0][0])


def test_heads_refuse_unusable_input() -> None:
    with raises_code(DataError, "rows"):
        fit_head(VALENCE_AROUSAL, np.zeros((1, 3), np.float32), np.zeros((1, 2)), HeadOptions())
    with raises_code(DataError, "task"):
        challenge_task("smile")
    with raises_code(DataError, "no_rows"):
        fit_temperature(VALENCE_AROUSAL, np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32))
    for wrong in ({"epochs": 0}, {"batch": 1}, {"hidden": -1}, {"dropout": 1.0}, {"lr": 0.0}):
        with raises_code(DataError, "options"):
            HeadOptions(**wrong)


def test_join_labels_of_faces_and_of_sound() -> None:
    videos = {"a": np.array([1, 3, 4]), "talk": np.array([1, 2])}
    ours = table(videos, {"a": np.array([[1.0], [3], [4]]), "talk": np.array([[10.0], [20]])})
    features = replace(ours, checkpoint="", sha256="")  # of sound
    nan = np.nan
    labels = [
        Series("a", np.array([1, 2, 3, 4]), np.array([[5], [6], [nan], [7]], np.float32)),
        Series("talk_left", np.array([2]), np.array([[0]], np.float32)),
        Series("talk_right", np.array([1]), np.array([[1]], np.float32)),
        Series("elsewhere", np.array([1, 2]), np.array([[1], [1]], np.float32)),
    ]
    rows = join_labels(AFF_WILD2_EXPRESSION, "embeddings", features, labels)
    assert rows.inputs[:, 0].tolist() == [1, 4, 20, 10]
    assert rows.targets.tolist() == [5, 7, 0, 1]
    assert rows.without_features == 3  # frame 2 of a, both of elsewhere
    assert join_labels(AFF_WILD2_EXPRESSION, "embeddings", ours, labels).targets.tolist() == [5, 7], (
        "faces are of one person"
    )
    with raises_code(DataError, "no_scores"):
        join_labels(AFF_WILD2_EXPRESSION, "scores", features, labels)
    with raises_code(DataError, "no_common_frame"):
        join_labels(AFF_WILD2_EXPRESSION, "embeddings", features, labels[3:])


def test_predict_from_sound_for_both_people() -> None:
    ours = table({"talk": np.array([1, 2])}, {"talk": np.array([[10.0], [20]])})
    head = TrainedHead(
        VALENCE_AROUSAL, "embeddings", ((np.ones((2, 1)), np.zeros(2)),), 1.0, "c", ours.sha256, {}
    )
    assert [series.video for series in predict(head, ours)] == ["talk"]
    assert list(predict(head, ours, ["talk_left"])) == []
    sound, reader = replace(ours, checkpoint="", sha256=""), replace(head, checkpoint="", sha256="")
    made = {series.video: series.values for series in predict(reader, sound)}
    assert made.keys() == {"talk", "talk_left", "talk_right"}
    assert np.array_equal(made["talk_left"], made["talk"])


def test_fit_scale_finds_the_scale_of_the_labels() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1, (400, 3)).astype(np.float32)
    targets = sigmoid(np.stack([inputs[:, 0] * 0.5 - 3, inputs[:, 1] * 2 + 1], 1))
    layers = ((np.array([[30.0, 0, 0], [0, 0.01, 0]], np.float32), np.array([5.0, 9.0], np.float32)),)
    fitted = fit_scale(layers, inputs, targets)
    before, after = (run_layers(given, inputs) for given in (layers, fitted))
    np.testing.assert_allclose(sigmoid(after), targets, atol=0.01)
    assert np.corrcoef(after[:, 0], before[:, 0])[0, 1] == pytest.approx(1)


def test_join_labels_of_clips() -> None:
    features = table({"00001": np.array([1, 2])}, {"00001": np.array([[1.0], [3]])})
    labels = [
        Series("00001", np.array([0]), np.full((1, 6), 0.5, np.float32)),
        Series("00002", np.array([0]), np.zeros((1, 6), np.float32)),
    ]
    rows = join_labels(MIMICRY_INTENSITY, "embeddings", features, labels)
    assert rows.inputs.tolist() == [[2, 1, 1, 3]]
    assert rows.without_features == 1


def test_load_head_of_saved_files(tmp_path: Path) -> None:
    layers = ((RNG.normal(0, 1, (12, 3)).astype(np.float32), np.zeros(12, np.float32)),)
    head = TrainedHead(ACTION_UNITS, "embeddings", layers, 1.5, "c", "ab" * 32, {"epoch": 3})
    save_head(head, tmp_path / "head")
    again = load_head(tmp_path / "head")
    features = table({"a": np.array([1, 5])}, {"a": RNG.normal(0, 1, (2, 3))})
    (made,), (expected,) = list(predict(again, features)), list(predict(head, features))
    assert made.frames.tolist() == [1, 5]
    assert np.array_equal(made.values, expected.values)
    assert again.record == {"epoch": 3}
    with raises_code(DataError, "other_weights", own="c", other="other"):
        list(predict(head, replace(features, checkpoint="other", sha256="cd" * 32)))
    with raises_code(DataError, "width", expected=3, width=4):
        list(predict(head, table({"a": np.array([1])}, {"a": np.zeros((1, 4))})))


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("head.json", b"{}", "unusable"),
        ("head.json", b"no", "unusable"),
        ("head.safetensors", None, "unreadable"),
        ("head.safetensors", b"of another head", "digest"),
    ],
)
def test_load_head_of_damaged_files(tmp_path: Path, file: str, content: bytes | None, code: str) -> None:
    layers = ((np.zeros((12, 3)), np.zeros(12)),)
    save_head(TrainedHead(ACTION_UNITS, "embeddings", layers, 1.0, "", "", {}), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with raises_code(DataError, code):
        load_head(tmp_path)


def test_train_head_chooses_on_the_tuning_videos() -> None:
    names = [f"v{number}" for number in range(40)]
    videos = {name: np.arange(1, 21) for name in names}
    embeddings = {name: RNG.normal(0, 1, (20, 8)) for name in names}
    labels = [
        Series(name, videos[name], embeddings[name].argmax(1)[:, None].astype(np.float32)) for name in names
    ]
    tuning = tuning_videos(names, 0.25)
    assert len(tuning) == 10
    poisoned = [Series(s.video, s.frames, (7 - s.values) if s.video in tuning else s.values) for s in labels]
    options = HeadOptions(hidden=0, epochs=8, batch=64, lr=0.02)
    features = table(videos, embeddings)
    head, fooled = (
        train_head(AFF_WILD2_EXPRESSION, features, given, options, 0.25) for given in (labels, poisoned)
    )
    assert head.record["tuning_videos"] == len(tuning)
    assert len(head.record["tuning_measures"]) == 8
    assert head.temperature != 1.0
    made = zip(labels, predict(head, features, names), strict=True)
    right = np.mean([(s.values[:, 0] == p.values.argmax(1)).mean() for s, p in made])
    assert right > 0.8  # and with wrong labels on the tuning videos alone, only choices change:
    assert max(fooled.record["tuning_measures"]) < 0.5
    assert fooled.record["losses"] == head.record["losses"]
    plain = train_head(AFF_WILD2_EXPRESSION, features, labels, options, 0)
    assert (plain.temperature, plain.record["epoch"], plain.record["videos"]) == (1.0, 8, 40)


def test_tuning_videos_are_whole_recordings() -> None:
    names = {"v_left": "v", "v_right": "v", "v": "v", "left": "left", "v_left_x": "v_left_x"}
    assert {name: recording_of(name) for name in names} == names
    videos = [f"{number}{side}" for number in range(10) for side in ("_left", "_right")]
    chosen = tuning_videos(videos, 0.3)
    assert len(chosen) == 2 * len({recording_of(video) for video in chosen}) == 6
    assert chosen == tuning_videos(videos[::-1], 0.3)
    assert tuning_videos(videos, 0) == set()
    assert len(tuning_videos(["a", "b", "c"], 0.01)) == len(tuning_videos(["a", "b"], 0.9)) == 1


def test_negative_log_likelihood_against_scikit_learn() -> None:
    logits, targets = RNG.normal(0, 2, (60, 8)).astype(np.float32), np.arange(60) % 8
    expected = log_loss(targets, exact(logits / 1.7))
    assert negative_log_likelihood(EXPRESSION, logits, targets, 1.7) == pytest.approx(expected, rel=1e-4)
    units = (RNG.random((60, 12)) < 0.3).astype(np.float32)
    logits = RNG.normal(0, 2, (60, 12)).astype(np.float32)
    expected = np.mean(
        [log_loss(units[:, k], 1 / (1 + np.exp(-logits[:, k] / 0.6)), labels=[0, 1]) for k in range(12)]
    )
    assert negative_log_likelihood(ACTION_UNITS, logits, units, 0.6) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("true_temperature", [0.5, 3.0])
def test_calibrate_finds_the_temperature_of_the_labels(true_temperature: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (20_000, 8)).astype(np.float32)
    targets = (softmax(logits / true_temperature).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    temperature, before, after = calibrate(
        EXPRESSION, (logits[:10_000], targets[:10_000]), (logits[10_000:], targets[10_000:])
    )
    assert temperature == pytest.approx(true_temperature, rel=0.05)
    assert after < 0.02
    assert before > 0.1
    few = logits[:199], targets[:199]
    assert calibrate(EXPRESSION, few, few)[0] == 1.0, "too few rows for a temperature"
    assert calibration_of(EXPRESSION, logits, targets, temperature).error == pytest.approx(after, abs=0.02)
