"""The moments that a BatchNorm normalises with, separate from the normalisation.

Once the moments of each channel are known, ``relu(bn(x))`` is ``relu(x * scale + shift)``: one
element-wise pass (:mod:`maskedconv.ops.bn_relu`), which backward repeats instead of keeping its
result.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from maskedconv.ops.bn_relu import Normalisation
from maskedconv.ops.bn_statistics import (
    RunningStatistics,
    StatisticsProblem,
    bn_statistics,
    bn_statistics_of_sum,
    reference,
)
from maskedconv.ops.dispatch import backend_or_any
from maskedconv.tracing import is_traced


def is_intercepted(module: nn.Module) -> bool:
    """Whether something else happens when ``module`` is called than its class says."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or "_conv_forward" in module.__dict__
        or _has_any_global_hook()
    )


def is_plain_norm(norm: nn.Module, input: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Whether :func:`normalisation` describes all that ``norm`` does to ``input``.

    Any other module in a BatchNorm's place has to be called, and so has a BatchNorm with an input
    that it would refuse, or that holds no value. So has any module while a graph is traced.
    """
    return (
        not is_traced(input)
        and input.dim() == 4
        and input.is_floating_point()
        and input.layout is torch.strided
        and input.numel() > 0
        and is_plain_norm_of(norm, input.size(1))
    )


def is_plain_norm_of(norm: nn.Module, channels: int) -> bool:
    """Whether ``norm`` is a BatchNorm of so many channels without hooks or patched methods."""
    return _is_batch_norm(norm) and not is_intercepted(norm) and norm.num_features == channels


def _is_batch_norm(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether ``norm`` computes as an ``nn.BatchNorm2d`` does, possibly with frozen statistics."""
    kind = type(norm)
    return kind is nn.BatchNorm2d or getattr(kind, "plain_type", None) is nn.BatchNorm2d


def uses_batch_moments(norm: nn.Module, input: Tensor) -> bool:
    """Whether ``norm`` is plain, and normalises with the moments of ``input``."""
    return is_plain_norm(norm, input) and _uses_batch_stats(norm)


def _uses_batch_stats(bn: nn.BatchNorm2d) -> bool:
    return bn.training or bn.running_mean is None


def normalisation(
    input: Tensor, bn: nn.BatchNorm2d, moments: Tensor | None = None
) -> Normalisation:
    """How ``bn`` normalises ``input [N, C, H, W]``; in training, updates its running statistics.

    Args:
        moments: ``[2, C]``, mean and biased variance of ``input``, if they are known.

    Raises:
        ValueError: in training, with a single value for each channel.
    """
    statistics = fixed_statistics(input, bn)
    if statistics is not None:
        return Normalisation(bn.weight, bn.bias, statistics, bn.eps, False)
    check_batch_moments(input)
    norm = bn.weight, bn.bias, bn.eps
    statistics = batch_statistics(input, norm, running_statistics(bn), moments)
    return Normalisation(*norm[:2], statistics, bn.eps, True)


def normalisation_of_sum(
    input: Tensor, summand: Tensor, bn: nn.BatchNorm2d
) -> tuple[Tensor, Normalisation]:
    """``input + summand``, without a gradient, and :func:`normalisation` of it in training.

    Raises:
        ValueError: they have a single value for each channel.
    """
    check_batch_moments(input)
    problem = StatisticsProblem(
        input, bn.weight, bn.bias, bn.eps, running_statistics(bn), backend=backend_or_any(""),
        summand=summand,
    )  # fmt: skip
    total, statistics = bn_statistics_of_sum(problem)
    return total, Normalisation(bn.weight, bn.bias, statistics, bn.eps, True)


def fixed_statistics(like: Tensor, bn: nn.BatchNorm2d) -> Tensor | None:
    """The statistics ``[5, C]`` that ``bn`` normalises with, if not those of the batch; else None.

    Args:
        like: a tensor of the type of the input.
    """
    if _uses_batch_stats(bn):
        return None
    assert bn.running_mean is not None
    assert bn.running_var is not None
    # Copies: a forward pass in training may change the originals before backward.
    dtype = reference.moments_type(like)
    mean, var = (t.detach().to(dtype, copy=True) for t in (bn.running_mean, bn.running_var))
    return Normalisation.of_moments(bn.weight, bn.bias, (mean, var), bn.eps, False).statistics


def running_statistics(bn: nn.BatchNorm2d) -> RunningStatistics | None:
    """The statistics that ``bn`` moves; None if it moves none."""
    if not bn.training or not bn.track_running_stats:
        return None
    return RunningStatistics(bn.running_mean, bn.running_var, bn.num_batches_tracked, bn.momentum)


def check_batch_moments(input: Tensor) -> None:
    """Raises ValueError if ``input [N, C, H, W]`` has a single value for each channel."""
    if input.numel() // max(1, input.size(1)) <= 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, "
            f"got input size {tuple(input.shape)}"
        )


def batch_statistics(
    input: Tensor,
    norm: tuple[Tensor | None, Tensor | None, float],
    running: RunningStatistics | None,
    moments: Tensor | None,
) -> Tensor:
    """The statistics ``[5, C]`` of a batch; moves ``running``.

    Args:
        norm: γ, β and eps.
        moments: as of :func:`normalisation`.
    """
    problem = StatisticsProblem(input, *norm, running, moments, backend=backend_or_any(""))
    return bn_statistics(problem)
