"""weight_grad: the gradient of the learned slice of a filter bank, and of nothing else.

``dW[o, i, r, c] = sum over n, h, w of grad_output[n, o, h, w] * x[n, i, h s + r d - p, ...]`` for
the learned indices of one dimension only. Each slice dimension is a smaller convolution's weight
gradient: of fewer output channels (0), of fewer input channels (1), of a shorter kernel (2, 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class ConvGeometry(NamedTuple):
    """What a convolution does besides its filters; pairs are (rows, columns), in pixels."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class FilterRun(NamedTuple):
    """Output filters [first, end) that form ``groups`` whole groups, or a part of one group."""

    first: int
    end: int
    first_channel: int
    end_channel: int
    groups: int


def filter_runs(count: int, out_channels: int, in_channels: int, groups: int) -> list[FilterRun]:
    """The first ``count`` of ``out_channels`` filters as at most two ordinary convolutions.

    One with all the groups whose filters are all among them, one with the rest of a group.
    """
    out_group, in_group = out_channels // groups, in_channels // groups
    whole, rest = divmod(count, out_group)
    runs = []
    if whole:
        runs.append(FilterRun(0, whole * out_group, 0, whole * in_group, whole))
    if rest:
        channel = whole * in_group
        runs.append(FilterRun(whole * out_group, count, channel, channel + in_group, 1))
    return runs


def first_channels(input: Tensor, count: int, groups: int) -> Tensor:
    """The first ``count`` channels of each of ``groups`` groups of ``[N, C, H, W]``."""
    if groups == 1:
        return input.narrow(1, 0, count)
    return input.unflatten(1, (groups, -1))[:, :, :count].flatten(1, 2)


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """channels_last when the channels of ``[N, C, H, W]`` lie side by side, views included."""
    if tensor.stride(1) == 1 and tensor.size(1) > 1 and not tensor.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def keep_for_weight_grad(
    input: Tensor, learned_shape: torch.Size, slice_dim: int, out_channels: int, groups: int
) -> Tensor:
    """What of ``input [N, C, H, W]`` the gradient of the learned slice needs, in memory of its own.

    The whole input is returned as it is; a part of its channels is copied, so that the rest can be
    freed.
    """
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


def weight_grad(
    kept: Tensor,
    grad_output: Tensor,
    learned_shape: torch.Size,
    slice_dim: int,
    geometry: ConvGeometry,
    dtype: torch.dtype,
) -> Tensor:
    """Gradient of the learned slice, of shape ``learned_shape`` and type ``dtype``.

    Args:
        kept: of the input, what :func:`keep_for_weight_grad` kept, ``[N, C', H, W]``.
        grad_output: ``[N, O, Ho, Wo]``.
        slice_dim: the dimension of which ``learned_shape`` is a slice.
        geometry: of the whole convolution.
    """
    if slice_dim != 0:
        grad = _plain_weight_grad(kept, grad_output, learned_shape, geometry)
        return grad.to(dtype)
    groups = list(_run_grads(kept, grad_output, learned_shape, geometry))
    return (groups[0] if len(groups) == 1 else torch.cat(groups)).to(dtype)


def _run_grads(
    kept: Tensor, grad_output: Tensor, learned_shape: torch.Size, geometry: ConvGeometry
) -> Iterator[Tensor]:
    in_channels = learned_shape[1] * geometry.groups
    runs = filter_runs(learned_shape[0], grad_output.size(1), in_channels, geometry.groups)
    for run in runs:
        yield _plain_weight_grad(
            kept.narrow(1, run.first_channel, run.end_channel - run.first_channel),
            grad_output.narrow(1, run.first, run.end - run.first),
            torch.Size((run.end - run.first, *learned_shape[1:])),
            geometry._replace(groups=run.groups),
        )


def _plain_weight_grad(
    input: Tensor, grad_output: Tensor, shape: torch.Size, geometry: ConvGeometry
) -> Tensor:
    """Weight gradient of an ordinary convolution with filters of ``shape``.

    A shortened kernel (the learned rows and columns come first) has a larger output than
    ``grad_output``: the surplus has no gradient.
    """
    surplus = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 - out
        for size, pad, dilation, kernel, stride, out in zip(
            input.shape[2:], geometry.padding, geometry.dilation, shape[2:], geometry.stride,
            grad_output.shape[2:], strict=True,
        )
    ]  # fmt: skip
    if any(surplus):
        grad_output = F.pad(grad_output, (0, surplus[1], 0, surplus[0]))
    weight = grad_output.new_empty(shape).contiguous(memory_format=memory_format_of(input))
    return torch.ops.aten.convolution_backward(
        grad_output, input, weight, None, geometry.stride, geometry.padding, geometry.dilation,
        False, (0, 0), geometry.groups, (False, True, False),
    )[1]  # fmt: skip
