"""Heads of a starter from posed still pictures: action units, compound expressions, and the temperature of the expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hsemotion_space.hub.manifest import Checkpoint, HeadSpec
from hsemotion_space.hub.weights import Layers
from hsemotion_space.inference.heads import activate, pair_mean
from hsemotion_space.tasks import ACTION_UNITS, COMPOUND_EXPRESSION, EXPRESSION, Task
from hsemotion_space.training.attach import Attachment
from hsemotion_space.training.augment import Augmentation, augment, plain
from hsemotion_space.training.calibration import calibrate, fit_temperature, reliability
from hsemotion_space.training.data import TEST, TRAINING, TUNING, DataError, FaceImages, cut_face, open_picture, split_of
from hsemotion_space.training.heads import Features, HeadOptions, fit_head, undo_balance
from hsemotion_space.training.postprocess import tune_thresholds
from hsemotion_space.training.reliability import count_confusions, reliability_of, reliability_of_units
from hsemotion_space.training.scoring import TaskScore, score
from hsemotion_space.training.series import Series
from hsemotion_space.training.trained_head import TrainedHead
from hsemotion_space.types import ByteArray, FloatArray, IntArray, Reliability
from hsemotion_space.vision.backbones import Backbone

TUNING_SHARE = 0.1  # of the subjects, as in the recipes of the starters
VIEWS = 8  # augmented views of each training picture, beside the plain one
GENTLE = Augmentation(rotation=8, scale=0.06, shift=0.04, keep_mask=0, random_mask=0, gray=0.2, color=0.2, blur=0.1, erase=0)
POSED_PICTURES = "posed pictures of the tuning people"
THRESHOLDS = (0.02, 0.05, *(step / 20 for step in range(2, 19)))
OPTIONS = {
    ACTION_UNITS.name: HeadOptions(epochs=20, batch=256, l2=1e-4, dropout=0.3),
    COMPOUND_EXPRESSION.name: HeadOptions(epochs=20, batch=128, l2=1e-4, dropout=0.3),
}


@dataclass(frozen=True, slots=True)
class PosedFaces:
    """Posed pictures with action units and compound expressions.

    Attributes:
        images: (N, S, S, 4) RGBA.
        subjects: (N,) who is on each picture.
        split: (N,) by subject, as in :class:`~hsemotion_space.training.data.FaceImages`.
        units: (N, 12) zeros and ones in the order of the task.
        compound: (N,) index into the compound expressions, -1 for another category.
    """

    images: ByteArray
    subjects: tuple[str, ...]
    split: ByteArray
    units: FloatArray
    compound: IntArray

    def rows(self, task: Task, split: int) -> IntArray:
        """Return the rows of a split that have a label of a task."""
        labeled = self.compound >= 0 if task.kind == "one_of" else np.ones(len(self.split), np.bool_)
        return np.flatnonzero((self.split == split) & labeled)

    def targets(self, task: Task) -> IntArray | FloatArray:
        """Return class indices (N,) or units (N, 12)."""
        return self.compound if task.kind == "one_of" else self.units


def load_posed(files: Sequence[Path], size: int) -> PosedFaces:
    """Read Parquet files with ``image``, ``face_box``, ``subject``, ``category`` and one column per action unit.

    Raises:
        DataError: if a file is not of that form.
    """
    names = {name.lower(): place for place, name in enumerate(COMPOUND_EXPRESSION.label_names)}
    images, subjects, units, compound = [], [], [], []
    for file in files:
        try:
            for batch in pq.ParquetFile(file).iter_batches(256):
                for row in batch.to_pylist():
                    picture = open_picture(row["image"]["bytes"])
                    box = [share * side for share, side in zip(row["face_box"], picture.size * 2, strict=True)]
                    images.append(cut_face(picture, box, size))
                    subjects.append(str(row["subject"]))
                    units.append([float(row[name]) for name in ACTION_UNITS.label_names])
                    compound.append(names.get(row["category"].lower(), -1))
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            raise DataError(f"{file} row {len(images) + 1}: not a posed picture with its units ({error!r}).") from error
    if not images:
        raise DataError("No posed picture was found.")
    split = np.array([split_of(subject.encode(), None, TUNING_SHARE) for subject in subjects], np.uint8)
    return PosedFaces(np.stack(images), tuple(subjects), split, np.array(units, np.float32), np.array(compound, np.int64))


class Embedder:
    """A backbone on pictures of the training data: (n, S, S, 4) RGBA to embeddings (n, D) and scores (n, K)."""

    def __init__(self, checkpoint: Checkpoint, backbone: Backbone) -> None:
        self.checkpoint, self.backbone = checkpoint, backbone

    def __call__(self, images: ByteArray, generator: torch.Generator | None = None) -> tuple[FloatArray, FloatArray]:
        """Return embeddings and scores, of augmented pictures if a generator is given."""
        spec, parts = self.checkpoint.input, []
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
        with torch.inference_mode():
            for start in range(0, len(images), 128):
                batch = torch.from_numpy(images[start : start + 128])
                x = plain(batch, spec.size) if generator is None else augment(batch, spec.size, GENTLE, generator)
                parts.append(tuple(part.numpy() for part in self.backbone((x - mean) / std)))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@dataclass(frozen=True, slots=True)
class HeadResult:
    """A head and its score on subjects that neither it nor the backbone has seen."""

    attachment: Attachment
    score: TaskScore
    ece_before: float
    rule: TaskScore | None = None  # the untrained rule on the same pictures


@dataclass(frozen=True, slots=True)
class _Task:
    """What the heads of one task need: plain outputs of all pictures (N, D) and (N, K), inputs and targets with augmented views."""

    task: Task
    faces: PosedFaces
    embeddings: FloatArray
    scores: FloatArray
    inputs: Features
    targets: IntArray | FloatArray


def train_posed_heads(faces: PosedFaces, embed: Embedder, seed: int = 0) -> list[HeadResult]:
    """Train the heads for action units and compound expressions; choose epoch, temperature and thresholds on the tuning subjects.

    Args:
        faces: posed pictures.
        embed: the frozen backbone.
        seed: of the augmented views.
    """
    embeddings, scores = embed(faces.images)
    generator = torch.Generator().manual_seed(seed)
    training = np.flatnonzero(faces.split == TRAINING)
    views = [embeddings[training], *(embed(faces.images[training], generator)[0] for _ in range(VIEWS))]
    results = []
    for task in (ACTION_UNITS, COMPOUND_EXPRESSION):
        chosen = np.isin(training, faces.rows(task, TRAINING))
        inputs = np.concatenate([view[chosen] for view in views])
        targets = np.concatenate([faces.targets(task)[training[chosen]]] * len(views))
        results.append(_train(_Task(task, faces, embeddings, scores, inputs, targets), embed.checkpoint))
    return results


def _train(given: _Task, checkpoint: Checkpoint) -> HeadResult:
    task, faces, truth = given.task, given.faces, given.faces.targets(given.task)
    tuning, test = faces.rows(task, TUNING), faces.rows(task, TEST)
    held = series_of(faces, tuning, truth)

    def head(layers: Layers, temperature: float = 1.0) -> TrainedHead:
        return TrainedHead(task, "embeddings", layers, temperature, checkpoint.id, checkpoint.sha256, {})

    def measure(layers: Layers) -> float:
        return score(task, held, series_of(faces, tuning, head(layers).values(given.embeddings)), rounds=0).value

    fitted = fit_head(task, given.inputs, given.targets, OPTIONS[task.name], measure)
    layers = undo_balance(fitted.layers, given.faces.units[faces.rows(task, TRAINING)]) if task.kind == "independent" else fitted.layers
    raw = head(layers).raw(given.embeddings)
    calibration = calibrate(task, (raw[tuning], truth[tuning]), (raw[test], truth[test]))
    trained = head(layers, calibration.temperature)
    values = trained.values(given.embeddings)
    thresholds: tuple[float, ...] = ()
    if task.kind == "independent":
        thresholds = tune_thresholds(task, series_of(faces, tuning, values), held, THRESHOLDS)
    labels = series_of(faces, test, truth)
    reached = score(task, labels, series_of(faces, test, values), thresholds or None)
    rule = score(task, labels, series_of(faces, test, _rule(given, checkpoint))) if task.kind == "one_of" else None
    reliability = (
        reliability_of_units(values[tuning], truth[tuning], thresholds, POSED_PICTURES)
        if thresholds
        else reliability_of(count_confusions(task, values[tuning], truth[tuning].astype(np.int64)), POSED_PICTURES)
    )
    return HeadResult(Attachment(trained, "", thresholds, reliability), reached, calibration.ece_before, rule)


def _rule(given: _Task, checkpoint: Checkpoint) -> FloatArray:
    """Return what the untrained rule of the paper gives for all pictures."""
    spec = expression_head(checkpoint)
    return pair_mean(given.task, spec.task, activate(spec.task, given.scores[:, list(spec.columns)], spec.temperature))


def expression_head(checkpoint: Checkpoint) -> HeadSpec:
    """Return the head that reads expressions from the scores of the backbone.

    Raises:
        DataError: if there is none.
    """
    spec = checkpoint.head(EXPRESSION.name)
    if spec is None or spec.kind != "scores":
        raise DataError(f"{checkpoint.title} does not read expressions from its scores.")
    return spec


def series_of(faces: PosedFaces, rows: IntArray, values: npt.NDArray[np.generic]) -> list[Series]:
    """Return targets or predictions (N,) or (N, K) of all pictures as one series per subject, with the chosen rows alone."""
    names, columns = np.array(faces.subjects)[rows], values[rows].reshape(len(rows), -1).astype(np.float32)
    return [Series(str(name), rows[names == name] + 1, columns[names == name]) for name in np.unique(names)]


@dataclass(frozen=True, slots=True)
class ExpressionCalibration:
    """What was measured of the expression scores.

    Attributes:
        temperature: fitted on the tuning pictures of all sources together.
        ece: calibration errors on the test pictures of each source, before and after.
        confusion: (K, K) counts on the same tuning pictures, rows are targets.
        reliability: of the answers, from these counts.
    """

    temperature: float
    ece: dict[str, tuple[float, float]]
    confusion: IntArray
    reliability: Reliability


@dataclass(frozen=True, slots=True)
class SeenFaces:
    """What the backbone gave for the pictures of one split of one source that have a sure label of one expression.

    Votes without a majority of six and pictures of two expressions are left out.

    Attributes:
        source, split: as in :class:`~hsemotion_space.training.data.FaceImages`.
        embeddings: (N, D).
        logits: (N, K) raw scores of the expressions.
        targets: (N,) index of the expression.
    """

    source: str
    split: int
    embeddings: FloatArray
    logits: FloatArray
    targets: IntArray


def see_faces(sources: Sequence[FaceImages], embed: Embedder) -> list[SeenFaces]:
    """Run the backbone on the tuning and the test pictures of each source that has labels."""
    columns, seen = list(expression_head(embed.checkpoint).columns), []
    for source in (source for source in sources if source.counted.any()):
        for split in (TUNING, TEST):
            rows = source.rows(split, counted=True)
            embeddings, scores = embed(source.images[rows])
            seen.append(SeenFaces(source.source, split, embeddings, scores[:, columns], source.expression[rows].argmax(1)))
    return seen


def calibrate_expression(seen: Sequence[SeenFaces]) -> ExpressionCalibration:
    """Fit one temperature on the tuning pictures of all sources together, measure it on the test pictures, and count the right answers."""
    tuning = [part for part in seen if part.split == TUNING]
    scores, targets = np.concatenate([part.logits for part in tuning]), np.concatenate([part.targets for part in tuning])
    temperature = fit_temperature(EXPRESSION, scores, targets)
    counts = count_confusions(EXPRESSION, scores, targets)
    pictures = f"tuning pictures of {', '.join(part.source for part in tuning)}"
    ece = {}
    for part in seen:
        if part.split == TEST:
            test = part.logits, part.targets
            ece[part.source] = reliability(EXPRESSION, *test).error, reliability(EXPRESSION, *test, temperature).error
    return ExpressionCalibration(temperature, ece, counts, reliability_of(counts, pictures))
