"""BatchNorm, ReLU and the convolutions of the result: forward and backward without autograd.

Backward computes the activation again in one element-wise pass, or leaves that to the weight
gradient's kernel, and packs the weight again where that costs less than to keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv import ops
from maskedconv.functional.autograd import packed_weight
from maskedconv.functional.filter_bank import TENSORS, FilterBank, bank_of, joined_bias
from maskedconv.ops.aten import convolution_grads
from maskedconv.ops.bn_relu import (
    BackwardMemory,
    Gradients,
    Normalisation,
    NormProblem,
    bn_relu,
    bn_relu_backward,
    readable_summand,
    runs_kernel,
)
from maskedconv.ops.geometry import ConvGeometry, memory_format_of
from maskedconv.ops.weight_grad import WeightGradProblem, weight_grad_by_kernel


class StepPlan(NamedTuple):
    """How a convolution is computed.

    Attributes:
        geometry: of the convolution.
        backend: as of :func:`maskedconv.ops.dispatch.backend_or_any`.
        dtype: the type that it computes in.
        slice_dim, zeros: of its :class:`~maskedconv.functional.filter_bank.FilterBank`.
    """

    geometry: ConvGeometry
    backend: str
    dtype: torch.dtype
    slice_dim: int
    zeros: int


class Convolution(NamedTuple):
    """A convolution. If ``bank`` has zeros, they are filters, and there is one group."""

    bank: FilterBank
    plan: StepPlan


class Step(NamedTuple):
    """``conv(relu(bn(input)))`` for each convolution.

    They have one backend and dtype.
    """

    norm: Normalisation
    convs: tuple[Convolution, ...]

    def problem(self, input: Tensor) -> NormProblem:
        """The activation of ``input``."""
        return NormProblem(input, self.norm, self.convs[0].plan.backend)


class BNReLUPlan(NamedTuple):
    """The arguments of :class:`Step` besides tensors.

    Attributes:
        eps, uses_batch_stats: as of :class:`maskedconv.ops.bn_relu.Normalisation`.
        convs: how each convolution is computed.
    """

    eps: float
    uses_batch_stats: bool
    convs: tuple[StepPlan, ...]

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
            Convolution(bank_of(filters[i : i + TENSORS], plan.slice_dim, plan.zeros), plan)
            for i, plan in zip(range(0, len(filters), TENSORS), self.convs, strict=True)
        )
        return Step(norm, convs)


class NormNeeds(NamedTuple):
    """The tensors before the activation whose gradients are needed."""

    input: bool
    weight: bool
    bias: bool


class FilterNeeds(NamedTuple):
    """The tensors of a convolution whose gradients are needed."""

    learned: bool
    bias: bool


class StepNeeds(NamedTuple):
    """The tensors of a step whose gradients are needed."""

    norm: NormNeeds
    filters: tuple[FilterNeeds, ...]


class FilterGrads(NamedTuple):
    """The gradients of a convolution's tensors; None if not needed."""

    learned: Tensor | None
    bias: Tensor | None


def run(input: Tensor, step: Step, has_backward: bool) -> tuple[list[Tensor], list[Tensor | None]]:
    """The outputs ``[N, O, Ho, Wo]``, and the full weights that backward wants to keep."""
    x = bn_relu(step.problem(input)).to(step.convs[0].plan.dtype)
    weights = [_pack(x, conv) for conv in step.convs]
    outputs = [_convolve(x, *both) for both in zip(weights, step.convs, strict=True)]
    kept = has_backward and _keeps_packed_weight(input)
    return outputs, [weight if kept else None for weight in weights]


def _convolve(x: Tensor, weight: Tensor, conv: Convolution) -> Tensor:
    bank, plan = conv
    bias = joined_bias(bank.bias, bank.frozen_bias, plan.dtype)
    output = torch.conv2d(x, weight, bias, *plan.geometry)
    return F.pad(output, (0, 0, 0, 0, 0, bank.zeros)) if bank.zeros else output


def _keeps_packed_weight(input: Tensor) -> bool:
    """Whether the full weight is kept for backward.

    On a GPU to pack it again is a launch. On a CPU it takes no more time than to keep it, and
    keeping it takes memory.
    """
    return input.is_cuda


def gradients(
    input: Tensor,
    step: Step,
    grad_outputs: Sequence[Tensor | None],
    packed: Sequence[Tensor | None],
    needs: StepNeeds,
    added: Tensor | None = None,
) -> tuple[Gradients, list[FilterGrads]]:
    """The gradients of input, γ and β, and those of the convolutions.

    Args:
        grad_outputs: None for an output that nothing depends on.
        packed: the full weights that were kept.
        added: as of :class:`maskedconv.ops.bn_relu.BackwardMemory`.
    """
    backward = Backward(input, step, needs.norm)
    filters = [
        FilterGrads(None, None)
        if grad_output is None
        else backward.of_filters(i, grad_output, packed[i], needs.filters[i])
        for i, grad_output in enumerate(grad_outputs)
    ]
    return backward.of_norm(added=added), filters


