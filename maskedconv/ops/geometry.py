"""What the operators need to know of a convolution besides its tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ConvGeometry(NamedTuple):
    """What a convolution does besides its filters; pairs are (rows, columns), in pixels."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


Pair = int | tuple[int, ...]


def pair(value: Pair) -> tuple[int, int]:
    """(rows, columns), of one number for both or of the two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def geometry_of(stride: Pair, padding: Pair, dilation: Pair, groups: int) -> ConvGeometry:
    """The geometry of what a convolution is told."""
    return ConvGeometry(pair(stride), pair(padding), pair(dilation), groups)


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


def dense(tensor: Tensor) -> Tensor:
    """``[N, C, H, W]`` itself, or a copy without gaps: the library is slow with views of wider
    tensors.
    """
    return tensor.contiguous(memory_format=memory_format_of(tensor))


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


def bank_format(input: Tensor, learned: Tensor, frozen: Tensor | None) -> torch.memory_format:
    """channels_last when the images or the filters are, as PyTorch's convolution decides too."""
    if memory_format_of(input) is torch.channels_last:
        return torch.channels_last
    return memory_format_of(learned if frozen is None or learned.numel() else frozen)
