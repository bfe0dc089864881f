"""Value types of a convolution: its filters in parts, and how it is executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.functional.selected import Selected


class ExecutionOptions(NamedTuple):
    """Options that affect speed, not results, except for rounding.

    Attributes:
        backend: the one that must run the operators; empty for none in particular.
        jointly: the types for which PyTorch's gradient of all filters is the fastest on the CPU, by
            :func:`maskedconv.ops.weight_grad.jointly.types_faster_jointly`.
    """

    backend: str = ""
    jointly: tuple[torch.dtype, ...] = ()


class FilterBank(NamedTuple):
    """The filters of a convolution: a learned slice, followed by a frozen slice or by zeros.

    With ``selected`` the slices of the weight are in another order than that.

    Attributes:
        learned: the learned slice of the weight ``[O, C / groups, kH, kW]``: n >= 0 indices of
            dimension ``slice_dim``.
        frozen: the rest of the weight; None if there is none, or if it is zero.
        bias: the learned part of the bias: ``[n]`` for ``slice_dim`` 0, else ``[O]``.
        frozen_bias: the bias of the frozen filters, ``[O - n]``; only for ``slice_dim`` 0.
        slice_dim: 0 output filters, 1 input channels, 2 kernel rows, 3 kernel columns.
        zeros: the number of zero indices that follow the learned ones, instead of ``frozen``.
        selected: which indices are learned; None for the first ones.
    """

    learned: Tensor
    frozen: Tensor | None = None
    bias: Tensor | None = None
    frozen_bias: Tensor | None = None
    slice_dim: int = 0
    zeros: int = 0
    selected: Selected | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The ``TENSORS`` tensors, in the order of the fields."""
        return self.learned, self.frozen, self.bias, self.frozen_bias

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of the filters, of the learned ones if there are any; None of zeros alone."""
        if self.learned.numel():
            return self.learned.dtype
        # An empty tensor may have another type than what was loaded beside it.
        own = self.bias if self.frozen is None else self.frozen
        return None if own is None else own.dtype

    @property
    def shape(self) -> list[int]:
        """The shape of the full weight, ``[O, C / groups, kH, kW]``."""
        shape, dim = list(self.learned.shape), self.slice_dim
        shape[dim] += self.zeros if self.frozen is None else self.frozen.size(dim)
        return shape

    def full_weight(self) -> Tensor:
        """A copy of the weight ``[O, C / groups, kH, kW]``, differentiable towards ``learned``."""
        if self.zeros:
            weight = F.pad(self.learned, (0, 0) * (3 - self.slice_dim) + (0, self.zeros))
        elif self.frozen is None:
            weight = self.learned.clone()
        else:
            weight = torch.cat((self.learned, self.frozen), dim=self.slice_dim)
        return self._in_order(weight, self.slice_dim)

    def full_bias(self) -> Tensor | None:
        """A copy of the bias ``[O]``, zeros included; None if there is none."""
        parts = [part for part in (self.bias, self.frozen_bias) if part is not None]
        if not parts:
            return None
        zeros = self.zeros if self.slice_dim == 0 else 0
        bias = torch.cat(parts)
        bias = F.pad(bias, (0, zeros)) if zeros else bias
        return self._in_order(bias, 0) if self.slice_dim == 0 else bias

    def _in_order(self, tensor: Tensor, dim: int) -> Tensor:
        return tensor if self.selected is None else self.selected.in_order(tensor, dim)

    def first_filters(self, first: int, end: int) -> FilterBank:
        """The learned filters [first, end) and their bias, without zeros."""
        bias = None if self.bias is None else narrowed(self.bias, 0, first, end)
        return FilterBank(narrowed(self.learned, 0, first, end), None, bias)


TENSORS = 4


def bank_of(tensors: Sequence[Tensor | None], slice_dim: int, zeros: int) -> FilterBank:
    """The bank whose :meth:`FilterBank.tensors` these are."""
    learned, frozen, bias, frozen_bias = tensors
    assert learned is not None
    return FilterBank(learned, frozen, bias, frozen_bias, slice_dim, zeros)


def narrowed(tensor: Tensor, dim: int, first: int, end: int) -> Tensor:
    """Indices [first, end) of ``dim``; the tensor itself if that is all of it.

    The backward pass of a slice copies.
    """
    if (first, end) == (0, tensor.size(dim)):
        return tensor
    return tensor.narrow(dim, first, end - first)


def joined_bias(
    bias: Tensor | None,
    frozen_bias: Tensor | None,
    dtype: torch.dtype,
    selected: Selected | None = None,
) -> Tensor | None:
    """The bias of learned and frozen filters as ``dtype``, differentiable; None without one.

    Args:
        selected: of the bank that has these biases.
    """
    if bias is not None and frozen_bias is not None:
        both = torch.cat((bias.to(dtype), frozen_bias.to(dtype)))
        return both if selected is None else selected.in_order(both, 0)
    part = frozen_bias if bias is None else bias
    return None if part is None else part.to(dtype)
