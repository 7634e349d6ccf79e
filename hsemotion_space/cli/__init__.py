"""``hsemotion-space``: analyze files, manage checkpoints and feedback, serve the page, train."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hsemotion_space import __version__
from hsemotion_space.cli.checkpoints import add_checkpoints
from hsemotion_space.cli.console import deferred, report_error
from hsemotion_space.cli.feedback import add_feedback
from hsemotion_space.cli.learn import add_evaluate, add_learn
from hsemotion_space.cli.space import add_space
from hsemotion_space.environment import secrets
from hsemotion_space.logs import install_logs
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import CHALLENGE_SMOOTHING, PipelineConfig, Settings

CLOSED_PIPE = 141  # what a shell reports for a program that the closed pipe ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a file that failed, 2 for a wrong call."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show costs no result
    options = make_parser().parse_args(arguments)
    try:
        handler: Callable[[argparse.Namespace], int] = options.handler
        status = handler(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would complain
        return CLOSED_PIPE
    except MessageError as error:
        return report_error(error, 2)
    except KeyboardInterrupt:
        return report_error("Stopped.", 130)
    return status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets ``handler``."""
    parser = argparse.ArgumentParser(
        prog="hsemotion-space", description="Analyze facial affect in pictures and clips."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_analyze(commands.add_parser("analyze", help="analyze pictures and clips"))
    add_checkpoints(commands.add_parser("checkpoints", help="list, download, import and publish checkpoints"))
    add_feedback(commands.add_parser("feedback", help="show, export, review, publish and erase corrections"))
    commands.add_parser("serve", help="serve the page").set_defaults(handler=_serve)
    add_space(commands.add_parser("space", help="create a Space of the Hugging Face Hub, or check one"))
    add_learn(
        commands.add_parser(
            "learn", aliases=["train"], help="train backbones and heads, write predictions and submissions"
        )
    )
    add_evaluate(
        commands.add_parser("evaluate", help="score predictions or a checkpoint with the official measures")
    )
    return parser


def _smoothing(text: str) -> float:
    return CHALLENGE_SMOOTHING if text == "challenge" else float(text)


def _part(text: str) -> tuple[int, int]:
    number, parts = (int(part) for part in text.split("/"))
    if not 1 <= number <= parts:
        raise argparse.ArgumentTypeError(f"must be K/N with 1 <= K <= N, got {text!r}")
    return number, parts


def _range(text: str) -> tuple[float, float]:
    start, end = text.split(":")
    return float(start or 0), float(end or math.inf)


def _add_analyze(parser: argparse.ArgumentParser) -> None:
    standard, add = PipelineConfig(), parser.add_argument
    add(
        "paths", nargs="+", metavar="INPUT",
        help="file, folder, 'pattern/**/*.mp4', @list.txt with an input per line, or address such as s3://…",
    )  # fmt: skip
    add("--checkpoint", default="", help="id from `checkpoints list`; default: the first bundled one")
    add(
        "--out", default="",
        help="folder for a file per input, a manifest and a summary; or one .csv, .json or .parquet file",
    )  # fmt: skip
    add(
        "--csv-bom", action="store_true",
        help="start a .csv file with a byte order mark, so that Excel shows names outside ASCII correctly",
    )  # fmt: skip
    add(
        "--render", type=Path, metavar="VIDEO.mp4",
        help="write the clip with boxes, the most probable expressions and its sound to this file",
    )  # fmt: skip
    add(
        "--fps", type=float, default=standard.sample_fps,
        help="analyzed frames per second of a clip, 0 for all (default %(default)g)",
    )  # fmt: skip
    add(
        "--clip", type=_range, default=(0.0, math.inf), metavar="START:END",
        help="analyze only these seconds of each clip; either may be left out",
    )  # fmt: skip
    add(
        "--smoothing", type=_smoothing, default=standard.smoothing, metavar="FACTOR",
        help=(
            "factor on the smoothing windows of the ABAW challenge; `challenge` is 1, 0 turns smoothing off "
            "(default %(default)g)"
        ),
    )  # fmt: skip
    add(
        "--detect-every", type=int, default=standard.detect_every, metavar="N",
        help="detect faces on every Nth frame only (default %(default)d)",
    )  # fmt: skip
    _add_study(parser.add_argument_group("studies", "These options need --out FOLDER (docs/study.md)."))
    parser.set_defaults(handler=deferred("analyze", "run"))


def _add_study(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--resume", action="store_true", help="skip inputs with a result for their content and these settings"
    )
    add("--part", type=_part, default=(1, 1), metavar="K/N", help="analyze the Kth of N shares of the inputs")
    add("--embeddings", action="store_true", help="also write the outputs of the backbone")
    add("--engine", choices=["local", "ray"], default="local", help="run in this process, or on Ray")
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="of Ray; default: one per processor of the cluster",
    )


def _serve(_: argparse.Namespace) -> int:
    values = secrets()  # before heavy imports, as the process may restart
    install_logs()
    from hsemotion_space.ui.app import launch  # noqa: PLC0415  heavy

    try:
        launch(Settings.from_env({**os.environ, **values}), values.get("HF_TOKEN", ""))
    except OSError as error:
        return report_error(f"The page cannot be served: {error}", 2)
    return 0
