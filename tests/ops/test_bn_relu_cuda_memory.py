"""Memory of bn_relu's CUDA kernels: its sizes, and that they keep none."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import emulation
import pytest
import torch
from test_bn_relu import make_problem

from maskedconv.ops import native
from maskedconv.ops.bn_relu import cuda
from maskedconv.ops.bn_statistics import StatisticsProblem
from maskedconv.ops.bn_statistics import cuda as statistics_cuda

pytestmark = pytest.mark.skipif(emulation.compiler() is None, reason="there is no C++ compiler")


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


@pytest.mark.usefixtures("pretended_gpu")
def test_the_workspace_has_the_sizes_of_the_kernels(monkeypatch):
    module = SimpleNamespace(bn_relu_cuda_workspace=lambda *_: (5, 3))
    monkeypatch.setattr(native, "module", lambda: module)
    workspace = cuda.workspace_of(torch.empty(2, 200, 3, 3))
    first, counters, _ = workspace.arguments()
    assert counters - first == 5 * 4
    assert workspace.memory.numel() == 5 + 3


@pytest.mark.parametrize("channels", [1, 13, 40, 72, 200])
def test_as_many_counters_are_used_as_the_module_says(emulated_module, channels):
    pixels, multiprocessors, unused = 3000, 8, -1
    sizes = emulated_module.bn_relu_cuda_workspace(pixels, channels, multiprocessors)
    sums = torch.full((sizes[0],), torch.nan)
    counters = torch.full((sizes[1] + 300,), unused, dtype=torch.int32)
    x, out = torch.randn(pixels, channels), torch.empty(5, channels)
    emulated_module.bn_statistics_cuda(
        "float32", pixels, channels, (x.data_ptr(), channels), [(0, 0)] * 2, [0] * 5, 0.0, 1e-3,
        (out.data_ptr(), channels), sums.data_ptr(), counters.data_ptr(), multiprocessors, 0,
    )  # fmt: skip
    assert (counters[: sizes[1]] != unused).all()
    assert (counters[sizes[1] :] == unused).all()
    torch.testing.assert_close(out[0], x.mean(0), rtol=1e-5, atol=1e-5)
