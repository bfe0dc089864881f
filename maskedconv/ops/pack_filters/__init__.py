"""pack_filters: learned and frozen filters as one weight, in compute dtype and memory format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.dispatch import Operator, dispatch
from maskedconv.ops.pack_filters import cuda, reference, triton
from maskedconv.ops.pack_filters.problem import PackProblem

__all__ = ["BACKENDS", "OPERATOR", "PackProblem", "pack_filters"]

BACKENDS = {"reference": reference, "triton": triton, "cuda": cuda}
OPERATOR = Operator("pack_filters", BACKENDS)


def pack_filters(
    learned: Tensor,
    frozen: Tensor | None,
    slice_dim: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    backend: str = "",
) -> Tensor:
    """The weight ``[O, I / groups, kH, kW]``: the learned slice followed by the frozen slice.

    Not differentiable. If there is nothing to assemble, the result may be ``learned`` or
    ``frozen`` itself. While torch.compile traces, the call becomes the registered operator
    ``maskedconv::pack_filters``.

    Args:
        learned, frozen: the two slices, of equal shape except in dimension ``slice_dim``; frozen
            may be None.
        dtype, memory_format: data type and memory format of the result.
        backend: the forced backend; empty for none.

    Raises:
        ValueError: MASKEDCONV_BACKEND is not the name of a backend.
        RuntimeError: the forced backend cannot run here.
    """
    if frozen is None or learned.size(slice_dim) == 0:
        weight = learned if frozen is None else frozen
        return weight.to(dtype).contiguous(memory_format=memory_format)
    if torch.compiler.is_compiling():
        last = memory_format == torch.channels_last
        return torch.ops.maskedconv.pack_filters(learned, frozen, slice_dim, dtype, last, backend)
    problem = PackProblem(learned, frozen, slice_dim, dtype, memory_format, backend)
    implementation, problem = dispatch(OPERATOR, problem)
    return implementation.run(problem)


_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define(
    "pack_filters(Tensor learned, Tensor frozen, int slice_dim, ScalarType dtype, "
    "bool channels_last, str backend) -> Tensor"
)


def _problem(
    learned: Tensor,
    frozen: Tensor,
    slice_dim: int,
    dtype: torch.dtype,
    channels_last: bool,
    backend: str,
) -> PackProblem:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return PackProblem(learned, frozen, slice_dim, dtype, memory_format, backend)


@torch.library.impl(_LIBRARY, "pack_filters", "CompositeExplicitAutograd")
def _registered(*arguments: Any) -> Tensor:
    return pack_filters(*_problem(*arguments))


@torch.library.register_fake("maskedconv::pack_filters", lib=_LIBRARY)
def _fake(*arguments: Any) -> Tensor:
    problem = _problem(*arguments)
    return problem.learned.new_empty(problem.shape, dtype=problem.dtype).contiguous(
        memory_format=problem.memory_format
    )
