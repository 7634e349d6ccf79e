"""The multi-task objective of HSEmotion: class-weighted cross-entropy plus half of one minus concordance per dimension."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def concordance_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return ``(1 - CCC) / 2`` of two (B,) tensors, population moments over the mini-batch (Lin, 1989)."""
    covariance = ((predicted - predicted.mean()) * (target - target.mean())).mean()
    spread = predicted.var(unbiased=False) + target.var(unbiased=False) + (predicted.mean() - target.mean()) ** 2
    return (1 - 2 * covariance / spread.clamp_min(1e-8)) / 2


def multitask_loss(
    scores: Tensor, expression: Tensor, valence_arousal: Tensor, class_weights: Tensor, smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return the terms of the objective; their sum is the loss.

    Args:
        scores: (B, 10), eight logits, valence, arousal.
        expression: (B, 8) target distributions; a row of NaN does not count.
        valence_arousal: (B, 2); a row of NaN does not count, fewer than two rows give no term.
        class_weights: (8,), weight of each expression.
        smoothing: share of the target spread evenly over the classes.
    """
    terms: dict[str, Tensor] = {}
    labeled = ~expression.isnan().any(1)
    if labeled.any():
        target = expression[labeled] * (1 - smoothing) + smoothing / expression.shape[1]
        terms["expression"] = -(class_weights * target * functional.log_softmax(scores[labeled, :8], 1)).sum(1).mean()
    rated = ~valence_arousal.isnan().any(1)
    if int(rated.sum()) > 1:
        terms["valence"] = concordance_loss(scores[rated, 8], valence_arousal[rated, 0])
        terms["arousal"] = concordance_loss(scores[rated, 9], valence_arousal[rated, 1])
    return terms


def class_weights(expression: Tensor, power: float) -> Tensor:
    """Return (8,) weights ``count ** -power`` scaled so that the most frequent class has weight 1 (power 1 in the paper).

    Args:
        expression: (N, 8) target distributions of the training mix; rows of NaN do not count.
        power: 0 for equal weights, 1 for inverse frequency.
    """
    mass = torch.nan_to_num(expression).sum(0).clamp_min(1.0)
    return (mass / mass.max()) ** -power


def embedding_loss(projected: Tensor, taught: Tensor) -> Tensor:
    """Return one minus the mean cosine of two (B, D) tensors, the term on hidden states of DistilBERT (Sanh et al., 2019).

    Only directions count, since the lengths of two architectures' embeddings have nothing to do with each other. The linear map before
    it is the regressor of FitNets (Romero et al., 2015).
    """
    return 1 - functional.cosine_similarity(projected, taught, dim=1).mean()
