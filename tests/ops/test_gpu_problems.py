"""Without a GPU: the problems and the choices of the tests that need one."""

from __future__ import annotations

import pytest
import test_gpu
import torch
from network_problems import NETWORK_SHAPES, network_problem
from strides import strided_copy
from supermasks import LAYOUTS
from test_weight_grad import SHAPES, make_problem

from maskedconv.ops.weight_grad import BACKENDS


def tensors(problem):
    return [part for part in problem if isinstance(part, torch.Tensor)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_views_stay_views(device):
    """Kernels take other paths for them."""
    problem = make_problem(SHAPES["3x3"], 20, 5, (9, 8), prologue=True)
    assert not problem.input.is_contiguous(memory_format=torch.channels_last)
    moved = test_gpu.on_gpu(problem, device)
    for there, here in zip(tensors(moved), tensors(problem), strict=True):
        assert there.device.type == device
        assert there.stride() == here.stride()
        assert device == "meta" or torch.equal(there, here)
    views = (network_problem(name, torch.bfloat16, False, 2) for name in NETWORK_SHAPES)
    pitches = {test_gpu.on_gpu(view, device).input.stride(3) - view.shape[1] for view in views}
    assert {0, 6, 12} <= pitches


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_weights_stay(layout):
    weight = LAYOUTS[layout](torch.randn(6, 4, 3, 3))
    assert strided_copy(weight, "meta").stride() == weight.stride()
    assert torch.equal(strided_copy(weight), weight)


def test_a_backend_that_is_forced_takes_every_layer():
    """The layer is 3x3, as in the networks that are trained on a GPU."""
    problem = make_problem(SHAPES["3x3"], 32, 6, (16, 16))
    for backend in test_gpu.FORCED:
        assert "1x1" not in BACKENDS[backend].cannot_run(problem), backend
    assert set(test_gpu.KERNELS) - set(test_gpu.FORCED) == {"matmul"}
