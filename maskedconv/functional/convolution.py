"""masked_conv2d: a convolution with filters in two parts, one learned and one frozen or zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv import slices
from maskedconv.functional.autograd import (
    ExecutionOptions,
    MaskedConvolution,
    NoFilters,
    joined_bias,
    packed_weight,
)
from maskedconv.ops.dispatch import Decision, check_backend, override_of, record
from maskedconv.ops.geometry import (
    ConvGeometry,
    Pair,
    filter_runs,
    first_channels,
    geometry_of,
    memory_format_of,
    output_size,
    pair,
    whole_numbers,
)
from maskedconv.ops.weight_grad.jointly import all_filters_are_faster
from maskedconv.tracing import is_traced

_JOINTLY = Decision("weight_grad", "reference", "all filters along with the input's gradient is the fastest", {})


def masked_conv2d(
    input: Tensor,
    learned: Tensor,
    frozen: Tensor | None = None,
    bias: Tensor | None = None,
    frozen_bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    slice_dim: int = 0,
    zeros: int = 0,
    backend: str | None = None,
) -> Tensor:
    """``F.conv2d(input, cat([learned, frozen], slice_dim), cat([bias, frozen_bias]), ...)``.

    Gradients are computed for ``input``, ``learned`` and ``bias``, never for the frozen parts; of
    the weight gradient only the learned slice is computed. Not differentiable twice.

    Source: Rosenfeld & Tsotsos 2018, section 3.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``.
        learned: the learned slice of the bank ``[O, C / groups, kH, kW]``: n indices of dimension
            ``slice_dim``, n >= 0.
        frozen: the rest of the bank; None when there is none, or when it is zero.
        bias: the learned part of the bias: ``[n]`` for ``slice_dim`` 0, else ``[O]``.
        frozen_bias: the bias of the frozen filters, ``[O - n]``; only for ``slice_dim`` 0.
        stride, padding, dilation, groups: as in ``F.conv2d``.
        slice_dim: 0 output filters, 1 input channels, 2 kernel rows, 3 kernel columns.
        zeros: how many zero indices follow the learned ones, instead of ``frozen``; they are not
            computed.
        backend: "reference", "native", "triton" or "cuda" must run the operators; None to choose.

    Returns:
        ``[N, O, Ho, Wo]`` or ``[O, Ho, Wo]``, in the memory format that ``F.conv2d`` would choose.

    Raises:
        ValueError: shapes, ``slice_dim`` or ``zeros`` do not fit together; no such backend.
        RuntimeError: the backend cannot run here; the message says why.
        TypeError: input and filters differ in type, outside of autocast.
    """
    if is_traced(input):
        weight = whole_weight(learned, frozen, slice_dim=slice_dim, zeros=zeros)
        rest = zeros if slice_dim == 0 else 0
        plain_bias = whole_bias(bias, frozen_bias, zeros=rest)
        return F.conv2d(input, weight, plain_bias, stride, padding, dilation, groups)
    _check(input, learned, frozen, bias, frozen_bias, groups, slice_dim, zeros)
    filters = [0 if part is None else part.size(0) for part in (learned, frozen)]
    jointly = slice_dim == 0 and groups == 1 and all_filters_are_faster(learned.shape, sum(filters))
    options = ExecutionOptions(check_backend(backend), jointly)
    stride, dilation = whole_numbers("stride", stride), whole_numbers("dilation", dilation)
    if isinstance(padding, str):
        kernel = list(learned.shape[2:])
        if slice_dim >= 2:
            kernel[slice_dim - 2] += zeros if frozen is None else frozen.size(slice_dim)
        input, padding = evenly_padded(input, kernel, stride, padding, dilation)
    geometry = geometry_of(stride, whole_numbers("padding", padding), dilation, groups)
    return convolve(input, learned, frozen, bias, frozen_bias, geometry, slice_dim, zeros, options)


def convolve(
    input: Tensor,
    learned: Tensor,
    frozen: Tensor | None,
    bias: Tensor | None,
    frozen_bias: Tensor | None,
    geometry: ConvGeometry,
    slice_dim: int,
    zeros: int,
    options: ExecutionOptions,
) -> Tensor:
    """:func:`masked_conv2d` for arguments that are known to fit together.

    Between the layers of a network little Python is in the processor's caches: each function
    called here costs some microseconds more than where it is called in a loop.
    """
    if not input.is_cpu or input.dtype is not learned.dtype or torch.is_autocast_enabled("cpu"):
        input = _cast_input(input, learned)
    if input.dim() == 3:
        batch = convolve(
            input.unsqueeze(0), learned, frozen, bias, frozen_bias, geometry, slice_dim, zeros,
            options,
        )  # fmt: skip
        return batch.squeeze(0)
    if zeros:
        return _zeroed(input, learned, bias, geometry, slice_dim, zeros, options)
    if not torch.is_grad_enabled():
        return _without_gradients(
            input, learned, frozen, bias, frozen_bias, geometry, slice_dim, options
        )
    # There is nothing to leave out of the weight gradient, or nothing is saved by it.
    all_filters = frozen is None or (options.jointly and input.is_cpu)
    if all_filters and learned.requires_grad and not override_of(options.backend):
        return _plain(input, learned, frozen, bias, frozen_bias, geometry)
    return MaskedConvolution.apply(
        input, learned, frozen, bias, frozen_bias, geometry, slice_dim, options
    )


def _without_gradients(
    input: Tensor,
    learned: Tensor,
    frozen: Tensor | None,
    bias: Tensor | None,
    frozen_bias: Tensor | None,
    geometry: ConvGeometry,
    slice_dim: int,
    options: ExecutionOptions,
) -> Tensor:
    weight = packed_weight(input, learned, frozen, slice_dim, options.backend)
    return torch.conv2d(input, weight, joined_bias(bias, frozen_bias, input.dtype), *geometry)


def _plain(
    input: Tensor,
    learned: Tensor,
    frozen: Tensor | None,
    bias: Tensor | None,
    frozen_bias: Tensor | None,
    geometry: ConvGeometry,
) -> Tensor:
    """PyTorch's own convolution and gradients."""
    weight = learned
    if frozen is not None:
        weight = torch.cat((learned, frozen))
        record(_JOINTLY)
    if weight.dtype is not input.dtype:
        weight = weight.to(input.dtype)
    return torch.conv2d(input, weight, joined_bias(bias, frozen_bias, input.dtype), *geometry)


