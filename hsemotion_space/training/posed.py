"""Heads of a starter from posed pictures: action units and compound expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hsemotion_space.hub.manifest import Checkpoint, HeadSpec
from hsemotion_space.hub.weights import Layers
from hsemotion_space.inference.heads import activate, pair_mean
from hsemotion_space.metrics import confusion
from hsemotion_space.tasks import ACTION_UNITS, COMPOUND_EXPRESSION, EXPRESSION, Task
from hsemotion_space.training.attach import Attachment
from hsemotion_space.training.augment import Augmentation, augment, normalize, plain
from hsemotion_space.training.calibration import calibrate, reliability_of, reliability_of_units
from hsemotion_space.training.challenge import measure, tune_thresholds
from hsemotion_space.training.data import TEST, TRAINING, TUNING, split_of, table_rows
from hsemotion_space.training.feature_table import Outputs
from hsemotion_space.training.files import DataError, reading
from hsemotion_space.training.heads import Features, HeadOptions, fit_head, undo_balance
from hsemotion_space.training.pictures import LazyPictures, Picture
from hsemotion_space.training.scoring import TaskScore, score
from hsemotion_space.training.series import Series
from hsemotion_space.training.trained_head import TrainedHead
from hsemotion_space.types import ByteArray, FloatArray, IntArray
from hsemotion_space.vision.backbones import Backbone

TUNING_SHARE = 0.1  # of the subjects, as in the recipes of the starters
VIEWS = 8  # augmented views of each training picture, beside the plain one
GENTLE = Augmentation(
    rotation=8, scale=0.06, shift=0.04, keep_mask=0, random_mask=0, gray=0.2, color=0.2, blur=0.1, erase=0
)
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
    """Read Parquet files with ``image``, ``face_box``, ``subject``, ``category`` and a column per unit."""
    classes = {name.lower(): place for place, name in enumerate(COMPOUND_EXPRESSION.label_names)}
    pictures, subjects, units, compound = [], [], [], []
    for file in files:
        for number, row in enumerate(table_rows(file), 1):
            place = f"{file}, row {number}"
            with reading(place, "posed picture with its units", "posed"):
                pictures.append(Picture(row["image"]["bytes"], row["face_box"], place))  # type: ignore[index, arg-type]
                subjects.append(str(row["subject"]))
                units.append([float(row[name]) for name in ACTION_UNITS.label_names])  # type: ignore[arg-type]
                compound.append(classes.get(str(row["category"]).lower(), -1))
    if not pictures:
        raise DataError("There is no posed picture; check --posed.", code="no_posed")
    images = LazyPictures(pictures, size, relative=True)[np.arange(len(pictures))]
    split = np.array([split_of(subject.encode(), None, TUNING_SHARE) for subject in subjects], np.uint8)
    return PosedFaces(
        images, tuple(subjects), split, np.array(units, np.float32), np.array(compound, np.int64)
    )


class Embedder:
    """A backbone on training pictures: (n, S, S, 4) RGBA to embeddings (n, D) and scores (n, K)."""

    def __init__(self, checkpoint: Checkpoint, backbone: Backbone) -> None:
        self.checkpoint, self.backbone = checkpoint, backbone

    def __call__(self, images: ByteArray, generator: torch.Generator | None = None) -> Outputs:
        """Return embeddings and scores, of augmented pictures if a generator is given."""
        spec, batches = self.checkpoint.input, []
        with torch.inference_mode():
            for start in range(0, len(images), 128):
                batch = torch.from_numpy(images[start : start + 128])
                x = (
                    plain(batch, spec.size)
                    if generator is None
                    else augment(batch, spec.size, GENTLE, generator)
                )
                outputs = self.backbone(normalize(x, spec.mean, spec.std))
                batches.append(tuple(tensor.numpy() for tensor in outputs))
        return Outputs(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))


@dataclass(frozen=True, slots=True)
class HeadResult:
    """A head and its score on subjects that neither it nor the backbone has seen."""

    attachment: Attachment
    score: TaskScore
    ece_before: float
    rule: TaskScore | None = None  # the untrained rule on the same pictures


def train_posed_heads(faces: PosedFaces, embed: Embedder) -> list[HeadResult]:
    """Train the heads for action units and compound expressions on embeddings of a frozen backbone.

    Epoch, temperature and thresholds are chosen on the tuning subjects.
    """
    outputs = embed(faces.images)
    generator = torch.Generator().manual_seed(0)
    training = np.flatnonzero(faces.split == TRAINING)
    views = [
        outputs.embeddings[training],
        *(embed(faces.images[training], generator).embeddings for _ in range(VIEWS)),
    ]
    results = []
    for task in (ACTION_UNITS, COMPOUND_EXPRESSION):
        labeled = np.isin(training, faces.rows(task, TRAINING))
        inputs = np.concatenate([view[labeled] for view in views])
        targets = np.concatenate([faces.targets(task)[training[labeled]]] * len(views))
        results.append(_train(task, faces, outputs, (inputs, targets), embed.checkpoint))
    return results


def _train(
    task: Task,
    faces: PosedFaces,
    outputs: Outputs,
    training: tuple[Features, IntArray | FloatArray],
    checkpoint: Checkpoint,
) -> HeadResult:
    """Train one head; ``outputs`` are of all pictures, ``training`` of the training pictures' views."""
    truth, tuning, test = faces.targets(task), faces.rows(task, TUNING), faces.rows(task, TEST)
    tuning_labels, test_labels = (series_of(faces, rows, truth) for rows in (tuning, test))

    def head(layers: Layers, temperature: float = 1.0) -> TrainedHead:
        return TrainedHead(task, "embeddings", layers, temperature, checkpoint.id, checkpoint.sha256, {})

    def value(layers: Layers) -> float:
        return measure(task, tuning_labels, series_of(faces, tuning, head(layers).values(outputs.embeddings)))

    layers = fit_head(task, *training, OPTIONS[task.name], value).layers
    if task.kind == "independent":
        layers = undo_balance(layers, faces.units[faces.rows(task, TRAINING)])
    raw = head(layers).raw(outputs.embeddings)
    temperature, ece_before, _ = calibrate(task, (raw[tuning], truth[tuning]), (raw[test], truth[test]))
    trained = head(layers, temperature)
    values = trained.values(outputs.embeddings)
    if task.kind == "independent":
        thresholds = tune_thresholds(task, series_of(faces, tuning, values), tuning_labels, THRESHOLDS)
        reliability = reliability_of_units(values[tuning], truth[tuning], thresholds, POSED_PICTURES)
        reached = score(task, test_labels, series_of(faces, test, values), thresholds)
        return HeadResult(Attachment(trained, "", thresholds, reliability), reached, ece_before)
    counts = confusion(values[tuning].argmax(1), truth[tuning], len(task.labels))
    reached, rule = (
        score(task, test_labels, series_of(faces, test, by))
        for by in (values, _rule(task, outputs.scores, checkpoint))
    )
    return HeadResult(
        Attachment(trained, "", (), reliability_of(counts, POSED_PICTURES)), reached, ece_before, rule
    )


def _rule(task: Task, scores: FloatArray, checkpoint: Checkpoint) -> FloatArray:
    """Return the values of the paper's untrained rule for all pictures."""
    spec = expression_head(checkpoint)
    return pair_mean(task, spec.task, activate(spec.task, scores[:, list(spec.columns)], spec.temperature))


def expression_head(checkpoint: Checkpoint) -> HeadSpec:
    """Return the head that reads expressions from the scores of the backbone."""
    spec = checkpoint.head(EXPRESSION.name)
    if spec is None or spec.kind != "scores":
        template = "{checkpoint} does not read expressions from its scores."
        raise DataError(template, code="no_expression", checkpoint=checkpoint.title)
    return spec


def series_of(faces: PosedFaces, rows: IntArray, values: npt.NDArray[np.generic]) -> list[Series]:
    """Return targets or predictions (N,) or (N, K) as one series per subject, of the chosen rows."""
    names, columns = np.array(faces.subjects)[rows], values[rows].reshape(len(rows), -1).astype(np.float32)
    return [Series(str(name), rows[names == name] + 1, columns[names == name]) for name in np.unique(names)]
