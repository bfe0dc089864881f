"""masked_conv2d: a convolution with filters in two parts, one learned and one frozen or zero."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.functional.autograd import ConvPlan, MaskedConvolution, packed_weight
from maskedconv.functional.checks import check_arguments
from maskedconv.functional.filter_bank import ExecutionOptions, FilterBank, joined_bias
from maskedconv.functional.padding import evenly_padded
from maskedconv.functional.zeroed import convolve_zeroed
from maskedconv.ops.aten import reads_wrongly
from maskedconv.ops.devices import HALF_PRECISION, autocast_dtype
from maskedconv.ops.dispatch import Decision, backend_or_any, check_backend, override_of, record
from maskedconv.ops.geometry import ConvGeometry, Pair, geometry_of, whole_numbers
from maskedconv.ops.weight_grad.jointly import types_faster_jointly
from maskedconv.tracing import is_traced

_JOINTLY = Decision("weight_grad", "reference", "all filters along with the input's gradient", {})


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
        learned: the learned slice of the weight ``[O, C / groups, kH, kW]``: n indices of dimension
            ``slice_dim``, n >= 0.
        frozen: the rest of the weight; None if there is none, or if it is zero.
        bias: the learned part of the bias: ``[n]`` for ``slice_dim`` 0, else ``[O]``.
        frozen_bias: the bias of the frozen filters, ``[O - n]``; only for ``slice_dim`` 0.
        stride, padding, dilation, groups: as in ``F.conv2d``.
        slice_dim: 0 output filters, 1 input channels, 2 kernel rows, 3 kernel columns.
        zeros: the number of zero indices that follow the learned ones, instead of ``frozen``; they
            are not computed.
        backend: "reference", "native", "triton", "cuda", "cuda_wgmma" or "matmul" must run the
            operators; None to choose.

    Returns:
        ``[N, O, Ho, Wo]`` or ``[O, Ho, Wo]``, in the memory format that ``F.conv2d`` would choose.

    Raises:
        ValueError: shapes, ``slice_dim`` or ``zeros`` do not fit together; no such backend.
        RuntimeError: the backend cannot run here; the message says why.
        TypeError: input and filters differ in type, outside of autocast.
    """
    bank = FilterBank(learned, _constant(frozen), bias, _constant(frozen_bias), slice_dim, zeros)
    if is_traced(input):
        return F.conv2d(
            input, bank.full_weight(), bank.full_bias(), stride, padding, dilation, groups
        )
    check_arguments(input, bank, groups)
    stride, dilation = whole_numbers("stride", stride), whole_numbers("dilation", dilation)
    out_channels, _, *kernel = bank.shape
    if isinstance(padding, str):
        input, padding = evenly_padded(input, kernel, stride, padding, dilation)
    geometry = geometry_of(stride, whole_numbers("padding", padding), dilation, groups)
    plain_slice = slice_dim == 0 and groups == 1
    jointly = types_faster_jointly(learned.shape, out_channels) if plain_slice else ()
    return convolve(input, bank, geometry, ExecutionOptions(check_backend(backend), jointly))


def _constant(part: Tensor | None) -> Tensor | None:
    """``part`` without a gradient: itself if it has none, as torch.fx knows it as a buffer."""
    if isinstance(part, Tensor) and not part.requires_grad:
        return part
    return None if part is None else part.detach()


def convolve(
    input: Tensor, bank: FilterBank, geometry: ConvGeometry, options: ExecutionOptions
) -> Tensor:
    """:func:`masked_conv2d` for arguments that are known to fit together.

    Between the layers of a network little Python is in the processor's caches: each function
    called here costs some microseconds more than where it is called in a loop.
    """
    learned, frozen, bias, frozen_bias, slice_dim, zeros, selected = bank
    if not input.is_cpu or input.dtype is not learned.dtype or torch.is_autocast_enabled("cpu"):
        input = _cast_input(input, bank)
    if input.dim() == 3:
        return convolve(input.unsqueeze(0), bank, geometry, options).squeeze(0)
    backend = backend_or_any(options.backend)
    if zeros:
        return convolve_zeroed(input, bank, geometry, partial(_convolve_nonzero, backend))
    if not torch.is_grad_enabled():
        weight = packed_weight(input, learned, frozen, slice_dim, backend, selected)
        joined = joined_bias(bias, frozen_bias, input.dtype, selected)
        return torch.conv2d(input, weight, joined, *geometry)
    # There is nothing to leave out of the weight gradient, or nothing is saved by it.
    all_filters = frozen is None or (input.dtype in options.jointly and input.is_cpu)
    plainly = all_filters and learned.requires_grad and not override_of(options.backend)
    if plainly and not reads_wrongly(input, learned.shape[2:], geometry):
        return _convolve_plainly(input, bank, geometry)
    plan = ConvPlan(geometry, slice_dim, backend, selected)
    return MaskedConvolution.apply(input, learned, frozen, bias, frozen_bias, plan)


def _convolve_nonzero(
    backend: str, input: Tensor, bank: FilterBank, geometry: ConvGeometry
) -> Tensor:
    plan = ConvPlan(geometry, bank.slice_dim, backend)
    return MaskedConvolution.apply(input, *bank.tensors(), plan)


def _convolve_plainly(input: Tensor, bank: FilterBank, geometry: ConvGeometry) -> Tensor:
    """PyTorch's own convolution and gradients."""
    learned, frozen, bias, frozen_bias, _, _, selected = bank
    weight = learned
    if frozen is not None:
        weight = torch.cat((learned, frozen))
        weight = weight if selected is None else selected.in_order(weight, 0)
        record(_JOINTLY)
    if weight.dtype is not input.dtype:
        weight = weight.to(input.dtype)
    joined = joined_bias(bias, frozen_bias, input.dtype, selected)
    return torch.conv2d(input, weight, joined, *geometry)


def casts(input: Tensor, learned: Tensor) -> bool:
    """Whether autocast converts both, as it does for PyTorch's convolution."""
    return input.is_floating_point() and torch.float64 not in (input.dtype, learned.dtype)


def fits(input: Tensor, bank: FilterBank) -> bool:
    """Whether a convolution of ``input`` computes in its type, which the filters then follow.

    Zeros have no type. Frozen filters alone follow an input in half precision: FSDP2 converts the
    parameters and inputs for its mixed precision, and no buffers.
    """
    own = bank.dtype
    if own is None:
        return input.is_floating_point()
    alone = bank.frozen is not None and bank.learned.numel() == 0
    return input.dtype == own or (alone and input.dtype in HALF_PRECISION)


def _cast_input(input: Tensor, bank: FilterBank) -> Tensor:
    """The input in the type that the convolution computes in; the filters follow it."""
    dtype = autocast_dtype(input.device.type)
    if dtype is not None and casts(input, bank.learned):
        return input.to(dtype)
    if not fits(input, bank):
        own = bank.dtype or bank.learned.dtype
        raise TypeError(
            f"input is {input.dtype}, but the filters are {own}; expected the same type "
            "(or an autocast region)"
        )
    return input
