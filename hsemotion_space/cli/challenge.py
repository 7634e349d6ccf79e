"""Commands of ``hsemotion-space learn`` from face crops to a submission, and ``hsemotion-space evaluate``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hsemotion_space.cli.console import report_error
from hsemotion_space.cli.learn import HEAD_OPTIONS
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.inference.network import load_network
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import VALENCE_AROUSAL
from hsemotion_space.training.attach import Attachment, attach_heads
from hsemotion_space.training.challenge import (
    BLEND_WEIGHTS,
    PAPER_WINDOWS,
    checkpoint_predictions,
    checkpoint_thresholds,
    frames_of,
    labels_of,
    submission_as_predictions,
    train_head,
    tuning_videos,
)
from hsemotion_space.training.challenge import tune as choose_settings
from hsemotion_space.training.feature_table import FeatureTable, read_features
from hsemotion_space.training.features import extract
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import write_labels, write_submission
from hsemotion_space.training.formats.crops import list_clips, list_faces
from hsemotion_space.training.formats.traces import read_traces
from hsemotion_space.training.heads import paper_options
from hsemotion_space.training.postprocess import (
    Smoothing,
    load_frame_rates,
    load_settings,
    post_process,
    save_settings,
)
from hsemotion_space.training.report import html_report, markdown_report
from hsemotion_space.training.scoring import TaskScore, score
from hsemotion_space.training.series import read_series, read_thresholds, write_series
from hsemotion_space.training.trained_head import challenge_task, load_head, save_head
from hsemotion_space.training.trained_head import predict as predict_with
from hsemotion_space.vision.engine import EngineOptions


def features(options: argparse.Namespace) -> int:
    """Extract features of face crops."""
    _extract(options, options.out)
    return 0


def traces(options: argparse.Namespace) -> int:
    """Write traces as label files."""
    series = list(read_traces(options.traces, options.frame_rate, options.lag))
    write_labels(options.out, VALENCE_AROUSAL, series)
    frames = sum(len(one.known) for one in series)
    print(f"Wrote labels of {len(series)} faces, {frames:,} frames, to {options.out}.")
    return 0


def _extract(options: argparse.Namespace, out: Path) -> None:
    settings = Settings.from_env()
    checkpoint = find_checkpoint(settings.checkpoint_roots, options.checkpoint)
    network = load_network(
        checkpoint, EngineOptions(settings.engine, settings.cache / "openvino", settings.threads)
    )
    faces = list_clips(options.faces) if options.any_names else list_faces(options.faces)
    speed = 0.0

    def show(done: int, faces_per_s: float) -> None:
        nonlocal speed
        speed = faces_per_s
        if sys.stderr.isatty():
            print(f"\r{done:,} faces, {speed:.0f} per second", end="", file=sys.stderr, flush=True)

    result = extract(faces, network, out, report=show)
    if not result.faces:
        raise DataError(
            "There is no picture; --faces needs folders with one folder of pictures per video.",
            code="no_faces",
        )
    print(
        f"Wrote features of {result.rows:,} of {result.faces:,} faces by {checkpoint.id} to {out},"
        f" {speed:.0f} per second"
    )
    for file, reason in result.skipped:
        print(f"  skipped {file}: {reason}")


def head(options: argparse.Namespace) -> int:
    """Train a head."""
    task, table = challenge_task(options.task), read_features(options.features)
    chosen = {
        name: getattr(options, name)
        for name in ("reads", *HEAD_OPTIONS)
        if getattr(options, name) is not None
    }
    if not table.scores.shape[1]:
        chosen.setdefault("reads", "embeddings")  # features from elsewhere have no scores
    trained = train_head(
        task,
        table,
        labels_of(options.labels, task),
        replace(paper_options(task), **chosen),
        options.tuning_share,
    )
    save_head(trained, options.out)
    record = trained.record
    print(
        f"{record['rows']:,} rows of {record['videos']} videos; choices are made on {record['tuning_videos']}"
        " videos"
    )
    measures = record["tuning_measures"]
    best = f", {max(measures):.4f} on the tuning videos" if isinstance(measures, list) and measures else ""
    print(
        f"Wrote the head for {task.title} to {options.out}: epoch {record['epoch']}{best}, temperature"
        f" {trained.temperature:g}"
    )
    return 0


def attach(options: argparse.Namespace) -> int:
    """Add a head to a checkpoint."""
    trained = load_head(options.head)
    thresholds = load_settings(options.post, trained.task).thresholds if options.post else ()
    checkpoint = attach_heads([Attachment(trained, options.note, thresholds)], options.checkpoint)
    print(f"The trained head now predicts {trained.task.title} of {checkpoint.id}")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Apply a head to features."""
    thresholds: tuple[float, ...] = ()
    table = read_features(options.features)
    if options.head:
        trained = load_head(options.head)
        task, predictions = trained.task, predict_with(trained, table)
    elif options.task:
        task = challenge_task(options.task)
        checkpoint = find_checkpoint(Settings.from_env().checkpoint_roots, options.checkpoint)
        predictions, thresholds = (
            checkpoint_predictions(checkpoint, table, task),
            checkpoint_thresholds(checkpoint, task),
        )
    else:
        return report_error("--checkpoint needs --task.", 2)
    count = write_series(options.out, task, predictions, thresholds)
    print(f"Wrote {count:,} predictions of {task.title} to {options.out}")
    return 0


