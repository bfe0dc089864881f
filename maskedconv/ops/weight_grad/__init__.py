"""weight_grad: the gradient of the learned slice of a filter bank, and of nothing else.

``dW[o, i, r, c] = sum over n, h, w of grad_output[n, o, h, w] * x[n, i, h s + r d - p, ...]`` for
the learned indices of one dimension only. Each slice dimension is a smaller convolution's weight
gradient: of fewer output channels (0), of fewer input channels (1), of a shorter kernel (2, 3).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops import measured
from maskedconv.ops.choice import Ranking, backend_for, choose, is_recording, record_chosen
from maskedconv.ops.geometry import (
    ConvGeometry,
    filter_runs,
    first_channels,
    memory_format_of,
)
from maskedconv.ops.plain import is_plain
from maskedconv.ops.weight_grad import cuda, native, reference, triton
from maskedconv.ops.weight_grad.cpu_table import native_is_faster
from maskedconv.ops.weight_grad.problem import WeightGradProblem

__all__ = [
    "BACKENDS",
    "WeightGradProblem",
    "keep_for_weight_grad",
    "prefers_library",
    "weight_grad",
]

BACKENDS = {"reference": reference, "native": native, "triton": triton, "cuda": cuda}


def keep_for_weight_grad(
    input: Tensor, learned_shape: torch.Size, slice_dim: int, out_channels: int, groups: int
) -> Tensor:
    """What of ``input [N, C, H, W]`` the gradient of the learned slice needs, in memory of its own.

    The whole input is returned as it is; a part of its channels is copied, so that the rest can be
    freed.
    """
    if slice_dim == 0 and groups == 1:
        return input
    if slice_dim == 1:
        part = first_channels(input, learned_shape[1], groups)
    elif slice_dim == 0:
        runs = filter_runs(learned_shape[0], out_channels, input.size(1), groups)
        part = input.narrow(1, 0, runs[-1].end_channel if runs else 0)
    else:
        return input
    if part.size(1) == input.size(1):
        return input
    return part.contiguous(memory_format=memory_format_of(input))


_KERNEL_FIRST = Ranking(("native", "reference"), "the first that can by the table for the CPU")
_LIBRARY_FIRST = Ranking(("reference",), "faster by the table for the CPU")


def rank(problem: WeightGradProblem) -> Ranking:
    """Backends from the fastest to the one that always runs, for this problem."""
    if problem.input.is_cuda:
        otherwise = None if problem.scale is None else _after_activation
        return measured.ranking("weight_grad", BACKENDS, problem, otherwise)
    return _KERNEL_FIRST if native_is_faster(problem) else _LIBRARY_FIRST


def _after_activation(problem: WeightGradProblem) -> Tensor:
    """What a BNReLUConv2d does if no kernel computes the activation: first that, then the gradient
    of it by the fastest backend.
    """
    plain = reference.without_prologue(problem)
    return BACKENDS[backend_for(BACKENDS, plain, rank)[0]].run(plain)


def prefers_library(problem: WeightGradProblem, free: bool = False) -> bool:
    """Whether PyTorch's own operator computes this, and could compute other gradients with it."""
    if free and _is_plain_on_cpu(problem):
        return not _takes_kernel(problem)
    if torch.compiler.is_compiling():
        return True
    return backend_for(BACKENDS, problem.resolved(), rank)[0] == "reference"


def weight_grad(problem: WeightGradProblem, dtype: torch.dtype, free: bool = False) -> Tensor:
    """Gradient of the learned slice, of shape ``problem.shape`` and type ``dtype``.

    Not differentiable. While torch.compile traces, the call becomes the registered operator
    ``maskedconv::weight_grad``.

    Args:
        free: as :func:`maskedconv.ops.choice.is_free` says of ``problem.backend``, where that is
            known.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that it or ``problem`` names cannot run here.
    """
    if free and _is_plain_on_cpu(problem):
        backend = "native" if _takes_kernel(problem) else "reference"
        if is_recording():
            record_chosen("weight_grad", BACKENDS, problem, backend, rank(problem).reason)
        grad = BACKENDS[backend].run(problem)
        return grad if grad.dtype is dtype else grad.to(dtype)
    if torch.compiler.is_compiling():
        flat = (*problem[:2], list(problem.shape), problem.slice_dim, *problem.geometry)
        return torch.ops.maskedconv.weight_grad(*flat, *problem[5:], dtype)
    problem = problem.resolved()
    backend = choose("weight_grad", BACKENDS, problem, rank)
    return BACKENDS[backend].run(problem).to(dtype)


def _is_plain_on_cpu(problem: WeightGradProblem) -> bool:
    return problem.input.is_cpu and is_plain(problem.input) and is_plain(problem.grad_output)


# What :func:`_takes_kernel` said for problems of one kind.
_taken: dict[Hashable, bool] = {}
_MOST_KINDS = 4096


def _takes_kernel(problem: WeightGradProblem) -> bool:
    """What :func:`choose` comes to on the CPU where nothing is forced."""
    input, grad_output, shape, slice_dim, geometry, *_ = problem
    kind = (
        input.shape, input.stride(), input.dtype, grad_output.dtype, shape, slice_dim, geometry,
    )  # fmt: skip
    takes = _taken.get(kind)
    if takes is None:
        if len(_taken) >= _MOST_KINDS:
            _taken.clear()
        takes = _taken[kind] = backend_for(BACKENDS, problem, rank)[0] == "native"
    return takes


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
    # What the compiler was told, to the stride.
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
