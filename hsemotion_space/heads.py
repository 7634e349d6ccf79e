"""Read tasks out of a backbone's outputs, in NumPy: another head never runs a backbone again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec
from hsemotion_space.tasks import Task
from hsemotion_space.types import FloatArray


def softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities (T, K) over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return independent probabilities (T, K)."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def activate(task: Task, logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Turn raw outputs (T, K) into values of a task: softmax, sigmoid, or clipping to its range."""
    if task.kind == "one_of":
        return softmax(logits / temperature)
    if task.kind == "independent":
        return sigmoid(logits / temperature)
    return np.clip(logits, task.low, task.high).astype(np.float32)


def pair_mean(task: Task, parts: Task, probabilities: FloatArray) -> FloatArray:
    """Untrained rule of the paper: each compound label gets the mean probability of its two parts, scaled to sum to one.

    The paper takes the arg-max of the means; the scaling leaves it unchanged and makes the values of a frame comparable.

    Args:
        task: labels with two ``parts`` each.
        parts: the task of the probabilities, which has all of those parts.
        probabilities: (T, K) of ``parts``.
    """
    columns = np.array([[parts.index(name) for name in label.parts] for label in task.labels])
    means = probabilities[:, columns].mean(axis=2)
    return np.asarray(means / np.maximum(means.sum(axis=1, keepdims=True), 1e-9), np.float32)


def _apply(head: HeadSpec, scores: FloatArray, done: Mapping[str, tuple[Task, FloatArray]]) -> FloatArray:
    if head.kind == "scores":
        return activate(head.task, scores[:, list(head.columns)], head.temperature)
    if head.source not in done:
        raise CheckpointError(f"The rule for {head.task.name} reads {head.source!r}, which must come before it in the manifest.")
    parts, probabilities = done[head.source]
    return pair_mean(head.task, parts, probabilities)


def apply_heads(checkpoint: Checkpoint, scores: FloatArray) -> list[tuple[HeadSpec, FloatArray]]:
    """Return each head of a checkpoint with its values (T, K) for scores (T, outputs).

    Raises:
        CheckpointError: if a rule reads a task that does not come before it.
    """
    results: list[tuple[HeadSpec, FloatArray]] = []
    done: dict[str, tuple[Task, FloatArray]] = {}
    for head in checkpoint.heads:
        values = _apply(head, scores, done)
        done[head.task.name] = (head.task, values)
        results.append((head, values))
    return results
