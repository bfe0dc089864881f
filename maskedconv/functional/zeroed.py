"""Convolutions with zero filters: smaller convolutions of the filters that are not zero.

Zero output filters are not computed, zero input channels are not read, and a kernel with zero rows
or columns becomes a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.functional.autograd import NoFilters
from maskedconv.functional.filter_bank import FilterBank, narrowed
from maskedconv.functional.selected import Selected, selected_geometry, selected_input
from maskedconv.ops.geometry import (
    ConvGeometry,
    first_channels,
    memory_format_of,
    output_size,
    split_at_group_boundary,
)

# Computes a convolution of filters without zeros, of all or the first channels of an input.
Compute = Callable[[Tensor, FilterBank, ConvGeometry], Tensor]


def convolve_zeroed(
    input: Tensor, bank: FilterBank, geometry: ConvGeometry, compute: Compute
) -> Tensor:
    """A convolution of ``input [N, C, H, W]`` with ``bank``, whose ``zeros`` is not 0.

    Args:
        compute: called with the input or a part of its channels, a bank without zeros, and the
            geometry of their convolution.

    Raises:
        RuntimeError: the kernel is larger than the padded image, or the image has no pixels.
    """
    if bank.selected is not None:
        return _selected(input, bank, bank.selected, geometry, compute)
    if bank.slice_dim == 0:
        return _zero_filters(input, bank, geometry, compute)
    shape = _output_shape(input, bank, geometry)
    if bank.learned.numel() == 0:
        output, bias = NoFilters.apply(input, shape), bank.bias
        return output if bias is None else output + bias.to(output.dtype).view(-1, 1, 1)
    learned = FilterBank(bank.learned, None, bank.bias)
    if bank.slice_dim == 1:
        channels = first_channels(input, bank.learned.size(1), geometry.groups)
        # In memory of its own, so that backward does not keep the channels that are not read.
        channels = channels.contiguous(memory_format=memory_format_of(input))
        return compute(channels, learned, geometry)
    output = compute(input, learned, geometry)
    cut = output[:, :, : shape[2], : shape[3]]
    return cut.contiguous(memory_format=memory_format_of(output))


def _zero_filters(
    input: Tensor, bank: FilterBank, geometry: ConvGeometry, compute: Compute
) -> Tensor:
    """Computes the learned filters, and appends channels of zeros to the output."""
    count, out_channels = bank.learned.size(0), bank.shape[0]
    surplus = (0, 0, 0, 0, 0, bank.zeros)
    if count and geometry.groups == 1:
        return F.pad(compute(input, bank.first_filters(0, count), geometry), surplus)
    memory_format, outputs = memory_format_of(input), []
    for run in split_at_group_boundary(count, out_channels, input.size(1), geometry.groups):
        channels = narrowed(input, 1, run.first_channel, run.end_channel)
        channels = channels.contiguous(memory_format=memory_format)
        filters = bank.first_filters(run.first, run.end)
        outputs.append(compute(channels, filters, geometry._replace(groups=run.groups)))
    if not outputs:
        return NoFilters.apply(input, _output_shape(input, bank, geometry))
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return F.pad(output, surplus)


def _selected(
    input: Tensor, bank: FilterBank, selected: Selected, geometry: ConvGeometry, compute: Compute
) -> Tensor:
    """Computes the selected slices alone if they are one convolution, else all of them."""
    shape, dim = bank.learned.shape, bank.slice_dim
    own = selected_geometry(selected, shape, dim, geometry)
    if own is None:
        return compute(input, FilterBank(bank.full_weight(), None, bank.full_bias()), geometry)
    channels = selected_input(input, selected, shape, dim, geometry)
    output = compute(channels, FilterBank(bank.learned, None, bank.bias), own)
    if dim != 0:
        return output
    size = (input.size(0), bank.shape[0], *output.shape[2:])
    zeros = output.new_zeros(size).contiguous(memory_format=memory_format_of(output))
    return zeros.index_copy(1, selected.indices, output)


def _output_shape(input: Tensor, bank: FilterBank, geometry: ConvGeometry) -> tuple[int, ...]:
    """The shape of the convolution's output; it raises as PyTorch's convolution does."""
    out_channels, _, *kernel = bank.shape
    size = output_size(input.shape[2:], kernel, geometry)
    if input.size(0) and not input.numel():
        raise RuntimeError(
            "Only zero batch or zero channel inputs are supported, "
            f"but got input shape: {list(input.shape)}"
        )
    return (input.size(0), out_channels, *size)
