"""``hsemotion-space``: analyze files, manage checkpoints and feedback, serve the page, train."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hsemotion_space import __version__
from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.analysis.reliability import in_words as reliability_text
from hsemotion_space.cli.checkpoints import add_checkpoints
from hsemotion_space.cli.console import downloading, report_error
from hsemotion_space.cli.feedback import add_feedback
from hsemotion_space.cli.learn import add_evaluate, add_learn
from hsemotion_space.cli.space import add_space
from hsemotion_space.environment import secrets
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import CHALLENGE_SMOOTHING, PipelineConfig, Settings
from hsemotion_space.types import PROVENANCE_WORDS

if TYPE_CHECKING:
    from hsemotion_space.types import Analysis, Prediction

UNLIMITED_S = 24 * 3600.0  # there is no limit for a clip on one's own machine
PROGRESS_COLUMNS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a file that failed, 2 for a wrong call."""
    options = make_parser().parse_args(arguments)
    try:
        handler: Callable[[argparse.Namespace], int] = options.handler
        return handler(options)
    except MessageError as error:
        return report_error(error, 2)
    except KeyboardInterrupt:
        return report_error("Stopped.", 130)


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


def _add_analyze(parser: argparse.ArgumentParser) -> None:
    standard = PipelineConfig()
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument(
        "--checkpoint", default="", help="id from `checkpoints list`; default: the first bundled one"
    )
    parser.add_argument("--out", type=Path, help="write all results to this .csv, .json or .parquet file")
    parser.add_argument(
        "--fps",
        type=float,
        default=standard.sample_fps,
        help="analyzed frames per second of a clip, 0 for all (default %(default)g)",
    )
    parser.add_argument(
        "--smoothing", type=_smoothing, default=standard.smoothing, metavar="FACTOR",
        help=(
            "factor on the smoothing windows of the ABAW challenge; `challenge` is 1, 0 turns smoothing off "
            "(default %(default)g)"
        ),
    )  # fmt: skip
    parser.add_argument(
        "--detect-every",
        type=int,
        default=standard.detect_every,
        help="detect faces on every Nth frame only (default %(default)d)",
        metavar="N",
    )
    parser.set_defaults(handler=_analyze)


def _analyze(options: argparse.Namespace) -> int:
    from hsemotion_space.analysis.export import SUFFIXES, ExportError, write  # noqa: PLC0415  heavy

    config = PipelineConfig(options.checkpoint, options.fps, options.smoothing, options.detect_every)
    if options.out and options.out.suffix.lower() not in SUFFIXES:
        return report_error(f"--out must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.", 2)
    try:
        analyses, failed = _analyze_all(options.paths, config)
        if options.out:
            write(list(analyses.values()), options.out, [path.name for path in analyses])
            print(f"Wrote {options.out}")
    except (ExportError, OSError) as error:
        return report_error(error, 2)
    return 1 if failed else 0


def _analyze_all(paths: Sequence[Path], config: PipelineConfig) -> tuple[dict[Path, Analysis], int]:
    from hsemotion_space.inference.pipeline import Pipeline  # noqa: PLC0415  heavy
    from hsemotion_space.media.clips import MediaError  # noqa: PLC0415  heavy

    settings = Settings.from_env()
    limits = replace(
        settings.limits,
        clip_duration_s=UNLIMITED_S,
        clip_frames=10**7,
        clip_packets=10**8,
        decode_deadline_s=UNLIMITED_S,
    )
    pipeline = Pipeline(replace(settings, limits=replace(limits, clip_bytes=2**40)))
    with downloading("weights") as report:
        pipeline.network(config.checkpoint, report)
    analyses: dict[Path, Analysis] = {}
    failed = 0
    for path in paths:
        try:
            analyses[path] = pipeline.analyze(path, config, _reporter(path.name))
        except MediaError as error:
            failed += 1
            report_error(f"{path.name}: {error}", 1)
            continue
        _show(path.name, analyses[path])
    return analyses, failed


def _reporter(name: str) -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None

    def report(done: int, total: int) -> None:
        line = f"{name}: {done} of about {total} frames"
        print(f"\r{line:<{PROGRESS_COLUMNS}.{PROGRESS_COLUMNS}}", end="\r", file=sys.stderr, flush=True)

    return report


def _show(name: str, analysis: Analysis) -> None:
    media = analysis.media
    kind = (
        f"clip, {media.duration_s:.2f} s, {len(analysis.frame_times_s)} frames analyzed"
        if media.kind == "clip"
        else "picture"
    )
    faces = "1 face" if len(analysis.faces) == 1 else f"{len(analysis.faces)} faces"
    print(f"{name}: {kind}, {media.width} x {media.height} px, {faces}  [{analysis.checkpoint.id}]")
    for notice in analysis.notices:
        print(f"  note: {notice}")
    if not any(prediction.reliability for face in analysis.faces for prediction in face.predictions):
        print("  note: the reliability of this checkpoint was not measured")
    for face in analysis.faces:
        track = face.track
        seen = (
            f", {track.times_s[0]:.2f} to {track.times_s[-1]:.2f} s in {len(track.times_s)} frames"
            if media.kind == "clip"
            else ""
        )
        print(f"  face {track.track_id}{seen}")
        if found := doubt(face):
            print(f"    warning: {found.text}")
        for prediction in face.predictions:
            print(
                f"    {prediction.task.title} ({PROVENANCE_WORDS[prediction.provenance]}):"
                f" {_values_text(prediction)}"
            )
            if reliable := reliability_text(prediction):
                print(f"      {reliable}")


def _values_text(prediction: Prediction) -> str:
    if not prediction.stands_out:
        return prediction.task.none
    names = [label.name for label in prediction.task.labels]
    order = (
        range(len(names))
        if prediction.task.kind == "continuous"
        else sorted(range(len(names)), key=lambda k: -prediction.values[k])[:3]
    )
    return ", ".join(f"{names[k]} {prediction.values[k]:.2f}" for k in order)


def _serve(_: argparse.Namespace) -> int:
    values = secrets()  # before heavy imports, as the process may restart
    from hsemotion_space.ui.app import launch  # noqa: PLC0415  heavy

    try:
        launch(Settings.from_env({**os.environ, **values}), values.get("HF_TOKEN", ""))
    except OSError as error:
        return report_error(f"The page cannot be served: {error}", 2)
    return 0
