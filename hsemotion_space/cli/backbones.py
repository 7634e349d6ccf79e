"""Commands of ``hsemotion-space learn`` from a recipe to a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from hsemotion_space.hub.manifest import read_manifest
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.settings import Settings
from hsemotion_space.training import finish as finishing
from hsemotion_space.training import run
from hsemotion_space.training import start as starting
from hsemotion_space.training import teach as teaching
from hsemotion_space.training.recipe import read_recipe


def backbone(options: argparse.Namespace) -> int:
    """Train; exit status 3 if the time is up before the last step."""
    return 0 if run.train(options.recipe, options.data, options.run, options.minutes) else 3


def export(options: argparse.Namespace) -> int:
    """Write the weights of a run into a checkpoint folder."""
    run.export_run(options.recipe, options.data, options.run, options.checkpoint)
    return 0


def finish(options: argparse.Namespace) -> int:
    """Calibrate an exported starter and train its heads."""
    finishing.finish(options.recipe, options.data, options.checkpoint, options.posed)
    return 0


def teach(options: argparse.Namespace) -> int:
    """Write soft labels."""
    settings, recipe = Settings.from_env(), read_recipe(options.recipe)
    checkpoints = [
        read_manifest(Path(name)) if Path(name).is_dir() else find_checkpoint(settings.checkpoint_roots, name)
        for name in options.teacher
    ]
    teachers = [
        teaching.Teacher(checkpoint, settings.cache, recipe.compile and recipe.bfloat16)
        for checkpoint in checkpoints
    ]
    teaching.teach(
        options.recipe,
        options.data,
        teachers,
        options.out,
        views=options.views,
        embeddings=options.embeddings,
    )
    print(f"Wrote {options.out}, {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


def start(options: argparse.Namespace) -> int:
    """Write weights to start from."""
    origin = starting.make_start(options.arch, dict(options.args), options.source, options.out, options.seed)
    print(
        f"Wrote {options.out}: {origin['share']:.0%} of the values come from {options.source}, matched by"
        f" {origin['matched']}"
    )
    return 0
