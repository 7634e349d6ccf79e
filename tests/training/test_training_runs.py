from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from error_codes import raises_code
from safetensors.torch import save_file
from torch import Tensor
from training_makers import RECIPE, same

from hsemotion_space.training import train
from hsemotion_space.training.batches import Batch, BatchMaker, prefetched
from hsemotion_space.training.data import TEST, TRAINING, TUNING, FaceImages
from hsemotion_space.training.evaluate import ExpressionResult
from hsemotion_space.training.files import DataError
from hsemotion_space.training.train import Trainer, read_log

# batches


def test_batch_maker_depends_on_the_step_alone(sources: list[FaceImages]) -> None:
    straight, jumping = BatchMaker(RECIPE, sources), BatchMaker(RECIPE, sources)
    for step in range(12):
        straight(step)
    for first, second in zip(straight(40), jumping(40), strict=True):
        assert torch.equal(first.nan_to_num(9), second.nan_to_num(9))


def test_batch_maker_mixes_by_share_and_uses_every_row(sources: list[FaceImages]) -> None:
    batches = BatchMaker(RECIPE, sources)
    assert batches.counts.tolist() == [6, 2]
    batch = batches(0)
    assert [tensor.shape for tensor in batch] == [(8, 3, 32, 32), (8, 8), (8, 2), (8, 0)]
    assert batch.valence_arousal.isnan().any(1).tolist() == [True] * 6 + [False] * 2
    for number, rows in enumerate(batches.training):
        assert (sources[number].split[rows] == TRAINING).all()
        for start in (0, 2 * len(rows)):
            passed = [batches._pick(number, position) for position in range(start, start + len(rows))]
            assert sorted(passed) == rows.tolist()
        assert passed != [batches._pick(number, position) for position in range(len(rows))]


def test_batch_maker_with_train_on_tuning(sources: list[FaceImages]) -> None:
    both = replace(RECIPE, sources=(replace(RECIPE.sources[0], train_on_tuning=True), RECIPE.sources[1]))
    named, voted = BatchMaker(both, sources).training
    assert set(sources[0].split[named]) == {TRAINING, TUNING}
    assert len(named) == len(sources[0]) - len(sources[0].rows(TEST))
    assert set(sources[1].split[voted]) == {TRAINING}


def test_batch_maker_normalizes_by_channel(sources: list[FaceImages]) -> None:
    plain = BatchMaker(replace(RECIPE, mean=0.0, std=1.0), sources)(3)[0]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = BatchMaker(replace(RECIPE, mean=mean, std=std), sources)(3)[0]
    for channel in range(3):
        torch.testing.assert_close(images[:, channel], (plain[:, channel] - mean[channel]) / std[channel])


def test_prefetched_makes_the_next_step_ahead() -> None:
    made, second = [], threading.Event()

    def make(step: int) -> Batch:
        made.append((step, threading.current_thread() is threading.main_thread()))
        if step == 1:
            second.set()
        return Batch(*(torch.tensor(float(step)),) * 4)

    batches = prefetched(make, 0, 3)
    assert float(next(batches)[0]) == 0
    assert second.wait(10)  # without having asked for it
    assert [float(batch[0]) for batch in batches] == [1, 2]
    assert list(prefetched(make, 3, 3)) == []
    assert made == [(0, False), (1, False), (2, False)]  # and nothing beyond the last step


def test_prefetched_raises_where_the_step_is_used() -> None:
    def make(step: int) -> Batch:
        if step == 1:
            raise DataError("x.png is damaged.", code="damaged")
        return Batch(*(torch.zeros(1),) * 4)

    batches = prefetched(make, 0, 5)
    next(batches)
    with raises_code(DataError, "damaged"):
        next(batches)


# runs


def test_fit_stops_when_its_time_is_up_and_resumes(sources: list[FaceImages], tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, sources, tmp_path)
    assert trainer.fit(minutes=0) is False
    assert (trainer.step, (tmp_path / "state.pt").exists()) == (0, True)
    with raises_code(DataError, "other_network"):
        Trainer(replace(RECIPE, size=48), sources, tmp_path)
    assert Trainer(RECIPE, sources, tmp_path).fit() is True
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[-1].keys() == {"step", "minutes", "lr", "loss", "tuning"}  # the test is for the end
    assert {name: result["count"] for name, result in rows[-1]["tuning"].items()} == {
        source.source: len(source.rows(TUNING, counted=True)) for source in sources
    }
    assert not (tmp_path / "best.pt").exists()


