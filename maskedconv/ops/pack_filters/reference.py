"""pack_filters by PyTorch's own operators, which torch.compile traces and fuses."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.geometry import dense, filters_format
from maskedconv.ops.pack_filters.problem import PackProblem


def cannot_run(problem: PackProblem) -> str:
    """Empty, because the reference takes every problem."""
    return ""


def run(problem: PackProblem) -> Tensor:
    """The weight."""
    learned, frozen, slice_dim, dtype, memory_format, _ = problem
    if not (learned.dtype is frozen.dtype is dtype):
        learned, frozen = learned.to(dtype), frozen.to(dtype)
    weight = torch.cat((learned, frozen), slice_dim)
    # The strides of dimensions of size 1 choose PyTorch's kernel: they stay those of the filters.
    if filters_format(learned, frozen) is torch.channels_last:
        return dense(weight, memory_format)
    return weight.contiguous(memory_format=memory_format)
