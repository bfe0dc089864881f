"""bn_statistics by PyTorch's own operators."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.bn_relu.problem import Normalisation
from maskedconv.ops.bn_statistics.problem import RunningStatistics, StatisticsProblem
from maskedconv.ops.geometry import dense


def cannot_run(problem: StatisticsProblem) -> str:
    """Empty: it takes every problem."""
    return ""


@torch.no_grad()
def run(problem: StatisticsProblem) -> Tensor:
    """The statistics, ``[5, C]`` as of :class:`maskedconv.ops.bn_relu.Normalisation`."""
    input, weight, bias, eps, running, moments, out, _, summand, total = problem
    if summand is not None and total is not None:
        input = torch.add(input, summand, out=total)
    mean, var = mean_and_variance(input) if moments is None else moments.unbind()
    if running is not None:
        move(running, mean, var, input.numel() // input.size(1))
    statistics = Normalisation.of_moments(weight, bias, (mean, var), eps, True).statistics
    return statistics if out is None else out.copy_(statistics)


@torch.no_grad()
def mean_and_variance(input: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, ``[C]``, of ``[N, C, H, W]``; float32 (float64 for double)."""
    dtype = moments_type(input)
    if torch.compiler.is_compiling() or input.is_meta:
        var, mean = torch.var_mean(input.to(dtype), (0, 2, 3), correction=0)
        return mean, var
    # The library's own pass for training; the running statistics that it wants to update are void.
    void = torch.zeros(input.size(1), dtype=dtype, device=input.device)
    mean, var = torch.batch_norm_update_stats(dense(input), void, void.clone(), 0.0)
    return mean, var


def move(running: RunningStatistics, mean: Tensor, var: Tensor, count: int) -> None:
    """Moves the running statistics by the moments of ``count`` pixels, as nn.BatchNorm2d does."""
    batches, momentum = running[2:]
    if batches is not None:
        batches.add_(1)
    if running.mean is None or running.var is None:
        return
    dtype = running.mean.dtype
    fraction: float | Tensor = 0.0 if momentum is None else momentum
    if momentum is None and batches is not None:
        fraction = batches.to(dtype).reciprocal()
    running.mean.lerp_(mean.to(dtype), fraction)
    running.var.lerp_((var * (count / (count - 1))).to(dtype), fraction)


def moments_type(input: Tensor) -> torch.dtype:
    """The type of the moments of ``input``."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32
