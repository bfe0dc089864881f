"""The autograd.Functions of BatchNorm and ReLU, alone or with the convolution behind them.

They keep the BatchNorm's input and what has one number a channel. Backward computes the activation
again in one element-wise pass, or leaves that to the weight gradient's kernel, and packs the weight
again. Not differentiable twice, no ``torch.func`` transforms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv import ops
from maskedconv.functional.autograd import (
    once_differentiable_lazily,
    packed_weight,
)
from maskedconv.functional.filter_bank import joined_bias
from maskedconv.ops.aten import convolution_grads
from maskedconv.ops.bn_relu import (
    BackwardMemory,
    Normalisation,
    NormProblem,
    bn_relu,
    bn_relu_backward,
    runs_kernel,
)
from maskedconv.ops.geometry import ConvGeometry, memory_format_of
from maskedconv.ops.weight_grad import WeightGradProblem, uses_reference


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
    """The arguments of :class:`BatchNormReLUConvolution` besides tensors.

    Attributes:
        geometry, slice_dim, backend: as of :class:`maskedconv.functional.autograd.ConvPlan`.
        dtype: the type that the convolution computes in.
        eps, uses_batch_stats: as of :class:`maskedconv.ops.bn_relu.Normalisation`.
    """

    geometry: ConvGeometry
    slice_dim: int
    backend: str
    dtype: torch.dtype
    eps: float
    uses_batch_stats: bool


class BatchNormReLUConvolution(torch.autograd.Function):
    """``conv2d(relu(bn(input)), [learned; frozen], [bias; frozen_bias])``."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        bn_weight: Tensor | None,
        bn_bias: Tensor | None,
        statistics: Tensor,
        learned: Tensor,
        frozen: Tensor | None,
        bias: Tensor | None,
        frozen_bias: Tensor | None,
        plan: BNReLUPlan,
    ) -> Tensor:
        norm = Normalisation(bn_weight, bn_bias, statistics, plan.eps, plan.uses_batch_stats)
        x = bn_relu(NormProblem(input, norm, plan.backend)).to(plan.dtype)
        weight = _pack(x, learned, frozen, plan)
        packed = weight if _keeps_packed_weight(input) and ctx.needs_input_grad[0] else None
        ctx.save_for_backward(input, bn_weight, bn_bias, statistics, learned, frozen, packed)
        ctx.plan = plan
        ctx.bias = None if bias is None else (bias.size(0), bias.dtype)
        return torch.conv2d(x, weight, joined_bias(bias, frozen_bias, plan.dtype), *plan.geometry)

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, bn_weight, bn_bias, statistics, *filters = ctx.saved_tensors
        plan: BNReLUPlan = ctx.plan
        norm = Normalisation(bn_weight, bn_bias, statistics, plan.eps, plan.uses_batch_stats)
        norm_needs = tuple(ctx.needs_input_grad[:3])
        grad_bias = None
        if ctx.needs_input_grad[6]:
            count, dtype = ctx.bias
            grad_bias = grad_output.narrow(1, 0, count).sum((0, 2, 3)).to(dtype)
        problem = NormProblem(input, norm, plan.backend)
        needs = (any(norm_needs), ctx.needs_input_grad[4])
        activation, grad_x, grad_learned = _conv_backward(
            grad_output, problem, _Filters(*filters), plan, needs
        )
        norm_grads: tuple[Tensor | None, ...] = (None, None, None)
        if grad_x is not None:
            norm_grads = bn_relu_backward(
                problem, grad_x.to(input.dtype), norm_needs, BackwardMemory(activation, True)
            )
        return *norm_grads, None, grad_learned, None, grad_bias, None, None


class _Filters(NamedTuple):
    """The filters of a convolution; ``packed`` is the full weight if it was kept."""

    learned: Tensor
    frozen: Tensor | None
    packed: Tensor | None


def _keeps_packed_weight(input: Tensor) -> bool:
    """Whether the full weight is kept for backward.

    On a GPU to pack it again is a launch. On a CPU it takes no more time than to keep it, and
    keeping it takes memory.
    """
    return input.is_cuda


def _conv_backward(
    grad_output: Tensor,
    norm_problem: NormProblem,
    filters: _Filters,
    plan: BNReLUPlan,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The activation if it was computed again, and the gradients of activation and filters."""
    needs_x, needs_learned = needs
    input, norm, *_ = norm_problem
    learned, frozen, packed = filters
    grad_learned = activation = None
    if needs_learned and frozen is not None:
        problem = WeightGradProblem(
            input, grad_output, learned.shape, plan.slice_dim, plan.geometry, *norm.scale_shift(),
            plan.backend,
        )  # fmt: skip
        # If the activation has to be computed anyway, it lies in dense memory.
        at_hand = needs_x and not runs_kernel(norm_problem)
        if _kernel_recomputes(problem, at_hand):
            grad_learned = ops.weight_grad(problem, learned.dtype)
            needs_learned = False
    if not (needs_x or needs_learned):
        return None, None, grad_learned
    if needs_learned:
        activation = bn_relu(norm_problem)
        x = activation.to(plan.dtype)
    else:
        # The input's gradient needs the shape of this, and not the values.
        layout = memory_format_of(input)
        x = torch.empty(input.shape, dtype=plan.dtype, device=input.device, memory_format=layout)
    jointly = needs_learned and frozen is None
    if needs_learned and frozen is not None:
        grad_learned = _weight_grad(x, grad_output, learned, plan)
    grad_x = None
    if needs_x or jointly:
        weight = _pack(x, learned, frozen, plan) if packed is None else packed
        grad_x, grad_weight = convolution_grads(
            grad_output, x, weight, plan.geometry, (needs_x, jointly)
        )
        if jointly:
            grad_learned = grad_weight.to(learned.dtype)
    return activation, grad_x, grad_learned


def _kernel_recomputes(problem: WeightGradProblem, at_hand: bool) -> bool:
    """Whether a kernel computes the activation while it loads the BatchNorm's input.

    Not where that is a view of a wider tensor and the activation is ``at_hand``, in dense memory:
    that is faster to read.
    """
    if problem.slice_dim != 0 or problem.geometry.groups != 1:
        return False
    input = problem.input
    if input.dtype != problem.grad_output.dtype:
        return False
    if at_hand and not input.is_contiguous(memory_format=memory_format_of(input)):
        return False
    return not uses_reference(problem)


def _weight_grad(x: Tensor, grad_output: Tensor, learned: Tensor, plan: BNReLUPlan) -> Tensor:
    geometry, slice_dim = plan.geometry, plan.slice_dim
    filters = grad_output.size(1)
    saved_input = ops.input_to_save(x, learned.shape, slice_dim, filters, geometry.groups)
    problem = WeightGradProblem(
        saved_input, grad_output, learned.shape, slice_dim, geometry, None, None, plan.backend
    )
    return ops.weight_grad(problem, learned.dtype)


def _pack(x: Tensor, learned: Tensor, frozen: Tensor | None, plan: BNReLUPlan) -> Tensor:
    return packed_weight(x, learned, frozen, plan.slice_dim, plan.backend)
