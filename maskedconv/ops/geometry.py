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


def bank_format(input: Tensor, learned: Tensor, frozen: Tensor | None) -> torch.memory_format:
    """channels_last when the images or the filters are, as PyTorch's convolution decides too."""
    if memory_format_of(input) is torch.channels_last:
        return torch.channels_last
    return memory_format_of(learned if frozen is None or learned.numel() else frozen)
