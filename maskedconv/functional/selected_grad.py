"""The gradient of slices at selected indices, as that of smaller ordinary convolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv import ops
from maskedconv.functional.selected import (
    Selected,
    Window,
    channels_of,
    channels_of_filters,
    filter_runs,
    take,
    window_of,
)
from maskedconv.ops import WeightGradProblem
from maskedconv.ops.geometry import ConvGeometry, memory_format_of


def selected_input(input: Tensor, selected: Selected, slice_dim: int, groups: int) -> Tensor:
    """The part of ``input [N, C, H, W]`` that the gradient of the selected slices needs.

    As of :func:`maskedconv.ops.input_to_save`.
    """
    if slice_dim > 1:
        return input
    select = channels_of if slice_dim == 1 else channels_of_filters
    part = select(input, selected, groups)
    if part.size(1) == input.size(1):
        return input
    return part.contiguous(memory_format=memory_format_of(input))


def selected_weight_grad(
    problem: WeightGradProblem, selected: Selected, channels: int, dtype: torch.dtype
) -> Tensor:
    """The gradient of the selected slices, of shape ``problem.shape`` and ``dtype``.

    Args:
        problem: its input is that of :func:`selected_input`, and its gradient, for ``slice_dim`` 0,
            that of the selected channels of the output.
        channels: of the convolution's whole input.
    """
    if problem.slice_dim > 1:
        return _of_rows(problem, selected, dtype)
    if problem.slice_dim == 1 or problem.geometry.groups == 1:
        return ops.weight_grad(problem, dtype)
    grads = [
        ops.weight_grad(
            problem._replace(
                input=problem.input[:, run.first_channel : run.end_channel],
                grad_output=problem.grad_output[:, run.first : run.end],
                shape=torch.Size((run.end - run.first, *problem.shape[1:])),
                geometry=problem.geometry._replace(groups=run.groups),
            ),
            dtype,
        )
        for run in filter_runs(selected, channels, problem.geometry.groups)
    ]
    return grads[0] if len(grads) == 1 else torch.cat(grads)


def _of_rows(problem: WeightGradProblem, selected: Selected, dtype: torch.dtype) -> Tensor:
    """The gradient of selected kernel rows (``slice_dim`` 2) or columns (3)."""
    dim, window = problem.slice_dim, window_of(selected)
    length = problem.grad_output.size(dim)
    input, geometry = rows_read(problem.input, window, dim, problem.geometry, length)
    shape = list(problem.shape)
    shape[dim] = window.size
    of_window = problem._replace(input=input, shape=torch.Size(shape), geometry=geometry)
    grad, places = ops.weight_grad(of_window, dtype), window.places(selected)
    return grad if places is None else take(grad, dim, places)


def rows_read(
    input: Tensor, window: Window, dim: int, geometry: ConvGeometry, length: int
) -> tuple[Tensor, ConvGeometry]:
    """The rows (``dim`` 2) or columns (3) of the input that a window of the kernel reads.

    Returns:
        The input and geometry of a convolution by those kernel rows alone, without padding along
        ``dim``.

    Args:
        geometry: of the convolution with the whole kernel.
        length: of the convolution's output along ``dim``.
    """
    axis = dim - 2
    stride, padding, dilation = (pair[axis] for pair in geometry[:3])
    spacing = dilation * window.step
    first = window.first * dilation - padding
    count = (length - 1) * stride + (window.size - 1) * spacing + 1
    before, after = max(0, -first), max(0, first + count - input.size(dim))
    if before or after:
        input = F.pad(input, (before, after) if dim == 3 else (0, 0, before, after))
    read = input.narrow(dim, first + before, count)
    pads, spacings = list(geometry.padding), list(geometry.dilation)
    pads[axis], spacings[axis] = 0, spacing
    return read, geometry._replace(padding=(pads[0], pads[1]), dilation=(spacings[0], spacings[1]))
