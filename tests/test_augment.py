from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hsemotion_space.training.augment import Augmentation, augment, normalize, plain


def rgba(count: int = 6, size: int = 36) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, size, size, 4), generator=generator, dtype=torch.uint8)
    images[..., 3] = 255
    images[0, :, :8, 3] = 0
    return images


def test_augmentation_depends_on_its_generator_alone() -> None:
    images = rgba()
    first, again, other = (
        augment(images, 32, Augmentation(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert (first.shape, first.dtype) == ((6, 3, 32, 32), torch.float32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(images, rgba())


def test_augmentation_takes_one_image() -> None:
    assert augment(rgba(1), 32, Augmentation(), torch.Generator().manual_seed(0)).isfinite().all()


def test_backgrounds_replace_what_was_blacked_out() -> None:
    images = torch.full((8, 36, 36, 4), 255, dtype=torch.uint8)
    images[:, :, :12] = 0
    still = Augmentation(0, 0, 0, keep_mask=0, random_mask=0, gray=0, color=0, blur=0, erase=0)
    results = augment(images, 36, still, torch.Generator().manual_seed(0))
    dark = (results < 0.02).all(1).float().mean((1, 2))
    assert (dark < 0.3).sum() >= 6  # a third of each was black
    kept = augment(images, 36, replace(still, keep_mask=1.0), torch.Generator().manual_seed(0))
    assert (((kept < 0.02).all(1).float().mean((1, 2)) - 1 / 3).abs() < 0.06).all()


def test_plain_only_resizes_and_fills() -> None:
    images = torch.zeros(1, 8, 8, 4, dtype=torch.uint8)
    images[:, :, 4:] = torch.tensor([255, 51, 0, 255], dtype=torch.uint8)
    result = plain(images, 8, background=0.5)
    assert torch.equal(result[0, :, 0, 0], torch.full((3,), 0.5))
    torch.testing.assert_close(result[0, :, 3, 6], torch.tensor([1.0, 0.2, 0.0]))
    assert plain(images, 4).shape == (1, 3, 4, 4)
    assert plain(images, 4)[0, :, 0, 0].abs().max() == 0


def test_pictures_are_normalized_by_one_number_or_by_channel() -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalize(images, 0.5, 0.25), (images - 0.5) / 0.25)
    result = normalize(images, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    for channel, (mean, std) in enumerate(((0.1, 1.0), (0.2, 2.0), (0.3, 4.0))):
        torch.testing.assert_close(result[:, channel], (images[:, channel] - mean) / std)


def test_uneven_light_darkens_a_side_and_changes_the_gamma() -> None:
    gray = torch.full((200, 36, 36, 4), 128, dtype=torch.uint8)
    gray[..., 3] = 255
    still = Augmentation(0, 0, 0, random_mask=0, gray=0, color=0, blur=0, erase=0)
    even, lit = (
        augment(gray, 32, replace(still, light=light), torch.Generator().manual_seed(0))
        for light in (0.0, 0.4)
    )
    assert even.std((2, 3)).max() < 0.01
    sides = lit[..., 0].mean((1, 2)) - lit[..., -1].mean((1, 2))
    assert (sides > 0.1).any()
    assert (sides < -0.1).any()
    assert lit.mean((1, 2, 3)).std() > 5 * even.mean((1, 2, 3)).std()
    assert lit.min() >= 0
    assert lit.max() <= 1


def test_without_uneven_light_no_random_number_is_drawn_for_it() -> None:
    states = []
    for light in (0.0, 0.5):
        generator = torch.Generator().manual_seed(1)
        augment(rgba(), 32, Augmentation(light=light), generator)
        states.append(generator.get_state())
    drawn = torch.Generator().manual_seed(1)
    augment(rgba(), 32, Augmentation(), drawn)
    assert torch.equal(states[0], drawn.get_state())
    assert not torch.equal(states[0], states[1])
