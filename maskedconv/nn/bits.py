"""Masks as bits, as ``ops.masked_weight.pack_mask`` packs them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskedconv.ops.masked_weight import Threshold


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask, bool, of the given shape. The bits are not checked, so the host does not wait."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    flat = (bits[:, None] >> places & 1).flatten()
    return flat[: math.prod(shape)].view(*shape).bool()


def threshold_of_ones(mask: Tensor) -> Threshold:
    """The threshold that keeps the ones of a tensor of zeros and ones."""
    return Threshold(mask.new_ones(()), torch.zeros((), dtype=torch.int64, device=mask.device))
