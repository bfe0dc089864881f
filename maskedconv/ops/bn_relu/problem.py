"""The arguments of bn_relu and of its backward pass."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor

from maskedconv.ops.plain import resolved


class Normalisation(NamedTuple):
    """The arithmetic of a BatchNorm: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Attributes:
        weight, bias: γ and β, ``[C]``, or None.
        mean, var: mean and biased variance, ``[C]``, float32 (float64 for double).
        uses_batch_stats: whether the moments are the input's own, so that backward differentiates
            them. Otherwise they are constants.
    """

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    var: Tensor
    eps: float
    uses_batch_stats: bool

    def first(self, count: int) -> Normalisation:
        """The normalisation of the first ``count`` channels."""
        weight, bias = (None if part is None else part[:count] for part in self[:2])
        return Normalisation(
            weight, bias, self.mean[:count], self.var[:count], self.eps, self.uses_batch_stats
        )

    def inverse_deviation(self) -> Tensor:
        """``1 / sqrt(var + eps)``."""
        return (self.var + self.eps).rsqrt()

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``[C]`` of ``bn(x) = x * scale + shift``, in the dtype of ``mean``."""
        scale = self.inverse_deviation()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.mean * scale
        return scale, shift if self.bias is None else shift + self.bias


class NormProblem(NamedTuple):
    """``relu(bn(input))``, or its gradients.

    Attributes:
        input: ``[N, C, H, W]``; may be a view of the first channels of a wider tensor.
        norm: the BatchNorm.
        backend: the forced backend; empty for none.
        grad: the gradient of the result in the backward pass.
    """

    input: Tensor
    norm: Normalisation
    backend: str = ""
    grad: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a kernel reads."""
        return (self.input,) if self.grad is None else (self.input, self.grad)

    def kind(self) -> Hashable:
        """Everything that the choice of a backend may depend on."""
        input = self.input
        return input.device, input.dtype, input.shape, input.stride()

    def resolved(self) -> NormProblem:
        """The same problem with all tensors resolved by :func:`maskedconv.ops.plain.resolved`."""
        grad = None if self.grad is None else resolved(self.grad)
        return self._replace(input=resolved(self.input), grad=grad)


# The gradients of the input, γ and β; None if not needed.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Needs = tuple[bool, bool, bool]
