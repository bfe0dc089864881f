"""pack_filters: learned and frozen filters to one bank, in the compute dtype and memory format."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.choice import choose
from maskedconv.ops.pack_filters import cuda, native, reference
from maskedconv.ops.pack_filters.problem import PackProblem

__all__ = ["BACKENDS", "PackProblem", "pack_filters"]

BACKENDS = {"reference": reference, "native": native, "cuda": cuda}


def pack_filters(
    learned: Tensor,
    frozen: Tensor | None,
    slice_dim: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """One bank ``[O, I / groups, kH, kW]`` of the learned slice followed by the frozen one.

    Not differentiable. Where there is nothing to assemble, the result may be ``learned`` or
    ``frozen`` itself.

    Args:
        learned, frozen: the two slices, alike but for dimension ``slice_dim``; frozen may be None.
        dtype, memory_format: of the result.

    Raises:
        ValueError, RuntimeError: MASKEDCONV_BACKEND names no backend, or one that cannot run here.
    """
    if frozen is None or learned.size(slice_dim) == 0:
        whole = learned if frozen is None else frozen
        return whole.to(dtype).contiguous(memory_format=memory_format)
    problem = PackProblem(learned, frozen, slice_dim, dtype, memory_format)
    if torch.compiler.is_compiling():
        return reference.run(problem)
    return BACKENDS[choose(BACKENDS, problem, ("native", "reference"))].run(problem)
