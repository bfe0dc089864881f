"""The arguments of weight_grad."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.kinds import describe_cuda


class WeightGradProblem(NamedTuple):
    """Gradient of the learned slice, from the layer's input and the gradient of its output.

    Attributes:
        input: ``[N, C, H, W]``, the saved part of the layer's input.
        grad_output: ``[N, O, Ho, Wo]`` with any strides; ``slice_dim`` 0 reads its first channels.
        shape: shape of the learned slice of the weight ``[O, C / groups, kH, kW]``.
        slice_dim: the sliced dimension.
        geometry: geometry of the convolution with all filters.
        scale, shift: ``[C]``, float32 (float64 for double), if the convolution's input is
            ``relu(input * scale + shift)``; None if it is ``input`` itself.
        backend: the forced backend; empty for none.
    """

    input: Tensor
    grad_output: Tensor
    shape: torch.Size
    slice_dim: int
    geometry: ConvGeometry
    scale: Tensor | None = None
    shift: Tensor | None = None
    backend: str = ""

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The tensors that a kernel reads."""
        return self.input, self.grad_output

    def kind(self) -> Hashable:
        """Everything that the choice of a backend may depend on."""
        input, grad, shape, slice_dim, geometry, scale, *_ = self
        if input.is_cuda:
            return describe_cuda(input, grad), shape, slice_dim, geometry, scale is not None
        return (
            input.device, input.dtype, input.shape, input.stride(), grad.dtype, shape, slice_dim,
            geometry,
        )  # fmt: skip

    def is_empty(self) -> bool:
        """Whether there are no products to sum, or the result is empty."""
        return not (self.input.numel() and self.grad_output.numel() and self.shape.numel())


def outside_the_kernels(problem: WeightGradProblem) -> str:
    """The reason why no compiled kernel supports such a problem, or an empty string."""
    input = problem.input
    if problem.slice_dim != 0:
        return (
            f"its kernel is for slices of the output filters, not of dimension {problem.slice_dim}"
        )
    if problem.geometry.groups != 1:
        return f"its kernel is for one group, not {problem.geometry.groups}"
    if problem.is_empty():
        return "the problem is empty"
    if input.size(1) > 1 and input.stride(1) != 1:
        return "its kernel is for channels_last input"
    return ""
