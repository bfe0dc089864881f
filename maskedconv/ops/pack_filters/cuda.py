"""pack_filters on CUDA, by the compiled kernel of csrc/pack_filters/cuda/pack_filters.cu."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.pack_filters.problem import PackProblem
from maskedconv.ops.plain import address

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True  # it copies
_MOST_ELEMENTS = 2**28  # from the first to the last: all indices of the kernel fit in 32 bits


def cannot_run(problem: PackProblem) -> str:
    """The reason why the kernel cannot take these filters, or an empty string."""
    learned, frozen = problem.learned, problem.frozen
    if reason := native.why_no_cuda("pack_filters_cuda"):
        return reason
    if learned.device.type != "cuda" or frozen.device != learned.device:
        return f"its kernel is for cuda; the filters are on {learned.device} and {frozen.device}"
    if reason := native.why_no_code_for(learned.device):
        return reason
    if learned.dtype != torch.float32 or frozen.dtype != torch.float32:
        return f"its kernel is for float32 filters; these are {learned.dtype} and {frozen.dtype}"
    if problem.dtype not in native.TYPES:
        return f"no compiled conversion to {problem.dtype}"
    if max(math.prod(problem.shape), _span(learned), _span(frozen)) > _MOST_ELEMENTS:
        return "its kernel's indices are of 32 bits"
    return ""


def _span(filters: Tensor) -> int:
    return sum(size * stride for size, stride in zip(filters.shape, filters.stride(), strict=True))


def run(problem: PackProblem) -> Tensor:
    """The weight, on PyTorch's current stream."""
    learned, frozen = problem.learned, problem.frozen
    with torch.cuda.device(learned.device):
        out = torch.empty(
            problem.shape, dtype=problem.dtype, device=learned.device,
            memory_format=problem.memory_format,
        )  # fmt: skip
        native.loaded().pack_filters_cuda(
            address(out), out.stride(), native.TYPES[problem.dtype],
            address(learned), learned.stride(), address(frozen), frozen.stride(),
            problem.shape, learned.size(problem.slice_dim), problem.slice_dim,
            torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out
