"""BatchNorm, ReLU and convolution as one step that keeps the BatchNorm's input and nothing else.

The three modules one after another keep the BatchNorm's input and the convolution's, which is as
large. Here backward computes the convolution's input again from the BatchNorm's, in one
element-wise pass, or leaves that to the weight gradient's kernel; the bank is packed anew as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.functional.autograd import ExecutionOptions
from maskedconv.functional.batch_norm import Moments, is_intercepted, is_plain_norm, normalisation
from maskedconv.functional.bn_relu_autograd import BatchNormReLU, BatchNormReLUConvolution, Plan
from maskedconv.nn.masked_conv2d import MaskedConv2d
from maskedconv.ops.bn_relu import Normalisation
from maskedconv.ops.dispatch import settled
from maskedconv.ops.geometry import ConvGeometry, geometry_of, memory_format_of, output_size


class BNReLUConv2d(nn.Module):
    """``conv(relu(bn(input)))``, ``[N, C, H, W]`` to ``[N, O, Ho, Wo]``; see :func:`bn_relu_conv`.

    Args:
        bn: ``nn.BatchNorm2d`` of the C input channels, or any other module in its place.
        conv: a :class:`~maskedconv.MaskedConv2d` or ``nn.Conv2d``.

    Raises:
        ValueError: ``bn`` and ``conv`` differ in channels.
    """

    def __init__(self, bn: nn.Module, conv: nn.Conv2d) -> None:
        super().__init__()
        if isinstance(bn, nn.BatchNorm2d) and bn.num_features != conv.in_channels:
            raise ValueError(
                f"bn has {bn.num_features} channels; expected the {conv.in_channels} that conv has"
            )
        self.bn = bn
        self.conv = conv

    def forward(self, input: Tensor) -> Tensor:
        return bn_relu_conv(input, self.bn, self.conv)


def bn_relu_conv(
    input: Tensor, bn: nn.Module, conv: nn.Module, moments: Moments | None = None
) -> Tensor:
    """``conv(relu(bn(input)))``, keeping for backward only ``input``.

    The numbers and gradients are those of the three modules, running statistics included. Not
    differentiable twice. Modules that have hooks or are not exactly of these types run themselves;
    the activation is then kept.

    Args:
        input: ``[N, C, H, W]``; also a view of the first channels of a wider tensor.
        bn: ``nn.BatchNorm2d``, or any other module in its place.
        conv: a :class:`~maskedconv.MaskedConv2d` or ``nn.Conv2d``.
        moments: of ``input`` in this batch, where the caller has them already.

    Raises:
        ValueError, TypeError, RuntimeError: what the modules raise.
    """
    return bn_relu_convs(input, bn, (conv,), moments)[0]


def bn_relu_convs(
    input: Tensor, bn: nn.Module, convs: Sequence[nn.Module], moments: Moments | None = None
) -> tuple[Tensor, ...]:
    """As :func:`bn_relu_conv`, for several convolutions that read the same activation."""
    if not is_plain_norm(bn, input):
        activation = F.relu(bn(input))
        return tuple(conv(activation) for conv in convs)
    assert isinstance(bn, nn.BatchNorm2d)
    norm = normalisation(input, bn, moments)
    return tuple(_convolve(input, norm, conv) for conv in convs)


def bn_relu(input: Tensor, bn: nn.Module, moments: Moments | None = None) -> Tensor:
    """``relu(bn(input))``, ``[N, C, H, W]``, keeping for backward only ``input``."""
    if not is_plain_norm(bn, input):
        return F.relu(bn(input))
    assert isinstance(bn, nn.BatchNorm2d)
    return _activate(input, normalisation(input, bn, moments))


class _Parts(NamedTuple):
    """A convolution's filters and biases; ``zeros`` as in ``functional.masked_conv2d``."""

    learned: Tensor
    frozen: Tensor | None
    bias: Tensor | None
    frozen_bias: Tensor | None
    slice_dim: int
    zeros: int
    options: ExecutionOptions


def _activate(input: Tensor, norm: Normalisation) -> Tensor:
    return BatchNormReLU.apply(input, *norm)


def _convolve(input: Tensor, norm: Normalisation, conv: nn.Module) -> Tensor:
    """``conv`` of the activation, in one step where the convolution allows that."""
    parts = _parts(conv, input.size(1))
    dtype = None if parts is None else _compute_type(input, parts.learned)
    if parts is None or dtype is None:
        return conv(_activate(input, norm))
    assert isinstance(conv, nn.Conv2d)
    # Of the pairs for "same" padding and of the numbers alike.
    padding = tuple(conv._reversed_padding_repeated_twice[::-2])
    geometry = geometry_of(conv.stride, padding, conv.dilation, conv.groups)
    if not parts.zeros:
        return _apply(input, norm, parts, geometry, dtype)
    if parts.slice_dim == 0:
        return F.pad(_apply(input, norm, parts, geometry, dtype), (0, 0, 0, 0, 0, parts.zeros))
    if parts.slice_dim == 1:
        # In memory of its own, so that backward does not keep the channels that are not read.
        count = parts.learned.size(1)
        channels = input.narrow(1, 0, count).contiguous(memory_format=memory_format_of(input))
        return _apply(channels, norm.first(count), parts, geometry, dtype)
    rows, columns = output_size(input.shape[2:], conv.kernel_size, geometry)
    output = _apply(input, norm, parts, geometry, dtype)
    return output[:, :, :rows, :columns].contiguous(memory_format=memory_format_of(output))


def _apply(
    input: Tensor, norm: Normalisation, parts: _Parts, geometry: ConvGeometry, dtype: torch.dtype
) -> Tensor:
    slice_dim = 0 if parts.zeros else parts.slice_dim
    plan = Plan(geometry, slice_dim, dtype, norm.eps, norm.of_batch, settled(parts.options.backend))
    return BatchNormReLUConvolution.apply(input, *norm[:4], *parts[:4], plan)


def _parts(conv: nn.Module, channels: int) -> _Parts | None:
    """Of a convolution of ``channels`` that the Function takes; else None."""
    if type(conv) not in (MaskedConv2d, nn.Conv2d) or is_intercepted(conv):
        return None
    assert isinstance(conv, nn.Conv2d)
    pads = conv._reversed_padding_repeated_twice
    if conv.padding_mode != "zeros" or pads[::2] != pads[1::2]:
        return None
    if conv.in_channels != channels:
        return None
    if not isinstance(conv, MaskedConv2d):
        return _Parts(conv.weight, None, conv.bias, None, 0, 0, ExecutionOptions())
    zeros = conv.num_zeros
    if zeros and (conv.groups != 1 or not conv.num_learned):
        return None
    return _Parts(
        conv.learned, conv.frozen, conv.bias_learned, conv.bias_frozen, conv.slice_dim, zeros,
        conv.options,
    )  # fmt: skip


def _compute_type(input: Tensor, learned: Tensor) -> torch.dtype | None:
    """The type that the convolution computes in: autocast's, or the common one; else None."""
    device = input.device.type
    # The meta device has no autocast, and asking for it is an error.
    if device != "meta" and torch.is_autocast_enabled(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return input.dtype if input.dtype == learned.dtype else None
