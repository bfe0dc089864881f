"""Masks as bits, for checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskedconv.ops.masked_weight.problem import Threshold
from maskedconv.ops.masked_weight.reference import kept_mask


def pack_mask(score: Tensor, threshold: Threshold) -> Tensor:
    """The kept scores as bits, uint8, ``[ceil(number of scores / 8)]``.

    Bit ``i % 8`` (the lowest is 0) of byte ``i // 8`` belongs to the score of row-major index
    ``i``. Unused bits of the last byte are 0.
    """
    kept = kept_mask(score, threshold).flatten().to(torch.uint8)
    padded = torch.nn.functional.pad(kept, (0, -kept.numel() % 8)).view(-1, 8)
    return (padded << _places(kept)).sum(1, dtype=torch.uint8)


def unpack_mask(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask that :func:`pack_mask` packed, bool, of the given shape.

    Raises:
        ValueError: as :func:`check_bits`.
    """
    check_bits(bits, shape)
    return unpack_bits(bits, shape)


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """As :func:`unpack_mask`, of bits that are not checked, so the host does not wait."""
    flat = (bits[:, None] >> _places(bits) & 1).flatten()
    return flat[: math.prod(shape)].view(*shape).bool()


def check_bits(bits: Tensor, shape: Sequence[int]) -> None:
    """Checks the bits of a mask.

    Raises:
        ValueError: ``bits`` is not the packed mask of such a shape.
    """
    size = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(size / 8),):
        raise ValueError(
            f"bits is {list(bits.shape)} of {bits.dtype}; expected [{math.ceil(size / 8)}] of "
            f"torch.uint8 for a mask of shape {list(shape)}"
        )
    if size % 8 and int(bits[-1]) >> size % 8:
        raise ValueError(f"bits has set bits behind its last; expected {size} bits and zeros")


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
