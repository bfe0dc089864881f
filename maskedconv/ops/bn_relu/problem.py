"""The problem that bn_relu solves, or its backward pass."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor

from maskedconv.ops.plain import resolved


class Normalisation(NamedTuple):
    """What a BatchNorm does to its input: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Attributes:
        weight, bias: γ and β, ``[C]``, or None.
        mean, var: of each channel, the variance biased, both ``[C]``, float32 (float64 for double).
        of_batch: whether the moments are those of the input itself, so that backward goes through
            them, or constants.
    """

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    var: Tensor
    eps: float
    of_batch: bool

    def first(self, count: int) -> Normalisation:
        """That of the first ``count`` channels."""
        weight, bias = (None if part is None else part[:count] for part in self[:2])
        return Normalisation(
            weight, bias, self.mean[:count], self.var[:count], self.eps, self.of_batch
        )

    def inverse_deviation(self) -> Tensor:
        """``1 / sqrt(var + eps)``."""
        return (self.var + self.eps).rsqrt()

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """``x * scale + shift`` is the normalised input; both ``[C]``, in the type of ``mean``."""
        scale = self.inverse_deviation()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.mean * scale
        return scale, shift if self.bias is None else shift + self.bias


class NormProblem(NamedTuple):
    """``relu(bn(input))``, or its gradients.

    Attributes:
        input: ``[N, C, H, W]``; also a view of the first channels of a wider tensor.
        norm: what the BatchNorm does.
        backend: the one that must compute it; empty for a choice.
        grad: that of the result, where the gradients are asked for.
    """

    input: Tensor
    norm: Normalisation
    backend: str = ""
    grad: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """What a kernel reads."""
        return (self.input,) if self.grad is None else (self.input, self.grad)

    def kind(self) -> Hashable:
        """Everything that the decision for a backend may depend on."""
        input = self.input
        return input.device, input.dtype, input.shape, input.stride()

    def resolved(self) -> NormProblem:
        """The same problem with tensors as of :func:`maskedconv.ops.plain.resolved`."""
        grad = None if self.grad is None else resolved(self.grad)
        return self._replace(input=resolved(self.input), grad=grad)


# Of the input, γ and β; what is not asked for is None.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Needs = tuple[bool, bool, bool]
