"""Memory of bn_relu's CUDA kernels: they keep none."""

from __future__ import annotations

import weakref

import emulation
import pytest
import torch
from test_bn_relu import make_problem

from maskedconv.ops.bn_relu import cuda
from maskedconv.ops.bn_statistics import StatisticsProblem
from maskedconv.ops.bn_statistics import cuda as statistics_cuda


@pytest.mark.skipif(emulation.compiler() is None, reason="there is no C++ compiler")
@pytest.mark.usefixtures("pretended_gpu")
def test_no_memory_outlasts_a_call(monkeypatch):
    """Counters that were kept would belong to the CUDA graph during whose capture they were made,
    and be shared by graphs that are replayed at the same time.
    """
    made = []

    def empty(*arguments, **options):
        made.append(torch.zeros(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(torch, "empty", empty)
    problem = make_problem((5, 40, 17, 13))
    statistics_cuda.run(StatisticsProblem(problem.input, None, None, 1e-3))
    cuda.run_backward(problem, torch.randn_like(problem.input), (True, True, True))
    assert len(made) > 4
    left = [weakref.ref(tensor) for tensor in made]
    made.clear()
    assert not any(tensor() is not None for tensor in left)
