"""DDAMFN: a mixed-kernel mobile trunk under two direction-attention heads, registered with timm."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import reduce

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

from hsemotion_space.vision.backbones.blocks import OUTPUTS, EmbeddingClassifier, build, trunk_map_size

DIM = 512
REDUCTION = 32  # of the channels inside an attention
MIN_CHANNELS = 8  # inside an attention


class LinearBlock(nn.Sequential):
    """Convolution without bias and padding (``conv``) and batch normalization (``bn``)."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int | tuple[int, int] = 1, *, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(in_chs, out_chs, kernel, groups=groups, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_chs)))


class ConvBlock(nn.Sequential):
    """Convolution without bias (``conv``), batch normalization (``bn``) and per-channel PReLU (``prelu``)."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_chs), prelu=nn.PReLU(out_chs)))


class DirectionGates(nn.Module):
    """One gate in 0..1 per channel and row, one per channel and column, from a shared bottleneck."""

    def __init__(self, chs: int) -> None:
        super().__init__()
        inner = max(MIN_CHANNELS, chs // REDUCTION)
        self.conv1 = nn.Conv2d(chs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, chs, 1)
        self.conv3 = nn.Conv2d(inner, chs, 1)

    def gates(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Row (B, C, H, 1) and column (B, C, 1, W) descriptors to their gates' product (B, C, H, W)."""
        height, width = rows.shape[2], columns.shape[3]
        joint = torch.cat([rows, columns.transpose(2, 3)], 2)  # (B, C, H + W, 1)
        joint = functional.hardswish(self.bn1(self.conv1(joint)))
        rows, columns = torch.split(joint, [height, width], 2)
        product: Tensor = self.conv2(rows).sigmoid() * self.conv3(columns.transpose(2, 3)).sigmoid()
        return product


class CoordinateAttention(DirectionGates):
    """Weighs a map (B, C, H, W) by the gates of its row and column means (Hou et al., CVPR 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the weighted map of the same shape."""
        return x * self.gates(x.mean(3, keepdim=True), x.mean(2, keepdim=True))


class DirectionAttention(DirectionGates):
    """An attention map (B, C, k, k) from learned summaries of the rows and columns of a map (B, C, k, k).

    ``Linear`` is never used; published weights contain it.
    """

    def __init__(self, chs: int, map_size: int) -> None:
        super().__init__(chs)
        self.Linear_h = LinearBlock(chs, chs, (1, map_size), groups=chs)
        self.Linear_w = LinearBlock(chs, chs, (map_size, 1), groups=chs)
        self.Linear = LinearBlock(chs, chs, map_size, groups=chs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, k, k) to attention (B, C, k, k) in 0..1."""
        return self.gates(self.Linear_h(x), self.Linear_w(x))


class AttentionHead(nn.Sequential):
    """A direction attention under the child name ``CoordAtt`` of the published weights."""

    def __init__(self, chs: int, map_size: int) -> None:
        super().__init__(OrderedDict(CoordAtt=DirectionAttention(chs, map_size)))


class MixedConv(nn.Module):
    """Depthwise convolution whose kernel size differs between groups of channels (Tan and Le, BMVC 2019).

    ``bn`` and ``prelu`` are never used; published weights contain them.

    Args:
        splits: channels of each kernel size.
        stride: of every kernel; 3x3, 5x5, 7x7 and 9x9 in this order, as many as there are splits.
    """

    def __init__(self, splits: Sequence[int], stride: int) -> None:
        super().__init__()
        self.splits = list(splits)
        self.mixed_depthwise_conv = nn.ModuleList(
            nn.Conv2d(chs, chs, kernel, stride, kernel // 2, groups=chs, bias=False)
            for chs, kernel in zip(splits, (3, 5, 7, 9), strict=False)
        )
        self.bn = nn.BatchNorm2d(sum(splits))
        self.prelu = nn.PReLU(sum(splits))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / stride, W / stride)."""
        parts = torch.split(x, self.splits, 1)
        return torch.cat([conv(part) for conv, part in zip(self.mixed_depthwise_conv, parts, strict=True)], 1)


