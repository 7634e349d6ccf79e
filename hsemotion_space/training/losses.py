"""The multi-task objective of HSEmotion (cross-entropy, concordance), and embedding distillation."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsemotion_space.vision.backbones.blocks import EmbeddingClassifier


def concordance_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return ``(1 - CCC) / 2`` of two (B,) tensors, population moments over the mini-batch (Lin, 1989)."""
    covariance = ((predicted - predicted.mean()) * (target - target.mean())).mean()
    spread = (
        predicted.var(unbiased=False) + target.var(unbiased=False) + (predicted.mean() - target.mean()) ** 2
    )
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
        terms["expression"] = (
            -(class_weights * target * functional.log_softmax(scores[labeled, :8], 1)).sum(1).mean()
        )
    rated = ~valence_arousal.isnan().any(1)
    if int(rated.sum()) > 1:
        terms["valence"] = concordance_loss(scores[rated, 8], valence_arousal[rated, 0])
        terms["arousal"] = concordance_loss(scores[rated, 9], valence_arousal[rated, 1])
    return terms


def class_weights(expression: Tensor, power: float) -> Tensor:
    """Return (8,) weights ``count ** -power``, scaled so that the most frequent class has 1 (paper: power 1).

    ``expression`` has the target distributions (N, 8) of the training mix; rows of NaN do not count.
    """
    mass = torch.nan_to_num(expression).sum(0).clamp_min(1.0)
    return (mass / mass.max()) ** -power


def embedding_loss(projected: Tensor, target: Tensor) -> Tensor:
    """Return one minus the mean cosine of two (B, D) tensors, as for hidden states in DistilBERT (2019).

    Only directions count, since the lengths of two architectures' embeddings have nothing to do with each
    other. The linear map before it is the regressor of FitNets (Romero et al., 2015).
    """
    return 1 - functional.cosine_similarity(projected, target, dim=1).mean()


class Distilled(nn.Module):
    """A timm model with a linear projection of its embedding to the teacher's width, for training only."""

    def __init__(self, model: nn.Module, dim: int) -> None:
        super().__init__()
        self.model = cast("EmbeddingClassifier", model)
        self.projection = nn.Linear(getattr(model, "head_hidden_size", self.model.num_features), dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) to scores (B, K) and projected embeddings (B, D)."""
        embedding = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return self.model.get_classifier()(embedding), self.projection(embedding)