def tune(options: argparse.Namespace) -> int:
    """Choose the settings of post-processing."""
    task = challenge_task(options.task)
    series = list(labels_of(options.labels, task))
    chosen = tuning_videos([item.video for item in series], options.tuning_share)
    labels = [item for item in series if item.video in chosen]
    boxes = options.box or [width / (30 if options.unit == "seconds" else 1) for width in PAPER_WINDOWS]
    smoothings = [Smoothing("box", width, options.unit) for width in boxes]
    smoothings += [Smoothing("gaussian", width, options.unit) for width in options.gaussian]
    settings = choose_settings(
        task,
        [list(read_series(file, task)) for file in options.predictions],
        labels,
        smoothings,
        weights=options.weights or BLEND_WEIGHTS,
        rates=load_frame_rates(options.frame_rates),
    )
    save_settings(settings, options.out)
    smoothing = settings.smoothing
    print(
        f"Chosen on {len(labels)} videos:",
        f"{smoothing.kind} of {smoothing.width:g} {smoothing.unit}" if smoothing.width else "no smoothing",
    )
    for name, values in (
        ("thresholds", settings.thresholds),
        ("weights of the first system", settings.weights),
    ):
        if values:
            print(f"  {name}: {', '.join(f'{value:g}' for value in values)}")
    return 0


def post(options: argparse.Namespace) -> int:
    """Complete, blend and smooth predictions."""
    task = challenge_task(options.task)
    settings, frames = load_settings(options.post, task), frames_of(options.frames, task)
    systems = [read_series(file, task) for file in options.predictions]
    predictions = post_process(settings, systems, frames, load_frame_rates(options.frame_rates))
    count = write_series(
        options.out, task, predictions, settings.thresholds or read_thresholds(options.predictions[0])
    )
    missing = sorted(frames.keys() - {series.video for series in predictions})
    print(f"Wrote {count:,} predictions to {options.out}; {len(missing)} of {len(frames)} videos have none")
    if missing:
        print(f"  without predictions: {', '.join(missing)}")
    return 0


def submit(options: argparse.Namespace) -> int:
    """Write a submission."""
    task = challenge_task(options.task)
    if len(options.predictions) != 1:
        return report_error(
            "A submission needs one file of predictions; blend two with `learn post` first.", 2
        )
    thresholds = (
        load_settings(options.post, task).thresholds
        if options.post
        else read_thresholds(options.predictions[0])
    )
    report = write_submission(
        options.out, task, read_series(options.predictions[0], task), options.frames, thresholds or None
    )
    print(f"Wrote {report.frames:,} rows to {options.out}, {report.interpolated:,} of them interpolated")
    if report.without_prediction:
        names = ", ".join(report.without_prediction)
        print(f"  {len(report.without_prediction)} videos without a prediction have neutral values: {names}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Score predictions, a submission or the heads of a checkpoint."""
    task = challenge_task(options.task)
    thresholds = load_settings(options.post, task).thresholds if options.post else ()
    labels = labels_of(options.labels, task)
    if options.predictions:
        submission = options.predictions.suffix == ".txt"
        read = submission_as_predictions if submission else read_series
        thresholds = thresholds if options.post or submission else read_thresholds(options.predictions)
        return _report(score(task, labels, read(options.predictions, task), thresholds or None), options)
    if not (options.features or options.faces):
        return report_error("--checkpoint needs --features or --faces.", 2)
    checkpoint = find_checkpoint(Settings.from_env().checkpoint_roots, options.checkpoint)
    predictions = checkpoint_predictions(checkpoint, _table(options), task)
    return _report(
        score(task, labels, predictions, thresholds or checkpoint_thresholds(checkpoint, task) or None),
        options,
    )


def _table(options: argparse.Namespace) -> FeatureTable:
    if options.features:
        return read_features(options.features)
    with tempfile.TemporaryDirectory() as folder:
        _extract(options, Path(folder))
        return read_features(Path(folder))


def _report(result: TaskScore, options: argparse.Namespace) -> int:
    if result.frames_missing_video == result.frames_labeled:
        return report_error("The predictions have none of the annotated videos; check their names.", 2)
    title = f"{result.task.title}: {options.predictions.name if options.predictions else options.checkpoint}"
    text = markdown_report(title, result)
    if options.report:
        options.report.write_text(
            html_report(title, result) if options.report.suffix == ".html" else text, "utf-8"
        )
    print(text)
    return 0
