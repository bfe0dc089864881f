"""Masks as bits, as ``ops.masked_weight.pack_mask`` packs them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskedconv.ops.masked_weight import Threshold, pack_mask


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask, bool, of the given shape. The bits are not checked, so the host does not wait."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    flat = (bits[:, None] >> places & 1).flatten()
    return flat[: math.prod(shape)].view(*shape).bool()


def threshold_of_ones(mask: Tensor) -> Threshold:
    """The threshold that keeps the ones of a tensor of zeros and ones."""
    return Threshold(mask.new_ones(()), torch.zeros((), dtype=torch.int64, device=mask.device))


def pack_digits(counts: Tensor, digits: int) -> Tensor:
    """The binary digits of uint8 ``counts``, ``[digits, ceil(number of counts / 8)]``.

    The lowest digit is first. Each is packed as a mask.
    """
    planes = ((counts >> digit & 1).float() for digit in range(digits))
    return torch.stack([pack_mask(plane, threshold_of_ones(plane)) for plane in planes])


def unpack_digits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The counts that :func:`pack_digits` packed, uint8, of the given shape."""
    counts = torch.zeros(tuple(shape), dtype=torch.uint8, device=bits.device)
    for digit, plane in enumerate(bits):
        counts += unpack_bits(plane, shape).to(torch.uint8) << digit
    return counts
