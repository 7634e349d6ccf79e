"""A network whose embedding is drawn toward that of its teacher."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from hsemotion_space.vision.backbones.blocks import EmbeddingClassifier


class Distilled(nn.Module):
    """A timm model and a linear projection of its embedding into the space of the teacher's, which is used in training alone.

    Args:
        model: answers timm's ``forward_features``, ``forward_head`` and ``get_classifier``.
        dim: width of the teacher's embedding.
    """

    def __init__(self, model: nn.Module, dim: int) -> None:
        super().__init__()
        self.model = cast("EmbeddingClassifier", model)
        self.projection = nn.Linear(getattr(model, "head_hidden_size", self.model.num_features), dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) to scores (B, K) and projected embeddings (B, D)."""
        embedding = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return self.model.get_classifier()(embedding), self.projection(embedding)
