"""bn_statistics: the moments of a batch, scale and shift, and the running statistics they move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.bn_statistics import cuda, native, reference, triton
from maskedconv.ops.bn_statistics.agreement import compare_statistics, compare_with_sum
from maskedconv.ops.bn_statistics.problem import RunningStatistics, StatisticsProblem
from maskedconv.ops.dispatch import Operator, backend_or_any, dispatch
from maskedconv.ops.geometry import dense_like

__all__ = [
    "BACKENDS",
    "OPERATOR",
    "RunningStatistics",
    "StatisticsProblem",
    "batch_moments",
    "bn_statistics",
    "bn_statistics_of_sum",
]

BACKENDS = {"reference": reference, "native": native, "cuda": cuda, "triton": triton}
OPERATOR = Operator(
    "bn_statistics",
    BACKENDS,
    timed_problem=StatisticsProblem.without_effects,
    compare=compare_statistics,
)


def _statistics_and_sum(backend: Any, problem: StatisticsProblem) -> tuple[Tensor, Tensor]:
    total = dense_like(problem.input)
    return backend.run(problem._replace(total=total)), total


OF_SUM = Operator(
    "bn_statistics_of_sum",
    BACKENDS,
    run=_statistics_and_sum,
    timed_problem=StatisticsProblem.without_effects,
    compare=compare_with_sum,
)


def bn_statistics(problem: StatisticsProblem) -> Tensor:
    """Statistics ``[5, C]`` as of :class:`maskedconv.ops.bn_relu.Normalisation`; no gradient.

    Moves the running statistics.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that it or ``problem`` names cannot run here.
    """
    if torch.compiler.is_compiling():
        return reference.run(problem)
    backend, problem = dispatch(OPERATOR, problem)
    return backend.run(problem)


def bn_statistics_of_sum(problem: StatisticsProblem) -> tuple[Tensor, Tensor]:
    """``input + summand`` in new dense memory, and :func:`bn_statistics` of it.

    Raises:
        ValueError, RuntimeError: as :func:`bn_statistics`.
    """
    total = dense_like(problem.input)
    backend, problem = dispatch(OF_SUM, problem._replace(total=total))
    return total, backend.run(problem)


def batch_moments(input: Tensor, table: Tensor) -> None:
    """Writes mean and biased variance of each channel of ``[N, C, H, W]`` to rows of ``table``.

    Args:
        table: ``[5, C]``, float32 (float64 for double); the first two rows. The others may change.

    Raises:
        ValueError, RuntimeError: as :func:`bn_statistics`.
    """
    problem = StatisticsProblem(
        input.detach(), None, None, 0.0, out=table, backend=backend_or_any("")
    )
    backend, problem = dispatch(OPERATOR, problem)
    if backend is reference:
        mean, var = reference.mean_and_variance(problem.input)
        table[0], table[1] = mean, var
    else:
        backend.run(problem)
