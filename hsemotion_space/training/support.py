"""When a label with parts stands out: the bound on what the expressions give to its parts, chosen on tuning pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hsemotion_space.inference.heads import activate, least_part
from hsemotion_space.tasks import EXPRESSION, Task
from hsemotion_space.training.data import TEST, TUNING
from hsemotion_space.training.stills import Embedder, HeadResult, PosedFaces, SeenFaces, expression_head
from hsemotion_space.types import FloatArray

MOST_FALSE: Final = 0.15
"""Share of the faces that show one expression or none for which a label may stand out. A choice."""
FEWEST_FACES: Final = 10
"""Of a kind, for the choice. A choice: one of two faces must not outweigh three of a hundred."""
BOUNDS: Final = tuple(step / 100 for step in range(1, 51))  # two labels cannot both have more than half


@dataclass(frozen=True, slots=True)
class Shown:
    """Faces of one kind: what they show, and what the heads say of them.

    Attributes:
        name: such as "ferplus, Happiness".
        split: ``TUNING`` or ``TEST``.
        composed: whether they show one of the labels with parts.
        support: (N,) what the parts of the most probable label get.
    """

    name: str
    split: int
    composed: bool
    support: FloatArray


def support_of_top(task: Task, values: FloatArray, parts: Task, probabilities: FloatArray) -> FloatArray:
    """Return (N,) the smaller probability of the two parts of the most probable label of values (N, K)."""
    support = least_part(task, parts, probabilities)
    return np.asarray(support[np.arange(len(values)), values.argmax(axis=1)])


def compound_support(
    results: Sequence[HeadResult], faces: PosedFaces, seen: Sequence[SeenFaces], embed: Embedder
) -> dict[str, list[Shown]]:
    """Return for each task whose labels have parts what the parts get: of posed compound faces, and of faces of one expression each.

    Args:
        results: the trained heads.
        faces: posed pictures.
        seen: pictures of one expression.
        embed: the backbone, with the temperature of its expressions in the manifest.
    """
    spec, found = expression_head(embed.checkpoint), {}
    for head in (result.attachment.head for result in results if result.score.task.none):
        shown = []
        for split in (TUNING, TEST):
            embeddings, scores = embed(faces.images[faces.rows(head.task, split)])
            probabilities = activate(spec.task, scores[:, list(spec.columns)], spec.temperature)
            support = support_of_top(head.task, head.values(embeddings), spec.task, probabilities)
            shown.append(Shown("posed, one of the labels", split, True, support))
        for part in seen:
            probabilities = activate(spec.task, part.logits, spec.temperature)
            support = support_of_top(head.task, head.values(part.embeddings), spec.task, probabilities)
            for place, name in enumerate(EXPRESSION.label_names):
                shown.append(Shown(f"{part.source}, {name}", part.split, False, support[part.targets == place]))
        found[head.task.name] = shown
    return found


def choose_support(shown: Sequence[Shown]) -> float:
    """Return the smallest bound with which a label stands out for at most ``MOST_FALSE`` of the other tuning faces.

    Each kind of at least ``FEWEST_FACES`` weighs the same, however many there are. Without any such kind it is 0: not measured.
    """
    tuning = (one for one in shown if one.split == TUNING and not one.composed)
    others = [one.support for one in tuning if len(one.support) >= FEWEST_FACES]
    if not others:
        return 0.0
    false = [float(np.mean([(support >= bound).mean() for support in others])) for bound in BOUNDS]
    return next((bound for bound, share in zip(BOUNDS, false, strict=True) if share <= MOST_FALSE), BOUNDS[-1])


def outcomes(shown: Sequence[Shown], bound: float) -> Mapping[str, Mapping[str, dict[str, float | int]]]:
    """Return for the tuning and the test faces of each kind how many there are and for which share a label stands out."""
    names = {TUNING: "tuning", TEST: "test"}
    return {
        word: {
            one.name: {"pictures": len(one.support), "stands_out": round(float((one.support >= bound).mean()), 4)}
            for one in shown
            if one.split == split and len(one.support)
        }
        for split, word in names.items()
    }
