"""The backward pass of :mod:`maskedconv.functional.bn_relu_step` as one registered operator.

torch.compile takes it into its graph as it is. If it saw PyTorch's operators inside, it would
compute the activation once for both passes, and keep it, which the step is there to avoid. The
forward pass is traced, so that the partitioner knows the convolutions in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from maskedconv.functional import bn_relu_step
from maskedconv.functional.bn_relu_step import (
    BNReLUPlan,
    FilterGrads,
    FilterNeeds,
    NormNeeds,
    Step,
    StepNeeds,
    StepPlan,
)
from maskedconv.ops.bn_relu import Gradients
from maskedconv.ops.geometry import ConvGeometry, dense_like

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define(
    "bn_relu_convs_backward("
    "Tensor input, Tensor? weight, Tensor? bias, Tensor statistics, Tensor?[] filters, "
    "float eps, bool uses_batch_stats, int[] convs, str backend, ScalarType dtype, "
    "Tensor[] grad_outputs, bool[] needs) -> Tensor[]"
)
# The numbers of a convolution in `convs`: stride, padding, dilation, groups, slice_dim, zeros.
_NUMBERS = 9


def gradients(
    input: Tensor, plan: BNReLUPlan, step: Step, grad_outputs: Sequence[Tensor], needs: StepNeeds
) -> tuple[Gradients, list[FilterGrads]]:
    """:func:`maskedconv.functional.bn_relu_step.gradients`, by a registered operator."""
    flags = [*needs.norm, *(flag for filters in needs.filters for flag in filters)]
    arguments = input, *_flat(plan, step), list(grad_outputs), flags
    found = iter(torch.ops.maskedconv.bn_relu_convs_backward(*arguments))
    norm = [next(found) if needed else None for needed in needs.norm]
    filters = [[next(found) if needed else None for needed in each] for each in needs.filters]
    return (norm[0], norm[1], norm[2]), [FilterGrads(*each) for each in filters]


def _flat(plan: BNReLUPlan, step: Step) -> tuple[Any, ...]:
    """The arguments behind ``input``, up to those of backward alone."""
    norm, convs = step
    filters = [tensor for conv in convs for tensor in conv.bank.tensors()]
    numbers: list[int] = []
    for conv, slice_dim, zeros in plan.convs:
        stride, padding, dilation, groups = conv.geometry
        numbers += *stride, *padding, *dilation, groups, slice_dim, zeros
    first = plan.convs[0][0]
    return (
        norm.weight, norm.bias, norm.statistics, filters,
        plan.eps, plan.uses_batch_stats, numbers, first.backend, first.dtype,
    )  # fmt: skip


def _step(
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: Tensor,
    filters: Sequence[Tensor | None],
    eps: float,
    uses_batch_stats: bool,
    numbers: Sequence[int],
    backend: str,
    dtype: torch.dtype,
) -> Step:
    plan = _plan(eps, uses_batch_stats, tuple(numbers), backend, dtype)
    return plan.step(weight, bias, statistics, filters)


@lru_cache
def _plan(
    eps: float, uses_batch_stats: bool, numbers: tuple[int, ...], backend: str, dtype: torch.dtype
) -> BNReLUPlan:
    convs = []
    for first in range(0, len(numbers), _NUMBERS):
        s1, s2, p1, p2, d1, d2, groups, slice_dim, zeros = numbers[first : first + _NUMBERS]
        geometry = ConvGeometry((s1, s2), (p1, p2), (d1, d2), groups)
        convs.append((StepPlan(geometry, backend, dtype), slice_dim, zeros))
    return BNReLUPlan(eps, uses_batch_stats, tuple(convs))


@torch.library.impl(_LIBRARY, "bn_relu_convs_backward", "CompositeExplicitAutograd")
def _run_backward(input: Tensor, *arguments: Any) -> list[Tensor]:
    *step, grad_outputs, flags = arguments
    each = _step(*step)
    needs = _needs(flags)
    norm, filters = bn_relu_step.gradients(
        input, each, grad_outputs, [None] * len(grad_outputs), needs
    )
    found = _needed(norm, filters, needs)
    promised = _fake_backward(input, *arguments)
    return [_as_promised(*both) for both in zip(found, promised, strict=True)]


@torch.library.register_fake("maskedconv::bn_relu_convs_backward", lib=_LIBRARY)
def _fake_backward(input: Tensor, *arguments: Any) -> list[Tensor]:
    *step, _, flags = arguments
    norm, convs = _step(*step)
    of_norm = dense_like(input), *map(_like, (norm.weight, norm.bias))
    of_filters = [(_like(conv.bank.learned), _like(conv.bank.bias)) for conv in convs]
    return _needed(of_norm, of_filters, _needs(flags))


def _like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor)


def _needs(flags: Sequence[bool]) -> StepNeeds:
    filters = [FilterNeeds(*flags[i : i + 2]) for i in range(3, len(flags), 2)]
    return StepNeeds(NormNeeds(*flags[:3]), tuple(filters))


def _needed(
    norm: Sequence[Tensor | None], filters: Sequence[Sequence[Tensor | None]], needs: StepNeeds
) -> list[Tensor]:
    """The needed gradients, in the order of ``needs``."""
    pairs = [*zip(norm, needs.norm, strict=True)]
    for each, needed in zip(filters, needs.filters, strict=True):
        pairs += zip(each, needed, strict=True)
    found = [tensor for tensor, needed in pairs if needed]
    assert all(tensor is not None for tensor in found)
    return [tensor for tensor in found if tensor is not None]


def _as_promised(tensor: Tensor, promised: Tensor) -> Tensor:
    """``tensor`` with the strides that the fake implementation gives it."""
    if tensor.stride() == promised.stride():
        return tensor
    return promised.copy_(tensor)
