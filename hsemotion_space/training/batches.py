"""Mixed batches whose order and content depend on the seed and the step alone, made ahead of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from hsemotion_space.training.augment import augment, normalize
from hsemotion_space.training.data import TRAINING, TUNING, FaceImages
from hsemotion_space.training.losses import class_weights
from hsemotion_space.training.recipe import Recipe
from hsemotion_space.training.soft_labels import SoftLabels
from hsemotion_space.types import IntArray

T = TypeVar("T")


class Batch(NamedTuple):
    """One step's pictures and targets; a row of NaN is no target.

    Attributes:
        images: (B, 3, S, S) normalized.
        expression: (B, 8) target distributions.
        valence_arousal: (B, 2).
        embedding: (B, D) of the teacher; D is 0 without one.
    """

    images: Tensor
    expression: Tensor
    valence_arousal: Tensor
    embedding: Tensor


class BatchMaker:
    """Batches that depend on (seed, step) alone, so that a resumed run sees the same as an unbroken one.

    ``soft`` has the labels of a teacher for every row of every source, or is empty.
    """

    def __init__(self, recipe: Recipe, sources: list[FaceImages], soft: Sequence[SoftLabels] = ()) -> None:
        self.recipe = recipe
        self.sources = sources
        self.training = [
            np.flatnonzero((images.split == TRAINING) | (source.train_on_tuning & (images.split == TUNING)))
            for source, images in zip(recipe.sources, sources, strict=True)
        ]
        # per source: number of the pass, its permutation of the rows
        self._orders: dict[int, tuple[int, IntArray]] = {}
        shares = np.array([source.share for source in recipe.sources])
        self.counts = np.diff(
            np.round(np.concatenate([[0], np.cumsum(shares / shares.sum())]) * recipe.batch)
        ).astype(int)
        mixed = [
            torch.from_numpy(source.expression[rows]) * (count / len(rows))
            for source, rows, count in zip(sources, self.training, self.counts, strict=True)
        ]  # of labels alone: soft ones would hide how rare a class is
        self.class_weights = class_weights(torch.cat(mixed) * 1000, recipe.class_weight_power)
        self._expression, self._affect = (
            [getattr(images, name) for images in sources] for name in ("expression", "valence_arousal")
        )
        self._embedding = [np.zeros((len(images), 0), np.float16) for images in sources]
        if recipe.teaching is not None and soft:
            weights = [recipe.teaching.weight_of(source.name) for source in recipe.sources]
            self._expression = [
                labels.targets(images.expression, weight, recipe.teaching.temperature)
                for images, labels, weight in zip(sources, soft, weights, strict=True)
            ]
            self._affect = [
                labels.affect(images.valence_arousal) for images, labels in zip(sources, soft, strict=True)
            ]
            self._embedding = [labels.embedding for labels in soft]

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        images, picked = [], []
        for number, (source, count) in enumerate(zip(self.sources, self.counts.tolist(), strict=True)):
            picks = np.array(
                [self._pick(number, position) for position in range(step * count, (step + 1) * count)],
                np.int64,
            )
            images.append(source.images[picks])
            picked.append(
                [table[number][picks] for table in (self._expression, self._affect, self._embedding)]
            )
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        x = augment(
            torch.from_numpy(np.concatenate(images)), self.recipe.size, self.recipe.augmentation, generator
        )
        x = normalize(x, self.recipe.mean, self.recipe.std).contiguous(memory_format=torch.channels_last)
        expression, affect, embedding = (
            torch.from_numpy(np.concatenate(parts)) for parts in zip(*picked, strict=True)
        )
        return Batch(x, expression, affect, embedding.float())

    def _pick(self, number: int, position: int) -> int:
        """Return a row of a source from an endless series of permutations of its training rows."""
        rows = self.training[number]
        turn, place = divmod(position, len(rows))
        if number not in self._orders or self._orders[number][0] != turn:
            self._orders[number] = (
                turn,
                np.random.default_rng([self.recipe.seed, number, turn]).permutation(rows),
            )
        return int(self._orders[number][1][place])


def prefetched(make: Callable[[int], T], start: int, steps: int) -> Iterator[T]:
    """Yield what is made for the steps from ``start`` on; a thread prepares the next one meanwhile."""
    with ThreadPoolExecutor(1, "batches") as thread:
        upcoming = [thread.submit(make, start)] if start < steps else []
        for step in range(start, steps):
            batch = upcoming.pop().result()
            if step + 1 < steps:
                upcoming.append(thread.submit(make, step + 1))
            yield batch
