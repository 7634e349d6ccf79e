"""Shared by the architectures of this package: timm's classifier conventions, and checks of options.

Convolution blocks are not shared: the key names of published weights number them in one family and name them
in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TypeVar, cast

from timm.models import load_pretrained, resolve_pretrained_cfg
from torch import Tensor, nn

TRUNK_STRIDE = 16  # the trunks halve their input four times
OUTPUTS = 10  # eight expressions, valence and arousal
# for every entry point
TIMM_OPTIONS = frozenset({"pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "cache_dir"})


def trunk_map_size(family: str, img_size: int) -> int:
    """Return the side of the trunk's last map, which fixes the kernels that span it.

    Raises:
        ValueError: if ``img_size`` (px) is not a positive multiple of the trunk's stride.
    """
    if img_size < TRUNK_STRIDE or img_size % TRUNK_STRIDE:
        raise ValueError(
            f"{family} needs an input size that is a multiple of {TRUNK_STRIDE}, got {img_size}."
        )
    return img_size // TRUNK_STRIDE


class EmbeddingClassifier(nn.Module):
    """Images to embeddings to scores, with the methods and attributes by which timm addresses a model.

    A subclass writes ``forward_features`` and calls ``reset_classifier`` once its trunk exists.

    Args:
        dim: width of the embedding.
    """

    fc: nn.Module
    output_layers: tuple[str, ...] = ("fc",)  # the children whose shape depends on the number of outputs
    pretrained_cfg: Mapping[str, object]
    default_cfg: Mapping[str, object]

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


ModelT = TypeVar("ModelT", bound=EmbeddingClassifier)


def build(
    arch: str,
    make: Callable[[int], ModelT],
    pretrained: bool,
    num_classes: int | None,
    others: Mapping[str, object],
) -> ModelT:
    """Build the model of one of timm's entry points, with weights of the Hub if timm was asked for them.

    Args:
        arch: name of the entry point.
        make: builds the network with a number of outputs.
        pretrained: whether to load the weights that the config names; with another number of outputs the
            output layer stays fresh.
        num_classes: number of outputs; None takes that of the config or, without one, ten.
        others: what timm passes besides the options that the entry point names; ``pretrained_cfg`` is the
            config of a model of the Hub.

    Raises:
        ValueError: if weights are asked for without such a config.
        TypeError: naming options that the architecture does not have.
    """
    config = _read_config(arch, others)
    if pretrained and not config:
        raise ValueError(f"{arch} has no timm weights; load a checkpoint of this project instead.")
    if unknown := sorted(others.keys() - TIMM_OPTIONS):
        raise TypeError(f"{arch} has no option {', '.join(unknown)}.")
    outputs = cast("int", config.get("num_classes", OUTPUTS)) if num_classes is None else num_classes
    model = make(outputs)
    if config:
        model.pretrained_cfg = model.default_cfg = config
    if pretrained:
        load_pretrained(
            model,
            config,
            outputs,
            filter_fn=_fit_outputs,
            cache_dir=cast("str | None", others.get("cache_dir")),
        )
    return model


def _read_config(arch: str, others: Mapping[str, object]) -> dict[str, object]:
    """Return the config of a model of the Hub or of a similar folder; empty for a plain timm name."""
    config, changes = others.get("pretrained_cfg"), others.get("pretrained_cfg_overlay")
    if not isinstance(config, dict):
        return {}
    resolved = resolve_pretrained_cfg(arch, config, changes if isinstance(changes, dict) else None)
    return {key: value for key, value in asdict(resolved).items() if value is not None}


def _fit_outputs(state: Mapping[str, Tensor], model: EmbeddingClassifier) -> dict[str, Tensor]:
    """Leave out output layers that were made for another number of outputs."""
    fits = "fc.weight" in state and len(state["fc.weight"]) == model.num_classes
    return {
        key: tensor for key, tensor in state.items() if fits or key.split(".")[0] not in model.output_layers
    }
