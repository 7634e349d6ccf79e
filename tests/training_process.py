"""Train in processes that are killed, and once in one that is not; run by ``training/test_training_kill.py``.

The processes are forks of this one, so that libraries are imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from training_makers import RECIPE, soft_labels

from hsemotion_space.training import train
from hsemotion_space.training.data import FaceImages
from hsemotion_space.training.recipe import Recipe, Teaching
from hsemotion_space.training.sources import load_sources
from hsemotion_space.training.train import Trainer

KILLS = 4
STEPS = 14


def die_at(moment: int) -> None:
    """Let this process kill itself at a step or a write of the state, the latter half done; both count as
    moments."""
    step, write = Trainer._train_step, train._write
    left = moment

    def passed() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def counted_step(trainer: Trainer, batch: object) -> dict[str, float]:
        terms = step(trainer, batch)  # type: ignore[arg-type]
        if passed():
            os.kill(os.getpid(), signal.SIGKILL)
        return terms

    def counted_write(file: Path, state: Mapping[str, object]) -> None:
        if passed():
            file.with_name(file.name + ".partial").write_bytes(b"PK half a state")
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, state)

    Trainer._train_step, train._write = counted_step, counted_write  # type: ignore[method-assign, assignment]


def run_in_child(recipe: Recipe, sources: list[FaceImages], run: Path, moment: int | None = None) -> int:
    """Train, or go on training, in a process that dies at a moment if one is given; return its exit status."""
    process = os.fork()
    if not process:
        try:
            if moment is not None:
                die_at(moment)
            os._exit(
                0
                if Trainer(
                    recipe, sources, run, soft=soft_labels(sources, 6) if recipe.teaching else None
                ).fit()
                else 1
            )
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def compare(folder: Path, optimizer: str, moments: random.Random) -> tuple[list[int], list[int]]:
    """Make the runs ``unbroken`` and ``killed``; return all exit statuses and the last saved step at every
    kill."""
    recipe = replace(RECIPE, optimizer=optimizer, steps=STEPS, choose="best", head_steps=3)  # type: ignore[arg-type]
    recipe = replace(
        recipe, teaching=Teaching("soft.parquet", embedding_weight=0.5) if optimizer == "adamw" else None
    )
    sources, _ = load_sources(recipe, folder)
    run, saved = folder / optimizer / "killed", []
    statuses = [run_in_child(recipe, sources, folder / optimizer / "unbroken")]
    for _ in range(KILLS):
        statuses.append(run_in_child(recipe, sources, run, moments.randrange(STEPS // 2)))
        saved.append(
            torch.load(run / "state.pt", weights_only=True)["step"] if (run / "state.pt").exists() else 0
        )
    statuses.append(run_in_child(recipe, sources, run))
    return statuses, saved


if __name__ == "__main__":
    torch.set_num_threads(1)
    generator = random.Random(int(sys.argv[2]))
    sys.stdout.write(
        json.dumps({name: compare(Path(sys.argv[1]), name, generator) for name in ("adamw", "sam")})
    )
