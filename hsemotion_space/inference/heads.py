"""Read tasks out of a backbone's outputs, in NumPy: another head never runs a backbone again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec
from hsemotion_space.hub.weights import HeadWeights, Layers
from hsemotion_space.tasks import Task
from hsemotion_space.types import FloatArray

PRIOR_WIDTH: Final = 0.5  # in units of valence and arousal; a choice, not a fit


class Outputs(Protocol):
    """What a backbone gave for T frames."""

    @property
    def embeddings(self) -> FloatArray:
        """(T, D)."""

    @property
    def scores(self) -> FloatArray:
        """(T, K)."""


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
    """Untrained rule of the paper: each label gets the mean probability of its parts, scaled to sum 1.

    The paper takes the arg-max of the means; the scaling leaves it unchanged and makes the values of a frame
    comparable.

    Args:
        task: labels with two ``parts`` each.
        parts: the task of the probabilities, which has all of those parts.
        probabilities: (T, K) of ``parts``.
    """
    columns = np.array([[parts.index(name) for name in label.parts] for label in task.labels])
    means = probabilities[:, columns].mean(axis=2)
    return np.asarray(means / np.maximum(means.sum(axis=1, keepdims=True), 1e-9), np.float32)


def least_part(task: Task, parts: Task, probabilities: FloatArray) -> FloatArray:
    """Return the smaller probability (T, K) of the two parts of each label: how far another task supports it.

    Args:
        task: labels with two ``parts`` each.
        parts: the task of the probabilities, which has all of those parts.
        probabilities: (T, P) of ``parts``.
    """
    columns = np.array([[parts.index(name) for name in label.parts] for label in task.labels])
    return np.asarray(probabilities[:, columns].min(axis=2), np.float32)


def clip_statistics(values: FloatArray) -> FloatArray:
    """Return mean, deviation, minimum and maximum over frames, (T, D) to (1, 4 D), as in the paper."""
    return np.concatenate([values.mean(0), values.std(0), values.min(0), values.max(0)])[None].astype(
        np.float32
    )


def run_layers(layers: Layers, values: FloatArray) -> FloatArray:
    """Return the raw outputs (T, K) of fully connected layers with ReLU between them for inputs (T, D)."""
    for number, (weight, bias) in enumerate(layers):
        values = (np.maximum(values, 0) if number else values) @ weight.T + bias
    return values


def word_norm_prior(task: Task, affect: FloatArray, neutral: FloatArray) -> FloatArray:
    """Prior intensities of a clip, (1, K): closeness of its affect to word norms, by expressiveness.

    ``(1 - mean P(Neutral)) exp(-|m - n_k|^2 / (2 w^2))`` with the clip's mean valence and arousal m, the norm
    n_k of label k and w = 0.5. Nothing of it is fitted to intensities and nobody has validated it.

    Args:
        task: labels with a ``norm`` each.
        affect: (T, 2) valence and arousal.
        neutral: (T,) probability of a neutral face.
    """
    norms = np.array([label.norm for label in task.labels])
    squared = ((affect.mean(0) - norms) ** 2).sum(1)
    return np.asarray((1 - neutral.mean()) * np.exp(-squared / (2 * PRIOR_WIDTH**2)), np.float32)[None]


def _read(head: HeadSpec, outputs: Outputs) -> FloatArray:
    values = {"scores": outputs.scores, "embeddings": outputs.embeddings}
    read = (
        values[head.reads]
        if head.reads in values
        else np.concatenate([outputs.embeddings, outputs.scores], axis=1)
    )
    return clip_statistics(read) if head.task.scope == "clip" else read


def _apply(
    head: HeadSpec, weights: HeadWeights, outputs: Outputs, done: Mapping[str, tuple[Task, FloatArray]]
) -> FloatArray:
    if head.kind == "scores":
        return activate(head.task, outputs.scores[:, list(head.columns)], head.temperature)
    if head.has_weights:
        raw = run_layers(weights[head.task.name], _read(head, outputs))
        return activate(head.task, np.tanh(raw) if head.task.kind == "continuous" else raw, head.temperature)
    if missing := [name for name in head.sources if name not in done]:
        text = "The head of {task} reads '{source}', which must come before it in the manifest."
        raise CheckpointError(text, code="head_order", task=head.task.name, source=missing[0])
    read = [done[name] for name in head.sources]
    if head.kind == "pair_mean":
        return pair_mean(head.task, *read[0])
    return word_norm_prior(head.task, read[0][1], read[1][1][:, read[1][0].index("Neutral")])


def apply_heads(
    checkpoint: Checkpoint, weights: HeadWeights, outputs: Outputs
) -> list[tuple[HeadSpec, FloatArray]]:
    """Return each head of a checkpoint with its values: (T, K), or (1, K) for a clip-level task.

    A clip-level head is left out for a single frame, of which there are no statistics over time.

    Args:
        checkpoint: gives the heads.
        weights: layers of the heads that have any, by task.
        outputs: what the backbone gave for T frames.

    Raises:
        CheckpointError: if a rule reads a task that does not come before it.
    """
    results: list[tuple[HeadSpec, FloatArray]] = []
    done: dict[str, tuple[Task, FloatArray]] = {}
    for head in checkpoint.heads:
        if head.task.scope == "clip" and len(outputs.scores) < 2:
            continue
        values = _apply(head, weights, outputs, done)
        done[head.task.name] = (head.task, values)
        results.append((head, values))
    return results
