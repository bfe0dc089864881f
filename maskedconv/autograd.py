"""The one autograd.Function: a convolution whose weight gradient covers the learned slice only.

A plain ``forward(ctx, ...)`` costs a few microseconds a call, a third of ``setup_context`` or of a
registered operator with autograd. Its price: no double backward and no ``torch.func`` transforms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskedconv import ops
from maskedconv.ops.geometry import ConvGeometry, bank_format, memory_format_of
from maskedconv.ops.weight_grad import prefers_library


class Means(NamedTuple):
    """How a convolution is to be computed, not what: the same numbers but for rounding.

    Attributes:
        backend: of the operators; empty for a choice.
        bank: of the layer, which keeps it between calls; None to pack it anew.
    """

    backend: str = ""
    bank: ops.KeptBank | None = None

    def pack(
        self,
        learned: Tensor,
        frozen: Tensor | None,
        slice_dim: int,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> Tensor:
        """The whole bank, as of :func:`maskedconv.ops.pack_filters`."""
        pack = ops.pack_filters if self.bank is None else self.bank.pack
        return pack(learned, frozen, slice_dim, dtype, memory_format, self.backend)


class MaskedConvolution(torch.autograd.Function):
    """``conv2d(input, [learned; frozen], [bias; frozen_bias])``, filters packed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        learned: Tensor,
        frozen: Tensor | None,
        bias: Tensor | None,
        frozen_bias: Tensor | None,
        geometry: ConvGeometry,
        slice_dim: int,
        means: Means,
    ) -> Tensor:
        weight = means.pack(
            learned, frozen, slice_dim, input.dtype, bank_format(input, learned, frozen)
        )
        biases = [part.to(input.dtype) for part in (bias, frozen_bias) if part is not None]
        whole_bias = torch.cat(biases) if biases else None
        kept = None
        if ctx.needs_input_grad[1]:
            kept = ops.keep_for_weight_grad(
                input, learned.shape, slice_dim, weight.size(0), geometry.groups
            )
        weight_and_source: tuple[Tensor | None, ...] = (None, None)
        if ctx.needs_input_grad[0]:
            # A kept bank is written to again: autograd is to see whether that changed it.
            weight_and_source = (weight, None if means.bank is None else learned)
        ctx.save_for_backward(kept, *weight_and_source)
        ctx.input_shape, ctx.learned_shape, ctx.learned_dtype = (
            input.shape, learned.shape, learned.dtype,
        )  # fmt: skip
        ctx.bias = None if bias is None else (bias.size(0), bias.dtype)
        ctx.geometry, ctx.slice_dim, ctx.backend = geometry, slice_dim, means.backend
        return torch.conv2d(input, weight, whole_bias, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, _ = ctx.saved_tensors
        grad_input = grad_learned = grad_bias = None
        if ctx.needs_input_grad[3]:
            count, dtype = ctx.bias
            grad_bias = grad_output.narrow(1, 0, count).sum((0, 2, 3)).to(dtype)
        problem = None
        if kept is not None:
            problem = ops.WeightGradProblem(
                kept, grad_output, ctx.learned_shape, ctx.slice_dim, ctx.geometry,
                backend=ctx.backend,
            )  # fmt: skip
            if weight is not None and weight.shape == problem.shape and prefers_library(problem):
                # Everything is learned: one call shares what both gradients need.
                grad_input, grad_learned = _both_grads(grad_output, kept, weight, ctx.geometry)
                grad_learned = grad_learned.to(ctx.learned_dtype)
                return grad_input, grad_learned, None, grad_bias, None, None, None, None
        if weight is not None:
            grad_input = _input_grad(grad_output, kept, weight, ctx.input_shape, ctx.geometry)
        if problem is not None:
            grad_learned = ops.weight_grad(problem, ctx.learned_dtype)
        return grad_input, grad_learned, None, grad_bias, None, None, None, None


def _both_grads(
    grad_output: Tensor, input: Tensor, weight: Tensor, geometry: ConvGeometry
) -> tuple[Tensor, Tensor]:
    """The gradients of the input and of the whole bank."""
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_output, input, weight, None, geometry.stride, geometry.padding, geometry.dilation,
        False, (0, 0), geometry.groups, (True, True, False),
    )  # fmt: skip
    return grad_input, grad_weight


def _input_grad(
    grad_output: Tensor,
    kept: Tensor | None,
    weight: Tensor,
    input_shape: torch.Size,
    geometry: ConvGeometry,
) -> Tensor:
    """Gradient of the input, for which only its shape matters, not its values."""
    if kept is None or kept.shape != input_shape:
        kept = torch.empty(
            input_shape, dtype=weight.dtype, device=weight.device,
            memory_format=memory_format_of(weight),
        )  # fmt: skip
    return torch.ops.aten.convolution_backward(
        grad_output, kept, weight, None, geometry.stride, geometry.padding, geometry.dilation,
        False, (0, 0), geometry.groups, (True, False, False),
    )[0]  # fmt: skip


class NoFilters(torch.autograd.Function):
    """A convolution without filters: zeros, which send a zero gradient to the input."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape, ctx.memory_format = input.shape, memory_format_of(input)
        return input.new_zeros(shape).contiguous(memory_format=ctx.memory_format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output.new_zeros(ctx.shape).contiguous(memory_format=ctx.memory_format), None
