"""weight_grad: the gradient of the learned slice of a weight.

``dW[o, i, r, c] = sum over n, h, w of grad_output[n, o, h, w] * x[n, i, h s + r d - p, ...]`` for
the learned indices of one dimension. For each slice dimension this is the weight gradient of a
smaller convolution: with fewer output channels (0), fewer input channels (1) or a shorter kernel
(2, 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.dispatch import Operator, chosen_backend, dispatch
from maskedconv.ops.geometry import (
    ConvGeometry,
    first_channels,
    memory_format_of,
    split_at_group_boundary,
)
from maskedconv.ops.weight_grad import cuda, cuda_wgmma, matmul, native, reference, triton
from maskedconv.ops.weight_grad.agreement import compare
from maskedconv.ops.weight_grad.problem import WeightGradProblem

__all__ = [
    "BACKENDS",
    "OPERATOR",
    "WeightGradProblem",
    "input_to_save",
    "uses_reference",
    "weight_grad",
    "weight_grad_by_kernel",
]

BACKENDS = {
    "reference": reference,
    "native": native,
    "triton": triton,
    "cuda": cuda,
    "matmul": matmul,
    "cuda_wgmma": cuda_wgmma,
}


def input_to_save(
    input: Tensor, learned_shape: torch.Size, slice_dim: int, out_channels: int, groups: int
) -> Tensor:
    """The part of ``input [N, C, H, W]`` that the gradient of the learned slice needs.

    The complete input is returned unchanged. A part of its channels is copied, so that the rest can
    be freed.
    """
    if slice_dim == 0 and groups == 1:
        return input
    if slice_dim == 1:
        part = first_channels(input, learned_shape[1], groups)
    elif slice_dim == 0:
        runs = split_at_group_boundary(learned_shape[0], out_channels, input.size(1), groups)
        part = input.narrow(1, 0, runs[-1].end_channel if runs else 0)
    else:
        return input
    if part.size(1) == input.size(1):
        return input
    return part.contiguous(memory_format=memory_format_of(input))


def _after_activation(problem: WeightGradProblem) -> Tensor:
    """The gradient of a BNReLUConv2d without a kernel for the activation: first the activation,
    then its gradient by the fastest backend.
    """
    if problem.scale is None:
        return reference.run(problem)
    plain = reference.without_prologue(problem)
    return chosen_backend(OPERATOR, plain).run(plain)


OPERATOR = Operator("weight_grad", BACKENDS, timed_reference=_after_activation, compare=compare)


def uses_reference(problem: WeightGradProblem) -> bool:
    """Whether PyTorch's own operator computes this, and could compute other gradients jointly."""
    return torch.compiler.is_compiling() or chosen_backend(OPERATOR, problem) is reference


def weight_grad(problem: WeightGradProblem, dtype: torch.dtype) -> Tensor:
    """Gradient of the learned slice, with shape ``problem.shape`` and ``dtype``.

    Not differentiable. While torch.compile traces, the call becomes the registered operator
    ``maskedconv::weight_grad``.

    Raises:
        ValueError: MASKEDCONV_BACKEND is not the name of a backend.
        RuntimeError: the forced backend cannot run here.
    """
    if torch.compiler.is_compiling():
        flat = (*problem[:2], list(problem.shape), problem.slice_dim, *problem.geometry)
        return torch.ops.maskedconv.weight_grad(*flat, *problem[5:], dtype)
    backend, problem = dispatch(OPERATOR, problem)
    return _run(backend, problem, dtype)


def weight_grad_by_kernel(problem: WeightGradProblem, dtype: torch.dtype) -> Tensor | None:
    """:func:`weight_grad`, or None where :func:`uses_reference`.

    Raises:
        ValueError, RuntimeError: as :func:`weight_grad`.
    """
    if torch.compiler.is_compiling():
        return None
    backend, problem = dispatch(OPERATOR, problem, only_kernels=True)
    return None if backend is reference else _run(backend, problem, dtype)


def _run(backend: Any, problem: WeightGradProblem, dtype: torch.dtype) -> Tensor:
    grad: Tensor = backend.run(problem)
    return grad if grad.dtype is dtype else grad.to(dtype)


_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define(
    "weight_grad(Tensor input, Tensor grad_output, SymInt[] shape, int slice_dim, SymInt[] stride, "
    "SymInt[] padding, SymInt[] dilation, int groups, Tensor? scale, Tensor? shift, "
    "str backend, ScalarType dtype) -> Tensor"
)


@torch.library.impl(_LIBRARY, "weight_grad", "CompositeExplicitAutograd")
def _registered(
    input: Tensor,
    grad_output: Tensor,
    shape: list[int],
    slice_dim: int,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    backend: str,
    dtype: torch.dtype,
) -> Tensor:
    pairs = [(rows, columns) for rows, columns in (stride, padding, dilation)]
    geometry = ConvGeometry(pairs[0], pairs[1], pairs[2], groups)
    problem = WeightGradProblem(
        input, grad_output, torch.Size(shape), slice_dim, geometry, scale, shift, backend
    )
    grad = weight_grad(problem, dtype)
    # The strides that the fake implementation promises.
    out = torch.empty(
        problem.shape, dtype=dtype, device=grad.device, memory_format=torch.channels_last
    )
    return grad if grad.stride() == out.stride() else out.copy_(grad)


@torch.library.register_fake("maskedconv::weight_grad", lib=_LIBRARY)
def _fake(
    input: Tensor, grad_output: Tensor, shape: list[int], *rest: Any, **kwargs: Any
) -> Tensor:
    dtype = kwargs.get("dtype", rest[-1] if rest else None)
    return torch.empty(shape, dtype=dtype, device=input.device, memory_format=torch.channels_last)
