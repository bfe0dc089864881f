"""The backward pass of :mod:`maskedconv.functional.bn_relu_step` as one registered operator.

torch.compile takes it into its graph as it is. If it saw PyTorch's operators inside, it would
compute the activation once for both passes, and keep it, which the step is there to avoid. The
forward pass is traced, so that the partitioner knows the convolutions in it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
)
from maskedconv.functional.registration import as_promised, like, needed, numbers_of, plan_of
from maskedconv.ops.bn_relu import Gradients
from maskedconv.ops.geometry import dense_like

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define(
    "bn_relu_convs_backward("
    "Tensor input, Tensor? weight, Tensor? bias, Tensor statistics, Tensor?[] filters, "
    "float eps, bool uses_batch_stats, int[] convs, str backend, ScalarType dtype, "
    "Tensor[] grad_outputs, bool[] needs) -> Tensor[]"
)


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
    first = plan.convs[0]
    return (
        norm.weight, norm.bias, norm.statistics, filters,
        plan.eps, plan.uses_batch_stats, numbers_of(plan), first.backend, first.dtype,
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
    plan = plan_of(eps, uses_batch_stats, tuple(numbers), backend, dtype)
    return plan.step(weight, bias, statistics, filters)


@torch.library.impl(_LIBRARY, "bn_relu_convs_backward", "CompositeExplicitAutograd")
def _run_backward(input: Tensor, *arguments: Any) -> list[Tensor]:
    *step, grad_outputs, flags = arguments
    packed = [None] * len(grad_outputs)
    norm, filters = bn_relu_step.gradients(input, _step(*step), grad_outputs, packed, _needs(flags))
    found = needed([*norm, *(grad for each in filters for grad in each)], flags)
    promised = _fake_backward(input, *arguments)
    return [as_promised(*both) for both in zip(found, promised, strict=True)]


@torch.library.register_fake("maskedconv::bn_relu_convs_backward", lib=_LIBRARY)
def _fake_backward(input: Tensor, *arguments: Any) -> list[Tensor]:
    *step, _, flags = arguments
    norm, convs = _step(*step)
    of_filters = (tensor for conv in convs for tensor in (conv.bank.learned, conv.bank.bias))
    rest = map(like, (norm.weight, norm.bias, *of_filters))
    return needed([dense_like(input), *rest], flags)


def _needs(flags: Sequence[bool]) -> StepNeeds:
    filters = [FilterNeeds(*flags[i : i + 2]) for i in range(3, len(flags), 2)]
    return StepNeeds(NormNeeds(*flags[:3]), tuple(filters))
