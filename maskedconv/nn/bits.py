"""Whole numbers as bits, a mask for each binary digit (``ops.masked_weight.pack_mask``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskedconv.ops.masked_weight import Threshold, pack_mask, unpack_bits


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
    """The counts that :func:`pack_digits` packed, uint8, of the given shape; nothing is checked."""
    counts = torch.zeros(tuple(shape), dtype=torch.uint8, device=bits.device)
    for digit, plane in enumerate(bits):
        counts += unpack_bits(plane, shape).to(torch.uint8) << digit
    return counts
