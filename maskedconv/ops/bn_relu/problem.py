"""The arguments of bn_relu and of its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.geometry import dense_like, pixel_pitch
from maskedconv.ops.kinds import describe_cuda, why_other_device


class Normalisation(NamedTuple):
    """The arithmetic of a BatchNorm: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Attributes:
        weight, bias: γ and β, ``[C]``, or None.
        statistics: ``[5, C]``, float32 (float64 for double): mean, biased variance,
            ``1 / sqrt(var + eps)``, and scale and shift of ``bn(x) = x * scale + shift``.
        uses_batch_stats: whether mean and variance are the input's own, so that backward
            differentiates them. Otherwise they are constants.
    """

    weight: Tensor | None
    bias: Tensor | None
    statistics: Tensor
    eps: float
    uses_batch_stats: bool

    @staticmethod
    def of_moments(
        weight: Tensor | None,
        bias: Tensor | None,
        moments: tuple[Tensor, Tensor],
        eps: float,
        uses_batch_stats: bool,
    ) -> Normalisation:
        """The normalisation by mean and biased variance, ``[C]``, float32 (float64 for double)."""
        mean, var = moments
        inverse_deviation = (var + eps).rsqrt()
        scale = inverse_deviation
        if weight is not None:
            scale = scale * weight.detach().to(mean.dtype)
        shift = -mean * scale
        if bias is not None:
            shift = shift + bias.detach().to(mean.dtype)
        statistics = torch.stack((mean, var, inverse_deviation, scale, shift))
        return Normalisation(weight, bias, statistics, eps, uses_batch_stats)

    def first(self, count: int) -> Normalisation:
        """The normalisation of the first ``count`` channels."""
        weight, bias = (None if part is None else part[:count] for part in self[:2])
        return Normalisation(
            weight, bias, self.statistics[:, :count], self.eps, self.uses_batch_stats
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of the arithmetic."""
        return self.statistics.dtype

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance."""
        return self.statistics[0], self.statistics[1]

    def inverse_deviation(self) -> Tensor:
        """``1 / sqrt(var + eps)``."""
        return self.statistics[2]

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``[C]`` of ``bn(x) = x * scale + shift``."""
        return self.statistics[3], self.statistics[4]


def memory_for_grad(part: Tensor | None, needed: bool, input: Tensor) -> Tensor | None:
    """Memory for the gradient of γ or β, float32, ``[C]``; None if it is not needed.

    It is of its own, because autograd copies a gradient that is a view.

    Args:
        part: γ or β, or None.
        input: of the BatchNorm.
    """
    if part is None or not needed:
        return None
    return torch.empty(input.size(1), dtype=torch.float32, device=input.device)


def in_type_of(part: Tensor | None, grad: Tensor | None) -> Tensor | None:
    """The gradient of γ or β in the type of this; None if there is none."""
    # To ask is faster than a conversion that changes nothing.
    if grad is None or part is None or grad.dtype is part.dtype:
        return grad
    return grad.to(part.dtype)


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
        # In place of what cannot_use() says: the devices that it compares, which is faster.
        input, norm, _, grad = self
        device = norm.statistics.device
        if input.is_cuda:
            same = device == input.device
            return describe_cuda(*self.tensors()), norm.uses_batch_stats, same
        return input.device, input.dtype, input.shape, input.stride(), grad is None, device

    def cannot_use(self) -> str:
        """The reason why kernels cannot use the tensors of the norm, or an empty string."""
        return why_other_device((self.norm.statistics,), self.input)

    def stand_in(self, random: Callable[[Tensor], Tensor]) -> NormProblem:
        """The same problem with values of ``random``; the moments are those of its input."""
        input, norm, _, grad = self
        input = random(input)
        weight, bias = (None if part is None else random(part) for part in norm[:2])
        var, mean = torch.var_mean(input.to(norm.dtype), (0, 2, 3), correction=0)
        norm = norm.of_moments(weight, bias, (mean, var), norm.eps, norm.uses_batch_stats)
        return self._replace(input=input, norm=norm, grad=None if grad is None else random(grad))


# The gradients of the input, γ and β; None if not needed.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Needs = tuple[bool, bool, bool]


class BackwardMemory(NamedTuple):
    """Memory that the backward pass may read or write besides its arguments.

    Attributes:
        activation: ``relu(bn(input))``, if it is available.
        in_place: whether the gradient of the result may be overwritten.
        added_to: ``[N, C, H, W]``, in the dtype and memory format of the input, also a view of the
            first channels of a wider tensor: the gradient of the input is added to it, and it is
            returned.
        added: a tensor like ``added_to`` that is added to the gradient of the input, and stays as
            it is. If both are given, ``added_to`` is overwritten by this sum.
    """

    activation: Tensor | None = None
    in_place: bool = False
    added_to: Tensor | None = None
    added: Tensor | None = None

    @property
    def summand(self) -> Tensor | None:
        """The tensor that is added to the gradient of the input, or None."""
        return self.added_to if self.added is None else self.added


def readable_summand(tensor: Tensor, input: Tensor) -> Tensor:
    """``tensor`` as a kernel for ``input``, of the same shape, can add it: itself or a copy."""
    lazy = tensor.is_neg() or tensor._is_zerotensor()
    if not lazy and (pixel_pitch(tensor) or not pixel_pitch(input)):
        return tensor
    return dense_like(input).copy_(tensor)


NO_MEMORY = BackwardMemory()
