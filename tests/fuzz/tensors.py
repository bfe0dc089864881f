"""Tensors of a case: their values, and every layout that a user's tensor may have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.fuzz.cases import Case


class Subclass(Tensor):
    """A tensor subclass without behaviour of its own."""


def _prefix(values: Tensor) -> Tensor:
    batch, channels, *size = values.shape
    wide = values.new_full((batch, channels + 5, *size), float("nan"))
    wide = wide.to(memory_format=torch.channels_last)
    wide[:, :channels] = values
    return wide[:, :channels]


def _strided(values: Tensor) -> Tensor:
    *shape, columns = values.shape
    wide = values.new_full((*shape, 2 * columns), float("nan"))
    wide[..., ::2] = values
    return wide[..., ::2]


def _expanded(values: Tensor) -> Tensor:
    """All images share the memory of the first one."""
    return values[:1].expand_as(values)


def _pixels_last(values: Tensor) -> Tensor:
    """Channels vary fastest, as in ``[N, L, C]`` viewed as an image of L x 1 pixels."""
    flat = values.flatten(2).transpose(1, 2).contiguous()
    return flat.transpose(1, 2).unflatten(2, values.shape[2:])


def _negative(values: Tensor) -> Tensor:
    """Has PyTorch's lazy negative bit; the memory contains the negated values."""
    kind = torch.float64 if values.dtype == torch.float64 else torch.float32
    if values.dtype != kind:
        return torch._neg_view(-values)
    return torch.complex(torch.zeros_like(values), -values).conj().imag


def _unaligned(values: Tensor) -> Tensor:
    flat = values.new_empty(values.numel() + 1)
    part = flat[1:].view(values.shape[0], *values.shape[2:], values.shape[1]).permute(0, 3, 1, 2)
    return part.copy_(values)


def _zero(values: Tensor) -> Tensor:
    """PyTorch's tensor of zeros without memory."""
    return torch._efficientzerotensor(values.shape, dtype=values.dtype)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda values: values.contiguous(),
    "channels_last": lambda values: values.contiguous(memory_format=torch.channels_last),
    "prefix": _prefix,
    "strided": _strided,
    "transposed": lambda values: values.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": _expanded,
    "pixels_last": _pixels_last,
    "negative": _negative,
    "unaligned": _unaligned,
    "subclass": lambda values: values.contiguous().as_subclass(Subclass),
    "zero": _zero,
}


def laid_out(values: Tensor, layout: str) -> Tensor:
    """``values`` ``[N, C, H, W]`` in another layout; "expanded" and "zero" change them."""
    return LAYOUTS[layout](values)


def dtype_of(case: Case) -> torch.dtype:
    """The precision of the package's modules."""
    return getattr(torch, case.dtype)


def with_special(values: Tensor, case: Case, place: str) -> Tensor:
    """Writes the case's special value into ``values`` if it belongs to this place."""
    name, _, where = case.special.partition(" ")
    if where == place and values.numel():
        values.view(-1)[case.seed % values.numel()] = float(name)
    return values


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN included."""
    return torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(
        one.isnan(), other.isnan()
    )
