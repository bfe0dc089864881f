"""The autograd.Function of a convolution whose weight gradient covers only the learned slice.

A plain ``forward(ctx, ...)`` costs a few microseconds a call, a third of ``setup_context`` or of a
registered operator with autograd. Its price: no double backward and no ``torch.func`` transforms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv import ops
from maskedconv.functional.filter_bank import joined_bias
from maskedconv.functional.once_differentiable import once_differentiable
from maskedconv.functional.selected import Selected, selected_input, selected_problem
from maskedconv.ops.aten import convolution_grads
from maskedconv.ops.geometry import ConvGeometry, memory_format_of, weight_format
from maskedconv.ops.weight_grad import uses_reference


class ConvPlan(NamedTuple):
    """The arguments of :class:`MaskedConvolution` besides tensors.

    Attributes:
        geometry: of the convolution.
        slice_dim: the dimension of the weight that is learned in part.
        backend: as of :func:`maskedconv.ops.dispatch.backend_or_any`.
        selected: the indices that are learned; None for the first ones.
    """

    geometry: ConvGeometry
    slice_dim: int
    backend: str
    selected: Selected | None = None


def packed_weight(
    input: Tensor,
    learned: Tensor,
    frozen: Tensor | None,
    slice_dim: int,
    backend: str,
    selected: Selected | None = None,
) -> Tensor:
    """The full weight for ``input``, in its type: as of :func:`maskedconv.ops.pack_filters`.

    It is packed at every call, also where that converts all filters (under autocast, as PyTorch
    does). A weight kept between calls would be stale after a change through ``.data``, which leaves
    no trace, and to look for one costs as much as the conversion. The conversion took 0.4 % of a
    training step of one image (WRN-28-4, bfloat16, one thread of a CPU without instructions for
    it).
    """
    memory_format = weight_format(input, learned, frozen)
    weight = ops.pack_filters(learned, frozen, slice_dim, input.dtype, memory_format, backend)
    if selected is None or frozen is None:
        return weight
    return selected.in_order(weight, slice_dim)


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
        plan: ConvPlan,
    ) -> Tensor:
        geometry, slice_dim, backend, selected = plan
        weight = packed_weight(input, learned, frozen, slice_dim, backend, selected)
        whole_bias = None
        if bias is not None or frozen_bias is not None:
            whole_bias = joined_bias(bias, frozen_bias, input.dtype, selected)
        needs_input, needs_learned = ctx.needs_input_grad[:2]
        saved_input = None
        # The call is left out in the usual case; its time shows in the first layer.
        if needs_learned and slice_dim == 0 and geometry.groups == 1:
            saved_input = input
        elif needs_learned and selected is not None:
            saved_input = selected_input(input, selected, learned.shape, slice_dim, geometry)
        elif needs_learned:
            saved_input = ops.input_to_save(
                input, learned.shape, slice_dim, weight.size(0), geometry.groups
            )
        ctx.save_for_backward(saved_input, weight if needs_input else None)
        ctx.input_shape = None if saved_input is input else input.shape
        ctx.learned = learned.shape, learned.dtype, None if bias is None else bias.dtype
        ctx.plan = plan
        return torch.conv2d(input, weight, whole_bias, *geometry)

    @staticmethod
    @once_differentiable("MaskedConv2d")
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        saved_input, weight = ctx.saved_tensors
        geometry, slice_dim, backend, selected = ctx.plan
        shape, dtype, bias_dtype = ctx.learned
        grad_input = grad_learned = grad_bias = problem = None
        own = grad_output
        if selected is not None and slice_dim == 0:
            own = selected.of(grad_output, 1)
        if saved_input is not None:
            problem = ops.WeightGradProblem(
                saved_input, own, shape, slice_dim, geometry, None, None, backend
            )
            if selected is not None:
                problem = selected_problem(problem, selected, grad_output)
        if weight is not None:
            # For all slices, one call shares what both gradients need.
            jointly = (
                problem is not None and weight.shape == problem.shape and uses_reference(problem)
            )
            input = saved_input if ctx.input_shape is None else _like_input(ctx.input_shape, weight)
            grad_input, grad_learned = convolution_grads(
                grad_output, input, weight, geometry, (True, jointly)
            )
        if ctx.needs_input_grad[3]:
            count = shape[0] if slice_dim == 0 else own.size(1)
            grad_bias = own.narrow(1, 0, count).sum((0, 2, 3)).to(bias_dtype)
        if grad_learned is not None:
            grad_learned = grad_learned.to(dtype)
        elif problem is not None:
            grad_learned = ops.weight_grad(problem, dtype)
        if selected is not None and grad_learned is not None and grad_learned.shape != shape:
            grad_learned = selected.of(grad_learned, slice_dim).contiguous()
        return grad_input, grad_learned, None, grad_bias, None, None


def _like_input(shape: torch.Size, weight: Tensor) -> Tensor:
    """Stands for the input: its gradient needs the shape, not the values."""
    return torch.empty(
        shape, dtype=weight.dtype, device=weight.device, memory_format=memory_format_of(weight)
    )


class NoFilters(torch.autograd.Function):
    """A convolution without filters: zeros, which send a zero gradient to the input."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape, ctx.memory_format = input.shape, memory_format_of(input)
        return input.new_zeros(shape).contiguous(memory_format=ctx.memory_format)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return grad_output.new_zeros(ctx.shape).contiguous(memory_format=ctx.memory_format), None
