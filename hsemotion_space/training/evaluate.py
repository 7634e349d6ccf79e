"""Measure a backbone on held-out faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hsemotion_space.metrics import confusion, f1_per_class, recall_per_class
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.augment import normalize, plain
from hsemotion_space.training.data import TEST, FaceImages
from hsemotion_space.training.recipe import Recipe

EVALUATION_BATCH = 128


@dataclass(frozen=True, slots=True)
class ExpressionResult:
    """Accuracy on one source, over the classes it has; ``confusion`` (8, 8), rows are targets."""

    count: int
    accuracy: float
    macro_f1: float
    recall: dict[str, float]
    confusion: list[list[int]]

    def as_dict(self) -> dict[str, object]:
        """Return the figures for a log, without the confusion matrix."""
        recall = {name: round(value, 4) for name, value in self.recall.items()}
        return {
            "count": self.count,
            "accuracy": round(self.accuracy, 4),
            "macro_f1": round(self.macro_f1, 4),
            "recall": recall,
        }


def predict_scores(
    model: nn.Module, faces: FaceImages, rows: np.ndarray, recipe: Recipe, background: float = 0.0
) -> np.ndarray:
    """Return scores (len(rows), K) of a model in evaluation mode, fed as in the recipe."""
    scores, device = [], next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        for start in range(0, len(rows), EVALUATION_BATCH):
            batch = plain(
                torch.from_numpy(faces.images[rows[start : start + EVALUATION_BATCH]]),
                recipe.size,
                background,
            )
            scores.append(model(normalize(batch, recipe.mean, recipe.std).to(device)).float().cpu().numpy())
    return np.concatenate(scores)


def score_expression(scores: np.ndarray, targets: np.ndarray) -> ExpressionResult:
    """Compare scores (N, 8 or more) with target distributions (N, 8).

    A class that no target has cannot be chosen, as in the 7-class accuracy of 8-class models.
    """
    truth = targets.argmax(1)
    present = np.isin(np.arange(len(EXPRESSION.labels)), truth)
    chosen = np.where(present, scores[:, : len(EXPRESSION.labels)], -np.inf).argmax(1)
    counts = confusion(chosen, truth, len(EXPRESSION.labels))
    recalls = zip(EXPRESSION.label_names, recall_per_class(counts), present, strict=True)
    recall = {name: float(value) for name, value, here in recalls if here}
    macro_f1 = float(f1_per_class(counts)[present].mean())
    return ExpressionResult(len(truth), float((chosen == truth).mean()), macro_f1, recall, counts.tolist())


def evaluate_expression(
    model: nn.Module, faces: FaceImages, recipe: Recipe, split: int = TEST, background: float = 0.0
) -> ExpressionResult:
    """Score a model on the counted rows of one split of one source."""
    rows = faces.rows(split, counted=True)
    return score_expression(predict_scores(model, faces, rows, recipe, background), faces.expression[rows])
