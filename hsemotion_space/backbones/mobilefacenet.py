"""MobileFaceNet in the width-scaled variant of insightface's ArcFace recipe, registered with timm."""

from __future__ import annotations

import torch
from timm.models import register_model
from torch import Tensor, nn

TRUNK_STRIDE = 16  # the trunk halves its input four times


class ConvBlock(nn.Module):
    """Convolution without bias, batch normalization and per-channel PReLU."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_chs, out_chs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(out_chs), nn.PReLU(out_chs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LinearBlock(nn.Module):
    """Convolution without bias and batch normalization, no activation."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_chs, out_chs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(out_chs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DepthWise(nn.Module):
    """Inverted residual: 1x1 expansion, 3x3 depthwise, 1x1 projection; with a skip when ``residual``."""

    def __init__(self, in_chs: int, out_chs: int, expand_chs: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(in_chs, expand_chs),
            ConvBlock(expand_chs, expand_chs, 3, stride, 1, groups=expand_chs),
            LinearBlock(expand_chs, out_chs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Residual(nn.Module):
    """A chain of skip-connected :class:`DepthWise` blocks of one width."""

    def __init__(self, chs: int, depth: int, expand_chs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(DepthWise(chs, chs, expand_chs, residual=True) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GlobalDepthwiseEmbedding(nn.Module):
    """Depthwise convolution over the whole map, then Linear and BatchNorm1d: (B, 512, k, k) to (B, D)."""

    def __init__(self, dim: int, map_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            LinearBlock(512, 512, map_size, groups=512), nn.Flatten(), nn.Linear(512, dim, bias=False), nn.BatchNorm1d(dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MobileFaceTrunk(nn.Module):
    """Images (B, 3, S, S) to embeddings (B, ``dim``); ``S`` is fixed by the final whole-map kernel."""

    def __init__(self, dim: int = 512, scale: int = 2, img_size: int = 112, blocks: tuple[int, int, int, int] = (1, 4, 6, 2)) -> None:
        super().__init__()
        if img_size % TRUNK_STRIDE:
            raise ValueError(f"MobileFaceNet needs an input size that is a multiple of {TRUNK_STRIDE}, got {img_size}.")
        narrow, wide = 64 * scale, 128 * scale
        first: nn.Module = (
            ConvBlock(narrow, narrow, 3, 1, 1, groups=64) if blocks[0] == 1 else Residual(narrow, blocks[0], narrow)
        )
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, narrow, 3, 2, 1),
                first,
                DepthWise(narrow, narrow, 128, stride=2),
                Residual(narrow, blocks[1], 128),
                DepthWise(narrow, wide, 256, stride=2),
                Residual(wide, blocks[2], 256),
                DepthWise(wide, wide, 512, stride=2),
                Residual(wide, blocks[3], 256),
            ]
        )
        self.conv_sep = ConvBlock(wide, 512)
        self.features = GlobalDepthwiseEmbedding(dim, img_size // TRUNK_STRIDE)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


class MobileFaceNet(nn.Module):
    """Trunk and linear classifier, with the two child names of the published ``mbf_va_mtl`` (``features``, ``fc``).

    Source: insightface ``arcface_torch`` ``get_mbf(num_features=512, blocks=(1, 4, 6, 2), scale=2)``; with ten outputs and scale 2 it
    has 2,064,650 parameters.

    Args:
        num_classes: width of the linear output; 0 leaves the embedding.
        dim: width of the embedding.
        scale: multiplies the channel widths 64 and 128 of the trunk.
        img_size: side of the square input in px, a multiple of 16.
    """

    def __init__(self, num_classes: int = 10, dim: int = 512, scale: int = 2, img_size: int = 112) -> None:
        super().__init__()
        self.num_features = dim
        self.num_classes = num_classes
        self.features = MobileFaceTrunk(dim, scale, img_size)
        self.fc: nn.Module = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        """Return the output layer (timm's convention)."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the output layer by a fresh one with ``num_classes`` outputs (timm's convention)."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, D)."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Embeddings (B, D) to scores (B, K), or unchanged with ``pre_logits``."""
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _build(scale: int, pretrained: bool, num_classes: int, img_size: int) -> MobileFaceNet:
    if pretrained:
        raise ValueError("MobileFaceNet has no timm weights; load a checkpoint of this project instead.")
    return MobileFaceNet(num_classes=num_classes, scale=scale, img_size=img_size)


@register_model
def mobilefacenet(pretrained: bool = False, num_classes: int = 10, img_size: int = 112, **_: object) -> MobileFaceNet:
    """MobileFaceNet of twice the original width: 112 px, 512-d, the variant of HSEmotion."""
    return _build(2, pretrained, num_classes, img_size)


@register_model
def mobilefacenet_small(pretrained: bool = False, num_classes: int = 10, img_size: int = 112, **_: object) -> MobileFaceNet:
    """MobileFaceNet of the original width: 112 px, 512-d."""
    return _build(1, pretrained, num_classes, img_size)


__all__ = ["MobileFaceNet", "mobilefacenet", "mobilefacenet_small"]
_ = torch
