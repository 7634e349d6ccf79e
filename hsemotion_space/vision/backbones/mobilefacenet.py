"""MobileFaceNet in the width-scaled variant of insightface's ArcFace recipe, registered with timm."""

from __future__ import annotations

from timm.models import register_model
from torch import Tensor, nn

from hsemotion_space.vision.backbones.blocks import OUTPUTS, EmbeddingClassifier, build, trunk_map_size


class Chain(nn.Module):
    """Layers in sequence under the child name ``layers``, as the published weights have them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in order."""
        y: Tensor = self.layers(x)
        return y


class ConvBlock(Chain):
    """Convolution without bias, batch normalization and per-channel PReLU."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        padding: int = 0,
        groups: int = 1,
    ) -> None:
        conv = nn.Conv2d(in_chs, out_chs, kernel, stride, padding, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_chs), nn.PReLU(out_chs))


class LinearBlock(Chain):
    """Convolution without bias and batch normalization, no activation."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int = 1, *, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chs, out_chs, kernel, groups=groups, bias=False), nn.BatchNorm2d(out_chs)
        )


class DepthWise(Chain):
    """Inverted residual: 1x1 expansion, 3x3 depthwise, 1x1 projection; with a skip when ``residual``."""

    def __init__(
        self, in_chs: int, out_chs: int, expand_chs: int, stride: int = 1, *, residual: bool = False
    ) -> None:
        super().__init__(
            ConvBlock(in_chs, expand_chs),
            ConvBlock(expand_chs, expand_chs, 3, stride, padding=1, groups=expand_chs),
            LinearBlock(expand_chs, out_chs),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y = super().forward(x)
        return x + y if self.residual else y


class Residual(Chain):
    """A chain of skip-connected :class:`DepthWise` blocks of one width."""

    def __init__(self, chs: int, depth: int, expand_chs: int) -> None:
        super().__init__(*(DepthWise(chs, chs, expand_chs, residual=True) for _ in range(depth)))


class GlobalDepthwiseEmbedding(Chain):
    """Depthwise convolution over the whole map, then Linear and BatchNorm1d: (B, 512, k, k) to (B, D)."""

    def __init__(self, dim: int, map_size: int) -> None:
        super().__init__(
            LinearBlock(512, 512, map_size, groups=512),
            nn.Flatten(),
            nn.Linear(512, dim, bias=False),
            nn.BatchNorm1d(dim),
        )


class MobileFaceTrunk(nn.Module):
    """Images (B, 3, S, S) to embeddings (B, ``dim``); ``S`` is fixed by the final whole-map kernel."""

    def __init__(
        self,
        dim: int = 512,
        scale: int = 2,
        img_size: int = 112,
        blocks: tuple[int, int, int, int] = (1, 4, 6, 2),
    ) -> None:
        super().__init__()
        map_size = trunk_map_size("MobileFaceNet", img_size)
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, narrow, 3, 2, padding=1),
                (
                    ConvBlock(narrow, narrow, 3, padding=1, groups=64)
                    if blocks[0] == 1
                    else Residual(narrow, blocks[0], narrow)
                ),
                DepthWise(narrow, narrow, 128, stride=2),
                Residual(narrow, blocks[1], 128),
                DepthWise(narrow, wide, 256, stride=2),
                Residual(wide, blocks[2], 256),
                DepthWise(wide, wide, 512, stride=2),
                Residual(wide, blocks[3], 256),
            ]
        )
        self.conv_sep = ConvBlock(wide, 512)
        self.features = GlobalDepthwiseEmbedding(dim, map_size)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, D)."""
        for layer in self.layers:
            x = layer(x)
        embedding: Tensor = self.features(self.conv_sep(x))
        return embedding


class MobileFaceNet(EmbeddingClassifier):
    """Trunk and linear classifier, with the child names of the published ``mbf_va_mtl``.

    Source: insightface ``arcface_torch`` ``get_mbf(num_features=512, blocks=(1, 4, 6, 2), scale=2)``; with
    ten outputs and scale 2 it has 2,064,650 parameters.

    Args:
        num_classes: width of the linear output; 0 leaves the embedding.
        dim: width of the embedding.
        scale: multiplies the channel widths 64 and 128 of the trunk.
        img_size: side of the square input in px, a multiple of 16.
    """

    def __init__(
        self, num_classes: int = OUTPUTS, dim: int = 512, scale: int = 2, img_size: int = 112
    ) -> None:
        super().__init__(dim)
        self.features = MobileFaceTrunk(dim, scale, img_size)
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, D)."""
        embedding: Tensor = self.features(x)
        return embedding


@register_model
def mobilefacenet(
    pretrained: bool = False, num_classes: int | None = None, img_size: int = 112, **others: object
) -> MobileFaceNet:
    """MobileFaceNet of twice the original width: 112 px, 512-d, the variant of HSEmotion."""
    return build(
        "mobilefacenet",
        lambda outputs: MobileFaceNet(outputs, scale=2, img_size=img_size),
        pretrained,
        num_classes,
        others,
    )


@register_model
def mobilefacenet_small(
    pretrained: bool = False, num_classes: int | None = None, img_size: int = 112, **others: object
) -> MobileFaceNet:
    """MobileFaceNet of the original width: 112 px, 512-d."""
    return build(
        "mobilefacenet_small",
        lambda outputs: MobileFaceNet(outputs, scale=1, img_size=img_size),
        pretrained,
        num_classes,
        others,
    )
