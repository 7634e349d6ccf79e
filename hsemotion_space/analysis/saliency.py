"""Where a face matters to a network: occlusion maps of one label, for every network and engine.

Small patches of the aligned face are hidden one after another and the change of the label's value is noted
(Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2). Only the
network's values are needed, no gradients.

What such a map cannot tell: why the network reacts to a place, whether the place matters together with
another one that stayed visible, and anything about what the person feels. Every map is made twice, with two
ways of hiding; where the two disagree, the map shows the way of hiding rather than the face.
``docs/quality.md`` has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from hsemotion_space.hub.manifest import Checkpoint, HeadSpec
from hsemotion_space.hub.weights import HeadWeights, load_heads
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.tasks import Task
from hsemotion_space.types import ByteArray, FloatArray, IntArray, Provenance, check_shape

Run: TypeAlias = Callable[[FloatArray], tuple[FloatArray, ...]]
"""A loaded network: normalized faces (B, 3, S, S) to embeddings (B, D) and scores (B, K), such as
``Network.run``."""
Verdict = Literal["clear", "unstable", "none"]

BATCH: Final = 32  # faces per run of the network
BLUR: Final = 0.5  # standard deviation of the blur that hides a patch, in sides of the patch
STABLE: Final = 0.5
"""Rank correlation of the two maps from which they count as one.

Measured: less than 5 % of pairs of unrelated networks reach it.
"""
LEAST_DROP: Final = 0.1
"""What hiding the strongest place must take away, as a share of the task's range.

A choice, near what a shift by one pixel may change.
"""
LIMITS: Final = "The map shows what this network reacts to, not why, and nothing about what the person feels."


class ExplainError(MessageError, ValueError):
    """A value cannot be explained."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How a face is hidden: side of the ``patch`` and ``stride`` between patches, as shares of its side."""

    patch: float = 0.25
    stride: float = 0.125

    def corners(self, size: int) -> tuple[int, IntArray]:
        """Return the patch side in px and the left (upper) edges (n,) of all patches along ``size`` px."""
        patch = min(max(round(self.patch * size), 1), size)
        count = 1 + round((size - patch) / max(self.stride * size, 1))
        return patch, np.unique(np.round(np.linspace(0, size - patch, count))).astype(np.int64)


STANDARD: Final = Grid()


@dataclass(frozen=True, slots=True)
class Saliency:
    """Where hiding a part of a face changes the value of one label.

    Attributes:
        task: of the value, with the labels of the checkpoint.
        label: its name.
        provenance: of the head that gives the value.
        value: with the whole face visible, in the range of the task.
        map: (S, S) in units of the value; positive where hiding lowers it, negative where hiding raises it.
        drop: what hiding the strongest place takes away, mean of both ways of hiding; negative if every place
            raises the value.
        place_xyxy: the strongest place in px of the aligned face.
        patch: side of the hidden squares in px.
        stride: between neighboring squares in px, the largest if they differ.
        stability: Spearman's rank correlation, -1..1, of the changes by both ways of hiding; 0 if one of them
            changes nothing.
    """

    task: Task
    label: str
    provenance: Provenance
    value: float
    map: FloatArray
    drop: float
    place_xyxy: tuple[int, int, int, int]
    patch: int
    stride: int
    stability: float

    def __post_init__(self) -> None:
        check_shape("Saliency", "map", self.map, (len(self.map), len(self.map)))
        self.task.index(self.label)

    @property
    def verdict(self) -> Verdict:
        """``none`` if no place matters enough, ``unstable`` if the two fills disagree, else ``clear``."""
        if self.drop < LEAST_DROP * (self.task.high - self.task.low):
            return "none"
        return "clear" if self.stability >= STABLE else "unstable"

    @property
    def summary(self) -> Message:
        """What a reader must know beside the map, with the numbers it rests on."""
        least = LEAST_DROP * (self.task.high - self.task.low)
        if self.verdict == "none":
            text = (
                "{label} is {value:.2f}. Hiding any one part lowers it by at most {drop:.2f}, too little to"
                " locate (minimum {least:.2f})."
            )
            return Message(text, label=self.label, value=self.value, drop=max(self.drop, 0), least=least)
        text = (
            "{label} is {value:.2f}. Hiding the strongest place lowers it by {drop:.2f}. The two ways of"
            " hiding agree (rank correlation {found:.2f}, minimum {least:.2f})."
        )
        if self.verdict == "unstable":
            text = (
                "{label} is {value:.2f}. The two ways of hiding disagree (rank correlation {found:.2f},"
                " minimum {least:.2f}), so the map is not reliable."
            )
        return Message(
            text, label=self.label, value=self.value, drop=self.drop, found=self.stability, least=STABLE
        )


