"""Learned slices of a weight at any indices, not at the first ones.

The layer keeps ``learned``, the slices at those indices in ascending order, and ``frozen``, the
others in ascending order. Both are the parts that a choice of the first indices would have, so the
operators know nothing of indices: the weight is packed and then brought into its order, and the
gradient of the learned slices is that of the gathered channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops import WeightGradProblem
from maskedconv.ops.geometry import ConvGeometry, memory_format_of


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
        return _take(tensor, dim, self.indices)

    def in_order(self, tensor: Tensor, dim: int) -> Tensor:
        """A tensor of the learned slices followed by the others, in the order of the weight."""
        return _take(tensor, dim, self.order)


def selected_on(device: torch.device, numbers: tuple[int, ...], size: int) -> Selected:
    """The learned indices ``numbers`` of ``size``, with tensors on ``device``."""
    # Autograd saves the tensors, and it cannot save those of inference mode.
    with torch.inference_mode(False):
        order = order_of(numbers, size).to(device)
        return Selected(numbers, torch.tensor(numbers, device="cpu").to(device), order)


def order_of(numbers: Sequence[int], size: int) -> Tensor:
    """:attr:`Selected.order` for the learned indices ``numbers`` of ``size``, on the CPU."""
    return places_of(numbers, size).argsort()


def places_of(numbers: Sequence[int], size: int) -> Tensor:
    """The learned indices ``numbers``, followed by all others of ``size``, on the CPU."""
    learned = set(numbers)
    others = [index for index in range(size) if index not in learned]
    return torch.tensor([*numbers, *others], dtype=torch.int64, device="cpu")


def selected_geometry(
    selected: Selected, shape: torch.Size, slice_dim: int, geometry: ConvGeometry
) -> ConvGeometry | None:
    """The geometry of the one convolution that the selected slices are.

    None for kernel rows and columns, and for groups, unless each filter has a group of its own.
    There the learned slices cost as much as all slices.

    Args:
        shape: of the learned slices.
        geometry: of the whole convolution.
    """
    if slice_dim > 1 or geometry.groups == 1:
        return geometry if slice_dim < 2 else None
    depthwise = slice_dim == 0 and shape[1] == 1 and geometry.groups == selected.order.numel()
    return geometry._replace(groups=shape[0]) if depthwise else None


def selected_input(
    input: Tensor, selected: Selected, shape: torch.Size, slice_dim: int, geometry: ConvGeometry
) -> Tensor:
    """The part of ``input [N, C, H, W]`` that the convolution of the selected slices reads."""
    reads_all = slice_dim == 0 and geometry.groups == 1
    if reads_all or selected_geometry(selected, shape, slice_dim, geometry) is None:
        return input
    return selected.of(input, 1).contiguous(memory_format=memory_format_of(input))


def selected_problem(
    problem: WeightGradProblem, selected: Selected, grad_output: Tensor
) -> WeightGradProblem:
    """The problem whose result holds the gradient of the selected slices: of them, or of all.

    Args:
        problem: its input is that of :func:`selected_input`, its geometry the whole convolution's,
            and its gradient, for ``slice_dim`` 0, that of the selected channels of the output.
        grad_output: of all channels, ``[N, O, Ho, Wo]``.
    """
    shape, dim = problem.shape, problem.slice_dim
    geometry = selected_geometry(selected, shape, dim, problem.geometry)
    if geometry is not None:
        return problem._replace(geometry=geometry)
    whole = torch.Size((*shape[:dim], selected.order.numel(), *shape[dim + 1 :]))
    return problem._replace(grad_output=grad_output, shape=whole, slice_dim=0)


def _take(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """``tensor.index_select(dim, index)``, in channels_last if ``tensor`` is."""
    traced = not isinstance(tensor, Tensor)  # by torch.fx
    if traced or tensor.dim() != 4 or memory_format_of(tensor) is not torch.channels_last:
        return tensor.index_select(dim, index)
    pixels = tensor.permute(0, 2, 3, 1)
    if dim != 1:
        return pixels.index_select((0, 3, 1, 2)[dim], index).permute(0, 3, 1, 2)
    # index_select of the innermost dimension took three times as long, or more.
    rows = pixels.flatten(0, 2)
    taken = rows.gather(1, index.expand(rows.size(0), -1))
    return taken.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