def test_fit_stopped_within_an_epoch(
    sources: list[FaceImages], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, steps_per_epoch=3)
    Trainer(recipe, sources, tmp_path / "unbroken").fit()
    for end in (2, 4, 6):
        stopped = Trainer(recipe, sources, tmp_path / "stopped")
        monkeypatch.setattr(
            train.time, "monotonic", lambda stopped=stopped, end=end: float(stopped.step >= end)
        )
        stopped.fit(minutes=0.5 / 60)
        assert stopped.step == end
        torch.randn(10)
    first, second = (read_log(tmp_path / name, 6) for name in ("unbroken", "stopped"))
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
    assert len(first) == 2
    assert same(
        *(dict(Trainer(recipe, sources, tmp_path / name).weights()) for name in ("unbroken", "stopped"))
    )


def test_fit_resumes_a_run_of_the_first_version(sources: list[FaceImages], tmp_path: Path) -> None:
    Trainer(RECIPE, sources, tmp_path).fit()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(
        {key: value for key, value in state.items() if key not in ("losses", "start")}, tmp_path / "state.pt"
    )
    log = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    (tmp_path / "log.jsonl").write_text(json.dumps({**log, "test": log["tuning"]}) + "\n")
    longer = Trainer(replace(RECIPE, steps=8), sources, tmp_path)
    assert longer.step == 6
    assert longer.fit() is True
    assert [sorted(row) for row in read_log(tmp_path, 8)] == [sorted([*log, "test"]), sorted(log)]


@pytest.mark.parametrize("optimizer", ["adamw", "sam"])
def test_trainer_learns(sources: list[FaceImages], tmp_path: Path, optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, batch=16, label_smoothing=0.0, args={})
    trainer = Trainer(recipe, sources, tmp_path)
    losses = [trainer._train_step(trainer.batches(step % 4)) for step in range(16)]
    for term in ("expression", "valence"):
        assert np.mean([row[term] for row in losses[-4:]]) < np.mean([row[term] for row in losses[:4]])
    assert all(np.isfinite(list(row.values())).all() for row in losses)


@pytest.mark.parametrize("optimizer", ["adamw", "sam"])
def test_trainer_warms_up_the_head_alone(sources: list[FaceImages], tmp_path: Path, optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, head_steps=3, head_lr=0.01, args={})
    trainer = Trainer(recipe, sources, tmp_path)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}

    def changed() -> set[str]:
        state = trainer.model.state_dict()
        return {key for key, value in state.items() if not torch.equal(value, before[key])}

    for step in range(3):
        trainer._train_step(trainer.batches(step))
        assert changed() == {"head.fc.weight", "head.fc.bias"}
        assert trainer.optimizer.param_groups[0]["lr"] == 0.01
    trainer._train_step(trainer.batches(3))
    assert len(changed()) > 0.7 * len(before)  # not the weights behind a factor that begins at zero
    counters = [value for key, value in trainer.model.state_dict().items() if key.endswith("batches_tracked")]
    assert int(counters[0]) == 1


