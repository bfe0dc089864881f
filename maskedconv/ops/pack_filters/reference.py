"""pack_filters from PyTorch's own operators; torch.compile traces and fuses it."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.pack_filters.problem import PackProblem


def cannot_run(problem: PackProblem) -> str:
    """Empty: it takes every problem."""
    return ""


def run(problem: PackProblem) -> Tensor:
    """The bank."""
    parts = (problem.learned.to(problem.dtype), problem.frozen.to(problem.dtype))
    whole = torch.cat(parts, dim=problem.slice_dim)
    return whole.contiguous(memory_format=problem.memory_format)
