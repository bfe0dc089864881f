"""Convolutions with zero filters: smaller convolutions of the filters that are not zero.

Zero output filters are not computed, zero input channels are not read, and a kernel with zero rows
or columns becomes a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from maskedconv.functional.autograd import NoFilters
from maskedconv.functional.filter_bank import FilterBank, narrowed
from maskedconv.functional.selected import (
    Selected,
    channels_of,
    channels_of_filters,
    filter_runs,
    window_of,
)
from maskedconv.functional.selected_grad import rows_read
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
    if bank.slice_dim == 0:
        return _zero_filters(input, bank, geometry, compute)
    shape = _output_shape(input, bank, geometry)
    if bank.learned.numel() == 0:
        output, bias = NoFilters.apply(input, shape), bank.bias
        return output if bias is None else output + bias.to(output.dtype).view(-1, 1, 1)
    learned = FilterBank(bank.learned, None, bank.bias)
    if bank.slice_dim == 1:
        if bank.selected is None:
            channels = first_channels(input, bank.learned.size(1), geometry.groups)
        else:
            channels = channels_of(input, bank.selected, geometry.groups)
        # In memory of its own, so that backward does not keep the channels that are not read.
        channels = channels.contiguous(memory_format=memory_format_of(input))
        return compute(channels, learned, geometry)
    if bank.selected is not None:
        kernel, read, geometry = _selected_rows(input, bank, bank.selected, geometry)
        return compute(read, learned._replace(learned=kernel), geometry)
    output = compute(input, learned, geometry)
    cut = output[:, :, : shape[2], : shape[3]]
    return cut.contiguous(memory_format=memory_format_of(output))


def _zero_filters(
    input: Tensor, bank: FilterBank, geometry: ConvGeometry, compute: Compute
) -> Tensor:
    """Computes the learned filters, and appends channels of zeros to the output."""
    count, out_channels = bank.learned.size(0), bank.shape[0]
    if count and geometry.groups == 1:
        return bank.with_zero_channels(compute(input, bank.first_filters(0, count), geometry))
    memory_format, outputs, read = memory_format_of(input), [], input
    if bank.selected is None:
        runs = split_at_group_boundary(count, out_channels, input.size(1), geometry.groups)
    else:
        runs = filter_runs(bank.selected, input.size(1), geometry.groups)
        read = channels_of_filters(input, bank.selected, geometry.groups)
    for run in runs:
        channels = narrowed(read, 1, run.first_channel, run.end_channel)
        channels = channels.contiguous(memory_format=memory_format)
        filters = bank.first_filters(run.first, run.end)
        outputs.append(compute(channels, filters, geometry._replace(groups=run.groups)))
    if not outputs:
        return NoFilters.apply(input, _output_shape(input, bank, geometry))
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return bank.with_zero_channels(output)


def _selected_rows(
    input: Tensor, bank: FilterBank, selected: Selected, geometry: ConvGeometry
) -> tuple[Tensor, Tensor, ConvGeometry]:
    """The smallest kernel with all selected rows or columns, and the input that it reads."""
    dim, window = bank.slice_dim, window_of(selected)
    length = _output_shape(input, bank, geometry)[dim]
    read, geometry = rows_read(input, window, dim, geometry, length)
    kernel, places = bank.learned, window.places(selected)
    if places is not None:
        shape = list(kernel.shape)
        shape[dim] = window.size
        kernel = kernel.new_zeros(shape).index_copy(dim, places, kernel)
    return kernel, read, geometry


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
