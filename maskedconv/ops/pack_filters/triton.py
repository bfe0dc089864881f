"""pack_filters by the Triton kernel of ``triton_kernels.py``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedconv.ops import triton_runtime
from maskedconv.ops.pack_filters.problem import PackProblem

DEVICES: tuple[str, ...] = ("cuda",)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LAUNCH = {"BLOCK": 1024, "num_warps": 4}
_INT32 = 2**31 - 2**16


def cannot_run(problem: PackProblem) -> str:
    """The reason why the kernel cannot take these filters, or an empty string."""
    learned, frozen = problem.learned, problem.frozen
    for dtype in (learned.dtype, frozen.dtype, problem.dtype):
        if dtype not in DTYPES:
            return f"its kernel is for floating point, not {dtype}"
    if learned.device != frozen.device:
        return f"the filters are on two devices, {learned.device} and {frozen.device}"
    if not math.prod(problem.shape):
        return "there is nothing to pack"
    if math.prod(problem.shape) >= _INT32:
        return f"a weight of {math.prod(problem.shape)} elements is too large for 32-bit indices"
    return triton_runtime.cannot_launch(learned.device)


def run(problem: PackProblem) -> Tensor:
    """The weight, on PyTorch's current stream."""
    from maskedconv.ops.pack_filters.triton_kernels import pack_filters_kernel

    learned, frozen = problem.learned, problem.frozen
    weight = torch.empty(
        problem.shape, dtype=problem.dtype, device=learned.device,
        memory_format=problem.memory_format,
    )  # fmt: skip
    # Dimensions from slowest to fastest: [O, I, kH, kW] or, in channels_last, [O, kH, kW, I].
    order = (0, 1, 2, 3) if weight.is_contiguous() else (0, 2, 3, 1)
    grid = (math.ceil(weight.numel() / LAUNCH["BLOCK"]),)
    with triton_runtime.on_device(learned):
        pack_filters_kernel[grid](
            learned, frozen, weight, weight.numel(), *(weight.size(dim) for dim in order[1:]),
            learned.size(problem.slice_dim), *(learned.stride(dim) for dim in order),
            *(frozen.stride(dim) for dim in order), SLICE=order.index(problem.slice_dim), **LAUNCH,
        )  # fmt: skip
    return weight
