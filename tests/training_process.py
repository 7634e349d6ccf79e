"""Train in processes that are killed, and once in one that is not; run by ``test_learn_kill.py``.

The processes are forks of this one, so that libraries are imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from learn_makers import RECIPE, soft_labels

from hsemotion_space.learn.data import FaceImages
from hsemotion_space.learn.recipe import Recipe, Teaching
from hsemotion_space.learn.sources import load_sources
from hsemotion_space.learn.train import Trainer

KILLS = 4


def begin(recipe: Recipe, sources: list[FaceImages], run: Path) -> int:
    """Return the id of a process that trains, or goes on training."""
    process = os.fork()
    if not process:
        try:
            os._exit(0 if Trainer(recipe, sources, run, soft=soft_labels(sources, 6) if recipe.teaching else None).fit() else 1)
        finally:
            os._exit(2)
    return process


def finish(process: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status:
        raise RuntimeError(f"the training ended with {status}")


def compare(folder: Path, optimizer: str, moments: random.Random) -> list[int]:
    """Make the runs ``unbroken`` and ``killed`` and return the last saved step at every kill."""
    recipe = replace(RECIPE, optimizer=optimizer, steps=14, choose="best", head_steps=3)  # type: ignore[arg-type]
    recipe = replace(recipe, teaching=Teaching("soft.parquet", embedding_weight=0.5) if optimizer == "adamw" else None)
    sources, _ = load_sources(recipe, folder)
    started = time.monotonic()
    finish(begin(recipe, sources, folder / optimizer / "unbroken"))
    duration_s, run, saved = time.monotonic() - started, folder / optimizer / "killed", []
    for _ in range(KILLS):
        process = begin(recipe, sources, run)
        time.sleep(moments.uniform(0.05, 0.5) * duration_s)
        os.kill(process, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL:
            saved.append(torch.load(run / "state.pt", weights_only=True)["step"] if (run / "state.pt").exists() else 0)
    finish(begin(recipe, sources, run))
    return saved


if __name__ == "__main__":
    torch.set_num_threads(1)
    generator = random.Random(int(sys.argv[2]))
    sys.stdout.write(json.dumps({name: compare(Path(sys.argv[1]), name, generator) for name in ("adamw", "sam")}))