class MixedDepthWise(nn.Sequential):
    """Inverted residual: 1x1 expansion, mixed depthwise convolution, coordinate attention, 1x1 projection."""

    def __init__(
        self, in_chs: int, out_chs: int, splits: Sequence[int], stride: int = 1, *, residual: bool = False
    ) -> None:
        inner = sum(splits)
        super().__init__(
            OrderedDict(
                conv=ConvBlock(in_chs, inner),
                conv_dw=MixedConv(splits, stride),
                CA=CoordinateAttention(inner),
                project=LinearBlock(inner, out_chs),
            )
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride), plus the input when ``residual``."""
        y = x
        for layer in self:
            y = layer(y)
        return x + y if self.residual else y


class MixedResidual(nn.Sequential):
    """A chain of skip-connected :class:`MixedDepthWise` blocks of one width, in the child ``model``."""

    def __init__(self, chs: int, depth: int, splits: Sequence[int]) -> None:
        blocks = nn.Sequential(*(MixedDepthWise(chs, chs, splits, residual=True) for _ in range(depth)))
        super().__init__(OrderedDict(model=blocks))


def mixed_feature_trunk() -> nn.Sequential:
    """Return MixedFeatureNet without embedding layers: images (B, 3, S, S) to (B, 512, S / 16, S / 16)."""
    return nn.Sequential(
        ConvBlock(3, 64, 3, 2),
        ConvBlock(64, 64, 3, groups=64),
        MixedDepthWise(64, 64, (64, 32, 32), stride=2),
        MixedResidual(64, 9, (96, 32)),
        MixedDepthWise(64, 128, (128, 64, 64), stride=2),
        MixedResidual(128, 16, (192, 64)),
        MixedDepthWise(128, 256, (256, 256, 256, 256), stride=2),
        MixedResidual(256, 6, (172, 170, 170)),
        ConvBlock(256, DIM),
    )


class DDAMFN(EmbeddingClassifier):
    """Dual-direction attention mixed feature network with the child names of its published weights.

    Source: Zhang et al., "A Dual-Direction Attention Mixed Feature Network for Facial Expression
    Recognition", Electronics 12(17), 2023, and the structure of ``DDAMNet`` in SainingZhang/DDAMFN (also
    simon20010923/DDAMFN). Those weights contain modules that no output depends on: ``bn`` and ``prelu`` of
    every mixed convolution, ``CoordAtt.Linear`` of every head, and ``bn``, a normalization of the scores.
    They stay in the state dict, so that published weights load strictly, and in the parameter count,
    4,188,966 with ten outputs. Upstream's weights order the expressions in AffectNet's way, unlike this
    project.

    Args:
        num_classes: width of the linear output; 0 leaves the embedding.
        num_head: number of attention maps.
        img_size: side of the square input in px, a multiple of 16.
    """

    output_layers = ("fc", "bn")

    def __init__(self, num_classes: int = OUTPUTS, num_head: int = 2, img_size: int = 112) -> None:
        super().__init__(DIM)
        if num_head < 1:
            raise ValueError(f"DDAMFN needs at least one attention head, got {num_head}.")
        map_size = trunk_map_size("DDAMFN", img_size)
        self.num_head = num_head
        self.features = mixed_feature_trunk()
        for index in range(num_head):
            self.add_module(f"cat_head{index}", AttentionHead(DIM, map_size))
        self.Linear = LinearBlock(DIM, DIM, map_size, groups=DIM)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace output layer and its unused norm with ``num_classes`` fresh outputs; 0: embedding only."""
        super().reset_classifier(num_classes)
        self.bn: nn.Module = nn.BatchNorm1d(num_classes) if num_classes else nn.Identity()

    def forward_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, S, S) to the trunk's map and 0..1 attention per head, (B, 512, S/16, S/16)."""
        trunk: Tensor = self.features(x)
        return trunk, [getattr(self, f"cat_head{index}")(trunk) for index in range(self.num_head)]

    def embed(self, trunk: Tensor, heads: list[Tensor]) -> Tensor:
        """Weigh the trunk's map by the largest attention of any head and reduce it to embeddings (B, 512)."""
        summary: Tensor = self.Linear(trunk * reduce(torch.maximum, heads))  # (B, 512, 1, 1)
        return summary.flatten(1)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, 512)."""
        return self.embed(*self.forward_maps(x))

    def forward_attention(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return what a loss on the diversity of the attentions needs besides the scores.

        Args:
            x: images (B, 3, S, S).

        Returns:
            scores (B, K); the trunk's map and one attention map per head as :meth:`forward_maps` gives them.
        """
        trunk, heads = self.forward_maps(x)
        return self.forward_head(self.embed(trunk, heads)), trunk, heads


@register_model
def ddamfn(
    pretrained: bool = False,
    num_classes: int | None = None,
    img_size: int = 112,
    num_head: int = 2,
    **others: object,
) -> DDAMFN:
    """DDAMFN: 112 px, 512-d, two attention heads."""
    return build(
        "ddamfn", lambda outputs: DDAMFN(outputs, num_head, img_size), pretrained, num_classes, others
    )
