"""The problem that pack_filters solves."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.kinds import describe_cuda
from maskedconv.ops.plain import resolved


class PackProblem(NamedTuple):
    """A weight of the learned slice followed by the frozen one.

    Attributes:
        learned, frozen: the two slices, alike except for dimension ``slice_dim``; both not empty.
        dtype, memory_format: of the weight ``[O, I / groups, kH, kW]``.
        backend: the one that must compute it; empty for none in particular.
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
        """Everything that the decision for a backend may depend on."""
        learned, frozen, slice_dim, dtype, memory_format, _ = self
        if learned.is_cuda:
            return describe_cuda(learned, frozen), slice_dim, dtype, memory_format
        return learned.device, frozen.device, learned.dtype, frozen.dtype, dtype

    def resolved(self) -> PackProblem:
        """The same problem of tensors as of :func:`maskedconv.ops.plain.resolved`."""
        learned, frozen = map(resolved, self.tensors())
        return self._replace(learned=learned, frozen=frozen)

    @property
    def shape(self) -> list[int]:
        """The shape of the weight."""
        shape = list(self.learned.shape)
        shape[self.slice_dim] += self.frozen.size(self.slice_dim)
        return shape
