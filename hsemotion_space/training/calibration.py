"""Temperature scaling: one number per task that makes probabilities mean what they say (Guo et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from hsemotion_space.inference.heads import activate
from hsemotion_space.metrics import CalibrationBins, calibration_bins
from hsemotion_space.tasks import Task
from hsemotion_space.training.data import DataError
from hsemotion_space.types import FloatArray

Targets = npt.NDArray[np.int64] | FloatArray
HOTTEST = 20.0  # temperatures are searched from 1/20 to 20


def negative_log_likelihood(task: Task, logits: FloatArray, targets: Targets, temperature: float) -> float:
    """Return the mean negative log-likelihood of class indices (N,) or units (N, K) under logits (N, K) at a temperature."""
    scaled = logits.astype(np.float64) / temperature
    if task.kind == "one_of":
        top = scaled.max(1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(1))
        return float((total - scaled[np.arange(len(scaled)), targets.astype(np.int64)]).mean())
    return float((np.logaddexp(0, scaled) - targets * scaled).mean())


def fit_temperature(task: Task, logits: FloatArray, targets: Targets) -> float:
    """Return the temperature with the smallest negative log-likelihood, rounded to three digits.

    Args:
        task: ``one_of`` or ``independent``.
        logits: (N, K) raw outputs on the tuning rows.
        targets: (N,) class indices, or (N, K) zeros and ones.

    Raises:
        DataError: if there are no rows or the task has no probabilities.
    """
    if task.kind == "continuous" or not len(logits):
        raise DataError(f"A temperature needs rows of a task with probabilities; {task.name} has {len(logits)} rows.")
    limit = float(np.log(HOTTEST))
    found = minimize_scalar(
        lambda log: negative_log_likelihood(task, logits, targets, float(np.exp(log))), bounds=(-limit, limit), method="bounded"
    )
    return float(f"{np.exp(found.x):.3g}")


def reliability(task: Task, logits: FloatArray, targets: Targets, temperature: float = 1.0) -> CalibrationBins:
    """Return the bins of a reliability diagram: of the top class of a ``one_of`` task, of every unit of an ``independent`` one."""
    values = activate(task, logits, temperature)
    if task.kind == "one_of":
        return calibration_bins(values.max(1), values.argmax(1) == targets)
    return calibration_bins(values.ravel(), targets.ravel() > 0.5)


FEWEST_ROWS = 200  # below, a temperature follows the accidents of the tuning rows; measured on 73 rows, it made things worse


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted temperature and the expected calibration errors on other rows, before and after."""

    temperature: float
    ece_before: float
    ece_after: float


def calibrate(task: Task, tuning: tuple[FloatArray, Targets], test: tuple[FloatArray, Targets]) -> Calibration:
    """Fit on the (logits, targets) of the tuning rows, unless there are fewer than 200, and measure on those of the test rows."""
    temperature = fit_temperature(task, *tuning) if len(tuning[0]) >= FEWEST_ROWS else 1.0
    return Calibration(temperature, reliability(task, *test).error, reliability(task, *test, temperature).error)
