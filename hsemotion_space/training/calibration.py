"""Calibration of a head on tuning pictures: temperature (Guo et al., 2017) and reliability of answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

from hsemotion_space.inference.heads import activate
from hsemotion_space.metrics import CalibrationBins, calibration_bins
from hsemotion_space.tasks import Task
from hsemotion_space.training.files import DataError
from hsemotion_space.types import FloatArray, Reliability

Targets = npt.NDArray[np.int64] | FloatArray
MAX_TEMPERATURE = 20.0  # the search goes from 1/20 to 20
# below, a temperature follows the accidents of the tuning rows; measured on 73 rows, it made things worse
MIN_ROWS = 200


def negative_log_likelihood(task: Task, logits: FloatArray, targets: Targets, temperature: float) -> float:
    """Return the mean negative log-likelihood of classes (N,) or units (N, K) at a temperature."""
    scaled = torch.from_numpy(logits.astype(np.float64) / temperature)
    if task.kind == "one_of":
        return float(functional.cross_entropy(scaled, torch.from_numpy(targets.astype(np.int64))))
    return float(
        functional.binary_cross_entropy_with_logits(scaled, torch.from_numpy(targets.astype(np.float64)))
    )


def fit_temperature(task: Task, logits: FloatArray, targets: Targets) -> float:
    """Return the temperature with the smallest negative log-likelihood of the tuning rows, to three digits.

    The task is ``one_of`` with class indices (N,), or ``independent`` with zeros and ones (N, K); logits are
    (N, K).
    """
    if task.kind == "continuous" or not len(logits):
        template = "A temperature needs rows of a task with probabilities; {task} has {rows} rows."
        raise DataError(template, code="no_rows", task=task.name, rows=len(logits))
    limit = float(np.log(MAX_TEMPERATURE))
    result = minimize_scalar(
        lambda log: negative_log_likelihood(task, logits, targets, float(np.exp(log))),
        bounds=(-limit, limit),
        method="bounded",
    )
    return float(f"{np.exp(result.x):.3g}")


def calibration_of(
    task: Task, logits: FloatArray, targets: Targets, temperature: float = 1.0
) -> CalibrationBins:
    """Return the bins of a reliability diagram: of the top class (one-of) or of every unit (independent)."""
    return bins_of_values(task, activate(task, logits, temperature), targets)


def bins_of_values(task: Task, values: FloatArray, targets: Targets) -> CalibrationBins:
    """Return the bins of :func:`calibration_of` for values (N, K); none for a task without probabilities."""
    if task.kind == "one_of":
        return calibration_bins(values.max(1), values.argmax(1) == targets.ravel())
    if task.kind == "independent" and task.scope == "frame":
        return calibration_bins(values.ravel(), targets.ravel() > 0.5)
    return CalibrationBins(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))


def calibrate(
    task: Task, tuning: tuple[FloatArray, Targets], test: tuple[FloatArray, Targets]
) -> tuple[float, float, float]:
    """Return a temperature and the expected calibration errors on the test rows, before and after.

    The temperature is fitted on the (logits, targets) of the tuning rows; it is 1 if there are fewer than
    200.
    """
    temperature = fit_temperature(task, *tuning) if len(tuning[0]) >= MIN_ROWS else 1.0
    return temperature, calibration_of(task, *test).error, calibration_of(task, *test, temperature).error


def reliability_of(counts: npt.NDArray[np.int64], pictures: str) -> Reliability:
    """Return how often each answer is right from (K, K) counts on tuning pictures, rows are targets."""
    return Reliability(tuple(np.diag(counts).tolist()), tuple(counts.sum(0).tolist()), pictures)


def reliability_of_units(
    values: FloatArray, present: npt.NDArray[np.generic], thresholds: tuple[float, ...], pictures: str
) -> Reliability:
    """Return how often "present" is right for values (N, K), targets (N, K) and thresholds (K,)."""
    answers, truth = values >= np.array(thresholds, np.float32), np.asarray(present) > 0.5
    return Reliability(tuple((answers & truth).sum(0).tolist()), tuple(answers.sum(0).tolist()), pictures)