@dataclass(frozen=True, slots=True)
class _Outputs:
    embeddings: FloatArray
    scores: FloatArray


@dataclass(frozen=True, slots=True)
class _Label:
    """One value of a checkpoint, read with no other heads than those it needs."""

    run: Run
    checkpoint: Checkpoint
    weights: HeadWeights
    task: Task
    column: int

    def __call__(self, faces: FloatArray) -> FloatArray:
        """Return the value (B,) for normalized faces (B, 3, S, S)."""
        embeddings, scores = self.run(faces)
        _, values = apply_heads(self.checkpoint, self.weights, _Outputs(embeddings, scores))[-1]
        return values[:, self.column]


def explain(
    run: Run, checkpoint: Checkpoint, face: ByteArray, what: tuple[str, str], grid: Grid = STANDARD
) -> Saliency:
    """Find out where hiding a part of a face lowers the value of a label most.

    Each patch is hidden twice: by the mean color of the face, and by the face itself, blurred. A pixel of the
    map is the mean change over all patches that cover it and over both ways. The cost is that of some hundred
    faces, whatever their size in px.

    Args:
        run: the loaded network; explaining runs where it is loaded, in the worker.
        checkpoint: gives its input and its heads.
        face: (S, S, 3) uint8 as the checkpoint expects it, from
            :func:`~hsemotion_space.vision.alignment.align_face`.
        what: name of a task and name of one of its labels.
        grid: how the face is hidden.

    Raises:
        ExplainError: if the checkpoint has no such value, the value belongs to a clip and not to a face, or
            the face has another size.
        CheckpointError: if the weights of a head cannot be used.
    """
    # brings torch, which is in the worker anyway and nowhere else
    from hsemotion_space.vision.engine import normalize  # noqa: PLC0415

    head, label = _find(checkpoint, *what), what[1]
    spec = checkpoint.input
    if face.shape != (spec.size, spec.size, 3) or face.dtype != np.uint8:
        text = "{title} needs a face of shape {wanted} in uint8, got {shape} in {dtype}."
        wanted = (spec.size, spec.size, 3)
        raise ExplainError(
            text,
            code="face_shape",
            title=checkpoint.title,
            wanted=str(wanted),
            shape=str(face.shape),
            dtype=str(face.dtype),
        )
    reduced = replace(checkpoint, heads=_needed(checkpoint, head))
    read = _Label(run, reduced, load_heads(checkpoint), head.task, head.task.index(label))
    patch, edges = grid.corners(spec.size)
    whole, *fills = normalize(_hidden(face, patch), spec.mean, spec.std)
    value = float(read(whole[None])[0])
    drops = np.stack([value - _values(read, whole, fill, (patch, edges)) for fill in fills])  # (2, n, n)
    mean = drops.mean(0)
    row, column = (int(edges[at]) for at in np.unravel_index(mean.argmax(), mean.shape))
    return Saliency(
        task=head.task,
        label=label,
        provenance=head.provenance,
        value=value,
        map=_spread(mean, patch, edges, spec.size),
        drop=float(mean.max()),
        place_xyxy=(column, row, column + patch, row + patch),
        patch=patch,
        stride=int(np.diff(edges).max(initial=0)),
        stability=rank_correlation(drops[0].ravel(), drops[1].ravel()),
    )


