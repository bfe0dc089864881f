"""Learned slices of a weight at any indices, not at the first ones.

The layer keeps ``learned``, the slices at those indices in ascending order, and ``frozen``, the
others in ascending order. Both are the parts that a choice of the first indices would have, so the
operators know nothing of indices: the weight is packed and then brought into its order, and the
gradient of the learned slice is that of the gathered channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.geometry import FilterRun, memory_format_of


class Selected(NamedTuple):
    """Which indices of the slice dimension are learned; not all, and not just the first ones.

    Attributes:
        numbers: the learned indices, ascending; at least one.
        indices: the same as a tensor ``[n]``.
        order: for each index of the dimension its place in the learned slices followed by the
            others, ``[size]``.
    """

    numbers: tuple[int, ...]
    indices: Tensor
    order: Tensor

    def of(self, tensor: Tensor, dim: int) -> Tensor:
        """The learned indices of ``dim`` of a tensor: a view if they are adjacent."""
        first, last = self.numbers[0], self.numbers[-1]
        if last - first == len(self.numbers) - 1:
            return tensor.narrow(dim, first, len(self.numbers))
        return take(tensor, dim, self.indices)

    def in_order(self, tensor: Tensor, dim: int) -> Tensor:
        """A tensor of the learned slices followed by the others, in the order of the weight."""
        return take(tensor, dim, self.order)


def order_of(numbers: Sequence[int], size: int) -> Tensor:
    """:attr:`Selected.order` for the learned indices ``numbers`` of ``size``, on the CPU."""
    return places_of(numbers, size).argsort()


def places_of(numbers: Sequence[int], size: int) -> Tensor:
    """The learned indices ``numbers``, followed by all others of ``size``, on the CPU."""
    learned = set(numbers)
    others = [index for index in range(size) if index not in learned]
    return torch.tensor([*numbers, *others], dtype=torch.int64, device="cpu")


def take(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """``tensor.index_select(dim, index)``, in channels_last if ``tensor`` is."""
    if tensor.dim() != 4 or memory_format_of(tensor) is not torch.channels_last:
        return tensor.index_select(dim, index)
    pixels = tensor.permute(0, 2, 3, 1)
    if dim != 1:
        return pixels.index_select((0, 3, 1, 2)[dim], index).permute(0, 3, 1, 2)
    # index_select of the innermost dimension took three times as long, or more.
    rows = pixels.flatten(0, 2)
    taken = rows.gather(1, index.expand(rows.size(0), -1))
    return taken.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)


def channels_of(input: Tensor, selected: Selected, groups: int) -> Tensor:
    """The selected channels of each of ``groups`` groups of ``[N, C, H, W]``."""
    if groups == 1:
        return selected.of(input, 1)
    first = torch.arange(0, input.size(1), input.size(1) // groups, device=input.device)
    return take(input, 1, (first[:, None] + selected.indices).flatten())


def channels_of_filters(input: Tensor, selected: Selected, groups: int) -> Tensor:
    """The channels of ``[N, C, H, W]`` that the selected filters read, group by group."""
    if groups == 1:
        return input
    out_channels, in_channels = selected.order.numel(), input.size(1)
    if out_channels == in_channels == groups:
        return selected.of(input, 1)
    size = in_channels // groups
    needed = sorted({number * groups // out_channels for number in selected.numbers})
    parts = [input.narrow(1, first * size, count * size) for first, count in _runs(needed)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def filter_runs(selected: Selected, channels: int, groups: int) -> list[FilterRun]:
    """The selected filters as ordinary convolutions of :func:`channels_of_filters`.

    Adjacent groups with as many selected filters each are one convolution.

    Args:
        channels, groups: of the whole convolution's input.
    """
    out_group, in_group = selected.order.numel() // groups, channels // groups
    counts = Counter(number // out_group for number in selected.numbers)
    runs, first, channel = [], 0, 0
    for count, alike in groupby(counts.values()):
        number = len(list(alike))
        end, end_channel = first + number * count, channel + number * in_group
        runs.append(FilterRun(first, end, channel, end_channel, number))
        first, channel = end, end_channel
    return runs


class Window(NamedTuple):
    """Kernel rows or columns at equal distances.

    Attributes:
        first: the first one.
        step: the distance.
        size: how many they are.
    """

    first: int
    step: int
    size: int

    def places(self, selected: Selected) -> Tensor | None:
        """Where the learned ones are among them; None if they are all learned."""
        if len(selected.numbers) == self.size:
            return None
        return (selected.indices - self.first).div(self.step, rounding_mode="floor")


def window_of(selected: Selected) -> Window:
    """The fewest rows at equal distances that contain all selected ones."""
    first, *others = selected.numbers
    step = gcd(*(number - first for number in others)) or 1
    return Window(first, step, (selected.numbers[-1] - first) // step + 1)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the count of each run of adjacent numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return runs
