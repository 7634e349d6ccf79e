"""Proxy valence and arousal from votes for expressions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hsemotion_space.metrics import concordance
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import DataError, FaceImages
from hsemotion_space.types import FloatArray


@dataclass(frozen=True, slots=True)
class VoteRegression:
    """Linear map from a distribution of expression votes to the crowd's mean valence and arousal.

    Attributes:
        coefficients: (8, 2), one valence and arousal per expression.
        ccc_out_of_sample: concordance of (valence, arousal), each half of the ratings predicted from a fit on the other half.
    """

    coefficients: FloatArray
    ccc_out_of_sample: tuple[float, float]


def fit_votes(csv_file: Path) -> VoteRegression:
    """Fit valence and arousal on expression votes by least squares, one coefficient per expression (no intercept).

    Args:
        csv_file: columns ``set``, ``votes_<expression>`` x 8, ``valence_mean``, ``arousal_mean``.

    Raises:
        DataError: if the file lacks a column.
    """
    table = np.genfromtxt(csv_file, delimiter=",", names=True, dtype=None, encoding="utf-8")
    names = [f"votes_{name.lower()}" for name in EXPRESSION.label_names]
    missing = {*names, "valence_mean", "arousal_mean", "set"} - set(table.dtype.names or ())
    if missing:
        raise DataError(f"{csv_file} lacks the columns {', '.join(sorted(missing))}.")
    shares = np.stack([table[name] for name in names], 1).astype(np.float64)
    shares /= shares.sum(1, keepdims=True)
    targets = np.stack([table["valence_mean"], table["arousal_mean"]], 1).astype(np.float64)
    predicted = np.empty_like(targets)
    for held_out in np.unique(table["set"]):
        rows = table["set"] == held_out
        predicted[rows] = shares[rows] @ np.linalg.lstsq(shares[~rows], targets[~rows], rcond=None)[0]
    agreement = (concordance(predicted[:, 0], targets[:, 0]), concordance(predicted[:, 1], targets[:, 1]))
    return VoteRegression(np.linalg.lstsq(shares, targets, rcond=None)[0].astype(np.float32), agreement)


def add_proxies(faces: FaceImages, file: Path, votes: VoteRegression) -> FaceImages:
    """Return a source with valence and arousal computed from its expression targets, if these are votes.

    Args:
        faces: the source.
        file: its first Parquet file, whose columns tell whether there are votes.
        votes: the map.
    """
    if f"votes_{EXPRESSION.label_names[0].lower()}" not in pq.read_schema(file).names:
        return faces
    return replace(faces, valence_arousal=np.clip(faces.expression @ votes.coefficients, -1, 1))
