"""The geometry of a convolution, and memory formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import NamedTuple, SupportsIndex, cast

import torch
from torch import Tensor


class ConvGeometry(NamedTuple):
    """A convolution except for its filters; pairs are (rows, columns), in pixels."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


Pair = int | tuple[int, ...]


def pair(value: Pair) -> tuple[int, int]:
    """(rows, columns), of one number for both, alone or in a tuple, or of the two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def whole_numbers(argument: str, value: object) -> Pair:
    """``value`` as Python's own int, or as a tuple of one or two of them; NumPy's are taken too.

    Raises:
        TypeError, ValueError: something else.
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
    """The geometry from the arguments of a convolution."""
    return ConvGeometry(pair(stride), pair(padding), pair(dilation), groups)


def output_size(
    image: Sequence[int], kernel: Sequence[int], geometry: ConvGeometry
) -> tuple[int, int]:
    """Rows and columns of a convolution's output, from those of an image and of the kernel.

    Raises:
        RuntimeError: the kernel is larger than the padded image, as PyTorch's convolution says.
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
    """Output filters [first, end) that form ``groups`` complete groups, or a part of one group."""

    first: int
    end: int
    first_channel: int
    end_channel: int
    groups: int


def split_at_group_boundary(
    count: int, out_channels: int, in_channels: int, groups: int
) -> list[FilterRun]:
    """The first ``count`` of ``out_channels`` filters as at most two ordinary convolutions.

    One convolution of the complete groups, one of the rest of a group.
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
    """channels_last when the channels of ``[N, C, H, W]`` lie side by side, views included."""
    if tensor.stride(1) == 1 and tensor.size(1) > 1 and not tensor.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def dense(tensor: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
    """``[N, C, H, W]`` itself, or a copy without gaps: the library is slow with views of wider
    tensors.

    If a dimension is 1 its stride says nothing, and the library's kernels differ in what they
    conclude from it: they get the strides that a new tensor has.

    Args:
        memory_format: of the result; None for that of ``tensor``.
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
    """Elements from one pixel to the next of ``[N, C, H, W]``, where the channels of each lie side
    by side and all pixels equally far apart, row after row and image after image; else 0.
    """
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


def weight_format(input: Tensor, learned: Tensor, frozen: Tensor | None) -> torch.memory_format:
    """channels_last when the images or the filters are, as PyTorch's convolution decides too."""
    if memory_format_of(input) is torch.channels_last:
        return torch.channels_last
    return memory_format_of(learned if frozen is None or learned.numel() else frozen)
