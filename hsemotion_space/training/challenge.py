"""The steps of the challenge as functions: train a head, tune, post-process, read a checkpoint's own heads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.weights import Layers, load_heads
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.tasks import Task
from hsemotion_space.training.calibration import fit_temperature, reliability
from hsemotion_space.training.data import DataError, fold_of
from hsemotion_space.training.feature_table import FeatureTable
from hsemotion_space.training.formats.affwild2 import audio_video, read_labels
from hsemotion_space.training.formats.hume import read_clip_labels
from hsemotion_space.training.formats.lists import read_frame_list, read_list
from hsemotion_space.training.formats.submission import read_submission
from hsemotion_space.training.heads import HeadOptions, fit_head, fit_scale
from hsemotion_space.training.postprocess import (
    GRID,
    Smoothing,
    blend_all,
    complete,
    smooth_all,
    tune_blend,
    tune_smoothing,
    tune_thresholds,
)
from hsemotion_space.training.scoring import score
from hsemotion_space.training.series import Series
from hsemotion_space.training.trained_head import TrainedHead, join, predict
from hsemotion_space.types import FloatArray, IntArray

PAPER_WINDOWS = (0, 3, 5, 7, 10, 15, 20, 25, 50, 100, 200)  # half widths in frames that the paper's notebooks tried


def labels_of(path: Path, task: Task) -> Iterator[Series]:
    """Read labels: a folder of Aff-Wild2 files, the csv of a clip-level task, or a file in the form of a submission."""
    if path.is_dir():
        return read_labels(path, task)
    return read_clip_labels(path) if task.scope == "clip" and path.suffix == ".csv" else read_submission(path, task)


def submitted(path: Path, task: Task) -> Iterator[Series]:
    """Read a submission as predictions: a class that was decided on has all of the probability."""
    for series in read_submission(path, task):
        whole = np.eye(len(task.labels), dtype=np.float32)[series.values[:, 0].astype(int)] if task.kind == "one_of" else series.values
        yield replace(series, values=whole)


def frames_of(path: Path, task: Task) -> dict[str, IntArray]:
    """Return the frames of each video that a prediction is wanted for: those of a folder of labels, or of an official list."""
    if path.is_dir():
        return {series.video: series.frames for series in labels_of(path, task)}
    frames: dict[str, list[int]] = {}
    clips = ((row.video, [row.frame]) for row in read_list(path, clips=True))
    for video, numbers in clips if task.scope == "clip" else read_frame_list(path):
        frames.setdefault(video, []).extend(numbers)
    return {video: np.array(sorted(numbers), np.int64) for video, numbers in frames.items()}


def tuning_videos(videos: Iterable[str], share: float) -> set[str]:
    """Return the videos of a training set that choices are made on: the same ones whenever the set and the share are the same.

    Both people of a recording are on one side; a share above 0 gives at least one recording of two or more.
    """
    given = list(videos)
    recordings = sorted({audio_video(video) for video in given}, key=lambda name: fold_of(name.encode()))
    count = min(max(round(share * len(recordings)), 1), len(recordings) - 1) if share > 0 else 0
    chosen = set(recordings[:count])
    return {video for video in given if audio_video(video) in chosen}


def measure(task: Task, labels: Sequence[Series], predictions: Sequence[Series], thresholds: Sequence[float] | None = None) -> float:
    """Return the official measure, without an interval."""
    return score(task, labels, predictions, thresholds, rounds=0).value


def train_head(task: Task, table: FeatureTable, labels: Iterable[Series], options: HeadOptions, share: float) -> TrainedHead:
    """Train on the labels of all but the tuning videos; choose the epoch and the temperature on those.

    Args:
        task: with the labels of the files.
        table: features; frames without a face have no row.
        labels: of a training set.
        options: of the head.
        share: of the videos that become tuning videos; 0 trains on everything and chooses nothing.

    Raises:
        DataError: if labels and features do not meet.
    """
    given = list(labels)
    chosen = tuning_videos([series.video for series in given], share)
    tuning = [series for series in given if series.video in chosen]
    training = [series for series in given if series.video not in chosen]
    rows = join(task, options.reads, table, training)

    def head(layers: Layers, temperature: float = 1.0, record: dict[str, object] | None = None) -> TrainedHead:
        return TrainedHead(task, options.reads, layers, temperature, table.checkpoint, table.sha256, record or {})

    def value(layers: Layers) -> float:
        return measure(task, tuning, list(predict(head(layers), table, [series.video for series in tuning])))

    fitted = fit_head(task, rows.inputs, rows.targets, options, value if tuning else None)
    layers = (
        fit_scale(fitted.layers, rows.inputs.astype(np.float32), rows.targets.astype(np.float32)) if task.scope == "clip" else fitted.layers
    )
    record: dict[str, object] = {
        "options": asdict(options), "rows": len(rows.inputs), "annotated_without_features": rows.without_features,
        "videos": len(training), "tuning_videos": len(tuning), "tuning_share": share, "epoch": fitted.epoch,
        "losses": [round(loss, 5) for loss in fitted.losses], "tuning_measures": [round(number, 5) for number in fitted.measures],
    }  # fmt: skip
    temperature = 1.0
    if tuning and task.kind != "continuous" and task.scope == "frame":
        held = join(task, options.reads, table, tuning)
        raw = head(layers).raw(held.inputs)
        temperature = fit_temperature(task, raw, held.targets)
        errors = [round(reliability(task, raw, held.targets, number).error, 4) for number in (1.0, temperature)]
        record["tuning_ece"] = {"before": errors[0], "after": errors[1]}
    return head(layers, temperature, record)


@dataclass(frozen=True, slots=True)
class Post:
    """Settings of everything after the heads: the weight of the first of two systems per label (empty for one system)."""

    task: Task
    smoothing: Smoothing
    thresholds: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()


def save_post(post: Post, file: Path) -> None:
    """Write the settings as JSON."""
    given = asdict(post) | {"task": post.task.name}
    file.write_text(json.dumps(given, indent=1) + "\n", "utf-8")


def load_post(file: Path, task: Task) -> Post:
    """Read what :func:`save_post` wrote.

    Raises:
        DataError: if the file is not of that form or belongs to another task.
    """
    try:
        given = json.loads(file.read_text("utf-8"))
        if given["task"] != task.name:
            raise DataError(f"{file} was tuned for {given['task']}, not for {task.name}.")
        post = Post(task, Smoothing(**given["smoothing"]), tuple(given["thresholds"]), tuple(given["weights"]))
        if any(len(numbers) not in (0, len(task.labels)) for numbers in (post.thresholds, post.weights)):
            raise ValueError(f"thresholds and weights must be none or {len(task.labels)}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError(f"{file} has no usable settings: {error}.") from error
    return post


def load_rates(file: Path | None) -> dict[str, float]:
    """Read frames per second by video from a JSON object; an empty table without a file.

    Raises:
        DataError: if the file is not of that form.
    """
    if file is None:
        return {}
    try:
        rates = {str(video): float(rate) for video, rate in json.loads(file.read_text("utf-8")).items()}
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file} must be a JSON object of frames per second by video: {error}.") from error
    if wrong := [video for video, rate in rates.items() if not rate > 0]:
        raise DataError(f"{file}: the frame rate of {wrong[0]} must be positive.")
    return rates


@dataclass(frozen=True, slots=True)
class Choices:
    """What :func:`tune` may choose from; ``rates`` gives frames per second by video for widths in seconds, 30 where it is silent."""

    smoothings: tuple[Smoothing, ...]
    weights: tuple[float, ...] = (0.0, *GRID, 1.0)
    rates: Mapping[str, float] = field(default_factory=dict)


def tune(task: Task, systems: Sequence[Sequence[Series]], labels: Sequence[Series], choices: Choices) -> Post:
    """Choose the blend of two systems, the smoothing and then the thresholds on labels of tuning videos.

    Args:
        task: with the labels of the files.
        systems: one or two, each with raw predictions.
        labels: of the tuning videos.
        choices: what to try; a clip-level task is never smoothed.

    Raises:
        DataError: if the labels name no video of the predictions.
    """
    if not labels:
        raise DataError(f"There is no tuning video for {task.name}; give a larger --tuning-share, or labels of two recordings or more.")
    if not 1 <= len(systems) <= 2:
        raise DataError(f"One system of predictions can be tuned, or two can be blended; {len(systems)} were given.")
    wanted = {series.video: series.frames for series in labels}
    whole = [[complete(series, wanted[series.video]) for series in system if series.video in wanted] for system in systems]
    if not all(whole):
        raise DataError(f"The tuning labels name no video of the predictions of {task.name}.")
    best, value = Post(task, Smoothing()), -np.inf
    for candidate in choices.smoothings if task.scope == "frame" else [Smoothing()]:
        smoothed = [smooth_all(system, candidate, choices.rates) for system in whole]
        weights = _blend_weights(task, smoothed, labels, choices.weights)
        mixed = blend_all(smoothed[0], smoothed[1], weights) if weights else smoothed[0]
        reached = tune_smoothing(task, mixed, labels, [Smoothing()], measure)[1][0][1]
        if reached > value:
            best, value = Post(task, candidate, (), weights), reached
    if task.kind == "independent" and task.scope == "frame":
        mixed = post_process(best, whole, wanted, choices.rates)
        best = Post(task, best.smoothing, tune_thresholds(task, mixed, labels), best.weights)
    return best


def _blend_weights(task: Task, systems: Sequence[Sequence[Series]], labels: Sequence[Series], grid: Sequence[float]) -> tuple[float, ...]:
    if len(systems) == 1:
        return ()
    return tune_blend(task, (systems[0], systems[1]), labels, measure, grid, per_label=task.scope == "clip")[0]


def post_process(
    post: Post, systems: Sequence[Iterable[Series]], wanted: dict[str, IntArray], rates: Mapping[str, float] | None = None
) -> list[Series]:
    """Complete the predictions over the wanted frames, blend two systems, then smooth.

    Raises:
        DataError: if the number of systems is not that of the settings.
    """
    if len(systems) != (2 if post.weights else 1):
        raise DataError(f"The settings are for {2 if post.weights else 1} systems of predictions, {len(systems)} were given.")
    whole = [[complete(series, wanted[series.video]) for series in system if series.video in wanted] for system in systems]
    mixed = blend_all(whole[0], whole[1], post.weights) if post.weights else whole[0]
    return smooth_all(mixed, post.smoothing, rates)


def checkpoint_thresholds(checkpoint: Checkpoint, task: Task) -> tuple[float, ...]:
    """Return the thresholds of a checkpoint's head in the order of the labels of ``task``, () if it has none."""
    spec = checkpoint.head(task.name)
    if spec is None or not spec.thresholds:
        return ()
    return tuple(spec.thresholds[spec.task.index(name)] for name in task.label_names)


