"""Backbones: timm's architectures and two of our own, registered with timm on import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import timm
from torch import Tensor, nn

from hsemotion_space.messages import MessageError
from hsemotion_space.vision.backbones import ddamfn, mobilefacenet
from hsemotion_space.vision.backbones.blocks import TIMM_OPTIONS, EmbeddingClassifier

__all__ = ["Backbone", "BackboneError", "create_model", "ddamfn", "load_backbone", "mobilefacenet"]

NAMED_KEYS = 4  # an error message names this many keys of a kind and counts the others
# not for a manifest to set
RESERVED_OPTIONS = TIMM_OPTIONS | {"checkpoint_path", "model_name", "num_classes", "pretrained"}


class BackboneError(MessageError, ValueError):
    """A backbone cannot be built or its weights do not fit; the message can be shown as it is."""


class Backbone(nn.Module):
    """A timm model that gives embeddings and scores in one pass, for inference, without final dropout.

    Args:
        model: answers timm's ``forward_features``, ``forward_head`` and ``get_classifier``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = cast("EmbeddingClassifier", model)  # timm's own models answer the same methods
        self.dim: int = getattr(model, "head_hidden_size", self.model.num_features)
        self.num_classes: int = self.model.num_classes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) float32, normalized, to embeddings (B, D) and scores (B, K), both float32."""
        embeddings = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        if not self.num_classes:
            return embeddings, embeddings[:, :0]
        return embeddings, self.model.get_classifier()(embeddings)


def create_model(arch: str, num_classes: int, **args: object) -> nn.Module:
    """Build an architecture with random weights.

    Args:
        arch: a name that timm knows, ours included; never a model of the Hub.
        num_classes: number of outputs; 0 leaves the embedding.
        args: options of the architecture, such as ``img_size`` of the two of this package.

    Raises:
        BackboneError: naming the architecture, if it is unknown or does not take the options.
    """
    return _create(arch, num_classes, args)


def _create(arch: str, num_classes: int, args: Mapping[str, object]) -> nn.Module:
    if not timm.is_model(arch):  # also refuses "hf-hub:..." and the like, which would reach for the network
        raise BackboneError(f"There is no architecture called {arch!r}.")
    if reserved := sorted(RESERVED_OPTIONS & args.keys()):
        raise BackboneError(f"Architecture {arch!r} cannot take the option {', '.join(reserved)} here.")
    options: dict[str, Any] = dict(args)
    try:
        return timm.create_model(arch, pretrained=False, num_classes=num_classes, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BackboneError(
            f"Architecture {arch!r} cannot be built with {num_classes} outputs and options {options}: {error}"
        ) from error


def _list_keys(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - NAMED_KEYS} more" if len(names) > NAMED_KEYS else ""
    return ", ".join(names[:NAMED_KEYS]) + more


def _describe_misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return what keeps ``state`` from a strict load, or an empty text."""
    shapes = [
        f"{key} has shape {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    parts = []
    if missing := expected.keys() - state.keys():
        parts.append(f"missing {_list_keys(missing)}")
    if unexpected := state.keys() - expected.keys():
        parts.append(f"unexpected {_list_keys(unexpected)}")
    if shapes:
        parts.append(_list_keys(shapes))
    return "; ".join(parts)


def load_backbone(
    arch: str, args: Mapping[str, object], dim: int, num_classes: int, state: Mapping[str, Tensor]
) -> Backbone:
    """Build an architecture and load all of its weights, in evaluation mode.

    Args:
        arch: a name that timm knows, ours included.
        args: options of the architecture.
        dim: width of the embedding, as the manifest states it.
        num_classes: number of outputs.
        state: every tensor of the state dict, no more; half precision becomes float32.

    Raises:
        BackboneError: if the architecture cannot be built, has another embedding, or the tensors differ in
            name or shape.
    """
    backbone = Backbone(_create(arch, num_classes, args))
    if backbone.dim != dim:
        raise BackboneError(f"Architecture {arch!r} has an embedding of {backbone.dim} numbers, not {dim}.")
    if misfit := _describe_misfit(backbone.model.state_dict(), state):
        raise BackboneError(f"The weights do not fit {arch!r} with {num_classes} outputs: {misfit}.")
    backbone.model.load_state_dict(dict(state))  # copies into float32
    return backbone.eval()
