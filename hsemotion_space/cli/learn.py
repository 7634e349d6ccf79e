"""``hsemotion-space learn`` and ``evaluate``: the options of every step from data to a submission."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from hsemotion_space.cli.console import deferred
from hsemotion_space.tasks import CHALLENGE

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

TASKS = [task.name for task in CHALLENGE]
CHECKPOINT = "id from `checkpoints list`; without it, the default checkpoint"
FACES = "folders <video>/<picture>; several are merged"
ANY_NAMES = "pictures need not be named by frame number (Hume)"
THRESHOLDS = "settings from `learn tune`, for the thresholds"
PAPER = "default: the value of the paper"
HEAD_OPTIONS = {
    "hidden": int,
    "epochs": int,
    "batch": int,
    "lr": float,
    "l2": float,
    "dropout": float,
    "seed": int,
}


def add_learn(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``learn``."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_backbones(commands)
    _add_teachers(commands)
    _add_heads(commands)
    _add_predictions(commands)


def _add(commands: Commands, module: str, name: str, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description)
    parser.set_defaults(handler=deferred(module, name))
    return parser


def _add_paths(parser: argparse.ArgumentParser, *, required: bool = True, **helps: str) -> None:
    for name, description in helps.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=required, help=description)


def _add_backbones(commands: Commands) -> None:
    data, run = "folder that the file patterns of the recipe start from", "folder of the run"
    train = _add(commands, "backbones", "backbone", "train a backbone by a recipe")
    train.add_argument("recipe", type=Path, help="recipe.toml")
    _add_paths(train, data=data, run=f"{run}; an interrupted run is resumed")
    train.add_argument(
        "--minutes", type=float, help="stop after so many minutes; the same command resumes the run"
    )
    export = _add(
        commands, "backbones", "export", "write the weights of a training run into a checkpoint folder"
    )
    export.add_argument("recipe", type=Path)
    _add_paths(export, data=data, run=run, checkpoint="folder for model.safetensors and training.json")
    finish = _add(
        commands, "backbones", "finish", "calibrate an exported starter and train its heads on posed pictures"
    )
    finish.add_argument("recipe", type=Path)
    _add_paths(finish, data=data, checkpoint="folder with manifest, weights and training.json")
    posed = "pictures with action units and categories, below the data folder (default %(default)s)"
    finish.add_argument("--posed", default="compound_posed.parquet", help=posed)


def _add_teachers(commands: Commands) -> None:
    teach = _add(
        commands,
        "backbones",
        "teach",
        "write the outputs of other networks for every picture of a recipe, as targets",
    )
    teach.add_argument("recipe", type=Path)
    _add_paths(teach, data="folder that the file patterns of the recipe start from")
    teacher = "folder of a checkpoint or id from `checkpoints list`; repeat it for several"
    teach.add_argument("--teacher", action="append", required=True, help=teacher)
    teach.add_argument(
        "--views", type=int, choices=[1, 2], default=2, help="2 adds the mirror image (default %(default)d)"
    )
    teach.add_argument(
        "--embeddings", action="store_true", help="write the embeddings of the teachers as well"
    )
    _add_paths(teach, out="Parquet file; an interrupted command resumes with the next source")
    start = _add(
        commands,
        "backbones",
        "start",
        "write weights to start from, taken from a network of partly the same structure",
    )
    start.add_argument("arch", help="architecture, as in the recipe")
    start.add_argument(
        "--args",
        type=_option,
        nargs="+",
        default=[],
        metavar="NAME=NUMBER",
        help="its options, such as img_size=112",
    )
    start.add_argument(
        "--from",
        type=Path,
        required=True,
        dest="source",
        help="safetensors, state dict, or state.pt of a run",
    )
    start.add_argument(
        "--seed", type=int, default=0, help="of the values that the source lacks (default %(default)d)"
    )
    _add_paths(start, out="safetensors file; name it as `init` in the recipe")


def _add_heads(commands: Commands) -> None:
    features = _add(
        commands, "challenge", "features", "write embeddings and scores of face crops to Parquet shards"
    )
    features.add_argument("--checkpoint", default="", help=CHECKPOINT)
    features.add_argument("--faces", type=Path, nargs="+", required=True, help=FACES)
    features.add_argument("--any-names", action="store_true", help=ANY_NAMES)
    _add_paths(features, out="folder of shards; an interrupted command resumes")
    head = _add(commands, "challenge", "head", "train a head on features")
    head.add_argument("--task", choices=TASKS, required=True)
    features_help = "folder of shards, or one Parquet file, such as audio features"
    _add_paths(head, features=features_help, labels="folder of label files, or the csv of a clip-level task")
    _add_share(head, "share of the videos on which choices are made (default %(default)g)")
    head.add_argument("--reads", choices=["scores", "embeddings", "both"], help=PAPER)
    for name, kind in HEAD_OPTIONS.items():
        head.add_argument(f"--{name}", type=kind, help=PAPER)
    _add_paths(head, out="folder for head.safetensors and head.json")
    traces = _add(
        commands, "challenge", "traces", "write continuous ratings as labels of valence and arousal"
    )
    traces.add_argument(
        "traces", type=Path, nargs="+", help="Parquet files of the dataset or of `feedback traces`"
    )
    traces.add_argument(
        "--frame-rate",
        type=float,
        required=True,
        help="frames per second of the crops that the labels are for",
    )
    traces.add_argument(
        "--lag",
        type=float,
        default=0.0,
        help="seconds by which ratings follow the clip (default %(default)g)",
    )
    _add_paths(traces, out="folder of label files, <clip>.txt each")
    attach = _add(
        commands, "challenge", "attach", "add a trained head to a checkpoint, in place of a rule or a prior"
    )
    _add_paths(attach, head="folder from `learn head`", checkpoint="folder of the checkpoint")
    _add_paths(attach, required=False, post=THRESHOLDS)
    attach.add_argument(
        "--note", required=True, help="one sentence: the figure that was reached, and on which data"
    )


def _add_predictions(commands: Commands) -> None:
    predict = _add(commands, "challenge", "predict", "apply a head to features")
    which = predict.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", type=Path, help="folder from `learn head`")
    which.add_argument("--checkpoint", help="use the head of this checkpoint for --task, such as a rule")
    predict.add_argument("--task", choices=TASKS, help="required with --checkpoint")
    _add_paths(predict, features="folder of shards, or one Parquet file", out="Parquet file of predictions")
    tune = _add(
        commands,
        "challenge",
        "tune",
        "choose smoothing, thresholds and the blend of two systems on the tuning videos",
    )
    _add_systems(tune)
    _add_paths(tune, labels="labels of the training set of the heads", out="JSON file of settings")
    _add_share(tune, "as for `learn head` (default %(default)g)")
    tune.add_argument("--box", type=float, nargs="+", help="half widths to try; default: those of the paper")
    tune.add_argument("--gaussian", type=float, nargs="+", default=[], help="standard deviations to try")
    tune.add_argument(
        "--unit", choices=["frames", "seconds"], default="frames", help="of the widths (default %(default)s)"
    )
    weights = "weights of the first of two systems to try; default: 0 to 1 in tenths"
    tune.add_argument("--weights", type=float, nargs="+", help=weights)
    post = _add(
        commands, "challenge", "post", "complete predictions over frames without a face, blend, smooth"
    )
    _add_systems(post)
    _add_paths(
        post,
        post="settings from `learn tune`",
        frames="labels or an official list: the frames to predict",
        out="Parquet file",
    )
    rates = "JSON object: frames per second by video, for widths in seconds; 30 without it"
    for parser in (tune, post):
        _add_paths(parser, required=False, frame_rates=rates)
    submit = _add(commands, "challenge", "submit", "write the file of the challenge")
    _add_systems(submit)
    _add_paths(submit, frames="the official list", out="text file of the submission")
    _add_paths(submit, required=False, post=THRESHOLDS)


def _add_systems(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--predictions", type=Path, nargs="+", required=True, help="one file, or two to blend"
    )


def _add_share(parser: argparse.ArgumentParser, description: str) -> None:
    parser.add_argument("--tuning-share", type=_share, default=0.15, help=description)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    parser.set_defaults(handler=deferred("challenge", "evaluate"))
    parser.add_argument("--task", choices=TASKS, required=True)
    _add_paths(parser, labels="folder of label files, csv, or a file in the form of a submission")
    scored = parser.add_mutually_exclusive_group(required=True)
    scored.add_argument(
        "--predictions", type=Path, help="file from `learn predict` or `learn post`, or a submission (.txt)"
    )
    scored.add_argument("--checkpoint", help="score the heads of a checkpoint; needs --features or --faces")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--features", type=Path, help="features of the checkpoint")
    source.add_argument(
        "--faces", type=Path, nargs="+", help=f"face crops, from which features are extracted: {FACES}"
    )
    parser.add_argument("--any-names", action="store_true", help=ANY_NAMES)
    _add_paths(parser, required=False, post=THRESHOLDS, report="write the report to this .html or .md file")


def _option(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be NAME=NUMBER, found {text}") from error


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be from 0 to 0.5, found {text}")
    return value
