"""pack_filters on the CPU, by the compiled kernel of csrc/pack_filters/pack_filters.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.pack_filters.problem import PackProblem
from maskedconv.ops.plain import address

# torch.cat was faster for every measured shape.
DEVICES: tuple[str, ...] = ()


def cannot_run(problem: PackProblem) -> str:
    """The reason why the kernel cannot take these filters, or an empty string."""
    learned, frozen, dtype = problem.learned, problem.frozen, problem.dtype
    if native.module() is None:
        return native.why_missing()
    if learned.device.type != "cpu" or frozen.device.type != "cpu":
        return f"its kernel is for the CPU; the filters are on {learned.device}"
    if dtype.is_complex:
        return f"its kernel is for real numbers, not {dtype}"
    if learned.dtype != frozen.dtype:
        return f"the learned filters are {learned.dtype}, the frozen ones {frozen.dtype}"
    if learned.dtype != dtype and (learned.dtype, dtype) != (torch.float32, torch.bfloat16):
        return f"no compiled conversion from {learned.dtype} to {dtype}"
    return ""


def run(problem: PackProblem) -> Tensor:
    """The weight."""
    module = native.module()
    if module is None:
        raise RuntimeError(native.REASON)
    learned, frozen = problem.learned, problem.frozen
    out = torch.empty(
        problem.shape, dtype=problem.dtype, device="cpu", memory_format=problem.memory_format
    )
    module.pack_filters(
        address(out), out.stride(), out.element_size(), learned.element_size(),
        address(learned), learned.stride(), address(frozen), frozen.stride(),
        problem.shape, learned.size(problem.slice_dim), problem.slice_dim,
    )  # fmt: skip
    return out
