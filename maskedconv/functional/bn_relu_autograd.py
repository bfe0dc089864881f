"""The autograd.Functions of BatchNorm and ReLU, alone or with the convolutions behind them.

They save the BatchNorm's input and tensors of one number a channel. Not differentiable twice, no
``torch.func`` transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskedconv.functional import bn_relu_step, step_operator
from maskedconv.functional.bn_relu_step import (
    BNReLUPlan,
    FilterGrads,
    FilterNeeds,
    NormNeeds,
    Step,
    StepNeeds,
)
from maskedconv.functional.filter_bank import TENSORS
from maskedconv.functional.once_differentiable import once_differentiable
from maskedconv.ops.bn_relu import Normalisation, NormProblem, bn_relu, bn_relu_backward


class BatchNormReLU(torch.autograd.Function):
    """``relu(bn(input))`` of ``[N, C, H, W]``; saves only ``input`` for backward."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        statistics: Tensor,
        eps: float,
        uses_batch_stats: bool,
    ) -> Tensor:
        norm = Normalisation(weight, bias, statistics, eps, uses_batch_stats)
        ctx.save_for_backward(input, weight, bias, statistics)
        ctx.eps, ctx.uses_batch_stats = eps, uses_batch_stats
        return bn_relu(NormProblem(input, norm))

    @staticmethod
    @once_differentiable("BatchNorm and ReLU in one step")
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, statistics = ctx.saved_tensors
        norm = Normalisation(weight, bias, statistics, ctx.eps, ctx.uses_batch_stats)
        problem = NormProblem(input, norm)
        grads = bn_relu_backward(problem, grad_output, tuple(ctx.needs_input_grad[:3]))
        return *grads, None, None, None


class BatchNormReLUConvolutions(torch.autograd.Function):
    """``conv2d(relu(bn(input)), [learned; frozen], [bias; frozen_bias])`` of each convolution.

    One output, or a tuple of several.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: BNReLUPlan,
        input: Tensor,
        bn_weight: Tensor | None,
        bn_bias: Tensor | None,
        statistics: Tensor,
        *filters: Tensor | None,
    ) -> Tensor | tuple[Tensor, ...]:
        step = plan.step(bn_weight, bn_bias, statistics, filters)
        has_backward = ctx.needs_input_grad[1] and not torch.compiler.is_compiling()
        outputs, packed = bn_relu_step.run(input, step, has_backward)
        ctx.save_for_backward(input, bn_weight, bn_bias, statistics, *filters, *packed)
        ctx.plan = plan
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @staticmethod
    @once_differentiable("BNReLUConv2d")
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        input, bn_weight, bn_bias, statistics, *rest = ctx.saved_tensors
        count = TENSORS * len(grad_outputs)
        step = ctx.plan.step(bn_weight, bn_bias, statistics, rest[:count])
        needed = ctx.needs_input_grad
        needs = StepNeeds(NormNeeds(*needed[1:4]), _filter_needs(needed[5:], step))
        if torch.compiler.is_compiling():
            found = step_operator.gradients(input, ctx.plan, step, grad_outputs, needs)
        else:
            found = bn_relu_step.gradients(input, step, grad_outputs, rest[count:], needs)
        norm, filters = found
        return None, *norm, None, *_of_all_tensors(filters)


class SumBatchNormReLUConvolutions(torch.autograd.Function):
    """``total = input + summand``, and :class:`BatchNormReLUConvolutions` of it.

    Outputs ``total`` and one tensor a convolution. The sum is an argument, as its statistics are.
    Backward adds the gradient of ``total`` in the pass that computes the input's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: BNReLUPlan,
        total: Tensor,
        input: Tensor,
        summand: Tensor,
        bn_weight: Tensor | None,
        bn_bias: Tensor | None,
        statistics: Tensor,
        *filters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        step = plan.step(bn_weight, bn_bias, statistics, filters)
        outputs, packed = bn_relu_step.run(total, step, any(ctx.needs_input_grad[2:4]))
        ctx.save_for_backward(total, bn_weight, bn_bias, statistics, *filters, *packed)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return total, *outputs

    @staticmethod
    @once_differentiable("sum_bn_relu_convs")
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        total, bn_weight, bn_bias, statistics, *rest = ctx.saved_tensors
        grad_total, *of_convs = grad_outputs
        count = TENSORS * len(of_convs)
        step = ctx.plan.step(bn_weight, bn_bias, statistics, rest[:count])
        _, _, *operands, weight, bias, _ = ctx.needs_input_grad[:7]
        of_filters = _filter_needs(ctx.needs_input_grad[7:], step)
        needs = StepNeeds(NormNeeds(any(operands), weight, bias), of_filters)
        (grad, *norm), filters = bn_relu_step.gradients(
            total, step, of_convs, rest[count:], needs, added=grad_total
        )
        of_operands = (grad if needed else None for needed in operands)
        return None, None, *of_operands, *norm, None, *_of_all_tensors(filters)


def _filter_needs(needed: Sequence[bool], step: Step) -> tuple[FilterNeeds, ...]:
    """The needed gradients of the filters, one convolution after the other."""
    return tuple(
        FilterNeeds(needed[TENSORS * i], needed[TENSORS * i + 2]) for i in range(len(step.convs))
    )


def _of_all_tensors(filters: Sequence[FilterGrads]) -> list[Tensor | None]:
    """The gradients of all tensors of the filters."""
    return [part for each in filters for part in (each.learned, None, each.bias, None)]