def checkpoint_predictions(checkpoint: Checkpoint, table: FeatureTable, task: Task) -> Iterator[Series]:
    """Yield what the heads of a checkpoint say about one task, video by video, unsmoothed, with the labels of the challenge.

    As in the paper, the class Other takes the probability of Contempt, which the files do not have.

    Raises:
        DataError: if the checkpoint has no head for the task, or the features are of other weights.
    """
    spec = checkpoint.head(task.name)
    if spec is None:
        raise DataError(f"{checkpoint.title} has no head for {task.title.lower()}.")
    if table.sha256 != checkpoint.sha256:
        raise DataError(f"The features are of {table.checkpoint or 'elsewhere'}, not of the weights of {checkpoint.title}.")
    taken = {name: "Contempt" if name == "Other" and name not in spec.task.label_names else name for name in task.label_names}
    if missing := [name for name, source in taken.items() if source not in spec.task.label_names]:
        raise DataError(f"{checkpoint.title} has no label {', '.join(missing)} of {task.title.lower()}.")
    columns = [spec.task.index(name) for name in taken.values()]
    weights = load_heads(checkpoint)
    for video in table.videos:
        rows = table.rows(video)
        frames = table.frames[rows]
        values = {head.task.name: part for head, part in apply_heads(checkpoint, weights, _Rows(table, rows))}.get(task.name)
        if values is not None:
            yield Series(video, np.zeros(1, np.int64) if task.scope == "clip" else frames, values[:, columns])


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of a table as the outputs of a backbone."""

    table: FeatureTable
    rows: slice | None

    @property
    def embeddings(self) -> FloatArray:
        return self.table.embeddings[self.rows].astype(np.float32)

    @property
    def scores(self) -> FloatArray:
        return self.table.scores[self.rows]
