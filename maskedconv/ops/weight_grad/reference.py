"""weight_grad by PyTorch's own operators, for every device, dtype and shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.ops.aten import convolution_grads
from maskedconv.ops.bn_relu.reference import normalised
from maskedconv.ops.geometry import (
    ConvGeometry,
    memory_format_of,
    output_size,
    split_at_group_boundary,
)
from maskedconv.ops.weight_grad.problem import WeightGradProblem

_BLOCK = 8  # filters in a block of PyTorch's CPU library


def cannot_run(problem: WeightGradProblem) -> str:
    """Empty, because the reference takes every problem."""
    return ""


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in the dtype of ``grad_output``."""
    if problem.is_empty():  # PyTorch's operator does not support all empty shapes
        return problem.grad_output.new_zeros(problem.shape)
    if problem.scale is not None:
        problem = without_prologue(problem)
    input, grad_output, shape, slice_dim, geometry, *_ = problem
    if slice_dim != 0:
        return _plain(input, _with_surplus(input, grad_output, shape, geometry), shape, geometry)
    if geometry.groups == 1:
        count = _in_blocks(shape[0], grad_output.size(1)) if input.is_cpu else shape[0]
        first = _plain(input, grad_output.narrow(1, 0, count), (count, *shape[1:]), geometry)
        return first if count == shape[0] else first[: shape[0]]
    in_channels = shape[1] * geometry.groups
    runs = split_at_group_boundary(shape[0], grad_output.size(1), in_channels, geometry.groups)
    grads = [
        _plain(
            input.narrow(1, run.first_channel, run.end_channel - run.first_channel),
            grad_output.narrow(1, run.first, run.end - run.first),
            (run.end - run.first, *shape[1:]),
            geometry._replace(groups=run.groups),
        )
        for run in runs
    ]
    return grads[0] if len(grads) == 1 else torch.cat(grads)


def _in_blocks(filters: int, out_channels: int) -> int:
    """The number of filters, padded to complete blocks if that adds few, because PyTorch's CPU
    library is slower with partial blocks.
    """
    complete = min(out_channels, -(-filters // _BLOCK) * _BLOCK)
    return complete if _BLOCK * (complete - filters) <= filters else filters


def without_prologue(problem: WeightGradProblem) -> WeightGradProblem:
    """The same problem with its activation computed, as in the forward pass."""
    assert problem.scale is not None
    assert problem.shift is not None
    input = normalised(problem.input, problem.scale, problem.shift).relu_()
    return problem._replace(input=input.to(problem.grad_output.dtype), scale=None, shift=None)


def _with_surplus(
    input: Tensor, grad_output: Tensor, shape: torch.Size, geometry: ConvGeometry
) -> Tensor:
    """``grad_output``, padded with zeros to the output size of a kernel of ``shape``.

    A shorter kernel (the learned rows and columns come first) has a larger output, and the surplus
    has no gradient.
    """
    rows, columns = output_size(input.shape[2:], shape[2:], geometry)
    surplus = (0, columns - grad_output.size(3), 0, rows - grad_output.size(2))
    return F.pad(grad_output, surplus) if any(surplus) else grad_output


def _plain(
    input: Tensor, grad_output: Tensor, shape: tuple[int, ...], geometry: ConvGeometry
) -> Tensor:
    """The weight gradient of an ordinary convolution with filters of ``shape``."""
    weight = torch.empty(
        shape, dtype=grad_output.dtype, device=grad_output.device,
        memory_format=memory_format_of(input),
    )  # fmt: skip
    return convolution_grads(grad_output, input, weight, geometry, (False, True))[1]
