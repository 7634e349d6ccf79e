"""Augmentation of whole batches of RGBA crops: geometry, backgrounds behind masks, color, blur, erasing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# one number for all channels, or one each for red, green, blue
ChannelValue = float | tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges and probabilities; angles in degrees, the rest as shares of the image or of the value range."""

    rotation: float = 15.0
    scale: float = 0.13
    shift: float = 0.07
    keep_mask: float = 0.25  # masked crops that stay black behind the oval
    # unmasked crops that get an oval mask, so that a mask says nothing about the label
    random_mask: float = 0.12
    gray: float = 0.25
    color: float = 0.3
    blur: float = 0.2
    erase: float = 0.3
    # strength of uneven light: a gradient across the face, and a gamma that darkens or brightens
    light: float = 0.0


def _uniform(
    shape: tuple[int, ...], generator: torch.Generator, low: float = -1.0, high: float = 1.0
) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _geometry(images: Tensor, size: int, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Flip, rotate, scale and shift (B, 4, H, W) and resample to ``size``."""
    count = len(images)
    angle = _uniform((count,), generator) * config.rotation * torch.pi / 180
    zoom = torch.exp(_uniform((count,), generator) * config.scale)
    stretch = torch.exp(_uniform((count,), generator) * config.scale / 2)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = _uniform((count, 2), generator) * 2 * config.shift
    theta = torch.stack(
        [
            torch.stack([cos * flip * stretch, -sin, shift[:, 0]], 1),
            torch.stack([sin * flip, cos / stretch, shift[:, 1]], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [count, 4, size, size], align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _backgrounds(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Return (B, 3, H, W): plain colors, soft gradients, blotches, or pieces of other pictures."""
    count, _, height, width = rgb.shape
    base = torch.rand((count, 3, 1, 1), generator=generator)
    kinds = torch.randint(0, 5, (count, 1, 1, 1), generator=generator)
    blotches = [
        functional.interpolate(
            torch.rand((count, 3, k, k), generator=generator),
            (height, width),
            mode="bilinear",
            align_corners=False,
        )
        for k in (2, 6, 16)
    ]
    others = torch.roll(rgb, 1 + int(torch.randint(0, max(count - 1, 1), (1,), generator=generator)), 0).flip(
        2
    )
    result = base.expand(count, 3, height, width)
    for kind, picture in enumerate([*blotches, others], 1):
        mixed = picture if kind in (1, 4) else base + (picture - 0.5) * 0.6
        result = torch.where(kinds == kind, mixed, result)
    return result.clamp(0, 1)


def _mask(rgba: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Composite masked crops on backgrounds; cut an oval out of some others."""
    count, _, height, width = rgba.shape
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    ys = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    xs = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    radius = _uniform((count, 2, 1, 1), generator, 0.75, 1.05)
    oval = torch.sigmoid((1 - (xs / radius[:, :1]) ** 2 - (ys / radius[:, 1:]) ** 2) * 20)
    masked = alpha.amin((1, 2, 3), keepdim=True) < 0.5
    chance = torch.rand((count, 1, 1, 1), generator=generator)
    alpha = torch.where(~masked & (chance < config.random_mask), alpha * oval, alpha)
    black = torch.rand((count, 1, 1, 1), generator=generator) < config.keep_mask
    return rgb * alpha + torch.where(black, 0.0, _backgrounds(rgb, generator)) * (1 - alpha)


def _light(rgb: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Light (B, 3, H, W) in 0..1 from one side, and change its gamma."""
    count, _, height, width = rgb.shape
    slope = _uniform((count, 2, 1, 1), generator) * strength
    ys = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    xs = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    gamma = torch.exp(_uniform((count, 1, 1, 1), generator) * strength)
    return rgb.clamp_min(1e-4) ** gamma * (1 + slope[:, :1] * xs + slope[:, 1:] * ys)


def _appearance(rgb: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Color, gray, blur and erasing on (B, 3, H, W) in 0..1."""
    count, _, height, width = rgb.shape

    def some(share: float) -> Tensor:
        return torch.rand((count, 1, 1, 1), generator=generator) < share

    gray = rgb.mean(1, keepdim=True)
    saturation = 1 + _uniform((count, 1, 1, 1), generator) * 0.5
    rgb = torch.where(some(config.gray), gray, gray + (rgb - gray) * saturation)
    rgb = rgb * (1 + _uniform((count, 3, 1, 1), generator) * config.color / 3)
    mean = rgb.mean((1, 2, 3), keepdim=True)
    contrast = 1 + _uniform((count, 1, 1, 1), generator) * config.color
    brightness = _uniform((count, 1, 1, 1), generator) * config.color / 2
    rgb = (rgb - mean) * contrast + mean + brightness
    if config.light:
        rgb = _light(rgb.clamp(0, 1), config.light, generator)
    small = functional.interpolate(rgb, scale_factor=0.55, mode="area")
    rgb = torch.where(
        some(config.blur),
        functional.interpolate(small, (height, width), mode="bilinear", align_corners=False),
        rgb,
    )
    center, half = _uniform((count, 2, 1, 1), generator), _uniform((count, 2, 1, 1), generator, 0.1, 0.35)
    ys = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    xs = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    hole = (
        ((xs - center[:, :1]).abs() < half[:, :1])
        & ((ys - center[:, 1:]).abs() < half[:, 1:])
        & some(config.erase)
    )
    return torch.where(hole, torch.rand((count, 3, 1, 1), generator=generator), rgb).clamp(0, 1)


def augment(rgba: Tensor, size: int, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Return (B, 3, size, size) float32 in 0..1 from (B, H, W, 4) uint8, drawing only from ``generator``."""
    images = rgba.permute(0, 3, 1, 2).float() / 255
    return _appearance(
        _mask(_geometry(images, size, config, generator), config, generator), config, generator
    )


def plain(rgba: Tensor, size: int, background: float = 0.0) -> Tensor:
    """Return (B, 3, size, size) without augmentation; masked parts get the gray level ``background``."""
    images = rgba.permute(0, 3, 1, 2).float() / 255
    images = functional.interpolate(
        images, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return images[:, :3] * images[:, 3:] + background * (1 - images[:, 3:])


def normalize(images: Tensor, mean: ChannelValue, std: ChannelValue) -> Tensor:
    """Return (B, 3, H, W) minus ``mean``, divided by ``std``."""
    shift, scale = (torch.tensor(value, dtype=images.dtype).reshape(-1, 1, 1) for value in (mean, std))
    return (images - shift) / scale
