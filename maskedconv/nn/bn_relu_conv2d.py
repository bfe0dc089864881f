"""BatchNorm, ReLU and convolution as one step that keeps the BatchNorm's input and nothing else.

The three modules one after another keep the BatchNorm's input and the convolution's, which is as
large. Here backward computes the convolution's input again from the BatchNorm's, in one
element-wise pass, or leaves that to the weight gradient's kernel, and packs the weight anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.functional.batch_norm import (
    is_intercepted,
    is_plain_norm,
    normalisation,
    normalisation_of_sum,
    uses_batch_moments,
)
from maskedconv.functional.bn_relu_autograd import (
    BatchNormReLU,
    BatchNormReLUConvolutions,
    SumBatchNormReLUConvolutions,
)
from maskedconv.functional.bn_relu_step import BNReLUPlan, Convolution, StepPlan
from maskedconv.functional.convolution import casts, fits
from maskedconv.functional.filter_bank import FilterBank
from maskedconv.functional.padding import padding_of
from maskedconv.functional.zeroed import convolve_zeroed
from maskedconv.nn.masked_conv2d import MaskedConv2d
from maskedconv.ops.bn_relu import Normalisation
from maskedconv.ops.devices import autocast_dtype
from maskedconv.ops.dispatch import backend_or_any
from maskedconv.ops.geometry import ConvGeometry, Pair, geometry_of, memory_format_of
from maskedconv.ops.plain import is_plain


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
    input: Tensor, bn: nn.Module, conv: nn.Module, moments: Tensor | None = None
) -> Tensor:
    """``conv(relu(bn(input)))``, keeping for backward only ``input``.

    The numbers and gradients are those of the three modules, running statistics included. Not
    differentiable twice. Modules that have hooks or are not exactly of these types run themselves;
    the activation is then kept.

    Args:
        input: ``[N, C, H, W]``; also a view of the first channels of a wider tensor.
        bn: ``nn.BatchNorm2d``, or any other module in its place.
        conv: a :class:`~maskedconv.MaskedConv2d` or ``nn.Conv2d``.
        moments: ``[2, C]``, mean and biased variance of ``input``, if they are known.

    Raises:
        ValueError, TypeError, RuntimeError: what the modules raise.
    """
    return bn_relu_convs(input, bn, (conv,), moments)[0]


def bn_relu_convs(
    input: Tensor, bn: nn.Module, convs: Sequence[nn.Module], moments: Tensor | None = None
) -> tuple[Tensor, ...]:
    """As :func:`bn_relu_conv`, for several convolutions that read the same activation.

    Args:
        input, bn, moments: as of :func:`bn_relu_conv`.
        convs: at least one; each a :class:`~maskedconv.MaskedConv2d` or ``nn.Conv2d``.

    Returns:
        The output of each convolution, ``[N, O, Ho, Wo]``.

    Raises:
        ValueError, TypeError, RuntimeError: what the modules raise.
    """
    if not is_plain_norm(bn, input):
        activation = F.relu(bn(input))
        return tuple(conv(activation) for conv in convs)
    assert isinstance(bn, nn.BatchNorm2d)
    norm = normalisation(input, bn, moments)
    if len(convs) > 1 and (step := _as_one_step(input, convs)):
        return BatchNormReLUConvolutions.apply(*_arguments(input, norm, step))
    return tuple(_convolve(input, norm, conv) for conv in convs)


def sum_bn_relu_convs(
    input: Tensor, summand: Tensor, bn: nn.Module, convs: Sequence[nn.Module]
) -> tuple[Tensor, ...]:
    """``total = input + summand`` and then :func:`bn_relu_convs` of it.

    In training, one pass computes the sum and its statistics, and backward adds the gradient of the
    sum in the pass that computes the gradient of ``input``.

    Args:
        input, summand: ``[N, C, H, W]``.
        bn, convs: as of :func:`bn_relu_convs`.

    Returns:
        The sum ``[N, C, H, W]``, and the output of each convolution, ``[N, O, Ho, Wo]``.

    Raises:
        ValueError, TypeError, RuntimeError: what the addition and the modules raise.
    """
    step = _with_sum(input, summand, bn, convs)
    if not step:
        total = input + summand
        return total, *bn_relu_convs(total, bn, convs)
    assert isinstance(bn, nn.BatchNorm2d)
    total, norm = normalisation_of_sum(input, summand, bn)
    plan, _, *rest = _arguments(total, norm, step)
    return SumBatchNormReLUConvolutions.apply(plan, total, input, summand, *rest)


def _with_sum(
    input: Tensor, summand: Tensor, bn: nn.Module, convs: Sequence[nn.Module]
) -> list[Convolution]:
    """The convolutions, if one step can compute them and the sum; else an empty list."""
    # First of all, as a traced input has no shape to compare.
    if torch.compiler.is_compiling() or not uses_batch_moments(bn, input):
        return []
    alike = (
        input.shape == summand.shape
        and input.dtype == summand.dtype
        and input.device == summand.device
        and memory_format_of(input) == memory_format_of(summand)
    )
    trained = torch.is_grad_enabled() and (input.requires_grad or summand.requires_grad)
    plain = is_plain(input) and is_plain(summand)
    return _as_one_step(input, convs) if alike and trained and plain else []


def bn_relu(input: Tensor, bn: nn.Module, moments: Tensor | None = None) -> Tensor:
    """``relu(bn(input))``, ``[N, C, H, W]``; saves only ``input`` for backward.

    Args:
        input, bn, moments: as of :func:`bn_relu_conv`.

    Raises:
        ValueError, TypeError, RuntimeError: what ``bn`` raises.
    """
    if not is_plain_norm(bn, input):
        return F.relu(bn(input))
    assert isinstance(bn, nn.BatchNorm2d)
    return _activate(input, normalisation(input, bn, moments))


def _activate(input: Tensor, norm: Normalisation) -> Tensor:
    return BatchNormReLU.apply(input, *norm)


def _as_one_step(input: Tensor, convs: Sequence[nn.Module]) -> list[Convolution]:
    """The convolutions, if one step can compute them all; else an empty list."""
    found = [convolution_of(conv, input, input.size(1)) for conv in convs]
    ready = [conv for conv in found if conv is not None]
    same = len({(plan.backend, plan.dtype) for _, plan in ready}) == 1
    return ready if same and len(ready) == len(found) else []


def _convolve(input: Tensor, norm: Normalisation, conv: nn.Module) -> Tensor:
    """``conv`` of the activation, in one step if the convolution allows that."""
    whole = _planned(conv, input, input.size(1))
    if whole is None:
        return conv(_activate(input, norm))
    plan = whole.plan
    if not plan.zeros or plan.slice_dim == 0:
        return BatchNormReLUConvolutions.apply(*_arguments(input, norm, [whole]))

    def compute(channels: Tensor, bank: FilterBank, geometry: ConvGeometry) -> Tensor:
        part = norm if channels.size(1) == input.size(1) else norm.first(channels.size(1))
        own = StepPlan(geometry, plan.backend, plan.dtype, bank.slice_dim, bank.zeros)
        convs = [Convolution(bank, own)]
        return BatchNormReLUConvolutions.apply(*_arguments(channels, part, convs))

    return convolve_zeroed(input, whole.bank, plan.geometry, compute)


def _arguments(
    input: Tensor, norm: Normalisation, convs: Sequence[Convolution]
) -> tuple[BNReLUPlan | Tensor | None, ...]:
    """The arguments of the Function."""
    plan = BNReLUPlan(norm.eps, norm.uses_batch_stats, tuple(conv.plan for conv in convs))
    filters = (tensor for bank, _ in convs for tensor in bank.tensors())
    return plan, input, *norm[:3], *filters


def convolution_of(conv: nn.Module, input: Tensor, channels: int) -> Convolution | None:
    """``conv`` as part of a step for an input like ``input`` with ``channels``; else None."""
    found = _planned(conv, input, channels)
    if found is not None and found.plan.zeros and found.plan.slice_dim != 0:
        return None
    return found


def _planned(conv: nn.Module, input: Tensor, channels: int) -> Convolution | None:
    """As :func:`convolution_of`, with zeros in any dimension."""
    bank = _filter_bank(conv, channels)
    dtype = None if bank is None else _compute_type(input, bank)
    if bank is None or dtype is None:
        return None
    assert isinstance(conv, nn.Conv2d)
    padding: Pair | str = conv.padding
    if isinstance(padding, str):
        padding, _ = padding_of(bank.shape[2:], conv.stride, padding, conv.dilation)
    geometry = geometry_of(conv.stride, padding, conv.dilation, conv.groups)
    backend = backend_or_any(conv.options.backend if isinstance(conv, MaskedConv2d) else "")
    return Convolution(bank, StepPlan(geometry, backend, dtype, bank.slice_dim, bank.zeros))


def _filter_bank(conv: nn.Module, channels: int) -> FilterBank | None:
    """The filters of a convolution of ``channels`` that the Function takes; else None."""
    if type(conv) not in (MaskedConv2d, nn.Conv2d) or is_intercepted(conv):
        return None
    assert isinstance(conv, nn.Conv2d)
    if conv.padding_mode != "zeros" or conv.in_channels != channels:
        return None
    if not isinstance(conv, MaskedConv2d):
        bank = FilterBank(conv.weight, None, conv.bias)
    elif conv.num_zeros and (conv.groups != 1 or not conv.num_learned):
        return None
    else:
        bank = conv.filter_bank
    if isinstance(conv.padding, str):
        _, surplus = padding_of(bank.shape[2:], conv.stride, conv.padding, conv.dilation)
        if any(surplus):
            return None
    # The step packs the learned slices before the others, in no other order.
    return bank if bank.selected is None else None


def _compute_type(input: Tensor, bank: FilterBank) -> torch.dtype | None:
    """The type that the convolution computes in: autocast's, or the common one; else None."""
    dtype = autocast_dtype(input.device.type)
    if dtype is not None and casts(input, bank.learned):
        return dtype
    return input.dtype if fits(input, bank) else None