def check_input(input: Tensor, channels: int, groups: int) -> None:
    """ValueError unless ``input`` is ``[N, C, H, W]`` or ``[C, H, W]`` of so many channels."""
    if input.dim() not in (3, 4):
        raise ValueError(f"input has {input.dim()} dimensions; expected [N, C, H, W] or [C, H, W]")
    if input.size(-3) != channels:
        raise ValueError(
            f"input has {input.size(-3)} channels; expected {channels} "
            f"({channels // groups} for each of {groups} groups)"
        )


def whole_weight(learned: Tensor, frozen: Tensor | None, *, slice_dim: int, zeros: int) -> Tensor:
    """The bank ``[O, I / groups, kH, kW]``, differentiable towards ``learned``; always a copy."""
    if zeros:
        return F.pad(learned, (0, 0) * (3 - slice_dim) + (0, zeros))
    return learned.clone() if frozen is None else torch.cat((learned, frozen), dim=slice_dim)


def whole_bias(bias: Tensor | None, frozen_bias: Tensor | None, *, zeros: int) -> Tensor | None:
    """The bias ``[O]`` of learned, frozen and ``zeros`` zero filters, a copy; None without one."""
    parts = [part for part in (bias, frozen_bias) if part is not None]
    if not parts:
        return None
    whole = torch.cat(parts)
    return F.pad(whole, (0, zeros)) if zeros else whole


def _check(
    input: Tensor,
    learned: Tensor,
    frozen: Tensor | None,
    bias: Tensor | None,
    frozen_bias: Tensor | None,
    groups: int,
    slice_dim: int,
    zeros: int,
) -> None:
    slices.check_slice_dim(slice_dim)
    if learned.dim() != 4:
        raise ValueError(f"learned has {learned.dim()} dimensions; expected [O, I, kH, kW]")
    if zeros < 0 or (zeros and frozen is not None):
        raise ValueError(f"zeros is {zeros}; expected >= 0, and 0 when frozen filters are given")
    bank = list(learned.shape)
    if frozen is not None:
        alike = [size for dim, size in enumerate(bank) if dim != slice_dim]
        if [size for dim, size in enumerate(frozen.shape) if dim != slice_dim] != alike:
            raise ValueError(
                f"frozen is {list(frozen.shape)}; expected the shape of learned, {bank}, "
                f"but for dimension {slice_dim}"
            )
    bank[slice_dim] += zeros if frozen is None else frozen.size(slice_dim)
    check_input(input, bank[1] * groups, groups)
    if bank[0] % groups:
        raise ValueError(f"groups is {groups}; expected a divisor of the {bank[0]} output filters")
    _check_bias(learned, frozen, bias, frozen_bias, slice_dim, bank[0])


def _check_bias(
    learned: Tensor,
    frozen: Tensor | None,
    bias: Tensor | None,
    frozen_bias: Tensor | None,
    slice_dim: int,
    out_channels: int,
) -> None:
    count = learned.size(0) if slice_dim == 0 else out_channels
    if bias is not None and bias.shape != (count,):
        raise ValueError(f"bias is {list(bias.shape)}; expected [{count}]")
    if frozen_bias is not None:
        rest = out_channels - count if frozen is not None else 0
        if frozen_bias.shape != (rest,) or (bias is None and count):
            raise ValueError(
                f"frozen_bias is {list(frozen_bias.shape)}; expected [{rest}], "
                "beside the bias of the learned filters"
            )
    elif bias is not None and slice_dim == 0 and frozen is not None and frozen.size(0):
        raise ValueError(f"frozen_bias is None; expected [{frozen.size(0)}] beside bias")


