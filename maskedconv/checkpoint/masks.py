"""Masks in a checkpoint file, as bits: zeros and ones, or small whole numbers (coats)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv.nn.bits import pack_digits, threshold_of_ones, unpack_digits
from maskedconv.nn.scored import ScoredLayer
from maskedconv.ops.masked_weight import check_bits, pack_mask, unpack_mask
from maskedconv.schema import count, list_of, one_of, record

_TYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
}
mask_description = record({"shape": list_of(count), "dtype": one_of(*_TYPES)}, {"digits": count})


def check_scores_used(model: nn.Module, expected: str) -> None:
    """ValueError if a layer of ``model`` uses a mask that it holds instead of its scores."""
    for name, layer in model.named_modules():
        if isinstance(layer, ScoredLayer) and layer.held_mask is not None:
            raise ValueError(
                f"{name or 'model'} uses a held mask, as of a task that was switched to, which is "
                f"not that of its scores; expected {expected}"
            )


def describe_mask(mask: Tensor) -> dict[str, Any]:
    """Shape and dtype of a tensor that is stored as bits, and its binary digits if several."""
    described = {"shape": list(mask.shape), "dtype": str(mask.dtype).removeprefix("torch.")}
    digits = _digits_of(mask)
    return described if digits == 1 else {**described, "digits": digits}


def pack(mask: Tensor) -> Tensor:
    """The bits of a tensor of whole numbers up to 255.

    uint8 ``[ceil(number of elements / 8)]`` of zeros and ones, and such a row for each binary digit
    of other numbers, the lowest first.
    """
    digits = _digits_of(mask)
    if digits == 1:
        return pack_mask(mask, threshold_of_ones(mask))
    return pack_digits(mask.to(torch.uint8), digits)


def _digits_of(mask: Tensor) -> int:
    return max(1, int(mask.max()).bit_length()) if mask.numel() else 1


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
            mask = _unpack(tensors[key], described["shape"], described.get("digits", 1))
        except ValueError as error:
            raise ValueError(f"{path}: {key} is damaged: {error}") from None
        found[key] = mask.to(_TYPES[described["dtype"]])
    return found


def _unpack(bits: Tensor, shape: list[int], digits: int) -> Tensor:
    if digits == 1:
        return unpack_mask(bits, shape)
    if not 1 < digits <= 8 or bits.dim() != 2 or len(bits) != digits:
        raise ValueError(f"bits is {list(bits.shape)} of {digits} digits; expected 1 to 8, as rows")
    for plane in bits:
        check_bits(plane, shape)
    return unpack_digits(bits, shape)
