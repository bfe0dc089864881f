"""Tensors of zeros and ones in a checkpoint file, as bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.masked_weight import Threshold, pack_mask, unpack_mask
from maskedconv.schema import count, list_of, one_of, record

_TYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
}
mask_description = record({"shape": list_of(count), "dtype": one_of(*_TYPES)})


def describe_mask(mask: Tensor) -> dict[str, Any]:
    """Shape and dtype of a tensor that is stored as bits."""
    return {"shape": list(mask.shape), "dtype": str(mask.dtype).removeprefix("torch.")}


def pack(mask: Tensor) -> Tensor:
    """The bits of a tensor of zeros and ones, uint8 ``[ceil(number of elements / 8)]``."""
    ones = Threshold(mask.new_ones(()), torch.zeros((), dtype=torch.int64))
    return pack_mask(mask, ones)


def unpacked(
    masks: Mapping[str, dict[str, Any]], tensors: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors whose bits are in ``tensors``, by name.

    Args:
        masks: shapes and dtypes, as of :func:`describe_mask`.

    Raises:
        ValueError: the bits do not fit the shape; names ``path`` and the tensor.
    """
    found = {}
    for key, described in masks.items():
        if key not in tensors:
            raise ValueError(f"{path}, header: masks.{key} is not among the tensors")
        try:
            mask = unpack_mask(tensors[key], described["shape"])
        except ValueError as error:
            raise ValueError(f"{path}: {key} is damaged: {error}") from None
        found[key] = mask.to(_TYPES[described["dtype"]])
    return found
