"""Weights for one network from another of partly the same structure: by name, by structure, or by order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from hsemotion_space.training.files import DataError

Tensors = Mapping[str, Tensor]
Kind = Literal["name", "structure", "order"]

BN_EPS = 1e-5  # of nn.BatchNorm2d
GATE_BIAS = 3.0  # of an open gate: sigmoid(3) = 0.95
OPEN = torch.tensor(GATE_BIAS).sigmoid().item() ** 2  # an attention weighs by the product of two gates
COUNTER = "num_batches_tracked"


def transplant(target: Tensors, source: Tensors, classifier: str) -> tuple[dict[str, Tensor], Kind]:
    """Match values of a network with those of another; return them by name, and how they were matched.

    Tensors are matched by name where most values of the network have their names in the source; else by
    structure, which is known for DDAMFN from MobileFaceNet; else by order, if both have the same number of
    tensors, of the same shapes and last parts of their names. The output layer ``classifier`` is never
    filled.
    """
    expected = {
        key: value
        for key, value in target.items()
        if not key.startswith(classifier + ".") and not key.endswith(COUNTER)
    }
    available = {key: value.float() for key, value in source.items() if not key.endswith(COUNTER)}
    named = by_name(expected, available)
    if 2 * _count(named) >= _count(expected):
        return named, "name"
    if (
        "features.2.conv_dw.mixed_depthwise_conv.0.weight" in expected
        and "features.layers.2.layers.1.layers.0.weight" in available
    ):
        return ddamfn_from_mobilefacenet(expected, available), "structure"
    return _by_order(target, source, classifier), "order"


def _count(tensors: Tensors) -> int:
    return sum(value.numel() for value in tensors.values())


def by_name(target: Tensors, source: Tensors) -> dict[str, Tensor]:
    """Return the tensors with the same name and shape, and depthwise kernels of another size, resized."""
    values = {}
    for key in target.keys() & source.keys():
        shape, value = target[key].shape, source[key]
        if value.shape == shape:
            values[key] = value
        elif len(shape) == value.ndim == 4 and value.shape[:2] == shape[:2] and shape[1] == 1:
            values[key] = resize_kernel(value, shape[2], shape[3])
    return values


def resize_kernel(kernel: Tensor, height: int, width: int) -> Tensor:
    """Resize kernels (C, 1, h, w) that span a whole map for a map of (height, width).

    Each weight is spread evenly over its cell, and each new weight is the integral over its own, so the sum
    is kept, and the response to a map is that of the old kernel to the same map resampled to its size by
    areas.
    """
    if kernel.shape[2:] == (height, width):
        return kernel
    rows, columns = _overlaps(kernel.shape[2], height), _overlaps(kernel.shape[3], width)
    return torch.einsum("ai,bj,cdij->cdab", rows, columns, kernel)


def _overlaps(old: int, new: int) -> Tensor:
    """Return (new, old): which share of each old cell of an interval lies in each new one."""
    starts, ends = torch.arange(new).unsqueeze(1) / new, (torch.arange(new).unsqueeze(1) + 1) / new
    cells = torch.arange(old)
    return (torch.minimum(ends, (cells + 1) / old) - torch.maximum(starts, cells / old)).clamp_min(0) * old


def _by_order(target: Tensors, source: Tensors, classifier: str) -> dict[str, Tensor]:
    """Return the tensors of a source in the order of a network."""
    names, values = [*target], [*source.items()]
    if len(names) != len(values):
        template = "{count} tensors cannot fill the {expected} of the architecture, and most names differ."
        raise DataError(template, code="tensor_count", count=len(values), expected=len(names))
    found = {}
    for name, (key, value) in zip(names, values, strict=True):
        if name.startswith(classifier + "."):
            continue
        if value.shape != target[name].shape or key.rsplit(".", 1)[-1] != name.rsplit(".", 1)[-1]:
            shapes = {"shape": tuple(value.shape), "expected": tuple(target[name].shape)}
            raise DataError(
                "{key} {shape} is in the place of {name} {expected}.",
                code="tensor_order",
                key=key,
                name=name,
                **shapes,
            )
        if not name.endswith(COUNTER):
            found[name] = value.float()
    return found


class _Filler:
    """Fills the blocks of a DDAMFN trunk from those of a MobileFaceNet trunk, which may be narrower.

    A narrower block goes into the first channels; what would come into these from the others is zero, so they
    compute the same.
    """

    def __init__(self, target: Tensors, source: Tensors) -> None:
        self.target, self.source = target, source
        self.values: dict[str, Tensor] = {}

    def put(self, name: str, value: Tensor) -> None:
        """Put a tensor into the first places of one that is as large or larger."""
        room = self.target[name].clone()
        if value.ndim > 1:
            room[: value.shape[0]] = 0
        room[tuple(slice(size) for size in value.shape)] = value
        self.values[name] = room

    def convolution(self, to: str, of: str) -> None:
        """Copy convolution, batch normalization and, where there is one, PReLU."""
        names = {"conv.weight": "layers.0.weight", "prelu.weight": "layers.2.weight"}
        names |= {
            f"bn.{part}": f"layers.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")
        }
        for mine, its in names.items():
            if f"{to}.{mine}" in self.target and f"{of}.{its}" in self.source:
                self.put(f"{to}.{mine}", self.source[f"{of}.{its}"])

    def block(self, to: str, of: str) -> None:
        """Copy an inverted residual; see :func:`ddamfn_from_mobilefacenet` for what its middle becomes."""
        self.convolution(f"{to}.conv", f"{of}.layers.0")
        self.convolution(f"{to}.project", f"{of}.layers.2")
        depthwise = f"{of}.layers.1.layers"
        scale = self.source[f"{depthwise}.1.weight"] / torch.sqrt(
            self.source[f"{depthwise}.1.running_var"] + BN_EPS
        )
        kernels = self.source[f"{depthwise}.0.weight"] * scale[:, None, None, None] / OPEN
        for name in self._matching(f"{to}.conv_dw.mixed_depthwise_conv."):
            room = self.target[name]
            here, kernels = kernels[: len(room)], kernels[len(room) :]
            if len(here):
                self.put(name, nn.functional.pad(here, [(room.shape[-1] - here.shape[-1]) // 2] * 4))
        for gate in ("conv2", "conv3"):
            self.values[f"{to}.CA.{gate}.weight"] = torch.zeros_like(self.target[f"{to}.CA.{gate}.weight"])
            self.values[f"{to}.CA.{gate}.bias"] = torch.full_like(
                self.target[f"{to}.CA.{gate}.bias"], GATE_BIAS
            )

    def chain(self, to: str, of: str) -> None:
        """Copy a chain of residual blocks; those beyond the source's become identities."""
        blocks = sorted(
            {int(name.removeprefix(f"{to}.model.").split(".")[0]) for name in self._matching(f"{to}.model.")}
        )
        for number in blocks:
            if f"{of}.layers.{number}.layers.0.layers.0.weight" in self.source:
                self.block(f"{to}.model.{number}", f"{of}.layers.{number}")
            else:
                for part in ("weight", "bias"):
                    name = f"{to}.model.{number}.project.bn.{part}"
                    self.values[name] = torch.zeros_like(self.target[name])

    def _matching(self, prefix: str) -> Iterator[str]:
        return (name for name in self.target if name.startswith(prefix))


