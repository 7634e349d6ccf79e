"""``hsemotion-space learn backbone`` and the commands around it: from a recipe to a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from hsemotion_space.cli.console import guarded
from hsemotion_space.hub.manifest import read_manifest
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.settings import Settings


def add_training(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that make a backbone."""
    train = commands.add_parser("backbone", help="train a backbone by a recipe")
    train.add_argument("recipe", type=Path, help="recipe.toml")
    train.add_argument("--data", type=Path, required=True, help="folder that the recipe's file patterns start from")
    train.add_argument("--run", type=Path, required=True, help="folder of the run; an interrupted run is resumed")
    train.add_argument("--minutes", type=float, help="stop after so many minutes; run again to go on")
    train.set_defaults(handler=guarded(_backbone))
    export = commands.add_parser("export", help="write the weights of a training run into a checkpoint folder")
    export.add_argument("recipe", type=Path)
    export.add_argument("--data", type=Path, required=True)
    export.add_argument("--run", type=Path, required=True)
    export.add_argument("--checkpoint", type=Path, required=True, help="folder that gets model.safetensors and training.json")
    export.set_defaults(handler=guarded(_export))
    finish = commands.add_parser("finish", help="calibrate an exported starter and train its heads on posed pictures")
    finish.add_argument("recipe", type=Path)
    finish.add_argument("--data", type=Path, required=True)
    finish.add_argument("--checkpoint", type=Path, required=True, help="folder with manifest, weights and training.json")
    finish.add_argument("--posed", default="compound_posed.parquet", help="pictures with units and categories, below the data folder")
    finish.set_defaults(handler=guarded(_finish))
    teach = commands.add_parser("teach", help="write what other networks say about every picture of a recipe, as targets")
    teach.add_argument("recipe", type=Path)
    teach.add_argument("--data", type=Path, required=True)
    teach.add_argument(
        "--teacher", action="append", required=True, help="folder of a checkpoint or an id from `checkpoints list`; may be repeated"
    )
    teach.add_argument("--views", type=int, choices=[1, 2], default=2, help="2 adds the mirror image (default %(default)d)")
    teach.add_argument("--embeddings", action="store_true", help="keep the embeddings of the teachers as well")
    teach.add_argument("--out", type=Path, required=True, help="Parquet file; an interrupted call goes on with the next source")
    teach.set_defaults(handler=guarded(_teach))
    start = commands.add_parser("start", help="write weights to start from, taken from a network of partly the same structure")
    start.add_argument("arch", help="architecture, as in the recipe")
    start.add_argument("--args", type=_option, nargs="+", default=[], metavar="NAME=NUMBER", help="its options, such as img_size=112")
    start.add_argument("--from", type=Path, required=True, dest="source", help="safetensors, state dict, or state.pt of a run")
    start.add_argument("--seed", type=int, default=0, help="of the values that the source lacks (default %(default)d)")
    start.add_argument("--out", type=Path, required=True, help="safetensors file, to be named by `init` of the recipe")
    start.set_defaults(handler=guarded(_start))


def _option(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be NAME=NUMBER, got {text}") from error


def _backbone(options: argparse.Namespace) -> int:
    from hsemotion_space.training.run import train  # noqa: PLC0415  heavy

    return 0 if train(options.recipe, options.data, options.run, options.minutes) else 3


def _export(options: argparse.Namespace) -> int:
    from hsemotion_space.training.run import export_run  # noqa: PLC0415  heavy

    export_run(options.recipe, options.data, options.run, options.checkpoint)
    return 0


def _finish(options: argparse.Namespace) -> int:
    from hsemotion_space.training.finish import finish  # noqa: PLC0415  heavy

    finish(options.recipe, options.data, options.checkpoint, options.posed)
    return 0


def _teach(options: argparse.Namespace) -> int:
    from hsemotion_space.training.recipe import read_recipe  # noqa: PLC0415  heavy
    from hsemotion_space.training.teach import Lesson, Teacher, teach  # noqa: PLC0415  heavy

    settings, recipe = Settings.from_env(), read_recipe(options.recipe)
    checkpoints = [
        read_manifest(Path(name)) if Path(name).is_dir() else find_checkpoint(settings.checkpoint_roots, name) for name in options.teacher
    ]
    teachers = [Teacher(checkpoint, settings.cache, recipe.compile and recipe.bfloat16) for checkpoint in checkpoints]
    teach(options.recipe, options.data, Lesson(tuple(teachers), options.views, options.embeddings), options.out)
    print(f"Wrote {options.out}, {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _start(options: argparse.Namespace) -> int:
    from hsemotion_space.training.start import make_start  # noqa: PLC0415  heavy

    origin = make_start(options.arch, dict(options.args), options.source, options.out, options.seed)
    print(f"Wrote {options.out}: {origin['share']:.0%} of the values by {origin['matched']} from {options.source}")
    return 0