def _find(checkpoint: Checkpoint, task: str, label: str) -> HeadSpec:
    head = checkpoint.head(task)
    if head is None:
        known = ", ".join(head.task.name for head in checkpoint.heads)
        raise ExplainError(
            "{title} does not predict '{task}'; it predicts {known}.",
            code="no_task",
            title=checkpoint.title,
            task=task,
            known=known,
        )
    if head.task.scope == "clip":
        raise ExplainError(
            "{task} describes a whole clip, so a single frame cannot explain it.",
            code="clip_task",
            task=head.task.title,
        )
    if label not in head.task.label_names:
        known = ", ".join(head.task.label_names)
        raise ExplainError(
            "{task} has no label '{label}'; it has {known}.",
            code="no_label",
            task=head.task.title,
            label=label,
            known=known,
        )
    return head


def _needed(checkpoint: Checkpoint, head: HeadSpec) -> tuple[HeadSpec, ...]:
    """Return the heads that one head reads, directly or not, in their order, and then itself."""
    before: list[HeadSpec] = []
    for name in head.sources:
        source = checkpoint.head(name)
        if source is not None:
            before += [item for item in _needed(checkpoint, source) if item not in before]
    return (*before, head)


def _hidden(face: ByteArray, patch: int) -> ByteArray:
    """Return the fills of a patch (3, S, S, 3): the face, its mean color, and the blurred face."""
    mean = np.broadcast_to(np.round(face.mean((0, 1))).astype(np.uint8), face.shape)
    blurred = Image.fromarray(face).filter(ImageFilter.GaussianBlur(BLUR * patch))
    return np.stack([face, mean, np.asarray(blurred)])


def _values(
    read: _Label, whole: FloatArray, fill: FloatArray, places: tuple[int, IntArray]
) -> npt.NDArray[np.float64]:
    """Return the value (n, n) with the patch at each place of the face (3, S, S) taken from ``fill``."""
    patch, edges = places
    parts = [read(batch) for batch in _batches(whole, fill, patch, edges)]
    return np.concatenate(parts).reshape(len(edges), len(edges)).astype(np.float64)


def _batches(whole: FloatArray, fill: FloatArray, patch: int, edges: IntArray) -> Iterator[FloatArray]:
    places = [(int(y), int(x)) for y in edges for x in edges]
    for start in range(0, len(places), BATCH):
        some = places[start : start + BATCH]
        batch = np.repeat(whole[None], len(some), axis=0)
        for face, (y, x) in zip(batch, some, strict=True):
            face[:, y : y + patch, x : x + patch] = fill[:, y : y + patch, x : x + patch]
        yield batch


def _spread(drops: npt.NDArray[np.float64], patch: int, edges: IntArray, size: int) -> FloatArray:
    """Return for each pixel (S, S) the mean drop over the patches that cover it; 0 where none does."""
    # (n, S)
    covers = ((edges[:, None] <= np.arange(size)) & (np.arange(size) < edges[:, None] + patch)).astype(
        np.float64
    )
    times = covers.sum(0)
    return np.asarray(covers.T @ drops @ covers / np.maximum(np.outer(times, times), 1), np.float32)


def rank_correlation(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation of two arrays (n,), -1..1, ties by mean rank; 0 if constant."""
    ranks = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in (first, second)]
    one, other = (_center((np.cumsum(counts) - (counts - 1) / 2)[inverse]) for inverse, counts in ranks)
    norm = float(np.sqrt((one @ one) * (other @ other)))
    return float(np.clip(one @ other / norm, -1, 1)) if norm else 0.0


def _center(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(values - values.mean(), np.float64)
