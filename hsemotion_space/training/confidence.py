"""Bounds of a starter, chosen on tuning pictures: temperature, embedding length, compound support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hsemotion_space.inference.heads import activate, least_part
from hsemotion_space.metrics import confusion
from hsemotion_space.tasks import EXPRESSION, Task
from hsemotion_space.training.calibration import calibration_of, fit_temperature
from hsemotion_space.training.data import TEST, TUNING, FaceImages
from hsemotion_space.training.posed import Embedder, HeadResult, PosedFaces, expression_head
from hsemotion_space.training.trained_head import TrainedHead
from hsemotion_space.types import FloatArray, IntArray

SHORTEST_SHARE: Final = 0.02
"""Share of the tuning faces whose embeddings are shorter than the bound. A choice."""
MAX_FALSE_SHARE: Final = 0.15
"""Share of the faces of one expression or none for which a compound label may stand out. A choice."""
MIN_FACES: Final = 10
"""Of a kind, for the choice. A choice: one of two faces must not outweigh three of a hundred."""
BOUNDS: Final = tuple(step / 100 for step in range(1, 51))  # two labels cannot both have more than half


@dataclass(frozen=True, slots=True)
class LabeledOutputs:
    """Outputs of the backbone for one split of one source, pictures with a sure expression only.

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

    @property
    def lengths(self) -> FloatArray:
        """(N,) lengths of the embeddings."""
        return np.asarray(np.linalg.norm(self.embeddings, axis=1), np.float32)


def labeled_outputs(sources: Sequence[FaceImages], embed: Embedder) -> list[LabeledOutputs]:
    """Run the backbone on the tuning and the test pictures of each source that has labels."""
    columns, results = list(expression_head(embed.checkpoint).columns), []
    for source in (source for source in sources if source.counted.any()):
        for split in (TUNING, TEST):
            rows = source.rows(split, counted=True)
            embeddings, scores = embed(source.images[rows])
            results.append(
                LabeledOutputs(
                    source.source, split, embeddings, scores[:, columns], source.expression[rows].argmax(1)
                )
            )
    return results


def calibrate_expression(
    outputs: Sequence[LabeledOutputs],
) -> tuple[float, dict[str, tuple[float, float]], npt.NDArray[np.int64]]:
    """Fit one temperature on the tuning pictures of all sources together.

    Returns the temperature, the calibration errors on the test pictures of each source before and after, and
    the counts (K, K) on the tuning pictures, rows are targets.
    """
    tuning = [part for part in outputs if part.split == TUNING]
    logits, targets = (
        np.concatenate([part.logits for part in tuning]),
        np.concatenate([part.targets for part in tuning]),
    )
    temperature = fit_temperature(EXPRESSION, logits, targets)
    errors = {}
    for part in (part for part in outputs if part.split == TEST):
        before, after = (
            calibration_of(EXPRESSION, part.logits, part.targets, value).error for value in (1.0, temperature)
        )
        errors[part.source] = before, after
    return temperature, errors, confusion(logits.argmax(1), targets, len(EXPRESSION.labels))


def least_length(outputs: Sequence[LabeledOutputs]) -> float:
    """Return the length that ``SHORTEST_SHARE`` of tuning faces' embeddings are below, to four digits."""
    lengths = np.concatenate([part.lengths for part in outputs if part.split == TUNING])
    return float(f"{np.quantile(lengths, SHORTEST_SHARE):.4g}")


def shorter_shares(outputs: Sequence[LabeledOutputs], least: float) -> dict[str, dict[str, float | int]]:
    """Return for the test faces of each source how many there are and which share is shorter."""
    return {
        part.source: {
            "pictures": len(part.targets),
            "doubted": round(float((part.lengths < least).mean()), 4),
        }
        for part in outputs
        if part.split == TEST
    }


@dataclass(frozen=True, slots=True)
class Support:
    """How far the expressions support the most probable compound label of faces of one kind.

    Attributes:
        kind: such as "ferplus, Happiness".
        split: ``TUNING`` or ``TEST``.
        compound: whether the faces show one of the compound labels.
        values: (N,) the smaller probability of the two parts of that label.
    """

    kind: str
    split: int
    compound: bool
    values: FloatArray


def support_of_top(task: Task, values: FloatArray, parts: Task, probabilities: FloatArray) -> FloatArray:
    """Return (N,) the smaller probability of the two parts of the most probable label of values (N, K)."""
    support = least_part(task, parts, probabilities)
    return np.asarray(support[np.arange(len(values)), values.argmax(axis=1)])


def compound_support(
    results: Sequence[HeadResult], faces: PosedFaces, outputs: Sequence[LabeledOutputs], embed: Embedder
) -> dict[str, list[Support]]:
    """Return the support of posed compound faces and of faces of one expression, by task with parts.

    ``embed`` has the temperature of its expressions in the manifest.
    """
    spec, found = expression_head(embed.checkpoint), {}
    for head in (result.attachment.head for result in results if result.score.task.none):

        def support(embeddings: FloatArray, logits: FloatArray, head: TrainedHead = head) -> FloatArray:
            probabilities = activate(spec.task, logits, spec.temperature)
            return support_of_top(head.task, head.values(embeddings), spec.task, probabilities)

        kinds = []
        for split in (TUNING, TEST):
            embeddings, scores = embed(faces.images[faces.rows(head.task, split)])
            kinds.append(
                Support(
                    "posed, one of the labels",
                    split,
                    True,
                    support(embeddings, scores[:, list(spec.columns)]),
                )
            )
        for part in outputs:
            values = support(part.embeddings, part.logits)
            for place, name in enumerate(EXPRESSION.label_names):
                kinds.append(
                    Support(f"{part.source}, {name}", part.split, False, values[part.targets == place])
                )
        found[head.task.name] = kinds
    return found


def choose_support(kinds: Sequence[Support]) -> float:
    """Return the smallest bound at which at most ``MAX_FALSE_SHARE`` of other tuning faces stand out.

    Each kind of at least ``MIN_FACES`` has the same weight. Without any such kind it is 0: not measured.
    """
    others = [
        kind.values
        for kind in kinds
        if kind.split == TUNING and not kind.compound and len(kind.values) >= MIN_FACES
    ]
    if not others:
        return 0.0
    shares = [float(np.mean([(values >= bound).mean() for values in others])) for bound in BOUNDS]
    return next(
        (bound for bound, share in zip(BOUNDS, shares, strict=True) if share <= MAX_FALSE_SHARE), BOUNDS[-1]
    )


def stand_out_shares(
    kinds: Sequence[Support], bound: float
) -> Mapping[str, Mapping[str, dict[str, float | int]]]:
    """Return per kind of face, tuning and test, the count and the share for which a label stands out."""
    return {
        name: {
            kind.kind: {
                "pictures": len(kind.values),
                "stands_out": round(float((kind.values >= bound).mean()), 4),
            }
            for kind in kinds
            if kind.split == split and len(kind.values)
        }
        for split, name in ((TUNING, "tuning"), (TEST, "test"))
    }