def test_trainer_keeps_the_best_epoch(
    sources: list[FaceImages], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies, asked, averages = iter([(0.2, 0.4), (0.8, 0.6), (0.9, 0.5), (0.1, 0.1)] * 2), [], {}

    def evaluate(_model: object, source: FaceImages, _options: object, split: int = TEST) -> ExpressionResult:
        asked.append((source.source, split))
        if source.source == "a":
            evaluate.pair = next(accuracies)
        return ExpressionResult(1, evaluate.pair["ab".index(source.source)], 0.0, {}, [])

    monkeypatch.setattr(train, "evaluate_expression", evaluate)
    recipe = replace(RECIPE, steps=8, choose="best")
    for name, choose in (("best", "best"), ("last", "last")):
        trainer = Trainer(replace(recipe, choose=choose), sources, tmp_path / name)
        while trainer.step < 8:
            trainer._train_step(trainer.batches(trainer.step))
            if trainer.step % 2 == 0:
                trainer._finish_epoch()
                averages[name, trainer.step] = {key: value.clone() for key, value in trainer.average.items()}
    assert set(asked) == {("a", TUNING), ("b", TUNING)}
    best, last = (
        Trainer(replace(recipe, choose=name), sources, tmp_path / name) for name in ("best", "last")
    )
    assert best.best() == (4, pytest.approx(0.7))  # the first of two that are equally good
    assert best.describe()["chosen"] == {"step": 4, "mean_tuning_accuracy": 0.7}
    assert same(dict(best.weights()), averages["best", 4])
    assert same(best.averaged().state_dict(), averages["best", 4])
    assert same(dict(last.weights()), averages["last", 8])
    assert last.describe()["chosen"] is None


# weights to start from


def test_trainer_starts_from_weights(sources: list[FaceImages], tmp_path: Path) -> None:
    given = Trainer(replace(RECIPE, seed=9), sources, tmp_path / "given").model.state_dict()
    bare = {key: value for key, value in given.items() if not key.startswith("head.fc.")}
    files: Sequence[tuple[str, dict[str, Tensor]]] = (
        ("same.safetensors", given),
        ("wrapped.pt", {f"module.backbone.{key}": value for key, value in given.items()}),
        (
            "identity.safetensors",
            {**bare, "head.fc.weight": torch.zeros(100, 4), "head.fc.bias": torch.zeros(100)},
        ),
        ("sequence.pt", {**bare, "head.fc.0.weight": torch.zeros(8, 4)}),
        (
            "without_counts.pt",
            {key: value for key, value in bare.items() if not key.endswith("num_batches_tracked")},
        ),
    )
    fresh = Trainer(RECIPE, sources, tmp_path / "fresh").model.state_dict()
    for name, state in files:
        (save_file if name.endswith("safetensors") else torch.save)(
            {key: value.contiguous().clone() for key, value in state.items()}, tmp_path / name
        )
        trainer = Trainer(RECIPE, sources, tmp_path / f"run-{name}", tmp_path / name)
        loaded = trainer.model.state_dict()
        assert same({key: loaded[key] for key in bare}, bare)
        whole = name in ("same.safetensors", "wrapped.pt")
        assert torch.equal(loaded["head.fc.weight"], (given if whole else fresh)["head.fc.weight"])
        assert same(trainer.average, dict(loaded))
        assert trainer.start is not None
        assert (trainer.start.file, trainer.start.loaded + len(trainer.start.fresh)) == (name, len(given))
        assert [key for key in trainer.start.fresh if "num_batches" not in key] == (
            [] if whole else ["head.fc.bias", "head.fc.weight"]
        )
    trainer.fit(minutes=0)
    (tmp_path / "without_counts.pt").unlink()
    again = Trainer(RECIPE, sources, tmp_path / "run-without_counts.pt", tmp_path / "without_counts.pt")
    assert again.start == trainer.start  # of a resumed run too, without the file
    assert again.describe()["start"]["sha256"] == trainer.start.sha256


def test_trainer_refuses_weights_that_do_not_fit(sources: list[FaceImages], tmp_path: Path) -> None:
    made = Trainer(RECIPE, sources, tmp_path / "given").model.state_dict()
    given = {key: value.clone() for key, value in made.items()}
    stem = next(key for key in given if key.endswith("conv.weight"))
    lacking = {key: value for key, value in given.items() if key != stem}
    for state, code in (
        (lacking, "missing_keys"),
        ({**given, "fc.weight": torch.zeros(3)}, "unexpected_keys"),
        ({**given, stem: torch.zeros(3)}, "shapes"),
        ({f"other.{key}": value for key, value in given.items()}, "missing_keys"),
        ({"model": given}, "no_tensors"),
        ([1], "no_tensors"),
        ({"a": Path("x")}, "weights"),  # would be executed by a pickle
    ):
        torch.save(state, tmp_path / "x.pt")
        with raises_code(DataError, code):
            Trainer(RECIPE, sources, tmp_path / "run", tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    (tmp_path / "text.pt").write_bytes(b"no")
    for name in ("x.safetensors", "text.pt", "missing.pt", "missing.safetensors"):
        with raises_code(DataError, "weights", "unreadable", file=tmp_path / name):
            Trainer(RECIPE, sources, tmp_path / "run", tmp_path / name)
