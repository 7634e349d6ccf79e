"""A training that is killed at any moment ends with the bits of one that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_makers import RECIPE, same, write_data

from hsemotion_space.training import train
from hsemotion_space.training.sources import load_sources
from hsemotion_space.training.train import Trainer

HERE = Path(__file__).parents[1]


def epochs(run: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


def check_equal(first: Path, second: Path) -> None:
    """Compare two runs bit for bit, but for times."""
    states = [torch.load(run / "state.pt", weights_only=True) for run in (first, second)]
    assert same(states[0]["model"], states[1]["model"])
    assert same(states[0]["average"], states[1]["average"])
    assert same(states[0].get("projection", {}), states[1].get("projection", {}))
    moments = [state["optimizer"]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys()
    assert all(same(moments[0][key], moments[1][key]) for key in moments[0])
    assert [state["step"] for state in states] == [states[0]["step"]] * 2
    assert epochs(first) == epochs(second)
    best = [torch.load(run / "best.pt", weights_only=True) for run in (first, second)]
    assert [(item["step"], item["accuracy"]) for item in best] == [(best[0]["step"], best[0]["accuracy"])] * 2
    assert same(best[0]["average"], best[1]["average"])


@pytest.mark.long
def test_a_run_killed_at_random_moments_gives_the_bits_of_an_unbroken_one(tmp_path: Path) -> None:
    write_data(tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(HERE / "training_process.py"), str(tmp_path), "1"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    saved = {}
    for optimizer, (statuses, saved[optimizer]) in json.loads(result.stdout).items():
        assert statuses == [0, *[-signal.SIGKILL] * (len(statuses) - 2), 0], result.stdout
        assert [row["step"] for row in epochs(tmp_path / optimizer / "killed")] == [*range(2, 15, 2)]
        check_equal(tmp_path / optimizer / "killed", tmp_path / optimizer / "unbroken")
    assert max(map(max, saved.values())) > 0, result.stdout  # one of them had something to resume


@pytest.mark.parametrize("file", ["best.pt", "state.pt"])
def test_a_run_that_dies_between_its_log_and_its_state_logs_no_epoch_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    recipe = replace(RECIPE, choose="best")
    sources, _ = load_sources(recipe, write_data(tmp_path))
    Trainer(recipe, sources, tmp_path / "unbroken").fit()
    write, died = train._write, []

    def die_once(target: Path, state: dict[str, object]) -> None:
        if target.name == file and not died and len(epochs(target.parent)) == (1 if file == "best.pt" else 2):
            died.append(target)
            raise KeyboardInterrupt
        write(target, state)

    monkeypatch.setattr(train, "_write", die_once)
    with pytest.raises(KeyboardInterrupt):
        Trainer(recipe, sources, tmp_path / "killed").fit()
    steps = [row["step"] for row in epochs(tmp_path / "killed")]
    with (tmp_path / "killed" / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss"')  # and a line that was not finished
    assert steps == ([2] if file == "best.pt" else [2, 4])
    resumed = Trainer(recipe, sources, tmp_path / "killed")
    assert resumed.step == steps[-1] - 2  # the last line of the log is of an epoch that was not saved
    assert resumed.fit() is True
    check_equal(tmp_path / "killed", tmp_path / "unbroken")