class Backward:
    """The gradients of a step.

    Args:
        input, step: of the forward pass.
        needs: which gradients before the activation are needed.
    """

    def __init__(self, input: Tensor, step: Step, needs: NormNeeds) -> None:
        self.input = input
        self.step = step
        self.needs = needs
        self._activation: Tensor | None = None
        self._grad_x: Tensor | None = None

    def of_filters(
        self, index: int, grad_output: Tensor, packed: Tensor | None, needs: FilterNeeds
    ) -> FilterGrads:
        """The gradients of convolution ``index``; ``packed`` is its full weight, if it was kept."""
        bank, plan = conv = self.step.convs[index]
        if bank.zeros:
            grad_output = grad_output[:, : bank.learned.size(0)]
        grad_bias = grad_learned = None
        if needs.bias and bank.bias is not None:
            grad_bias = grad_output.narrow(1, 0, bank.bias.size(0)).sum((0, 2, 3))
            grad_bias = grad_bias.to(bank.bias.dtype)
        if needs.learned:
            grad_learned = self._weight_grad(grad_output, conv)
        # If everything is learned, one call shares what both gradients need.
        jointly = needs.learned and grad_learned is None
        if any(self.needs) or jointly:
            x = self._x(plan.dtype) if jointly else self._like_x(plan.dtype)
            weight = _pack(x, conv) if packed is None else packed
            grad_x, grad_weight = convolution_grads(
                grad_output, x, weight, plan.geometry, (any(self.needs), jointly)
            )
            self._add(grad_x)
            if jointly:
                grad_learned = grad_weight.to(bank.learned.dtype)
        return FilterGrads(grad_learned, grad_bias)

    def of_norm(self, added_to: Tensor | None = None, added: Tensor | None = None) -> Gradients:
        """The gradients of input, γ and β, after those of all convolutions.

        Args:
            added_to, added: as of :class:`maskedconv.ops.bn_relu.BackwardMemory`.
        """
        if self._grad_x is None:
            return added, None, None
        grad = self._grad_x.to(self.input.dtype)
        if added is not None:
            added = readable_summand(added, self.input)
        memory = BackwardMemory(self._activation, True, added_to, added)
        return bn_relu_backward(self.step.problem(self.input), grad, self.needs, memory)

    def _add(self, grad_x: Tensor | None) -> None:
        if self._grad_x is None or grad_x is None:
            self._grad_x = grad_x
        else:
            self._grad_x.add_(grad_x)

    def _weight_grad(self, grad_output: Tensor, conv: Convolution) -> Tensor | None:
        """The weight gradient; None if PyTorch is to compute it with that of the activation."""
        bank, plan = conv
        if bank.frozen is None and not bank.zeros:
            return None
        grad = self._weight_grad_with_prologue(grad_output, conv)
        if grad is not None or bank.frozen is None:
            return grad
        geometry, shape = plan.geometry, bank.learned.shape
        x, filters = self._x(plan.dtype), grad_output.size(1)
        x = ops.input_to_save(x, shape, bank.slice_dim, filters, geometry.groups)
        problem = WeightGradProblem(
            x, grad_output, shape, bank.slice_dim, geometry, None, None, plan.backend
        )
        return ops.weight_grad(problem, bank.learned.dtype)

    def _weight_grad_with_prologue(self, grad_output: Tensor, conv: Convolution) -> Tensor | None:
        """The weight gradient by a kernel that computes the activation while it loads the input.

        None if no kernel does, or if the input is a view of a wider tensor and the activation is
        computed anyway, in dense memory: that is faster to read.
        """
        (bank, plan), input = conv, self.input
        if bank.slice_dim != 0 or plan.geometry.groups != 1 or input.dtype != grad_output.dtype:
            return None
        dense = input.is_contiguous(memory_format=memory_format_of(input))
        if not dense and any(self.needs) and not runs_kernel(self.step.problem(input)):
            return None
        problem = WeightGradProblem(
            input, grad_output, bank.learned.shape, bank.slice_dim, plan.geometry,
            *self.step.norm.scale_shift(), plan.backend,
        )  # fmt: skip
        return weight_grad_by_kernel(problem, bank.learned.dtype)

    def _x(self, dtype: torch.dtype) -> Tensor:
        """The activation, computed once."""
        if self._activation is None:
            self._activation = bn_relu(self.step.problem(self.input))
        return self._activation.to(dtype)

    def _like_x(self, dtype: torch.dtype) -> Tensor:
        """Stands for the activation: the gradient of it needs its shape, and not its values."""
        if self._activation is not None and self._activation.dtype == dtype:
            return self._activation
        input, layout = self.input, memory_format_of(self.input)
        if input.dtype is dtype and input.is_contiguous(memory_format=layout):
            return input
        return torch.empty_like(input, dtype=dtype, memory_format=layout)


def _pack(x: Tensor, conv: Convolution) -> Tensor:
    bank, plan = conv
    return packed_weight(x, bank.learned, bank.frozen, bank.slice_dim, plan.backend)
