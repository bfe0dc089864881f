"""The autograd.Functions of BatchNorm and ReLU, alone or with the convolution behind them.

They keep the BatchNorm's input and what has one number a channel. Backward computes the activation
again in one element-wise pass, or leaves that to the weight gradient's kernel, and packs the bank
again. Not differentiable twice, no ``torch.func`` transforms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv import ops
from maskedconv.autograd import Means, joined_bias, once_differentiable_lazily
from maskedconv.batch_norm import (
    Normalisation,
    activation,
    affine,
    batch_norm_backward,
    relu_backward_,
)
from maskedconv.ops.geometry import ConvGeometry, memory_format_of
from maskedconv.ops.library import convolution_grads
from maskedconv.ops.weight_grad import WeightGradProblem, prefers_library


class BatchNormReLU(torch.autograd.Function):
    """``relu(bn(input))`` of ``[N, C, H, W]``, of which only ``input`` is kept for backward."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        eps: float,
        of_batch: bool,
    ) -> Tensor:
        norm = Normalisation(weight, bias, mean, var, eps, of_batch)
        ctx.save_for_backward(input, weight, bias, mean, var)
        ctx.eps, ctx.of_batch = eps, of_batch
        return activation(input, *norm.scale_shift())

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, mean, var = ctx.saved_tensors
        norm = Normalisation(weight, bias, mean, var, ctx.eps, ctx.of_batch)
        normalised = affine(input, *norm.scale_shift())
        grad = torch.ops.aten.threshold_backward(grad_output, normalised, 0)
        grads = batch_norm_backward(grad, input, norm, tuple(ctx.needs_input_grad[:3]))
        return *grads, None, None, None, None


class Plan(NamedTuple):
    """What :class:`BatchNormReLUConvolution` is told besides tensors; ``dtype`` it computes in, and
    ``free`` is as of :func:`maskedconv.ops.choice.is_free`.
    """

    geometry: ConvGeometry
    slice_dim: int
    dtype: torch.dtype
    eps: float
    of_batch: bool
    means: Means
    free: bool


class BatchNormReLUConvolution(torch.autograd.Function):
    """``conv2d(relu(bn(input)), [learned; frozen], [bias; frozen_bias])``."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        bn_weight: Tensor | None,
        bn_bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        learned: Tensor,
        frozen: Tensor | None,
        bias: Tensor | None,
        frozen_bias: Tensor | None,
        plan: Plan,
    ) -> Tensor:
        norm = Normalisation(bn_weight, bn_bias, mean, var, plan.eps, plan.of_batch)
        x = activation(input, *norm.scale_shift()).to(plan.dtype)
        ctx.save_for_backward(input, bn_weight, bn_bias, mean, var, learned, frozen)
        ctx.plan = plan
        ctx.bias = None if bias is None else (bias.size(0), bias.dtype)
        weight = _pack(x, learned, frozen, plan)
        return torch.conv2d(x, weight, joined_bias(bias, frozen_bias, plan.dtype), *plan.geometry)

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, bn_weight, bn_bias, mean, var, learned, frozen = ctx.saved_tensors
        plan: Plan = ctx.plan
        norm = Normalisation(bn_weight, bn_bias, mean, var, plan.eps, plan.of_batch)
        norm_needs = tuple(ctx.needs_input_grad[:3])
        grad_bias = None
        if ctx.needs_input_grad[7]:
            count, dtype = ctx.bias
            grad_bias = grad_output.narrow(1, 0, count).sum((0, 2, 3)).to(dtype)
        needs = (any(norm_needs), ctx.needs_input_grad[5])
        normalised, grad_x, grad_learned = _conv_backward(
            grad_output, input, norm, learned, frozen, plan, needs
        )
        norm_grads: tuple[Tensor | None, ...] = (None, None, None)
        if normalised is not None and grad_x is not None:
            grad = relu_backward_(grad_x.to(input.dtype), normalised)
            norm_grads = batch_norm_backward(grad, input, norm, norm_needs)
        return *norm_grads, None, None, grad_learned, None, grad_bias, None, None


def _conv_backward(
    grad_output: Tensor,
    input: Tensor,
    norm: Normalisation,
    learned: Tensor,
    frozen: Tensor | None,
    plan: Plan,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What ReLU's backward needs, and the gradients of the convolution's input and filters."""
    needs_x, needs_learned = needs
    scale, shift = norm.scale_shift()
    grad_learned = None
    if needs_learned and frozen is not None:
        problem = WeightGradProblem(
            input, grad_output, learned.shape, plan.slice_dim, plan.geometry, scale, shift,
            plan.means.backend,
        )  # fmt: skip
        if _kernel_recomputes(problem, needs_x, plan.free):
            grad_learned = ops.weight_grad(problem, learned.dtype, plan.free)
            needs_learned = False
    if not (needs_x or needs_learned):
        return None, None, grad_learned
    # Without a weight gradient the mask is all that it is for: ReLU's own pass is left out.
    normalised = (activation if needs_learned else affine)(input, scale, shift)
    x = normalised.to(plan.dtype)
    together = needs_learned and frozen is None
    if needs_learned and frozen is not None:
        grad_learned = _weight_grad(x, grad_output, learned, plan)
    grad_x = None
    if needs_x or together:
        weight = _pack(x, learned, frozen, plan)
        grad_x, grad_weight = convolution_grads(
            grad_output, x, weight, plan.geometry, (needs_x, together)
        )
        if together:
            grad_learned = grad_weight.to(learned.dtype)
    return normalised, grad_x, grad_learned


def _kernel_recomputes(problem: WeightGradProblem, masked: bool, free: bool) -> bool:
    """Whether a kernel computes the activation while it loads the BatchNorm's input.

    Not where that is a view of a wider tensor and ReLU's mask (``masked``) is needed too: the
    values for the mask lie in dense memory then, which is faster to read.
    """
    if problem.slice_dim != 0 or problem.geometry.groups != 1:
        return False
    input = problem.input
    if input.dtype != problem.grad_output.dtype:
        return False
    if masked and not input.is_contiguous(memory_format=memory_format_of(input)):
        return False
    return not prefers_library(problem, free)


def _weight_grad(x: Tensor, grad_output: Tensor, learned: Tensor, plan: Plan) -> Tensor:
    geometry, slice_dim = plan.geometry, plan.slice_dim
    filters = grad_output.size(1)
    kept = ops.keep_for_weight_grad(x, learned.shape, slice_dim, filters, geometry.groups)
    problem = WeightGradProblem(
        kept, grad_output, learned.shape, slice_dim, geometry, None, None, plan.means.backend
    )
    return ops.weight_grad(problem, learned.dtype, plan.free)


def _pack(x: Tensor, learned: Tensor, frozen: Tensor | None, plan: Plan) -> Tensor:
    """The whole bank."""
    return plan.means.pack(x, learned, frozen, plan.slice_dim, plan.free)
