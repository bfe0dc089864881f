"""The arguments of pack_filters."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.kinds import describe_cuda


class PackProblem(NamedTuple):
    """A weight that consists of a learned slice followed by a frozen slice.

    Attributes:
        learned, frozen: the two slices, of equal shape except in dimension ``slice_dim``; neither
            is empty.
        dtype, memory_format: data type and memory format of the weight ``[O, I / groups, kH, kW]``.
        backend: the forced backend; empty for none.
    """

    learned: Tensor
    frozen: Tensor
    slice_dim: int
    dtype: torch.dtype
    memory_format: torch.memory_format
    backend: str = ""

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The tensors that a kernel reads."""
        return self.learned, self.frozen

    def kind(self) -> Hashable:
        """Everything that the choice of a backend may depend on."""
        learned, frozen, slice_dim, dtype, memory_format, _ = self
        if learned.is_cuda:
            return describe_cuda(learned, frozen), slice_dim, dtype, memory_format
        return learned.device, frozen.device, learned.dtype, frozen.dtype, dtype

    @property
    def shape(self) -> list[int]:
        """The shape of the weight."""
        shape = list(self.learned.shape)
        shape[self.slice_dim] += self.frozen.size(self.slice_dim)
        return shape
