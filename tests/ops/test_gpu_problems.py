"""Without a GPU: the problems and the choices of the tests that need one."""

from __future__ import annotations

import pytest
import test_gpu
import torch
from cpu_backends import cpu_backends
from network_problems import NETWORK_SHAPES, network_problem
from strides import strided_copy
from supermasks import LAYOUTS
from test_weight_grad import SHAPES, make_problem

from maskedconv.ops.bn_relu import BACKENDS as BN_RELU
from maskedconv.ops.bn_statistics import BACKENDS as BN_STATISTICS
from maskedconv.ops.masked_weight import BACKENDS as MASKED_WEIGHT
from maskedconv.ops.weight_grad import BACKENDS


@pytest.fixture(scope="module")
def step_runs():
    """Gradients of the network of the GPU's tests, here on the CPU."""
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        model, x, labels = test_gpu.wrn("cpu", batch=8)
        others = (
            test_gpu.gradients_by_plain_modules(model, x, labels, dtype)
            for dtype in (torch.float32, torch.float64)
        )
        test_gpu.training_step(model, x, labels)
        runs.append((test_gpu.gradients(model), *others))
    return runs


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


@pytest.mark.parametrize("spoil", [torch.zeros_like, torch.neg], ids=["zero", "sign"])
def test_a_wrong_gradient_of_a_step_is_found(spoil, step_runs):
    """The comparison that judges a step on a GPU, for every tensor."""
    test_gpu.assert_gradients_as_exact(step_runs)
    for name in step_runs[0][0]:
        wrong = [({**ours, name: spoil(ours[name])}, *others) for ours, *others in step_runs]
        with pytest.raises(AssertionError, match=name):
            test_gpu.assert_gradients_as_exact(wrong)


def test_every_backend_is_tested_on_the_cpu_or_a_gpu():
    """No GPU has confirmed the kernel by wgmma; its emulation and ``bench.gpu_check`` run it."""
    on_cpu = cpu_backends(BACKENDS)
    assert on_cpu == ["reference", "native"]
    assert {*on_cpu, *test_gpu.KERNELS, "cuda_wgmma"} == BACKENDS.keys()
    for backends in (BN_RELU, BN_STATISTICS, MASKED_WEIGHT):
        assert {*cpu_backends(backends), "cuda", "triton"} == backends.keys()