def _cast_input(input: Tensor, learned: Tensor) -> Tensor:
    """The input in the type that the convolution computes in; the filters follow it."""
    device = input.device.type
    # The meta device has no autocast, and asking for it is an error.
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    if autocast and input.dtype != torch.float64:
        return input.to(torch.get_autocast_dtype(device))
    if input.dtype != learned.dtype:
        raise TypeError(
            f"input is {input.dtype}, but the filters are {learned.dtype}; expected the same type "
            "(or an autocast region)"
        )
    return input


def evenly_padded(
    input: Tensor, kernel: Sequence[int], stride: Pair, padding: str, dilation: Pair
) -> tuple[Tensor, tuple[int, int]]:
    """The input and the padding in pixels of a convolution that pads all sides evenly.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``.
        kernel: rows and columns.
        padding: "same" or "valid".

    Raises:
        ValueError: ``padding`` is neither, or "same" with a stride.
    """
    if padding == "valid":
        return input, (0, 0)
    if padding != "same":
        raise ValueError(f"padding is {padding!r}; expected a number, a pair, 'same' or 'valid'")
    if pair(stride) != (1, 1):
        raise ValueError(f"padding is 'same' with stride {stride}; expected stride 1")
    total = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
    if any(t % 2 for t in total):
        # One more row or column at the end, as PyTorch's convolution does.
        input = F.pad(input, (0, total[1] % 2, 0, total[0] % 2))
    return input, (total[0] // 2, total[1] // 2)


def _narrowed(tensor: Tensor, dim: int, first: int, end: int) -> Tensor:
    """A slice of ``tensor``; the tensor itself where that is all, as a slice's backward copies."""
    if (first, end) == (0, tensor.size(dim)):
        return tensor
    return tensor.narrow(dim, first, end - first)


def _zeroed_filters(
    input: Tensor,
    learned: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    zeros: int,
    options: ExecutionOptions,
) -> Tensor:
    """Output filters past the learned ones are zero: only the learned ones are computed."""
    count, out_channels = learned.size(0), learned.size(0) + zeros
    if count and geometry.groups == 1:
        output = MaskedConvolution.apply(input, learned, None, bias, None, geometry, 0, options)
        return F.pad(output, (0, 0, 0, 0, 0, zeros))
    kernel, memory_format = list(learned.shape[2:]), memory_format_of(input)
    outputs = []
    for run in filter_runs(count, out_channels, input.size(1), geometry.groups):
        channels = _narrowed(input, 1, run.first_channel, run.end_channel)
        channels = channels.contiguous(memory_format=memory_format)
        part = _narrowed(learned, 0, run.first, run.end)
        part_bias = None if bias is None else _narrowed(bias, 0, run.first, run.end)
        part_geometry = geometry._replace(groups=run.groups)
        outputs.append(
            MaskedConvolution.apply(
                channels, part, None, part_bias, None, part_geometry, 0, options
            )
        )
    if not outputs:
        return NoFilters.apply(input, _output_shape(input, out_channels, kernel, geometry))
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return F.pad(output, (0, 0, 0, 0, 0, zeros))


def _zeroed_channels(
    input: Tensor,
    learned: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    options: ExecutionOptions,
) -> Tensor:
    """Input channels past the learned ones meet zeros: they are neither read nor kept."""
    channels = first_channels(input, learned.size(1), geometry.groups)
    # In memory of its own, so that backward does not keep the channels that are not read.
    channels = channels.contiguous(memory_format=memory_format_of(input))
    return MaskedConvolution.apply(channels, learned, None, bias, None, geometry, 0, options)


def _zeroed_taps(
    input: Tensor,
    learned: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    shape: tuple[int, ...],
    options: ExecutionOptions,
) -> Tensor:
    """A shorter kernel; the output rows and columns past those of the whole kernel are cut off."""
    output = MaskedConvolution.apply(input, learned, None, bias, None, geometry, 0, options)
    cut = output[:, :, : shape[2], : shape[3]]
    return cut.contiguous(memory_format=memory_format_of(output))


def _zeroed(
    input: Tensor,
    learned: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    slice_dim: int,
    zeros: int,
    options: ExecutionOptions,
) -> Tensor:
    if slice_dim == 0:
        return _zeroed_filters(input, learned, bias, geometry, zeros, options)
    kernel = list(learned.shape[2:])
    if slice_dim >= 2:
        kernel[slice_dim - 2] += zeros
    shape = _output_shape(input, learned.size(0), kernel, geometry)
    if learned.numel() == 0:
        output = NoFilters.apply(input, shape)
        return output if bias is None else output + bias.to(output.dtype).view(-1, 1, 1)
    if slice_dim == 1:
        return _zeroed_channels(input, learned, bias, geometry, options)
    return _zeroed_taps(input, learned, bias, geometry, shape, options)


def _output_shape(
    input: Tensor, out_channels: int, kernel: list[int], geometry: ConvGeometry
) -> tuple[int, ...]:
    """What a convolution with so large a kernel returns; it raises where that would."""
    size = output_size(input.shape[2:], kernel, geometry)
    if input.size(0) and not input.numel():
        raise RuntimeError(
            "Only zero batch or zero channel inputs are supported, "
            f"but got input shape: {list(input.shape)}"
        )
    return (input.size(0), out_channels, *size)
