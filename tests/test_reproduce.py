"""The page on reproduction holds what it says: commands are understood, recipes are read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hsemotion_space.cli import make_parser
from hsemotion_space.training.recipe import read_recipe

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCKS = "\n".join(
    re.findall(r"```sh\n(.*?)```", (DOCS / "reproduce.md").read_text("utf-8"), re.DOTALL)
).replace("\\\n", " ")
COMMANDS = [line for line in BLOCKS.splitlines() if line.strip()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "hsemotion-space"
    assert callable(make_parser().parse_args(arguments).handler)


def test_all_steps_and_tasks_are_there() -> None:
    steps = {" ".join(shlex.split(command)[1:3]) for command in COMMANDS}
    assert {
        f"learn {step}"
        for step in ("backbone", "export", "features", "head", "predict", "tune", "post", "submit", "attach")
    } <= steps
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("file", sorted((DOCS / "recipes").glob("*.toml")), ids=lambda file: file.name)
def test_recipes_are_read_and_hold_the_papers_settings(file: Path) -> None:
    recipe = read_recipe(file)
    assert (recipe.optimizer, recipe.rho, recipe.weight_decay, recipe.schedule) == (
        "sam",
        0.05,
        0.0,
        "constant",
    )
    assert recipe.head_steps == 3 * recipe.steps_per_epoch
    assert recipe.steps == 9 * recipe.steps_per_epoch
    assert [recipe.lr(step) for step in (0, recipe.head_steps - 1, recipe.head_steps, recipe.steps - 1)] == [
        1e-3,
        1e-3,
        1e-4,
        1e-4,
    ]
