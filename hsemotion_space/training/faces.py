"""How long the embeddings of faces are, from tuning pictures; what is shorter may be no face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hsemotion_space.training.data import TEST, TUNING
from hsemotion_space.training.stills import SeenFaces

SHORTEST: Final = 0.02
"""Share of the tuning faces that are taken for none. A choice."""


def least_length(seen: Sequence[SeenFaces]) -> float:
    """Return the length of embeddings that ``SHORTEST`` of the tuning faces of all sources do not have, to four digits."""
    lengths = np.concatenate([_lengths(part) for part in seen if part.split == TUNING])
    return float(f"{np.quantile(lengths, SHORTEST):.4g}")


def doubted(seen: Sequence[SeenFaces], least: float) -> dict[str, dict[str, float | int]]:
    """Return for the test faces of each source how many there are and which share is shorter."""
    return {
        part.source: {"pictures": len(part.targets), "doubted": round(float((_lengths(part) < least).mean()), 4)}
        for part in seen
        if part.split == TEST
    }


def _lengths(part: SeenFaces) -> np.ndarray:
    return np.asarray(np.linalg.norm(part.embeddings, axis=1))
