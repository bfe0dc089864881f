"""The geometry of a convolution, and memory formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import NamedTuple, SupportsIndex, cast

import torch
from torch import Tensor


class ConvGeometry(NamedTuple):
    """A convolution without its filters; pairs are (rows, columns), in pixels."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


Pair = int | tuple[int, ...]


def pair(value: Pair) -> tuple[int, int]:
    """(rows, columns) from an int, a tuple of one int, or a pair."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def whole_numbers(argument: str, value: object) -> Pair:
    """``value`` as a Python int or a tuple of one or two ints; NumPy ints are accepted.

    Raises:
        TypeError, ValueError: ``value`` is something else.
    """
    try:
        if not isinstance(value, Iterable):
            return index(cast(SupportsIndex, value))
        numbers = tuple(index(number) for number in value)
    except TypeError:
        raise TypeError(f"{argument} is {value!r}; expected an int or a pair of ints") from None
    if len(numbers) not in (1, 2):
        raise ValueError(f"{argument} is {value!r}; expected one int or (rows, columns)")
    return numbers


def geometry_of(stride: Pair, padding: Pair, dilation: Pair, groups: int) -> ConvGeometry:
    """The geometry for the arguments of a convolution."""
    return ConvGeometry(pair(stride), pair(padding), pair(dilation), groups)


def output_size(
    image: Sequence[int], kernel: Sequence[int], geometry: ConvGeometry
) -> tuple[int, int]:
    """Rows and columns of a convolution's output, for the sizes of the image and the kernel.

    Raises:
        RuntimeError: the kernel is larger than the padded image; the message is PyTorch's.
    """
    padded = [size + 2 * pad for size, pad in zip(image, geometry.padding, strict=True)]
    spans = [dilation * (k - 1) + 1 for dilation, k in zip(geometry.dilation, kernel, strict=True)]
    if padded[0] < spans[0] or padded[1] < spans[1]:
        raise RuntimeError(
            f"Calculated padded input size per channel: ({padded[0]} x {padded[1]}). "
            f"Kernel size: ({spans[0]} x {spans[1]}). "
            "Kernel size can't be greater than actual input size"
        )
    rows, columns = (
        (size - span) // stride + 1
        for size, span, stride in zip(padded, spans, geometry.stride, strict=True)
    )
    return rows, columns


class FilterRun(NamedTuple):
    """Output filters [first, end) that form ``groups`` complete groups, or part of one group."""

    first: int
    end: int
    first_channel: int
    end_channel: int
    groups: int


def split_at_group_boundary(
    count: int, out_channels: int, in_channels: int, groups: int
) -> list[FilterRun]:
    """The first ``count`` of ``out_channels`` filters as at most two ordinary convolutions.

    The first one has the complete groups, the second one the remaining part of a group.
    """
    out_group, in_group = out_channels // groups, in_channels // groups
    complete, rest = divmod(count, out_group)
    runs = []
    if complete:
        runs.append(FilterRun(0, complete * out_group, 0, complete * in_group, complete))
    if rest:
        channel = complete * in_group
        runs.append(FilterRun(complete * out_group, count, channel, channel + in_group, 1))
    return runs


def first_channels(input: Tensor, count: int, groups: int) -> Tensor:
    """The first ``count`` channels of each of ``groups`` groups of ``[N, C, H, W]``."""
    if groups == 1:
        return input.narrow(1, 0, count)
    return input.unflatten(1, (groups, -1))[:, :, :count].flatten(1, 2)


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """channels_last if the channels of ``[N, C, H, W]`` are contiguous, also in views."""
    if tensor.stride(1) == 1 and tensor.size(1) > 1 and not tensor.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def dense(tensor: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
    """``[N, C, H, W]`` itself if it is dense, else a dense copy, because PyTorch is slow on views
    of wider tensors.

    The stride of a dimension of size 1 has no meaning, but PyTorch's kernels interpret it
    differently. The result has the strides of a new tensor.

    Args:
        memory_format: memory format of the result; None for the format of ``tensor``.
    """
    memory_format = memory_format or memory_format_of(tensor)
    tensor = tensor.contiguous(memory_format=memory_format)
    if 1 not in tensor.shape:
        return tensor
    _, channels, rows, columns = tensor.shape
    if memory_format == torch.channels_last:
        strides = (channels * rows * columns, 1, channels * columns, channels)
    else:
        strides = (channels * rows * columns, rows * columns, columns, 1)
    return tensor if tensor.stride() == strides else tensor.as_strided(tensor.shape, strides)


def pixel_pitch(tensor: Tensor) -> int:
    """Stride in elements between pixels of ``[N, C, H, W]`` if channels are contiguous and the
    stride is constant over all rows and images; else 0.
    """
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.size(1)
    batch, channels, rows, columns = tensor.shape
    steps = tensor.stride()
    if channels > 1 and steps[1] != 1:
        return 0
    pitch, pixels = channels, 1
    for size, step in ((columns, steps[3]), (rows, steps[2]), (batch, steps[0])):
        if size != 1:
            pitch = step if pixels == 1 else pitch
            if step != pitch * pixels:
                return 0
            pixels *= size
    return pitch if pitch >= channels else 0


def is_channels_last_weight(weight: Tensor) -> bool:
    """Whether PyTorch's convolution takes ``weight`` ``[O, I / groups, kH, kW]`` for channels_last.

    The strides decide, even those of dimensions of size 1. The output then has that format, too.
    """
    _, channels, rows, columns = weight.shape
    _, channel_step, _, column_step = weight.stride()
    return channel_step == 1 and column_step >= channels and channels * rows * columns > 1


def filters_format(learned: Tensor, frozen: Tensor | None) -> torch.memory_format:
    """The memory format of the weight that these slices belong to."""
    # A slice of one channel may have the strides of either format.
    is_last = is_channels_last_weight(learned) or (
        frozen is not None and is_channels_last_weight(frozen)
    )
    return torch.channels_last if is_last else torch.contiguous_format


def weight_format(input: Tensor, learned: Tensor, frozen: Tensor | None) -> torch.memory_format:
    """channels_last if the images or the filters are, as in PyTorch's convolution."""
    if memory_format_of(input) is torch.channels_last:
        return torch.channels_last
    return filters_format(learned, frozen)


def dense_like(tensor: Tensor) -> Tensor:
    """New dense memory of the shape, dtype and memory format of ``tensor``."""
    return torch.empty_like(tensor, memory_format=memory_format_of(tensor))
