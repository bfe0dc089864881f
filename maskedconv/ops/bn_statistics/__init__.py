"""bn_statistics: the moments of a batch, scale and shift, and the running statistics they move."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.bn_statistics import cuda, reference
from maskedconv.ops.bn_statistics.problem import RunningStatistics, StatisticsProblem
from maskedconv.ops.dispatch import Operator, dispatch

__all__ = ["BACKENDS", "OPERATOR", "RunningStatistics", "StatisticsProblem", "bn_statistics"]

BACKENDS = {"reference": reference, "cuda": cuda}
OPERATOR = Operator("bn_statistics", BACKENDS, timed_problem=StatisticsProblem.without_effects)


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
