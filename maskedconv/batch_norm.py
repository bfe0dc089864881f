"""Batch normalisation followed by ReLU, so split up that the result need not be kept.

With the moments of each channel at hand, ``relu(bn(x))`` is ``relu(x * scale + shift)``: one
element-wise pass, which backward repeats instead of keeping its result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from maskedconv.ops.geometry import memory_format_of


class Moments(NamedTuple):
    """Mean and (biased) variance of each channel, both ``[C]``, float32 (float64 for double)."""

    mean: Tensor
    var: Tensor


class Normalisation(NamedTuple):
    """What a BatchNorm does to its input: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Attributes:
        weight, bias: γ and β, ``[C]``, or None.
        mean, var: see :class:`Moments`.
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

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """``x * scale + shift`` is the normalised input; both ``[C]``, in the type of ``mean``."""
        scale = (self.var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.mean * scale
        return scale, shift if self.bias is None else shift + self.bias


def uses_batch_moments(bn: nn.BatchNorm2d) -> bool:
    """Whether ``bn`` would normalise with the moments of its input."""
    return bn.training or bn.running_mean is None


@torch.no_grad()
def batch_moments(input: Tensor) -> Moments:
    """Mean and biased variance of each channel of ``[N, C, H, W]``."""
    dtype = _moments_type(input)
    if torch.compiler.is_compiling() or input.is_meta:
        var, mean = torch.var_mean(input.to(dtype), (0, 2, 3), correction=0)
        return Moments(mean, var)
    # The library's own pass for training; the running statistics that it wants to update are void.
    void = torch.zeros(input.size(1), dtype=dtype, device=input.device)
    return Moments(*torch.batch_norm_update_stats(_dense(input), void, void.clone(), 0.0))


def normalisation(
    input: Tensor, bn: nn.BatchNorm2d, moments: Moments | None = None
) -> Normalisation:
    """How ``bn`` normalises ``input [N, C, H, W]``; in training, updates its running statistics.

    Args:
        moments: the batch's, where the caller has them already.

    Raises:
        ValueError: in training, with a single value for each channel.
    """
    if not uses_batch_moments(bn):
        assert bn.running_mean is not None
        assert bn.running_var is not None
        # Copies: a forward pass in training may change the originals before backward.
        dtype = _moments_type(input)
        mean, var = (t.detach().to(dtype, copy=True) for t in (bn.running_mean, bn.running_var))
        return Normalisation(bn.weight, bn.bias, mean, var, bn.eps, of_batch=False)
    count = input.numel() // max(1, input.size(1))
    if count <= 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, "
            f"got input size {tuple(input.shape)}"
        )
    moments = moments or batch_moments(input)
    if bn.training and bn.track_running_stats:
        _update_running(bn, moments, count)
    return Normalisation(bn.weight, bn.bias, *moments, bn.eps, of_batch=True)


@torch.no_grad()
def _update_running(bn: nn.BatchNorm2d, moments: Moments, count: int) -> None:
    """Moves the running statistics as nn.BatchNorm2d does; they hold the unbiased variance."""
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    if bn.running_mean is None or bn.running_var is None:
        return
    dtype = bn.running_mean.dtype
    share: float | Tensor = 0.0 if bn.momentum is None else bn.momentum
    if bn.momentum is None and bn.num_batches_tracked is not None:
        share = bn.num_batches_tracked.to(dtype).reciprocal()
    bn.running_mean.lerp_(moments.mean.to(dtype), share)
    bn.running_var.lerp_((moments.var * (count / (count - 1))).to(dtype), share)


def affine(input: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``input * scale[c] + shift[c]`` in new dense memory and in the type of ``input``."""
    if memory_format_of(input) == torch.channels_last and input.dtype == scale.dtype:
        return torch.addcmul(shift.view(-1, 1, 1), input, scale.view(-1, 1, 1))
    # With mean 0 and variance 1; faster in channels-first memory, and takes mixed types.
    mean, var = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.native_batch_norm(_dense(input), scale, shift, mean, var, False, 0.0, 0.0)[0]


def activation(input: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``relu(input * scale[c] + shift[c])`` in new dense memory."""
    normalised = affine(input, scale, shift)
    # torch 2.11's compiler loses the gradient of a Function's result that was changed in place
    # (pytorch issue 180642).
    return normalised.relu() if torch.compiler.is_compiling() else normalised.relu_()


def relu_backward_(grad: Tensor, normalised: Tensor) -> Tensor:
    """``grad`` where ``normalised`` is positive, else zero; ``grad`` is changed."""
    if torch.compiler.is_compiling():
        return torch.ops.aten.threshold_backward(grad, normalised, 0)
    return torch.ops.aten.threshold_backward.grad_input(grad, normalised, 0, grad_input=grad)


def batch_norm_backward(
    grad: Tensor, input: Tensor, norm: Normalisation, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, γ and β from that of ``bn(input)``, where ``needs`` asks for them."""
    running = (None, None) if norm.of_batch else (norm.mean, norm.var)
    used = (norm.mean, (norm.var + norm.eps).rsqrt()) if norm.of_batch else (None, None)
    weight = None if norm.weight is None else norm.weight.to(norm.mean.dtype)
    if input.numel() == 0:  # the library's kernel for the CPU divides by the size
        grads = (input, torch.zeros_like(norm.mean), torch.zeros_like(norm.mean))
    else:
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, _dense(input), weight, *running, *used, norm.of_batch, norm.eps, needs
        )
    types = (input, norm.weight, norm.bias)
    grad_input, grad_weight, grad_bias = (
        value.to(like.dtype) if needed and like is not None else None
        for value, like, needed in zip(grads, types, needs, strict=True)
    )
    return grad_input, grad_weight, grad_bias


def _moments_type(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _dense(input: Tensor) -> Tensor:
    """``input`` itself, or a copy without gaps: the library is slow with views of wider tensors."""
    return input.contiguous(memory_format=memory_format_of(input))
