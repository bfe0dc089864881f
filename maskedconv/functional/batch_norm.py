"""The moments that a BatchNorm normalises with, separate from the normalisation.

Once the moments of each channel are known, ``relu(bn(x))`` is ``relu(x * scale + shift)``: one
element-wise pass (:mod:`maskedconv.ops.bn_relu`), which backward repeats instead of keeping its
result.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from maskedconv.ops.bn_relu import Normalisation
from maskedconv.ops.geometry import dense
from maskedconv.tracing import is_traced


class Moments(NamedTuple):
    """Mean and (biased) variance of each channel, both ``[C]``, float32 (float64 for double)."""

    mean: Tensor
    var: Tensor


def is_intercepted(module: nn.Module) -> bool:
    """Whether something else happens when ``module`` is called than its class's ``forward``."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or _has_any_global_hook()
    )


def is_plain_norm(norm: nn.Module, input: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Whether :func:`normalisation` describes all that ``norm`` does to ``input``.

    Any other module in a BatchNorm's place has to be called, and so has a BatchNorm with an input
    that it would refuse, or that holds no value. So has any module while a graph is traced.
    """
    return (
        type(norm) is nn.BatchNorm2d
        and not is_traced(input)
        and not is_intercepted(norm)
        and input.dim() == 4
        and input.size(1) == norm.num_features
        and input.is_floating_point()
        and input.layout is torch.strided
        and input.numel() > 0
    )


def uses_batch_moments(norm: nn.Module, input: Tensor) -> bool:
    """Whether ``norm`` is plain, and normalises with the moments of ``input``."""
    return is_plain_norm(norm, input) and _uses_batch_stats(norm)


def _uses_batch_stats(bn: nn.BatchNorm2d) -> bool:
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
    return Moments(*torch.batch_norm_update_stats(dense(input), void, void.clone(), 0.0))


def normalisation(
    input: Tensor, bn: nn.BatchNorm2d, moments: Moments | None = None
) -> Normalisation:
    """How ``bn`` normalises ``input [N, C, H, W]``; in training, updates its running statistics.

    Args:
        moments: the batch's, where the caller has them already.

    Raises:
        ValueError: in training, with a single value for each channel.
    """
    if not _uses_batch_stats(bn):
        assert bn.running_mean is not None
        assert bn.running_var is not None
        # Copies: a forward pass in training may change the originals before backward.
        dtype = _moments_type(input)
        mean, var = (t.detach().to(dtype, copy=True) for t in (bn.running_mean, bn.running_var))
        return Normalisation.of_moments(bn.weight, bn.bias, (mean, var), bn.eps, False)
    count = input.numel() // max(1, input.size(1))
    if count <= 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, "
            f"got input size {tuple(input.shape)}"
        )
    moments = moments or batch_moments(input)
    if bn.training and bn.track_running_stats:
        _update_running(bn, moments, count)
    return Normalisation.of_moments(bn.weight, bn.bias, moments, bn.eps, True)


@torch.no_grad()
def _update_running(bn: nn.BatchNorm2d, moments: Moments, count: int) -> None:
    """Moves the running statistics as nn.BatchNorm2d does; they hold the unbiased variance."""
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    if bn.running_mean is None or bn.running_var is None:
        return
    dtype = bn.running_mean.dtype
    fraction: float | Tensor = 0.0 if bn.momentum is None else bn.momentum
    if bn.momentum is None and bn.num_batches_tracked is not None:
        fraction = bn.num_batches_tracked.to(dtype).reciprocal()
    bn.running_mean.lerp_(moments.mean.to(dtype), fraction)
    bn.running_var.lerp_((moments.var * (count / (count - 1))).to(dtype), fraction)


def _moments_type(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32
