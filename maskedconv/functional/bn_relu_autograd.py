"""The autograd.Functions of BatchNorm and ReLU, alone or with the convolutions behind them.

They keep the BatchNorm's input and what has one number a channel. Not differentiable twice, no
``torch.func`` transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.functional.autograd import once_differentiable_lazily
from maskedconv.functional.bn_relu_step import (
    Backward,
    Convolution,
    FilterNeeds,
    NormNeeds,
    Step,
    StepPlan,
    run,
)
from maskedconv.functional.filter_bank import TENSORS, Layout, bank_of
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
    @once_differentiable_lazily
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, statistics = ctx.saved_tensors
        norm = Normalisation(weight, bias, statistics, ctx.eps, ctx.uses_batch_stats)
        problem = NormProblem(input, norm)
        grads = bn_relu_backward(problem, grad_output, tuple(ctx.needs_input_grad[:3]))
        return *grads, None, None, None


class BNReLUPlan(NamedTuple):
    """The arguments of :class:`BatchNormReLUConvolutions` besides tensors.

    Attributes:
        eps, uses_batch_stats: as of :class:`maskedconv.ops.bn_relu.Normalisation`.
        convs: how each convolution is computed, and the layout of its
            :class:`~maskedconv.functional.filter_bank.FilterBank`.
    """

    eps: float
    uses_batch_stats: bool
    convs: tuple[tuple[StepPlan, Layout], ...]

    def step(
        self,
        weight: Tensor | None,
        bias: Tensor | None,
        statistics: Tensor,
        filters: Sequence[Tensor | None],
    ) -> Step:
        """The step with these tensors, those of the filters one convolution after the other."""
        norm = Normalisation(weight, bias, statistics, self.eps, self.uses_batch_stats)
        convs = tuple(
            Convolution(bank_of(filters[TENSORS * i : TENSORS * (i + 1)], layout), plan)
            for i, (plan, layout) in enumerate(self.convs)
        )
        return Step(norm, convs)


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
        outputs, packed = run(input, step, ctx.needs_input_grad[1])
        ctx.save_for_backward(input, bn_weight, bn_bias, statistics, *filters, *packed)
        ctx.plan = plan
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        input, bn_weight, bn_bias, statistics, *rest = ctx.saved_tensors
        count = TENSORS * len(grad_outputs)
        step = ctx.plan.step(bn_weight, bn_bias, statistics, rest[:count])
        packed = rest[count:]
        needed = ctx.needs_input_grad
        backward = Backward(input, step, NormNeeds(*needed[1:4]))
        grads = _of_all_filters(backward, grad_outputs, packed, needed[5:])
        return None, *backward.of_norm(), None, *grads


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
        outputs, packed = run(total, step, any(ctx.needs_input_grad[2:4]))
        ctx.save_for_backward(total, bn_weight, bn_bias, statistics, *filters, *packed)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return total, *outputs

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        total, bn_weight, bn_bias, statistics, *rest = ctx.saved_tensors
        grad_total, *of_convs = grad_outputs
        count = TENSORS * len(of_convs)
        step = ctx.plan.step(bn_weight, bn_bias, statistics, rest[:count])
        _, _, *operands, weight, bias, _ = ctx.needs_input_grad[:7]
        backward = Backward(total, step, NormNeeds(any(operands), weight, bias))
        grads = _of_all_filters(backward, of_convs, rest[count:], ctx.needs_input_grad[7:])
        grad, *norm = backward.of_norm(added=grad_total)
        return None, None, *(grad if needed else None for needed in operands), *norm, None, *grads


def _of_all_filters(
    backward: Backward,
    grad_outputs: Sequence[Tensor | None],
    packed: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the filters' tensors, those of one convolution after the other.

    Args:
        grad_outputs: None for an output that nothing depends on.
        packed: the full weights that were kept.
        needed: of the same tensors, whether their gradients are.
    """
    grads: list[Tensor | None] = []
    for i, grad_output in enumerate(grad_outputs):
        learned, _, bias, _ = needed[TENSORS * i : TENSORS * (i + 1)]
        if grad_output is None:
            grads += [None] * TENSORS
            continue
        found = backward.of_filters(i, grad_output, packed[i], FilterNeeds(learned, bias))
        grads += found.learned, None, found.bias, None
    return grads