def ddamfn_from_mobilefacenet(target: Tensors, source: Tensors) -> dict[str, Tensor]:
    """Fill the trunk and the whole-map layer of DDAMFN from a MobileFaceNet.

    Both have the same 1x1 convolutions, normalizations and PReLUs. Behind its depthwise kernels DDAMFN has
    neither normalization nor PReLU, so the source's normalization is folded into the kernels as a scale,
    which also makes up for the open gates; its shift and the PReLU are lost. Larger kernels are the 3x3 ones
    with a border of zeros, attentions along the coordinates begin with open gates, and blocks that the source
    does not have begin as identities. The result is to be trained further with all layers free.
    """
    filler, trunk = _Filler(target, source), "features.layers"
    filler.convolution("features.0", f"{trunk}.0")
    filler.convolution("features.1", f"{trunk}.1")
    for number in (2, 4, 6):
        filler.block(f"features.{number}", f"{trunk}.{number}")
    for number in (3, 5, 7):
        filler.chain(f"features.{number}", f"{trunk}.{number}")
    filler.convolution("features.8", "features.conv_sep")
    whole = "features.features.layers.0.layers"
    side = math.isqrt(target["Linear.conv.weight"][0].numel())
    filler.put("Linear.conv.weight", resize_kernel(source[f"{whole}.0.weight"], side, side))
    for part in ("weight", "bias", "running_mean", "running_var"):
        filler.put(f"Linear.bn.{part}", source[f"{whole}.1.{part}"])
    return filler.values
