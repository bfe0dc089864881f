"""Random crop, flip and normalisation of uint8 images, on their own device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.checks import check_int


def random_crop_flip(
    images: Tensor, padding: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Shift every image at random by up to ``padding`` pixels, and mirror a random half of them.

    Args:
        images: uint8 [B, C, H, W].
        padding: black pixels added on each side before the random crop to the original size.
        flip: whether to mirror left to right, with probability 1/2.
        generator: a CPU generator, so that one seed gives the same crops on every device.

    Returns:
        uint8 [B, C, H, W].
    """
    moves = draw_moves(len(images), padding, flip, generator)
    return crop_flip(images, moves.to(images.device), padding)


def draw_moves(count: int, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Draw int64 [count, 3]: first row and column in the padded image, and whether to mirror."""
    check_int("padding", padding, 0)
    corner = torch.randint(2 * padding + 1, (count, 2), generator=generator)
    mirror = torch.randint(2, (count, 1), generator=generator)
    return torch.cat([corner, mirror if flip else torch.zeros_like(mirror)], 1)


def crop_flip(images: Tensor, moves: Tensor, padding: int) -> Tensor:
    """Apply ``draw_moves``' int64 [B, 3] to uint8 [B, C, H, W], on their device."""
    _check_images(images)
    batch, _, height, width = images.shape
    if padding > 0:
        crops = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        images = crops[torch.arange(batch, device=images.device), :, moves[:, 0], moves[:, 1]]
    mirror = moves[:, 2].bool()[:, None, None, None]
    return torch.where(mirror, images.flip(3), images)


def normalise(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Tensor:
    """(images / 255 - mean) / std, channel by channel, computed in float32.

    Args:
        images: uint8 [B, C, H, W].
        mean: C values, in fractions of 255.
        std: C values, in fractions of 255.
        dtype: data type of the result.
        channels_last: whether the result is in channels_last.
    """
    _check_images(images)
    if not len(mean) == len(std) == images.shape[1]:
        raise ValueError(
            f"mean and std must have one value for each of {images.shape[1]} channels, "
            f"got {len(mean)} and {len(std)}"
        )
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    floats = images.to(torch.float32, memory_format=memory_format)
    return floats.mul_(scale).add_(shift).to(dtype)


@lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    # Cached, because creating them on a GPU would synchronize at every batch.
    means, stds = (torch.tensor(value, dtype=torch.float64)[:, None, None] for value in (mean, std))
    scale, shift = 1 / (255 * stds), -means / stds
    return scale.to(device, torch.float32), shift.to(device, torch.float32)


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"images is {images.dtype} {list(images.shape)}; expected uint8 [B, C, H, W]"
        )
