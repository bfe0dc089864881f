"""pack_filters by PyTorch's own operators, which torch.compile traces and fuses."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.geometry import dense, filters_format, is_channels_last_weight
from maskedconv.ops.pack_filters.problem import PackProblem
from maskedconv.ops.plain import is_plain

# On a CPU of two threads, one conversion behind the concatenation takes as long as one into each
# part of the result for some 150,000 numbers, and less time for fewer.
_FEW = 2**17


def cannot_run(problem: PackProblem) -> str:
    """Empty, because the reference takes every problem."""
    return ""


def run(problem: PackProblem) -> Tensor:
    """The weight."""
    learned, frozen, slice_dim, dtype, memory_format, _ = problem
    if not (learned.dtype is frozen.dtype is dtype) and not _are_few(learned, frozen):
        if _can_be_written(problem):
            return _converted(problem)
        learned, frozen = learned.to(dtype), frozen.to(dtype)
    weight = torch.cat((learned, frozen), slice_dim)
    if weight.dtype is not dtype:
        weight = weight.to(dtype)
    if memory_format is torch.channels_last and is_channels_last_weight(weight):
        return weight
    # The strides of dimensions of size 1 choose PyTorch's kernel: they stay those of the filters.
    if filters_format(learned, frozen) is torch.channels_last:
        return dense(weight, memory_format)
    return weight.contiguous(memory_format=memory_format)


def _are_few(learned: Tensor, frozen: Tensor) -> bool:
    return learned.dtype is frozen.dtype and learned.numel() + frozen.numel() < _FEW


def _can_be_written(problem: PackProblem) -> bool:
    """Whether new memory has the strides of the result, and the filters can be written to it."""
    learned, frozen, _, _, memory_format, _ = problem
    alike = filters_format(learned, frozen) is memory_format
    return learned.is_cpu and alike and is_plain(learned) and is_plain(frozen)


def _converted(problem: PackProblem) -> Tensor:
    """The weight, each part converted where it belongs."""
    learned, frozen, slice_dim, dtype, memory_format, _ = problem
    weight = torch.empty(*problem.shape, dtype=dtype, device="cpu", memory_format=memory_format)
    count = learned.size(slice_dim)
    weight.narrow(slice_dim, 0, count).copy_(learned)
    weight.narrow(slice_dim, count, frozen.size(slice_dim)).copy_(frozen)
    return weight
