"""``hsemotion-space learn`` and ``hsemotion-space evaluate``: every step of the challenge as a command."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hsemotion_space.cli.console import complain, guarded
from hsemotion_space.cli.training import add_training
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import CHALLENGE

if TYPE_CHECKING:
    from hsemotion_space.training.feature_table import FeatureTable
    from hsemotion_space.training.features import ExtractProgress
    from hsemotion_space.training.scoring import TaskScore

TASKS = [task.name for task in CHALLENGE]


def add_learn(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``learn``."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_training(commands)
    _add_heads(commands)
    post = commands.add_parser("tune", help="choose smoothing, thresholds and the blend of two systems on the tuning videos")
    _systems(post)
    post.add_argument("--labels", type=Path, required=True, help="labels of the training set that the heads were trained on")
    post.add_argument("--tuning-share", type=_share, default=0.15, help="as given to `learn head` (default %(default)g)")
    post.add_argument("--box", type=float, nargs="+", help="half widths to try; the ones of the paper if left out")
    post.add_argument("--gaussian", type=float, nargs="+", default=[], help="standard deviations to try")
    post.add_argument("--unit", choices=["frames", "seconds"], default="frames", help="of the widths")
    post.add_argument("--weights", type=float, nargs="+", help="weights of the first of two systems to try; 0 to 1 in tenths if left out")
    _rates(post)
    post.add_argument("--out", type=Path, required=True, help="json file with the settings")
    post.set_defaults(handler=guarded(_tune))
    post = commands.add_parser("post", help="complete predictions over frames without a face, blend, smooth")
    _systems(post)
    post.add_argument("--post", type=Path, required=True, help="settings from `learn tune`")
    post.add_argument("--frames", type=Path, required=True, help="labels or an official list: the frames that are wanted")
    _rates(post)
    post.add_argument("--out", type=Path, required=True)
    post.set_defaults(handler=guarded(_post))
    submit = commands.add_parser("submit", help="write the file that the challenge asks for")
    _systems(submit)
    submit.add_argument("--post", type=Path, help="settings from `learn tune`, for the thresholds")
    submit.add_argument("--frames", type=Path, required=True, help="the official list")
    submit.add_argument("--out", type=Path, required=True)
    submit.set_defaults(handler=guarded(_submit))


def _add_heads(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    features = commands.add_parser("features", help="write embeddings and scores of face crops to Parquet shards")
    features.add_argument("--checkpoint", default="", help="id from `checkpoints list`; the first bundled one if left out")
    features.add_argument("--faces", type=Path, nargs="+", required=True, help="folders <video>/<picture>; several are merged")
    features.add_argument("--any-names", action="store_true", help="pictures need not be named by frame number (Hume)")
    features.add_argument("--out", type=Path, required=True, help="folder of shards; an interrupted run goes on")
    features.set_defaults(handler=guarded(_features))
    head = commands.add_parser("head", help="train a head on features")
    head.add_argument("--task", choices=TASKS, required=True)
    head.add_argument("--features", type=Path, required=True, help="folder of shards, or one Parquet file, such as audio features")
    head.add_argument("--labels", type=Path, required=True, help="folder of label files, or the csv of a clip-level task")
    head.add_argument(
        "--tuning-share", type=_share, default=0.15, help="share of the videos that choices are made on (default %(default)g)"
    )
    head.add_argument("--reads", choices=["scores", "embeddings", "both"], help="as in the paper if left out")
    for name, kind in (("hidden", int), ("epochs", int), ("batch", int), ("lr", float), ("l2", float), ("dropout", float), ("seed", int)):
        head.add_argument(f"--{name}", type=kind, help="as in the paper if left out")
    head.add_argument("--out", type=Path, required=True, help="folder for head.safetensors and head.json")
    head.set_defaults(handler=guarded(_head))
    predict = commands.add_parser("predict", help="apply a head to features")
    which = predict.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", type=Path, help="folder from `learn head`")
    which.add_argument("--checkpoint", help="take the checkpoint's own head for --task, a rule for instance")
    predict.add_argument("--task", choices=TASKS, help="with --checkpoint")
    predict.add_argument("--features", type=Path, required=True)
    predict.add_argument("--out", type=Path, required=True)
    predict.set_defaults(handler=guarded(_predict))
    attach = commands.add_parser("attach", help="put a trained head into a checkpoint, in place of a rule or a prior")
    attach.add_argument("--head", type=Path, required=True)
    attach.add_argument("--post", type=Path, help="settings from `learn tune`, for the thresholds")
    attach.add_argument("--note", required=True, help="one sentence: the figure that was reached, and on what")
    attach.add_argument("--checkpoint", type=Path, required=True, help="folder of the checkpoint")
    attach.set_defaults(handler=guarded(_attach))


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be from 0 to 0.5, got {text}")
    return value


def _systems(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="one file, or two that are blended")


def _rates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frame-rates", type=Path, help="json object: frames per second by video, for widths in seconds; 30 if left out")


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="folder of label files, csv, or a file in the form of a submission")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--predictions", type=Path, help="file from `learn predict` or `learn post`, or a submission (.txt)")
    what.add_argument("--checkpoint", help="score the heads of a checkpoint as they are; needs --features or --faces")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--features", type=Path, help="features of the checkpoint")
    source.add_argument("--faces", type=Path, nargs="+", help="face crops, from which the features are made")
    parser.add_argument("--any-names", action="store_true", help="pictures need not be named by frame number (Hume)")
    parser.add_argument("--post", type=Path, help="settings from `learn tune`, for the thresholds")
    parser.add_argument("--report", type=Path, help="write the report to this .html or .md file")
    parser.set_defaults(handler=guarded(_evaluate))


def _features(options: argparse.Namespace) -> int:
    _extract(options, options.checkpoint, options.out)
    return 0


def _extract(options: argparse.Namespace, checkpoint_id: str, out: Path) -> None:
    from hsemotion_space.inference.pipeline import load_network  # noqa: PLC0415
    from hsemotion_space.training.features import extract  # noqa: PLC0415
    from hsemotion_space.training.formats.affwild2 import list_faces  # noqa: PLC0415
    from hsemotion_space.training.formats.hume import list_clips  # noqa: PLC0415
    from hsemotion_space.vision.engine import EngineOptions  # noqa: PLC0415  heavy

    settings = Settings.from_env()
    checkpoint = find_checkpoint(settings.checkpoint_roots, checkpoint_id)
    network = load_network(checkpoint, EngineOptions(settings.engine, settings.cache / "openvino", settings.threads))
    faces = list_clips(options.faces) if options.any_names else list_faces(options.faces)

    rates = [0.0]

    def show(progress: ExtractProgress) -> None:
        rates.append(progress.images_per_s)
        if sys.stderr.isatty():
            print(f"\r{progress.done:,} faces, {progress.images_per_s:.0f} per second", end="", file=sys.stderr, flush=True)

    result = extract(faces, network, out, report=show)
    if not result.faces:
        raise ValueError("No picture was found; --faces wants folders with a folder of pictures per video.")
    print(f"{result.rows:,} of {result.faces:,} faces by {checkpoint.id} in {out}, {rates[-1]:.0f} per second")
    for line in result.skipped:
        print(f"  left out: {line}")


def _head(options: argparse.Namespace) -> int:
    from hsemotion_space.training.challenge import labels_of, train_head  # noqa: PLC0415  heavy
    from hsemotion_space.training.feature_table import read_features  # noqa: PLC0415
    from hsemotion_space.training.heads import paper_options  # noqa: PLC0415
    from hsemotion_space.training.trained_head import challenge_task, save_head  # noqa: PLC0415

    task, table = challenge_task(options.task), read_features(options.features)
    names = ("reads", "hidden", "epochs", "batch", "lr", "l2", "dropout", "seed")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if not table.scores.shape[1] and "reads" not in given:
        given["reads"] = "embeddings"  # features from elsewhere have no scores
    head = train_head(task, table, labels_of(options.labels, task), replace(paper_options(task), **given), options.tuning_share)
    save_head(head, options.out)
    record = head.record
    print(f"{record['rows']:,} rows of {record['videos']} videos, {record['tuning_videos']} videos for tuning")
    measures = record["tuning_measures"]
    best = f", {max(measures):.4f} on the tuning videos" if isinstance(measures, list) and measures else ""
    print(f"Head for {task.title.lower()}, epoch {record['epoch']}{best}, temperature {head.temperature:g}, in {options.out}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from hsemotion_space.training.challenge import checkpoint_predictions, checkpoint_thresholds  # noqa: PLC0415  heavy
    from hsemotion_space.training.feature_table import read_features  # noqa: PLC0415
    from hsemotion_space.training.series import write_series  # noqa: PLC0415
    from hsemotion_space.training.trained_head import challenge_task, load_head, predict  # noqa: PLC0415

    thresholds: tuple[float, ...] = ()
    table = read_features(options.features)
    if options.head:
        head = load_head(options.head)
        task, made = head.task, predict(head, table)
    elif options.task:
        task = challenge_task(options.task)
        checkpoint = find_checkpoint(Settings.from_env().checkpoint_roots, options.checkpoint)
        made, thresholds = checkpoint_predictions(checkpoint, table, task), checkpoint_thresholds(checkpoint, task)
    else:
        return complain("--checkpoint needs --task.", 2)
    count = write_series(options.out, task, made, thresholds)
    print(f"{count:,} predictions of {task.title.lower()} in {options.out}")
    return 0


def _tune(options: argparse.Namespace) -> int:
    from hsemotion_space.training.challenge import PAPER_WINDOWS, Choices, labels_of, load_rates, save_post, tune, tuning_videos  # noqa: PLC0415  heavy
    from hsemotion_space.training.postprocess import Smoothing  # noqa: PLC0415
    from hsemotion_space.training.series import read_series  # noqa: PLC0415
    from hsemotion_space.training.trained_head import challenge_task  # noqa: PLC0415

    task = challenge_task(options.task)
    given = list(labels_of(options.labels, task))
    chosen = tuning_videos([series.video for series in given], options.tuning_share)
    labels = [series for series in given if series.video in chosen]
    boxes = options.box or [width / (30 if options.unit == "seconds" else 1) for width in PAPER_WINDOWS]
    candidates = [Smoothing("box", width, options.unit) for width in boxes]
    candidates += [Smoothing("gaussian", width, options.unit) for width in options.gaussian]
    choices = Choices(tuple(candidates), rates=load_rates(options.frame_rates))
    if options.weights:
        choices = replace(choices, weights=tuple(options.weights))
    post = tune(task, [list(read_series(file, task)) for file in options.predictions], labels, choices)
    save_post(post, options.out)
    smoothing = post.smoothing
    words = f"{smoothing.kind} of {smoothing.width:g} {smoothing.unit}" if smoothing.width else "no smoothing"
    words += f"; thresholds {', '.join(f'{value:g}' for value in post.thresholds)}" if post.thresholds else ""
    words += f"; weights of the first system {', '.join(f'{value:g}' for value in post.weights)}" if post.weights else ""
    print(f"Chosen on {len(labels)} videos: {words}")
    return 0


def _post(options: argparse.Namespace) -> int:
    from hsemotion_space.training.challenge import frames_of, load_post, load_rates, post_process  # noqa: PLC0415  heavy
    from hsemotion_space.training.series import read_series, read_thresholds, write_series  # noqa: PLC0415
    from hsemotion_space.training.trained_head import challenge_task  # noqa: PLC0415

    task, settings = challenge_task(options.task), load_post(options.post, challenge_task(options.task))
    wanted = frames_of(options.frames, task)
    systems = [read_series(file, task) for file in options.predictions]
    done = post_process(settings, systems, wanted, load_rates(options.frame_rates))
    count = write_series(options.out, task, done, settings.thresholds or read_thresholds(options.predictions[0]))
    absent = sorted(wanted.keys() - {series.video for series in done})
    print(f"{count:,} predictions in {options.out}; {len(absent)} of {len(wanted)} videos have none")
    if absent:
        print(f"  without any: {', '.join(absent)}")
    return 0


def _submit(options: argparse.Namespace) -> int:
    from hsemotion_space.training.challenge import load_post  # noqa: PLC0415  heavy
    from hsemotion_space.training.formats.submission import write_submission  # noqa: PLC0415
    from hsemotion_space.training.series import read_series, read_thresholds  # noqa: PLC0415
    from hsemotion_space.training.trained_head import challenge_task  # noqa: PLC0415

    task = challenge_task(options.task)
    if len(options.predictions) != 1:
        return complain("A submission is made of one file of predictions; blend two with `learn post` first.", 2)
    thresholds = load_post(options.post, task).thresholds if options.post else read_thresholds(options.predictions[0])
    report = write_submission(options.out, task, read_series(options.predictions[0], task), options.frames, thresholds or None)
    print(f"{report.frames:,} rows in {options.out}, {report.interpolated:,} of them interpolated")
    if report.without_prediction:
        print(f"  neutral values for {len(report.without_prediction)} videos without a prediction: {', '.join(report.without_prediction)}")
    return 0


def _attach(options: argparse.Namespace) -> int:
    from hsemotion_space.training.attach import Attachment, attach_heads  # noqa: PLC0415  heavy
    from hsemotion_space.training.challenge import load_post  # noqa: PLC0415
    from hsemotion_space.training.trained_head import load_head  # noqa: PLC0415

    head = load_head(options.head)
    thresholds = load_post(options.post, head.task).thresholds if options.post else ()
    checkpoint = attach_heads([Attachment(head, options.note, thresholds)], options.checkpoint)
    print(f"{head.task.title} of {checkpoint.id} is now read by the trained head")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from hsemotion_space.training.challenge import (  # noqa: PLC0415  heavy
        checkpoint_predictions,
        checkpoint_thresholds,
        labels_of,
        load_post,
        submitted,
    )
    from hsemotion_space.training.scoring import score  # noqa: PLC0415
    from hsemotion_space.training.series import read_series, read_thresholds  # noqa: PLC0415
    from hsemotion_space.training.trained_head import challenge_task  # noqa: PLC0415

    task = challenge_task(options.task)
    thresholds = load_post(options.post, task).thresholds if options.post else ()
    labels = labels_of(options.labels, task)
    if options.predictions:
        text = options.predictions.suffix == ".txt"
        read = submitted if text else read_series
        thresholds = thresholds if options.post or text else read_thresholds(options.predictions)
        return _report(score(task, labels, read(options.predictions, task), thresholds or None), options)
    if not (options.features or options.faces):
        return complain("--checkpoint needs --features or --faces.", 2)
    checkpoint = find_checkpoint(Settings.from_env().checkpoint_roots, options.checkpoint)
    thresholds = thresholds or checkpoint_thresholds(checkpoint, task)
    made = checkpoint_predictions(checkpoint, _table(options, checkpoint.id), task)
    return _report(score(task, labels, made, thresholds or None), options)


def _table(options: argparse.Namespace, checkpoint_id: str) -> FeatureTable:
    from hsemotion_space.training.feature_table import read_features  # noqa: PLC0415  heavy

    if options.features:
        return read_features(options.features)
    with tempfile.TemporaryDirectory() as folder:
        _extract(options, checkpoint_id, Path(folder))
        return read_features(Path(folder))


def _report(result: TaskScore, options: argparse.Namespace) -> int:
    if result.frames_missing_video == result.frames_labeled:
        return complain("The predictions have none of the annotated videos.", 2)
    from hsemotion_space.training.report import html_report, markdown_report  # noqa: PLC0415  heavy

    title = f"{result.task.title}: {options.predictions.name if options.predictions else options.checkpoint}"
    text = markdown_report(title, [result], [])
    if options.report:
        page = html_report(title, [result], []) if options.report.suffix == ".html" else text
        options.report.write_text(page, "utf-8")
    print(text)
    return 0
