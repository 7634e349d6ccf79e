"""What the architectures of this package share: timm's conventions for classifiers, and the checks of their options.

Convolution blocks are not shared: the key names of published weights number them in one family and name them in the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

TRUNK_STRIDE = 16  # the trunks halve their input four times
TIMM_OPTIONS = frozenset({"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})  # timm passes these to every entry point


def trunk_map_size(family: str, img_size: int) -> int:
    """Return the side of the trunk's last map, which fixes the kernels that span it.

    Raises:
        ValueError: if ``img_size`` (px) is not a positive multiple of the trunk's stride.
    """
    if img_size < TRUNK_STRIDE or img_size % TRUNK_STRIDE:
        raise ValueError(f"{family} needs an input size that is a multiple of {TRUNK_STRIDE}, got {img_size}.")
    return img_size // TRUNK_STRIDE


def check_options(family: str, pretrained: bool, others: Iterable[str]) -> None:
    """Check what timm passes to an entry point besides the options it names.

    Raises:
        ValueError: if timm's own weights are asked for.
        TypeError: naming options that the family does not have.
    """
    if pretrained:
        raise ValueError(f"{family} has no timm weights; load a checkpoint of this project instead.")
    if unknown := sorted(set(others) - TIMM_OPTIONS):
        raise TypeError(f"{family} has no option {', '.join(unknown)}.")


class EmbeddingClassifier(nn.Module):
    """Images to embeddings to scores, with the methods and attributes by which timm addresses a model.

    A subclass writes ``forward_features`` and calls ``reset_classifier`` once its trunk exists.

    Args:
        dim: width of the embedding.
    """

    fc: nn.Module

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = dim
        self.num_classes = 0

    def get_classifier(self) -> nn.Module:
        """Return the output layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the output layer by a fresh one with ``num_classes`` outputs; 0 leaves the embedding."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, D)."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Embeddings (B, D) to scores (B, K), or unchanged with ``pre_logits``."""
        if pre_logits:
            return x
        scores: Tensor = self.fc(x)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to scores (B, K)."""
        return self.forward_head(self.forward_features(x))
